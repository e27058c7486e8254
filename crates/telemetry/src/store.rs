//! A store that records a span for every commit, so that a trace shows where a request waited for the disk.

use crate::trace::{SpanKind, Tracer};
use async_trait::async_trait;
use holon_ports::{
    Batch, Committed, Consistency, Partition, Row, RowKey, Scan, ScanPage, Store, StoreError, Table,
    store::TableCursor,
};
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
impl Store for TracedStore {
    async fn create_tables(&self, tables: &[Table]) -> Result<(), StoreError> {
        self.store.create_tables(tables).await
    }

    async fn get(&self, key: &RowKey, consistency: Consistency) -> Result<Option<Row>, StoreError> {
        self.store.get(key, consistency).await
    }

    async fn get_many(
        &self,
        keys: &[RowKey],
        consistency: Consistency,
    ) -> Result<Vec<Option<Row>>, StoreError> {
        self.store.get_many(keys, consistency).await
    }

    async fn scan(&self, scan: &Scan) -> Result<ScanPage, StoreError> {
        self.store.scan(scan).await
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

    async fn walk(
        &self,
        table: Table,
        cursor: Option<TableCursor>,
        limit: usize,
    ) -> Result<(Vec<(Partition, Row)>, Option<TableCursor>), StoreError> {
        self.store.walk(table, cursor, limit).await
    }
}
