//! A store that records a span for every commit, so that a trace shows where a request waited for the disk.

use crate::trace::{SpanKind, Tracer};
use async_trait::async_trait;
use holon_ports::{AroundStore, Batch, Committed, Partition, Store, StoreError};
use std::sync::Arc;

/// A store and what watches it. Reads go straight through.
pub struct TracedStore {
    store: Arc<dyn Store>,
    tracer: Tracer,
}

impl TracedStore {
    pub fn new(store: Arc<dyn Store>, tracer: Tracer) -> Self {
        Self { store, tracer }
    }
}

#[async_trait]
impl AroundStore for TracedStore {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn commit(&self, partition: &Partition, batch: Batch) -> Result<Committed, StoreError> {
        let Some(mut span) = self.tracer.start_below_current("commit", SpanKind::Client) else {
            return self.store.commit(partition, batch).await;
        };
        span.attribute("holon.partition", partition.entity.clone());
        span.attribute("holon.steps", batch.ops.len().to_string());
        let committed = self.store.commit(partition, batch).await;
        // A condition that does not hold is an answer, not a failure.
        if matches!(&committed, Err(error) if !error.is_condition_failed()) {
            span.fail();
        }
        committed
    }

    async fn commit_many(&self, commits: Vec<(Partition, Batch)>) -> Vec<Result<Committed, StoreError>> {
        let Some(mut span) = self.tracer.start_below_current("commit many", SpanKind::Client) else {
            return self.store.commit_many(commits).await;
        };
        span.attribute("holon.commits", commits.len().to_string());
        self.store.commit_many(commits).await
    }
}
