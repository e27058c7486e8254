//! Bus: ephemeral publish and subscribe between nodes, for realtime and invalidation.
//!
//! At most once: who is not listening misses it, and a listener that falls behind loses the oldest messages and is
//! told how many. Nothing that must not be lost goes over the bus.

use async_trait::async_trait;
use bytes::Bytes;
use holon_base::ErrorKind;

/// A message as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Dot-separated, such as `room.home.42`.
    pub subject: String,
    pub payload: Bytes,
}

/// Publish and subscribe.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Tells all who listen now. Messages of one publisher on one subject arrive in order.
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError>;

    /// Listens from now on to a subject, or with a last part of `>` to all below it (`room.>`).
    async fn subscribe(&self, pattern: &str) -> Result<Box<dyn Subscription>, BusError>;
}

/// What a listener holds; dropping it stops listening.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for the next message.
    ///
    /// # Errors
    /// [`BusError::Lagged`] once after messages were lost, then goes on; [`BusError::Closed`] at the end.
    async fn next(&mut self) -> Result<Message, BusError>;
}

/// Why a bus did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    #[error("{0} messages were lost to a slow reader")]
    Lagged(u64),
    #[error("bus is closed")]
    Closed,
    #[error("invalid subject: {0}")]
    Invalid(String),
    #[error("message is {size} bytes, above the limit of {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("bus is away: {0}")]
    Unavailable(String),
}

impl BusError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Lagged(_) | Self::Closed | Self::Unavailable(_) => ErrorKind::Unavailable,
        }
    }
}

/// The largest message, in bytes.
pub const MESSAGE_BYTES: usize = 1 << 20;
/// The longest subject, in bytes.
pub const SUBJECT_BYTES: usize = 256;
