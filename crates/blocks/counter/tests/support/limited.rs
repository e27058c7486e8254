//! A store whose node dies after so many commits.

use async_trait::async_trait;
use holon_ports::{AroundStore, Batch, Committed, Partition, Store, StoreError};
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
impl AroundStore for LimitedStore {
    fn inner(&self) -> &dyn Store {
        &*self.store
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
            answers.push(AroundStore::commit(self, &partition, batch).await);
        }
        answers
    }
}
