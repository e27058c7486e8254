//! A store whose node dies after so many commits.

use async_trait::async_trait;
use holon_ports::store::{Committed, Consistency, Scan, ScanPage, TableCursor};
use holon_ports::{Batch, Partition, Row, RowKey, Store, StoreError, Table};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

pub struct LimitedStore {
    store: Arc<dyn Store>,
    commits: AtomicUsize,
}

impl LimitedStore {
    pub fn new(store: Arc<dyn Store>, commits: usize) -> Self {
        Self {
            store,
            commits: AtomicUsize::new(commits),
        }
    }
}

#[async_trait]
impl Store for LimitedStore {
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
        let left = self
            .commits
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_err() {
            return Err(StoreError::Unavailable("the node is dead".into()));
        }
        self.store.commit(partition, batch).await
    }

    async fn commit_many(&self, commits: Vec<(Partition, Batch)>) -> Vec<Result<Committed, StoreError>> {
        let mut answers = Vec::with_capacity(commits.len());
        for (partition, batch) in commits {
            answers.push(self.commit(&partition, batch).await);
        }
        answers
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
