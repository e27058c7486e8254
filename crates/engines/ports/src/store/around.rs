//! A store around another: it says what it does otherwise, and the rest goes straight through.

use super::{
    Batch, Committed, Consistency, Partition, Row, RowKey, Scan, ScanPage, Store, StoreError, Table,
    TableCursor,
};
use async_trait::async_trait;

/// Whatever is one of these is a [`Store`]. Its methods are those of a store, and call the inner one's unless they are
/// written anew.
#[async_trait]
pub trait AroundStore: Send + Sync + 'static {
    fn inner(&self) -> &dyn Store;

    async fn get(&self, key: &RowKey, consistency: Consistency) -> Result<Option<Row>, StoreError> {
        self.inner().get(key, consistency).await
    }

    async fn get_many(
        &self,
        keys: &[RowKey],
        consistency: Consistency,
    ) -> Result<Vec<Option<Row>>, StoreError> {
        self.inner().get_many(keys, consistency).await
    }

    async fn scan(&self, scan: &Scan) -> Result<ScanPage, StoreError> {
        self.inner().scan(scan).await
    }

    async fn commit(&self, partition: &Partition, batch: Batch) -> Result<Committed, StoreError> {
        self.inner().commit(partition, batch).await
    }

    async fn commit_many(&self, commits: Vec<(Partition, Batch)>) -> Vec<Result<Committed, StoreError>> {
        self.inner().commit_many(commits).await
    }
}

#[async_trait]
impl<S: AroundStore> Store for S {
    async fn create_tables(&self, tables: &[Table]) -> Result<(), StoreError> {
        self.inner().create_tables(tables).await
    }

    async fn get(&self, key: &RowKey, consistency: Consistency) -> Result<Option<Row>, StoreError> {
        AroundStore::get(self, key, consistency).await
    }

    async fn get_many(
        &self,
        keys: &[RowKey],
        consistency: Consistency,
    ) -> Result<Vec<Option<Row>>, StoreError> {
        AroundStore::get_many(self, keys, consistency).await
    }

    async fn scan(&self, scan: &Scan) -> Result<ScanPage, StoreError> {
        AroundStore::scan(self, scan).await
    }

    async fn commit(&self, partition: &Partition, batch: Batch) -> Result<Committed, StoreError> {
        AroundStore::commit(self, partition, batch).await
    }

    async fn commit_many(&self, commits: Vec<(Partition, Batch)>) -> Vec<Result<Committed, StoreError>> {
        AroundStore::commit_many(self, commits).await
    }

    async fn walk(
        &self,
        table: Table,
        cursor: Option<TableCursor>,
        limit: usize,
    ) -> Result<(Vec<(Partition, Row)>, Option<TableCursor>), StoreError> {
        self.inner().walk(table, cursor, limit).await
    }
}
