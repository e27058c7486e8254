//! Bus: ephemeral publish and subscribe between nodes, for realtime and invalidation.
//!
//! At most once: who is not listening misses it, and a listener that falls behind loses the oldest messages and is
//! told how many. Nothing that must not be lost goes over the bus.

mod queue;

pub use queue::{QueueOptions, Queued, WaitingMessages};

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

/// Checks what is published: every engine takes the same messages.
///
/// # Errors
/// [`BusError::Invalid`] or [`BusError::TooLarge`].
pub fn check_message(subject: &str, payload: &Bytes) -> Result<(), BusError> {
    check_subject(subject)?;
    if payload.len() > MESSAGE_BYTES {
        return Err(BusError::TooLarge {
            size: payload.len(),
            limit: MESSAGE_BYTES,
        });
    }
    Ok(())
}

/// What somebody listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern<'a> {
    Exactly(&'a str),
    /// By what comes before the `>`: empty, or ending in a dot.
    Below(&'a str),
}

impl<'a> Pattern<'a> {
    /// # Errors
    /// [`BusError::Invalid`] if it is no pattern.
    pub fn parse(pattern: &'a str) -> Result<Self, BusError> {
        match pattern.strip_suffix('>') {
            None => check_subject(pattern).map(|()| Self::Exactly(pattern)),
            Some("") => Ok(Self::Below("")),
            Some(prefix) => match prefix.strip_suffix('.') {
                Some(parent) => check_subject(parent).map(|()| Self::Below(prefix)),
                None => Err(BusError::Invalid("'>' stands alone or after a dot".into())),
            },
        }
    }
}

fn check_subject(subject: &str) -> Result<(), BusError> {
    let invalid = |why: &str| {
        let start: String = subject.chars().take(64).collect();
        Err(BusError::Invalid(format!("{start:?} {why}")))
    };
    if subject.len() > SUBJECT_BYTES {
        return invalid("is too long");
    }
    if subject.split('.').any(str::is_empty) {
        return invalid("has an empty part");
    }
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
    if subject.contains(forbidden) {
        return invalid("holds a character that no subject may hold");
    }
    Ok(())
}
