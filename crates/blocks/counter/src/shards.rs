//! What both kinds of counters share: how many shards a counter has, when it gets more, and the sum of them.
//!
//! A counter of *generation* `g` has `2^g` shards. Shard `s` of counter `name` is the partition `<kind>:name#s`;
//! the generation is a row in the partition of shard 0, and while there is none the generation is 0. So the usual
//! counter, which never grew, is one row.

use crate::{CounterError, CounterOptions, MAX_SHARDS};
use bytes::Bytes;
use futures::FutureExt;
use holon_base::{Clock, Tenant, Timestamp};
use holon_ports::cache::LoadPolicy;
use holon_ports::store::{Batch, Condition, Consistency};
use holon_ports::{Cache, CacheError, Partition, Row, RowKey, Store, StoreError, Table};
use parking_lot::Mutex;
use quick_cache::sync;
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU32, Ordering},
};
use std::{future::Future, time::Duration};

pub(crate) const DIRECTORY: Table = Table("counter.directory");
pub(crate) const COUNTS: Table = Table("counter.counts");
/// The sort key of rows of which a partition has one.
pub(crate) const ONLY: &[u8] = b"1";

/// How long load is measured before it is judged.
const WINDOW: Duration = Duration::from_secs(1);
/// The largest generation.
const LAST_GENERATION: u8 = MAX_SHARDS.ilog2() as u8;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DirectoryRecord {
    generation: u8,
}

/// The generation that is published, and the condition under which it still is.
pub(crate) struct Published {
    pub(crate) generation: u8,
    condition: Condition,
}

/// Shards of all counters of one kind.
#[derive(Clone)]
pub(crate) struct Shards {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    cache: Option<Arc<dyn Cache>>,
    options: CounterOptions,
    kind: &'static str,
    known: Arc<sync::Cache<(Tenant, String), Arc<Known>>>,
}

/// What this process knows of a counter.
pub(crate) struct Known {
    /// The largest generation seen; the published one may be larger.
    generation: AtomicU8,
    in_flight: AtomicU32,
    window: Mutex<Window>,
}

struct Window {
    started: Timestamp,
    arrivals: u64,
    /// The sum of what each arrival found in flight.
    found_in_flight: u64,
}

impl Known {
    pub(crate) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn learn(&self, generation: u8) {
        self.generation.fetch_max(generation, Ordering::AcqRel);
    }
}

/// What a window of load says.
pub(crate) enum Verdict {
    /// The window is not over.
    Pending,
    Calm,
    Busy,
}

impl Shards {
    pub(crate) fn new(
        kind: &'static str,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        options: CounterOptions,
    ) -> Self {
        let known = Arc::new(sync::Cache::new(options.remembered.max(1)));
        Self {
            store,
            clock,
            cache: None,
            options,
            kind,
            known,
        }
    }

    pub(crate) fn set_cache(&mut self, cache: Arc<dyn Cache>) {
        self.cache = Some(cache);
    }

    pub(crate) fn partition(&self, tenant: &Tenant, counter: &str, shard: u16) -> Partition {
        Partition::new(tenant, format!("{}:{counter}#{shard}", self.kind))
    }

    pub(crate) fn known(&self, tenant: &Tenant, counter: &str) -> Arc<Known> {
        let key = (tenant.clone(), counter.to_owned());
        let new = || {
            let window = Window {
                started: self.clock.now(),
                arrivals: 0,
                found_in_flight: 0,
            };
            Ok::<_, std::convert::Infallible>(Arc::new(Known {
                generation: AtomicU8::new(0),
                in_flight: AtomicU32::new(0),
                window: Mutex::new(window),
            }))
        };
        let Ok(known) = self.known.get_or_insert_with(&key, new);
        known
    }

