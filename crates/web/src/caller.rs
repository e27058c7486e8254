//! Who calls. A service takes `&Caller` as its first argument, so that nothing is reachable without a decision.

use crate::{access::AuthError, problem::ApiError};
use axum::{extract::FromRequestParts, http::request::Parts};
use holon_base::{Id, Tenant};
use std::{collections::BTreeSet, sync::Arc};

/// How the caller showed who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerKind {
    /// An access token of a session.
    Session {
        session: Id,
    },
    /// An access token that an administrator minted for the account; it has a session of its own.
    Minted {
        by: Id,
        session: Id,
    },
    ApiKey {
        key: Id,
    },
    /// Holon itself: jobs and consumers.
    System,
}

/// Who calls, and what they may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    pub tenant: Tenant,
    pub account: Id,
    pub handle: Arc<str>,
    pub kind: CallerKind,
    /// Names such as `identity.tokens.mint`; `*` stands for all. An API key has at most what its scopes name.
    pub permissions: Arc<BTreeSet<String>>,
}

impl Caller {
    pub fn may(&self, permission: &str) -> bool {
        self.permissions.contains(permission) || self.permissions.contains("*")
    }

    /// # Errors
    /// 403 that names the permission.
    pub fn require(&self, permission: &str) -> Result<(), ApiError> {
        if self.may(permission) {
            Ok(())
        } else {
            Err(ApiError::forbidden(permission))
        }
    }

    /// Holon itself, acting in a tenant.
    pub fn system(tenant: &Tenant) -> Self {
        Self {
            tenant: tenant.clone(),
            account: Id::MIN,
            handle: "holon".into(),
            kind: CallerKind::System,
            permissions: Arc::new(BTreeSet::from(["*".to_owned()])),
        }
    }
}

/// What the authentication middleware leaves in a request's extensions.
#[derive(Debug, Clone)]
pub struct Authentication(pub Result<Option<Caller>, AuthError>);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    /// # Errors
    /// 401 when nobody is signed in or the credential is bad.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match parts.extensions.get::<Authentication>() {
            Some(Authentication(Ok(Some(caller)))) => Ok(caller.clone()),
            Some(Authentication(Err(error))) => Err(error.clone().into()),
            _ => Err(AuthError::Missing.into()),
        }
    }
}

/// The caller where a route also serves nobody. A bad credential is still an error.
#[derive(Debug, Clone)]
pub struct MaybeCaller(pub Option<Caller>);

impl<S: Send + Sync> FromRequestParts<S> for MaybeCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match parts.extensions.get::<Authentication>() {
            Some(Authentication(Ok(caller))) => Ok(Self(caller.clone())),
            Some(Authentication(Err(error))) => Err(error.clone().into()),
            None => Ok(Self(None)),
        }
    }
}
