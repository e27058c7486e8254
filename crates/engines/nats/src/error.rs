//! From what the client and the servers say to the errors of the ports.
//!
//! Texts of the client name subjects, streams and kinds of errors, never the address or the credentials of a server;
//! those are only known to [`crate::connect`], which keeps them to itself.

use async_nats::jetstream::{self, ErrorCode};
use holon_ports::LogError;
use std::error::Error;

/// Why the engine could not be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NatsError {
    #[error("invalid options: {0}")]
    Invalid(String),
    #[error("cannot connect to a nats server: {0}")]
    Unreachable(String),
    /// The servers cannot keep what the ports promise.
    #[error("nats servers are not set up for this: {0}")]
    Incapable(String),
    #[error(transparent)]
    Log(#[from] LogError),
}

pub(crate) fn away(what: &str, error: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(format!("{what}: {error}"))
}

pub(crate) fn corrupt(what: &str, error: impl std::fmt::Display) -> LogError {
    LogError::Corrupt(format!("{what}: {error}"))
}

/// The error of the JetStream API at the bottom of an error, if there is one.
pub(crate) fn api_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a jetstream::Error> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(api) = error.downcast_ref::<jetstream::Error>() {
            return Some(api);
        }
        current = error.source();
    }
    None
}

/// True if a server refused to store something because it has no room.
pub(crate) fn is_full(code: ErrorCode) -> bool {
    [
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::STREAM_STORE_FAILED,
    ]
    .contains(&code)
}
