//! Authentication and authorisation, as far as the edge knows them: a credential comes in, somebody else (identity)
//! says whose it is, and every route says who may use it.

use crate::{caller::Caller, problem::ApiError};
use async_trait::async_trait;
use holon_base::ErrorKind;

/// Who may use a route. Finer rules (is it theirs?) are the service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Whoever is signed in, by session or by an API key whose scopes name `scope` (such as `feed`).
    SignedIn,
    /// Whoever has this permission.
    Permission(&'static str),
}

/// What a request brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A JWT from `Authorization: Bearer`.
    Bearer(String),
    /// A key from `Authorization: Bearer hk_…` or `X-Api-Key`.
    ApiKey(String),
}

/// Says whose a credential is. Implemented by identity.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    async fn authenticate(&self, credential: &Credential) -> Result<Caller, AuthError>;
}

/// Why a credential was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("sign in, or send an access token in the Authorization header")]
    Missing,
    #[error("the credential is not valid; sign in again")]
    Invalid,
    #[error("the access token has expired; refresh it or sign in again")]
    Expired,
    #[error("credentials cannot be checked right now; try again")]
    Unavailable,
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let (kind, code) = match error {
            AuthError::Missing => (ErrorKind::Unauthenticated, "signed-out"),
            AuthError::Invalid => (ErrorKind::Unauthenticated, "bad-credential"),
            AuthError::Expired => (ErrorKind::Unauthenticated, "token-expired"),
            AuthError::Unavailable => (ErrorKind::Unavailable, "unavailable"),
        };
        ApiError::new(kind, code, error.to_string())
    }
}
