//! Outbox: how events get from a store to a log that is another engine.
//!
//! A store that keeps no log itself writes the events of a commit into an outbox, in the same transaction as the rows. A
//! relay takes them from there to the log and forgets them once the log has them. If it dies in between, it tells
//! them again under the same ids, by which the log knows them ("transactional outbox": Richardson, "Microservices
//! Patterns", 2018).

use crate::store::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use holon_base::{Id, Tenant, Timestamp};
use std::{sync::Arc, time::Duration};

/// An event that was committed and is not known to be on the log yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Its place in the source. Of two events of one partition of the store, the one that was committed later has the
    /// larger number; between partitions it may be the other way round, and a smaller number may appear after a larger.
    /// Where a partition has moved to another source, its events appear there only once all before them are forgotten.
    pub number: u64,
    pub topic: String,
    pub id: Id,
    pub time: Timestamp,
    pub tenant: Tenant,
    pub key: String,
    pub kind: String,
    pub subject: String,
    pub data: Bytes,
    pub traceparent: Option<Arc<str>>,
}

/// The outboxes of a store.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// The sources, one a shard. Each is relayed by one relay at a time.
    async fn sources(&self) -> Result<Vec<String>, StoreError>;

    /// The events with the smallest numbers, ascending, at most `max`.
    async fn read(&self, source: &str, max: usize) -> Result<Vec<OutboxEvent>, StoreError>;

    /// Forgets events that the log has; no error for those that are gone.
    async fn forget(&self, source: &str, numbers: &[u64]) -> Result<(), StoreError>;

    /// Returns when events may have come, and after `patience` in any case.
    async fn wait(&self, source: &str, patience: Duration);
}