    /// Counts an increment as in flight while it runs.
    pub(crate) async fn measured<F: Future>(&self, known: &Known, work: F) -> F::Output {
        struct Landing<'a>(&'a AtomicU32);
        impl Drop for Landing<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let found = known.in_flight.fetch_add(1, Ordering::Relaxed);
        let _landing = Landing(&known.in_flight);
        {
            let mut window = known.window.lock();
            window.arrivals += 1;
            window.found_in_flight += u64::from(found);
        }
        work.await
    }

    /// Judges a window of load once it is over, and begins the next.
    pub(crate) fn judge(&self, known: &Known) -> Verdict {
        let now = self.clock.now();
        let mut window = known.window.lock();
        let elapsed = now.since(window.started);
        if elapsed < WINDOW {
            return Verdict::Pending;
        }
        let shards = f64::from(1_u32 << known.generation());
        let rate = window.arrivals as f64 / elapsed.as_secs_f64() / shards;
        let in_flight = window.found_in_flight as f64 / window.arrivals.max(1) as f64 / shards;
        *window = Window {
            started: now,
            arrivals: 0,
            found_in_flight: 0,
        };
        if rate > self.options.rate_per_shard || in_flight > self.options.in_flight_per_shard {
            Verdict::Busy
        } else {
            Verdict::Calm
        }
    }

    /// Whether this node may give a counter of this generation more shards.
    pub(crate) fn may_grow(&self, generation: u8) -> bool {
        let most = self.options.max_shards.clamp(1, MAX_SHARDS).ilog2() as u8;
        generation < most.min(LAST_GENERATION)
    }

    pub(crate) fn directory_key(&self, tenant: &Tenant, counter: &str) -> RowKey {
        RowKey::new(DIRECTORY, self.partition(tenant, counter, 0), ONLY)
    }

    pub(crate) async fn published(&self, tenant: &Tenant, counter: &str) -> Result<Published, StoreError> {
        let key = self.directory_key(tenant, counter);
        let row = self.store.get(&key, Consistency::Strong).await?;
        Ok(Published {
            generation: generation_of(row.as_ref())?,
            condition: row.map_or(Condition::Absent, |row| Condition::Version(row.version)),
        })
    }

    /// Publishes the generation after this one, unless another has.
    pub(crate) async fn publish_next(
        &self,
        tenant: &Tenant,
        counter: &str,
        published: &Published,
    ) -> Result<(), StoreError> {
        let next = DirectoryRecord {
            generation: published.generation + 1,
        };
        let batch = Batch::new().put_if(DIRECTORY, ONLY, &next, published.condition);
        match self
            .store
            .commit(&self.partition(tenant, counter, 0), batch)
            .await
        {
            Ok(_) | Err(StoreError::ConditionFailed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The exact sums of many counters: one read of the store, and another if a counter has more shards than this
    /// process knew.
    pub(crate) async fn sums<S: AsRef<str>>(
        &self,
        tenant: &Tenant,
        counters: &[S],
    ) -> Result<Vec<i64>, CounterError> {
        let mut keys = Vec::with_capacity(counters.len() * 2);
        let mut assumed = Vec::with_capacity(counters.len());
        for counter in counters {
            let counter = counter.as_ref();
            crate::check_name("counter", counter)?;
            let generation = self.known(tenant, counter).generation();
            assumed.push(generation);
            keys.push(self.directory_key(tenant, counter));
            keys.extend(self.count_keys(tenant, counter, 0..1 << generation));
        }
        let rows = self.store.get_many(&keys, Consistency::Strong).await?;
        let mut rows = rows.into_iter();
        let mut sums = Vec::with_capacity(counters.len());
        let mut missing = Vec::new();
        let mut missing_keys = Vec::new();
        for (at, (counter, assumed)) in counters.iter().zip(assumed).enumerate() {
            let generation = generation_of(rows.next().flatten().as_ref())?;
            sums.push(sum(rows.by_ref().take(1 << assumed)));
            if generation > assumed {
                self.known(tenant, counter.as_ref()).learn(generation);
                let more = 1 << assumed..1 << generation;
                missing.push((at, more.len()));
                missing_keys.extend(self.count_keys(tenant, counter.as_ref(), more));
            }
        }
        if missing.is_empty() {
            return Ok(sums);
        }
        let rows = self.store.get_many(&missing_keys, Consistency::Strong).await?;
        let mut rows = rows.into_iter();
        for (at, shards) in missing {
            let more = sum(rows.by_ref().take(shards));
            sums[at] = sums[at].saturating_add(more);
        }
        Ok(sums)
    }

    fn count_keys(
        &self,
        tenant: &Tenant,
        counter: &str,
        shards: std::ops::Range<u16>,
    ) -> impl Iterator<Item = RowKey> {
        shards.map(move |shard| RowKey::new(COUNTS, self.partition(tenant, counter, shard), ONLY))
    }

    /// A sum that was exact at most `staleness` ago. Without a cache, or when it is away, the sum is exact.
    pub(crate) async fn approximate(&self, tenant: &Tenant, counter: &str) -> Result<i64, CounterError> {
        crate::check_name("counter", counter)?;
        if let Some(cache) = &self.cache
            && let Some(count) = self.cached_sum(cache, tenant, counter).await
        {
            return Ok(count);
        }
        let sums = self.sums(tenant, &[counter]).await?;
        Ok(sums.into_iter().sum())
    }

    async fn cached_sum(&self, cache: &Arc<dyn Cache>, tenant: &Tenant, counter: &str) -> Option<i64> {
        let policy = LoadPolicy {
            jitter: 0.0,
            ..LoadPolicy::fresh(self.options.staleness)
        };
        let key = format!("counter.sum:{}:{tenant}:{counter}", self.kind);
        let (shards, tenant, counter) = (self.clone(), tenant.clone(), counter.to_owned());
        let load = move || {
            async move {
                let sums = shards.sums(&tenant, &[counter]).await;
                let sums = sums.map_err(|error| CacheError::Load {
                    kind: error.kind(),
                    message: error.to_string(),
                })?;
                let sum: i64 = sums.into_iter().sum();
                Ok(Some(Bytes::copy_from_slice(&sum.to_be_bytes())))
            }
            .boxed()
        };
        let bytes = cache.load(&key, policy, Box::new(load)).await.ok()??;
        Some(i64::from_be_bytes(bytes.as_ref().try_into().ok()?))
    }
}

pub(crate) fn generation_of(row: Option<&Row>) -> Result<u8, StoreError> {
    let Some(row) = row else {
        return Ok(0);
    };
    let record: DirectoryRecord = row.json()?;
    if record.generation > LAST_GENERATION {
        return Err(StoreError::Corrupt(format!(
            "a counter of generation {}",
            record.generation
        )));
    }
    Ok(record.generation)
}

fn sum(rows: impl Iterator<Item = Option<Row>>) -> i64 {
    rows.flatten()
        .map(|row| row.counter())
        .fold(0, i64::saturating_add)
}
