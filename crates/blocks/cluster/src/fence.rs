//! Fences in commits: what a leader of before still tries to write is refused by the store.
//!
//! A leader that writes to a partition first puts its fence there, in a row of [`FENCES`], and then makes it a condition of
//! every commit that this row is as it left it. Whoever leads next has a larger fence and does the same, which changes the
//! row; from then on every commit of the one before fails, however late it arrives and whatever that one believes. The next
//! leader reads what it goes on from only *after* its claim, so nothing of the one before can come in between unseen.
//!
//! ```
//! # use holon_cluster::fence::{Claim, FENCES};
//! # use holon_ports::{Batch, Fence, Partition, Store, Table};
//! # const TALLY: Table = Table("example.tally");
//! # async fn example(store: &dyn Store, partition: Partition, fence: Fence) -> Result<(), holon_cluster::fence::FenceError> {
//! let claim = Claim::of(store, partition, "example.tally", fence).await?; // once a term
//! // ... read what the partition holds, and go on from there ...
//! claim.commit(store, Batch::new().put(TALLY, "total", &42)).await?;      // as often as needed
//! # Ok(())
//! # }
//! ```
//!
//! A claim costs a read and a commit, once a term and partition; a fenced commit costs one condition more.

use holon_ports::{
    Batch, Committed, Condition, Consistency, Fence, Partition, RowKey, Store, StoreError, Table,
};
use serde::{Deserialize, Serialize};

/// Where fences are, in each partition that is written under one. Must have been created.
pub const FENCES: Table = Table("cluster.fences");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    fence: u64,
}

/// Why a fenced commit did not happen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FenceError {
    /// Another leads, or did since. Nothing was written; there is nothing to try again.
    #[error("{name} is led under fence {by} by now, not {own}; nothing was written")]
    Superseded { name: String, own: u64, by: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A partition that is written under a fence.
#[derive(Debug, Clone)]
pub struct Claim {
    partition: Partition,
    name: String,
    fence: Fence,
    /// Of the row that holds the fence.
    version: u64,
}

impl Claim {
    /// Claims a partition for whoever leads `name` under this fence.
    ///
    /// # Errors
    /// [`FenceError::Superseded`] if a larger fence has been there.
    pub async fn of(
        store: &dyn Store,
        partition: Partition,
        name: &str,
        fence: Fence,
    ) -> Result<Self, FenceError> {
        loop {
            let key = RowKey::new(FENCES, partition.clone(), name.to_owned());
            let row = store.get(&key, Consistency::Strong).await?;
            let (found, condition) = match &row {
                Some(row) => (row.json::<Record>()?.fence, Condition::Version(row.version)),
                None => (0, Condition::Absent),
            };
            if found > fence.0 {
                return Err(FenceError::Superseded {
                    name: name.to_owned(),
                    own: fence.0,
                    by: found,
                });
            }
            let claim = |version| Self {
                partition: partition.clone(),
                name: name.to_owned(),
                fence,
                version,
            };
            if let Some(row) = row.filter(|_| found == fence.0) {
                return Ok(claim(row.version));
            }
            let put = Batch::new().put_if(FENCES, name.to_owned(), &Record { fence: fence.0 }, condition);
            match store.commit(&partition, put).await {
                Ok(committed) => return Ok(claim(committed.version)),
                // Another was faster: a larger fence, or this process itself, elsewhere.
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Adds the condition to a batch, for those who commit it themselves. It is the first step.
    #[must_use]
    pub fn fenced(&self, mut batch: Batch) -> Batch {
        let condition = Batch::new().check(FENCES, self.name.clone(), Condition::Version(self.version));
        let mut ops = condition.ops;
        ops.append(&mut batch.ops);
        Batch { ops }
    }

    /// Commits to the partition, if nobody has claimed it under a larger fence.
    ///
    /// # Errors
    /// [`FenceError::Superseded`] if somebody has. The steps in a [`StoreError`] are numbered as in the batch.
    pub async fn commit(&self, store: &dyn Store, batch: Batch) -> Result<Committed, FenceError> {
        match store.commit(&self.partition, self.fenced(batch)).await {
            Ok(committed) => Ok(committed),
            Err(StoreError::ConditionFailed { op: 0 }) => {
                let name = self.name.clone();
                let key = RowKey::new(FENCES, self.partition.clone(), name.clone());
                let row = store.get(&key, Consistency::Strong).await?;
                let by = row.map(|row| row.json::<Record>()).transpose()?;
                Err(FenceError::Superseded {
                    name,
                    own: self.fence.0,
                    by: by.map_or(0, |record| record.fence),
                })
            }
            Err(StoreError::ConditionFailed { op }) => Err(StoreError::ConditionFailed { op: op - 1 }.into()),
            Err(StoreError::NotACounter { op }) => Err(StoreError::NotACounter { op: op - 1 }.into()),
            Err(error) => Err(error.into()),
        }
    }
}
