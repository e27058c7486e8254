//! Why the feed did not do what it was asked.

use crate::text::TextError;
use holon_base::ErrorKind;
use holon_contracts::identity::AccountsError;
use holon_counter::CounterError;
use holon_ports::{CacheError, HandlerError, LogError, StoreError};
use holon_web::ApiError;

#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// What is named is not there, or the viewer may not know of it.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// A field is wrong; the detail says what to send instead.
    #[error("{field}: {detail}")]
    Invalid { field: &'static str, detail: String },
    #[error(transparent)]
    Text(#[from] TextError),
    /// Known and not allowed.
    #[error("{detail}")]
    Forbidden {
        code: &'static str,
        detail: &'static str,
    },
    /// The state does not allow it.
    #[error("{detail}")]
    Conflict {
        code: &'static str,
        detail: &'static str,
    },
    /// Another version than the caller's `If-Match`.
    #[error("version is another one by now")]
    Changed,
    /// An idempotency key came with another body before.
    #[error("idempotency key was used for another request")]
    KeyReused,
    /// Many callers changed the same row at once, again and again.
    #[error("too many changes at once")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    #[error(transparent)]
    Counter(#[from] CounterError),
}

impl FeedError {
    pub(crate) fn invalid(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            detail: detail.into(),
        }
    }
}

impl From<FeedError> for ApiError {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::NotFound(what) => Self::not_found(what),
            FeedError::Invalid { field, detail } => Self::invalid(field, detail),
            FeedError::Text(error) => Self::invalid("/text", error.to_string()),
            FeedError::Forbidden { code, detail } => Self::new(ErrorKind::Forbidden, code, detail),
            FeedError::Conflict { code, detail } => Self::conflict(code, detail),
            FeedError::Changed => Self::new(
                ErrorKind::PreconditionFailed,
                "changed-meanwhile",
                "it was changed since you read it; read it again",
            )
            .at("If-Match"),
            FeedError::KeyReused => Self::new(
                ErrorKind::Unprocessable,
                "idempotency-key-reused",
                "this Idempotency-Key was sent with another body; use a new key",
            )
            .at("Idempotency-Key"),
            FeedError::Busy => Self::new(
                ErrorKind::Unavailable,
                "busy",
                "this is being changed by many at once; try again shortly",
            )
            .retry_after(std::time::Duration::from_secs(1)),
            FeedError::Store(error) => error.into(),
            FeedError::Log(error) => error.into(),
            FeedError::Cache(error) => error.into(),
            FeedError::Accounts(error) if error.kind.is_transient() => Self::new(
                ErrorKind::Unavailable,
                "unavailable",
                "this cannot be done right now; try again shortly",
            )
            .retry_after(std::time::Duration::from_secs(1)),
            FeedError::Accounts(error) => Self::internal(error),
            FeedError::Counter(error) => counter_error(error),
        }
    }
}

fn counter_error(error: CounterError) -> ApiError {
    match error {
        CounterError::Store(error) => error.into(),
        other => ApiError::internal(other),
    }
}

impl From<FeedError> for HandlerError {
    fn from(error: FeedError) -> Self {
        let kind = match &error {
            FeedError::Store(error) => error.kind(),
            FeedError::Log(error) => error.kind(),
            FeedError::Cache(error) => error.kind(),
            FeedError::Accounts(error) => error.kind,
            FeedError::Counter(error) => error.kind(),
            FeedError::Busy => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        };
        Self::of_kind(kind, error)
    }
}
