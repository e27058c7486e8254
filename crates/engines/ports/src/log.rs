//! Log: what happened, in order.
//!
//! A topic has a fixed number of partitions; an event's key picks one (see [`partition_of`]); order holds within a
//! partition. Offsets start at 0 and have no gaps. A consumer group reads every event at least once: its members
//! divide the partitions, and an offset is committed after the work is done.

use crate::store::{StoreError, within};
use async_trait::async_trait;
use bytes::Bytes;
use holon_base::{ErrorKind, Id, Tenant, Timestamp, limits};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// A topic: its name (`feed.posts`), its fixed number of partitions, and what it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: &'static str,
    /// Never changes once events are there, since keys would move.
    pub partitions: u16,
    /// Events older than this may be dropped.
    pub max_age: Option<Duration>,
    /// When the events of one partition take more than this, the oldest may be dropped.
    pub max_bytes: Option<u64>,
}

/// An event to be told. The engine gives it an id, a time and a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub topic: &'static str,
    pub tenant: Tenant,
    /// What must stay in order: events with the same key keep theirs.
    pub key: String,
    /// A versioned type from `contracts`, such as `feed.post.created.v1`.
    pub kind: &'static str,
    /// What it is about, such as `post:42`.
    pub subject: String,
    /// JSON.
    pub data: Bytes,
    /// The W3C trace of who caused it.
    pub traceparent: Option<Arc<str>>,
}

impl NewEvent {
    /// An event with a document as its data, in the trace of the running task.
    ///
    /// # Panics
    /// If the document cannot be written as JSON: a defect of its type.
    pub fn new<T: Serialize + ?Sized>(
        topic: &'static str,
        tenant: &Tenant,
        key: impl Into<String>,
        kind: &'static str,
        subject: impl Into<String>,
        data: &T,
    ) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "documented panic: an event type that is not JSON is a defect"
        )]
        let data = serde_json::to_vec(data).expect("event types can be written as JSON");
        Self {
            topic,
            tenant: tenant.clone(),
            key: key.into(),
            kind,
            subject: subject.into(),
            data: data.into(),
            traceparent: holon_base::trace::current(),
        }
    }
}

impl NewEvent {
    /// Bytes that count against the limit on a commit.
    pub fn size(&self) -> usize {
        self.key.len() + self.kind.len() + self.subject.len() + self.data.len()
    }

    /// What every engine refuses: data above the limit on a row, or a text above the limit on a key.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] names the limit.
    pub fn check_limits(&self) -> Result<(), StoreError> {
        within("event", self.data.len(), limits::ROW_BYTES)?;
        within("event key", self.key.len(), limits::KEY_BYTES)?;
        within("event type", self.kind.len(), limits::KEY_BYTES)?;
        within("event subject", self.subject.len(), limits::KEY_BYTES)?;
        within(
            "traceparent",
            self.traceparent.as_ref().map_or(0, |trace| trace.len()),
            limits::KEY_BYTES,
        )
    }
}

/// Where an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub partition: u16,
    pub offset: u64,
}

/// An event as it is read: a CloudEvents 1.0 envelope and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub position: Position,
    pub id: Id,
    pub time: Timestamp,
    pub tenant: Tenant,
    pub key: String,
    pub kind: String,
    pub subject: String,
    pub data: Bytes,
    pub traceparent: Option<Arc<str>>,
    /// How often this event has been handed to the group before, as far as the engine knows: an engine may forget
    /// when a partition moves to another process. 0 at first.
    pub redelivered: u32,
}

impl Event {
    /// The document in the event.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if it is not of this shape.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, LogError> {
        serde_json::from_slice(&self.data)
            .map_err(|error| LogError::Corrupt(format!("{} {}: {error}", self.kind, self.id)))
    }
}

/// The partition of a key: FNV-1a (64 bit) of tenant, a zero byte and key, modulo the number of partitions. The same
/// on every engine, so that events keep their order when they move from one engine to another.
pub fn partition_of(tenant: &Tenant, key: &str, partitions: u16) -> u16 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = tenant
        .as_str()
        .as_bytes()
        .iter()
        .chain(&[0])
        .chain(key.as_bytes())
        .fold(0xcbf2_9ce4_8422_2325, fnv);
    // The low bits of FNV are its weakest; fold the high ones in.
    ((hash ^ hash >> 32) % u64::from(partitions.max(1))) as u16
}

/// The offsets that a partition holds: `first..next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    pub first: u64,
    pub next: u64,
}

