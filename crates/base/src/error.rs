//! The kinds of failure that the edge knows how to answer.
//!
//! Each crate has an error type of its own (`thiserror`); a kind is what a caller can act on without knowing that type.

use std::fmt;

/// What a caller can do about a failure. The edge maps each kind to one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong; sending it again will not help. (400)
    Invalid,
    /// Nobody is signed in, or the credential is bad or expired. (401)
    Unauthenticated,
    /// The caller is known and may not do this. (403)
    Forbidden,
    /// There is no such thing, or the caller may not know of it. (404)
    NotFound,
    /// The state does not allow it: taken, already done, or still running. (409)
    Conflict,
    /// A stated precondition (`If-Match`) does not hold. (412)
    PreconditionFailed,
    /// Larger than a named limit. (413)
    TooLarge,
    /// Well-formed and still not acceptable, such as a reused idempotency key. (422)
    Unprocessable,
    /// Too many requests; a later one will do. (429)
    RateLimited,
    /// Out of room, draining, or an engine is away; a later try may succeed. (503)
    Unavailable,
    /// A deadline passed. (504)
    Timeout,
    /// A defect or a broken engine. The text of it never reaches a client. (500)
    Internal,
}

impl ErrorKind {
    /// The HTTP status that stands for this kind.
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::Unprocessable => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Timeout => 504,
        }
    }

    /// True where the same request may succeed later without a change.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable | Self::Timeout)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
