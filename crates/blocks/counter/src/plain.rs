//! Plain counters: an increment goes to a shard chosen at random.
//!
//! More shards are there for every reader as soon as they are published: a writer uses a shard only after it has
//! read that it is there, and a reader reads how many there are before or with the shards, so what was acknowledged
//! before the read began is always in a shard that the read sums.

use crate::shards::{COUNTS, ONLY, Shards, Verdict};
use crate::{CounterError, CounterOptions, check_name};
use holon_base::{Clock, Tenant};
use holon_ports::{Batch, Cache, Store};
use std::sync::Arc;

/// Counters that add up whatever they are given. Cheap to clone.
#[derive(Clone)]
pub struct Counters {
    shards: Shards,
}

impl Counters {
    /// The [`crate::tables`] must be in the store before the first use.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, options: CounterOptions) -> Self {
        Self {
            shards: Shards::new("counter", store, clock, options),
        }
    }

    /// Keeps sums for [`Self::read_approximate`]; without a cache, that reads exactly.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn Cache>) -> Self {
        self.shards.set_cache(cache);
        self
    }

    /// Adds to a counter, which starts at 0: one commit. Counted for good when it returns. The sum saturates.
    ///
    /// # Errors
    /// After [`holon_ports::StoreError::Unknown`] it may or may not have been counted; after any other error it has not.
    pub async fn increment(&self, tenant: &Tenant, counter: &str, delta: i64) -> Result<(), CounterError> {
        check_name("counter", counter)?;
        let known = self.shards.known(tenant, counter);
        let shard = rand::random_range(0..1_u16 << known.generation());
        let partition = self.shards.partition(tenant, counter, shard);
        let batch = Batch::new().add(COUNTS, ONLY, delta);
        self.shards
            .measured(&known, self.shards.store.commit(&partition, batch))
            .await?;
        // What follows is about later increments; this one is counted, so its caller must not see an error.
        let adapted = match self.shards.judge(&known) {
            Verdict::Pending => Ok(()),
            Verdict::Calm => self.refresh(tenant, counter).await,
            Verdict::Busy => self.grow(tenant, counter).await.map(|_| ()),
        };
        if let Err(error) = adapted {
            tracing::warn!(counter, %error, "cannot adapt a counter's shards, will try again");
        }
        Ok(())
    }

    /// The sum of all shards: one read of the store for a counter that this process knows, two otherwise.
    pub async fn read_exact(&self, tenant: &Tenant, counter: &str) -> Result<i64, CounterError> {
        let sums = self.counts(tenant, &[counter]).await?;
        Ok(sums.into_iter().sum())
    }

    /// A sum that was exact at most [`CounterOptions::staleness`] ago.
    pub async fn read_approximate(&self, tenant: &Tenant, counter: &str) -> Result<i64, CounterError> {
        self.shards.approximate(tenant, counter).await
    }

    /// Exact sums of many counters, in their order, at the price of one or two reads.
    pub async fn counts<S: AsRef<str>>(
        &self,
        tenant: &Tenant,
        counters: &[S],
    ) -> Result<Vec<i64>, CounterError> {
        self.shards.sums(tenant, counters).await
    }

    /// How many shards a counter has.
    pub async fn shards(&self, tenant: &Tenant, counter: &str) -> Result<u16, CounterError> {
        check_name("counter", counter)?;
        let published = self.shards.published(tenant, counter).await?;
        Ok(1 << published.generation)
    }

    /// Doubles the shards of a counter, unless it has the most already, and answers how many there are. Happens by
    /// itself under load; call it for a counter that is known to become busy.
    pub async fn grow(&self, tenant: &Tenant, counter: &str) -> Result<u16, CounterError> {
        check_name("counter", counter)?;
        let published = self.shards.published(tenant, counter).await?;
        if self.shards.may_grow(published.generation) {
            self.shards.publish_next(tenant, counter, &published).await?;
        }
        self.refresh(tenant, counter).await?;
        Ok(1 << self.shards.known(tenant, counter).generation())
    }

    async fn refresh(&self, tenant: &Tenant, counter: &str) -> Result<(), CounterError> {
        let published = self.shards.published(tenant, counter).await?;
        self.shards.known(tenant, counter).learn(published.generation);
        Ok(())
    }
}
