//! What one node asks another: requests, handlers and errors.

use async_trait::async_trait;
use bytes::Bytes;
use holon_base::ErrorKind;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;

/// The most bytes of a request or an answer.
pub const MESSAGE_BYTES: usize = 8 << 20;

/// What is asked. The body is the service's own business.
#[derive(Debug, Clone)]
pub struct Request {
    pub service: String,
    /// Which shard of the service; `None` asks a node as such.
    pub shard: Option<u32>,
    pub method: String,
    pub body: Bytes,
    /// When whoever asked stops waiting. Nothing is begun after it, and a handler that asks others passes it on.
    pub deadline: Instant,
    /// A read: any node that has a copy of the shard may answer it, and if one cannot be reached the next is asked.
    /// What must be done once and by the owner is not one.
    pub is_read: bool,
}

impl Request {
    /// Something for a shard's owner to do.
    pub fn new(service: impl Into<String>, shard: u32, method: impl Into<String>, time: Duration) -> Self {
        Self {
            service: service.into(),
            shard: Some(shard),
            method: method.into(),
            body: Bytes::new(),
            deadline: Instant::now() + time,
            is_read: false,
        }
    }

    /// Something for one node, whatever it owns.
    pub fn of_node(service: impl Into<String>, method: impl Into<String>, time: Duration) -> Self {
        Self {
            shard: None,
            ..Self::new(service, 0, method, time)
        }
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    #[must_use]
    pub fn read(mut self) -> Self {
        self.is_read = true;
        self
    }

    /// Until a deadline that somebody else has set.
    #[must_use]
    pub fn until(mut self, deadline: Instant) -> Self {
        self.deadline = deadline;
        self
    }
}

/// Answers the requests of one service on this node: those for shards that the node has, and those for the node.
///
/// Who asks does not know whether the handler is in its own process; so it is not asked for a shard that the node does
/// not have, by what the node knows of the members. Two nodes may disagree on that for as long as news takes to spread:
/// what must be done by one node alone is done under a leadership or a fence, not by placement.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Is dropped when the deadline has passed.
    async fn handle(&self, request: Request) -> Result<Bytes, CallError>;
}

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "camelCase")]
pub enum CallError {
    /// Not reached, or lost on the way: what was asked may have been done or not.
    #[error("node {node} cannot be reached: {detail}")]
    Unavailable { node: u16, detail: String },
    #[error("no node that is alive has shard {shard} of {service}")]
    NoOwner { service: String, shard: u32 },
    /// What was asked may have been done or not.
    #[error("node {node} did not answer in time")]
    Deadline { node: u16 },
    /// Nothing was done.
    #[error("node {node} does not have shard {shard} of {service}; {}", has(.owner))]
    NotOwner {
        node: u16,
        service: String,
        shard: u32,
        owner: Option<u16>,
    },
    #[error("there is no node {node}")]
    NoSuchNode { node: u16 },
    #[error("invalid call: {0}")]
    Invalid(String),
    /// The call does not carry the deployment's secret. Nothing was done.
    #[error("node {node} does not accept the call: {detail}")]
    Refused { node: u16, detail: String },
    /// The handler's own error.
    #[error("{message}")]
    Failed {
        #[serde(with = "kind_as_status")]
        kind: ErrorKind,
        message: String,
    },
}

fn has(owner: &Option<u16>) -> String {
    match owner {
        Some(owner) => format!("node {owner} has it"),
        None => "nobody does".into(),
    }
}

impl CallError {
    pub fn failed(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Failed {
            kind,
            message: message.into(),
        }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { .. } | Self::NoOwner { .. } | Self::NotOwner { .. } => ErrorKind::Unavailable,
            Self::Deadline { .. } => ErrorKind::Timeout,
            Self::NoSuchNode { .. } => ErrorKind::NotFound,
            Self::Invalid(_) | Self::Refused { .. } => ErrorKind::Internal,
            Self::Failed { kind, .. } => *kind,
        }
    }
}

/// A kind of error as the HTTP status that stands for it.
mod kind_as_status {
    use holon_base::ErrorKind;
    use serde::{Deserialize as _, Deserializer, Serializer};

    const KINDS: [ErrorKind; 12] = [
        ErrorKind::Invalid,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::PreconditionFailed,
        ErrorKind::TooLarge,
        ErrorKind::Unprocessable,
        ErrorKind::RateLimited,
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::Internal,
    ];

    pub fn serialize<S: Serializer>(kind: &ErrorKind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(kind.status())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorKind, D::Error> {
        let status = u16::deserialize(deserializer)?;
        let kind = KINDS.into_iter().find(|kind| kind.status() == status);
        Ok(kind.unwrap_or(ErrorKind::Internal))
    }
}