/// How far a group is in one partition. Its lag is `next - committed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    pub partition: u16,
    /// The next offset that the group will be handed after a restart.
    pub committed: u64,
    /// The offset that the next event will get.
    pub next: u64,
    /// When the oldest event that waits was told; `None` when none waits.
    pub oldest: Option<Timestamp>,
}

/// Where a group is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewind {
    Start,
    End,
    Offset(Position),
    /// The first event at or after this time, in every partition.
    Time(Timestamp),
}

/// An event that a group gave up on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names the dead letter within its group and topic; grows.
    pub number: u64,
    pub event: Event,
    pub error: String,
    pub attempts: u32,
    pub at: Timestamp,
}

/// What happened, in order.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Makes topics that are not there yet and takes on their retention.
    ///
    /// # Errors
    /// [`LogError::Invalid`] if a topic is there with another number of partitions.
    async fn create_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError>;

    /// The topics that are there.
    async fn topics(&self) -> Result<Vec<TopicSpec>, LogError>;

    /// Appends events that belong to no row; durable on return. What is refused is refused as a whole; an engine on
    /// servers of its own may have told some when it is [`LogError::Unavailable`]. Whatever has a row goes through
    /// [`crate::Store::commit`].
    async fn append(&self, events: Vec<NewEvent>) -> Result<Vec<Position>, LogError>;

    /// Reads a partition from an offset on, without a group. Starts at the first event kept if `from` is older.
    async fn read(&self, topic: &str, partition: u16, from: u64, max: usize) -> Result<Vec<Event>, LogError>;

    async fn bounds(&self, topic: &str, partition: u16) -> Result<Bounds, LogError>;

    /// Joins a group. Partitions are divided anew among its members; a member that is dropped, or dies, gives its
    /// partitions up to the others. A new group starts at the first event kept.
    async fn join(&self, group: &str, topic: &str) -> Result<Box<dyn Member>, LogError>;

    /// How far a group is, by partition.
    async fn progress(&self, group: &str, topic: &str) -> Result<Vec<Progress>, LogError>;

    /// Every (group, topic) that ever committed or joined.
    async fn groups(&self) -> Result<Vec<(String, String)>, LogError>;

    /// Sets a group back or forth. What its members hold is fenced off: their next commit fails, and they are
    /// handed events from the new place on.
    async fn rewind(&self, group: &str, topic: &str, to: Rewind) -> Result<(), LogError>;

    /// Puts an event aside after its attempts, durably.
    async fn bury(
        &self,
        group: &str,
        topic: &str,
        event: &Event,
        error: &str,
        attempts: u32,
    ) -> Result<(), LogError>;

    /// The events that a group gave up on, oldest first, from a number on.
    async fn dead_letters(
        &self,
        group: &str,
        topic: &str,
        from: u64,
        max: usize,
    ) -> Result<Vec<DeadLetter>, LogError>;

    /// Takes a dead letter out, to handle it again or to forget it. `None` if it is not there.
    async fn unbury(&self, group: &str, topic: &str, number: u64) -> Result<Option<DeadLetter>, LogError>;
}

/// A member of a group.
#[async_trait]
pub trait Member: Send {
    /// Waits for events of one of its partitions: at least 1 and at most `max`, in order, from where the last poll
    /// of that partition ended (or the committed offset, after a partition moved).
    async fn poll(&mut self, max: usize) -> Result<Vec<Event>, LogError>;

    /// States that everything before `next` in this partition is done.
    ///
    /// # Errors
    /// [`LogError::Fenced`] if the partition is no longer this member's, or was rewound: drop the work in hand.
    async fn commit(&mut self, partition: u16, next: u64) -> Result<(), LogError>;
}

/// Why a log did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    #[error("topic {0} was not created")]
    NoSuchTopic(String),
    #[error("partition is no longer this member's")]
    Fenced,
    #[error("invalid request: {0}")]
    Invalid(String),
    #[error("{what} is {size} bytes, above the limit of {limit}")]
    TooLarge {
        what: &'static str,
        size: usize,
        limit: usize,
    },
    #[error("no space left for events; free some, nothing was told")]
    Full,
    #[error("stored events are damaged: {0}")]
    Corrupt(String),
    #[error("log is closed or away: {0}")]
    Unavailable(String),
}

impl LogError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Fenced => ErrorKind::Conflict,
            Self::Full | Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::NoSuchTopic(_) | Self::Corrupt(_) => ErrorKind::Internal,
        }
    }
}
