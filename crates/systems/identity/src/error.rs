//! Why identity did not do what it was asked.

use crate::passwords::{PasswordError, WeakPassword};
use holon_base::ErrorKind;
use holon_ports::{LogError, StoreError};
use holon_web::ApiError;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("{1}")]
    Invalid(&'static str, &'static str),
    #[error("{0}")]
    WeakPassword(WeakPassword),
    #[error("this handle is taken; choose another")]
    HandleTaken,
    #[error("there is no such {0}")]
    NotFound(&'static str),
    #[error("this needs the permission {0}")]
    Forbidden(String),
    /// The caller's kind of credential is not enough.
    #[error("{0}")]
    NotThisWay(&'static str),
    #[error("handle or password is wrong")]
    BadCredentials,
    /// Of somebody who is signed in; no 401, which would say that they are not.
    #[error("the present password is wrong")]
    WrongPassword,
    #[error("the refresh token is not valid; sign in again")]
    BadRefreshToken,
    #[error("too many failed attempts; wait before the next")]
    Slowed(Duration),
    #[error("too many people sign in at this moment; try again in a second")]
    Busy,
    #[error("{1}")]
    Conflict(&'static str, &'static str),
    #[error("it was changed since you read it; read it again")]
    Changed,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0}")]
    Broken(String),
}

impl From<PasswordError> for IdentityError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::Busy,
            PasswordError::Broken(text) => Self::Broken(text),
        }
    }
}

impl From<WeakPassword> for IdentityError {
    fn from(error: WeakPassword) -> Self {
        Self::WeakPassword(error)
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        let text = error.to_string();
        match error {
            IdentityError::Invalid(field, _) => Self::invalid(field, text),
            IdentityError::WeakPassword(_) => {
                Self::new(ErrorKind::Unprocessable, "weak-password", text).at("/password")
            }
            IdentityError::HandleTaken => Self::conflict("handle-taken", text).at("/handle"),
            IdentityError::NotFound(what) => Self::not_found(what),
            IdentityError::Forbidden(permission) => Self::forbidden(&permission),
            IdentityError::NotThisWay(_) => Self::new(ErrorKind::Forbidden, "session-needed", text),
            IdentityError::BadCredentials => Self::new(ErrorKind::Unauthenticated, "bad-credentials", text),
            IdentityError::WrongPassword => Self::new(ErrorKind::Forbidden, "wrong-password", text),
            IdentityError::BadRefreshToken => {
                Self::new(ErrorKind::Unauthenticated, "bad-refresh-token", text)
            }
            IdentityError::Slowed(wait) => {
                Self::new(ErrorKind::RateLimited, "slowed", text).retry_after(wait)
            }
            IdentityError::Busy => {
                Self::new(ErrorKind::Unavailable, "busy", text).retry_after(Duration::from_secs(1))
            }
            IdentityError::Conflict(code, _) => Self::conflict(code, text),
            IdentityError::Changed => {
                Self::new(ErrorKind::PreconditionFailed, "changed-meanwhile", text).at("If-Match")
            }
            IdentityError::Store(error) => error.into(),
            IdentityError::Log(error) => error.into(),
            IdentityError::Broken(text) => Self::internal(text),
        }
    }
}
