//! Leases: who may act.
//!
//! A lease is a name held by one holder until a time. Each time it changes hands its fencing token grows, and
//! whatever the holder writes to carries the token, so that one who slept past his time is refused (Kleppmann, "How
//! to do distributed locking", 2016). Leader election and ownership of partitions are built on it.

use async_trait::async_trait;
use holon_base::{ErrorKind, Timestamp};
use std::time::Duration;

/// A fencing token. Tokens of one name only grow, across restarts too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// A lease that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    pub holder: String,
    pub fence: Fence,
    /// By the engine's clock. Stop acting well before it.
    pub expires: Timestamp,
}

/// Named leases.
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Takes a lease that is free or whose time is over, with a larger fence than all before. The present holder
    /// gets its lease again, with the same fence and a new time.
    ///
    /// # Errors
    /// [`LeaseError::Held`] by another.
    async fn acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Lease, LeaseError>;

    /// Prolongs a lease that is still held under this fence.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] if its time was over or another holds it.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Lease, LeaseError>;

    /// Gives a lease back; no error if it was lost already.
    async fn release(&self, lease: &Lease) -> Result<(), LeaseError>;

    /// Who holds it now; `None` when nobody does.
    async fn current(&self, name: &str) -> Result<Option<Lease>, LeaseError>;
}

/// Why a lease was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    #[error("lease is held by {holder} until {expires}")]
    Held { holder: String, expires: Timestamp },
    #[error("lease is no longer held")]
    Lost,
    #[error("invalid request: {0}")]
    Invalid(String),
    #[error("leases are away: {0}")]
    Unavailable(String),
}

impl LeaseError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Held { .. } | Self::Lost => ErrorKind::Conflict,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Unavailable(_) => ErrorKind::Unavailable,
        }
    }
}
