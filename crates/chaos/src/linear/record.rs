//! A Store that is watched: every call and answer becomes part of its partition's history.

use super::{Answer, Call, Operation};
use holon_ports::{Batch, Consistency, Partition, Row, RowKey, Scan, ScanPage, Store, StoreError};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

pub type History = Vec<Operation<Call, Answer>>;

/// Calls Stores (one, or those of several nodes that share their rows) and writes down what they answer, by partition.
///
/// An error other than [`StoreError::Unknown`] says that nothing has happened, and the call is left out: if it has
/// happened all the same, somebody will read what nobody wrote. A read that failed said nothing.
pub struct Witness {
    began: Instant,
    histories: Mutex<HashMap<Partition, History>>,
}

impl Default for Witness {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            histories: Mutex::default(),
        }
    }
}

impl Witness {
    /// # Errors
    /// The store's.
    pub async fn commit(
        &self,
        store: &dyn Store,
        partition: &Partition,
        batch: Batch,
    ) -> Result<u64, StoreError> {
        let call = Call::Commit(batch.ops.clone());
        let started = self.now();
        let outcome = store.commit(partition, batch).await;
        let answer = match &outcome {
            Ok(committed) => Some(Answer::Committed(committed.version)),
            Err(StoreError::ConditionFailed { op }) => Some(Answer::ConditionFailed(*op)),
            Err(StoreError::NotACounter { op }) => Some(Answer::NotACounter(*op)),
            Err(StoreError::Unknown(_)) => None,
            Err(_) => return outcome.map(|committed| committed.version),
        };
        self.note(partition, call, started, answer);
        outcome.map(|committed| committed.version)
    }

    /// # Errors
    /// The store's.
    pub async fn get(&self, store: &dyn Store, key: &RowKey) -> Result<Option<Row>, StoreError> {
        let started = self.now();
        let row = store.get(key, Consistency::Strong).await?;
        let call = Call::Get {
            table: key.table,
            sort: key.sort.clone(),
        };
        let seen = row.as_ref().map(|row| (row.value.clone(), row.version));
        self.note(&key.partition, call, started, Some(Answer::Row(seen)));
        Ok(row)
    }

    /// # Errors
    /// The store's.
    pub async fn scan(&self, store: &dyn Store, scan: &Scan) -> Result<ScanPage, StoreError> {
        let started = self.now();
        let page = store.scan(scan).await?;
        let rows = page.rows.iter();
        let rows = rows.map(|row| (row.sort.clone(), row.value.clone(), row.version));
        let answer = Answer::Rows {
            rows: rows.collect(),
            more: page.more,
        };
        self.note(&scan.partition, Call::Scan(scan.clone()), started, Some(answer));
        Ok(page)
    }

    /// All histories.
    pub fn histories(self) -> HashMap<Partition, History> {
        self.histories
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn note(&self, partition: &Partition, call: Call, started: u64, answer: Option<Answer>) {
        let operation = Operation {
            call,
            started,
            answered: answer.map(|answer| (self.now(), answer)),
        };
        let mut histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        histories.entry(partition.clone()).or_default().push(operation);
    }
}
