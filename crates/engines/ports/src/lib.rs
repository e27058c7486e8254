//! The six ports: what a system may ask of an engine, promised to the last detail.
//!
//! | port | what it is | unit of consistency |
//! |---|---|---|
//! | [`Store`] | rows in partitions | one partition: atomic, durable, serialisable |
//! | [`Log`] | what happened, in order | one topic partition: total order |
//! | [`Cache`] | what may be lost | one key |
//! | [`Bus`] | who is listening right now | none: at most once |
//! | [`Blobs`] | large, immutable bytes | one blob |
//! | [`Leases`] | who may act | one lease, fenced |
//!
//! A system holds [`Ports`] and never learns which engine is under them. An engine is right when it passes the
//! suites in [`conformance`], which compare it with the plain models there.

pub mod blobs;
pub mod bus;
pub mod cache;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod consume;
pub mod leases;
pub mod log;
pub mod outbox;
pub mod store;

pub use blobs::{BlobError, BlobId, Blobs};
pub use bus::{Bus, BusError, Message, Subscription};
pub use cache::{Cache, CacheError};
pub use consume::{Consumer, Handler, HandlerError};
pub use leases::{Fence, Lease, LeaseError, Leases};
pub use log::{Event, Log, LogError, Member, NewEvent, Position, TopicSpec};
pub use outbox::{Outbox, OutboxEvent};
pub use store::{
    AroundStore, Batch, Committed, Condition, Consistency, Op, Partition, Row, RowKey, Scan, ScanPage, Store,
    StoreError, Table, Value,
};

use std::sync::Arc;

/// Every port of one deployment. Cheap to clone.
#[derive(Clone)]
pub struct Ports {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
    pub cache: Arc<dyn Cache>,
    pub bus: Arc<dyn Bus>,
    pub blobs: Arc<dyn Blobs>,
    pub leases: Arc<dyn Leases>,
}
