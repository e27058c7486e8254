//! Whose a credential is and what they may do: asked for every request, so it must cost next to nothing.
//!
//! Three things are remembered apart, since each changes by itself: what a credential *says* (by its SHA-256; never
//! changes), whether its session or key is still there (the *grant*), and what its account may do (the *authority*).
//! With all three remembered an answer takes about a microsecond, most of it the hash, and no I/O. Ending a session
//! forgets its grant, changing roles forgets authorities; so both take effect at once on this node, on the others as
//! soon as the bus tells them, and at the latest after [`crate::IdentityOptions::staleness`].

use super::Identity;
use crate::{
    api_keys::ApiKeyText,
    error::IdentityError,
    model::{self, KEYS, KeyRecord, SESSIONS, SessionRecord},
    roles::within_scopes,
    secret::sha256,
    tokens::TokenError,
};
use async_trait::async_trait;
use holon_base::{Id, Tenant, Timestamp};
use holon_ports::{Batch, Condition, StoreError};
use holon_web::{AuthError, Authenticator, Caller, CallerKind, Credential};
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How exactly the last use of a key is known.
const LAST_USED_GRAIN: Duration = Duration::from_secs(60 * 60);

type Permissions = Arc<BTreeSet<String>>;

/// What a credential says. Its signature or secret was checked.
#[derive(Debug)]
pub(crate) struct VerifiedToken {
    tenant: Tenant,
    account: Id,
    /// The session or key.
    grant: Id,
    is_key: bool,
    expires: Timestamp,
}

/// What an account may do now.
#[derive(Debug)]
pub(crate) struct Authority {
    pub handle: Arc<str>,
    pub permissions: Permissions,
}

/// A session or key that is there.
#[derive(Debug)]
pub(crate) struct Grant {
    account: Id,
    kind: CallerKind,
    expires: Timestamp,
    /// Of a key.
    scopes: Option<Vec<String>>,
    /// What the scopes leave of the account's permissions: of which, and what.
    scoped: Mutex<Option<(Permissions, Permissions)>>,
}

impl Grant {
    fn permissions(&self, of_account: &Permissions) -> Permissions {
        let Some(scopes) = &self.scopes else {
            return of_account.clone();
        };
        let mut scoped = self.scoped.lock();
        match &*scoped {
            Some((of, result)) if Arc::ptr_eq(of, of_account) => result.clone(),
            _ => {
                let result = Arc::new(within_scopes(of_account, scopes));
                *scoped = Some((of_account.clone(), result.clone()));
                result
            }
        }
    }
}

/// A failed lookup is no verdict on the credential.
fn unavailable(error: impl std::fmt::Display) -> AuthError {
    tracing::warn!(%error, "a credential cannot be checked");
    AuthError::Unavailable
}

impl Identity {
    async fn verified(&self, credential: &Credential) -> Result<Arc<VerifiedToken>, AuthError> {
        let text = match credential {
            Credential::Bearer(text) | Credential::ApiKey(text) => text,
        };
        let digest = sha256(text.as_bytes());
        if let Some(verified) = self.tokens.get(&digest) {
            return Ok(verified);
        }
        let verified = if text.starts_with("hk_") {
            self.verify_key(text).await?
        } else {
            self.verify_access_token(text).await?
        };
        let verified = Arc::new(verified);
        self.tokens.insert(digest, verified.clone());
        Ok(verified)
    }

    async fn verify_access_token(&self, text: &str) -> Result<VerifiedToken, AuthError> {
        let claims = match self.verify_token(text).await.map_err(unavailable)? {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return Err(AuthError::Expired),
            Err(_) => return Err(AuthError::Invalid),
        };
        Ok(VerifiedToken {
            expires: claims.expires(),
            tenant: claims.tenant,
            account: claims.sub,
            grant: claims.sid,
            is_key: false,
        })
    }

    async fn verify_key(&self, text: &str) -> Result<VerifiedToken, AuthError> {
        let key = ApiKeyText::parse(text).ok_or(AuthError::Invalid)?;
        let record = self
            .read_key(&key.tenant, key.account, key.key)
            .await
            .map_err(unavailable)?;
        let record = record.filter(|(record, _)| key.matches(&record.hash));
        record.ok_or(AuthError::Invalid)?;
        Ok(VerifiedToken {
            tenant: key.tenant,
            account: key.account,
            grant: key.key,
            is_key: true,
            expires: Timestamp::from_millis(i64::MAX),
        })
    }

    pub(crate) async fn read_key(
        &self,
        tenant: &Tenant,
        account: Id,
        key: Id,
    ) -> Result<Option<(KeyRecord, u64)>, StoreError> {
        let partition = model::account_partition(tenant, account);
        let row = self.get(KEYS, &partition, &model::id_sort(key)).await?;
        row.map(|row| Ok((row.json()?, row.version))).transpose()
    }

    /// The session or key behind a token; `None` when it ended.
    async fn grant(&self, token: &VerifiedToken) -> Result<Option<Arc<Grant>>, StoreError> {
        let now = self.now();
        if let Some(grant) = self.grants.get(&token.grant, now) {
            let matches = grant.account == token.account && grant.expires > now;
            return Ok(matches.then_some(grant));
        }
        let since = self.grants.before_load();
        let grant = if token.is_key {
            self.key_grant(token, now).await?
        } else {
            self.session_grant(token).await?
        };
        if let Some(grant) = &grant {
            self.grants.remember(since, token.grant, grant.clone(), now);
        }
        Ok(grant)
    }

    async fn session_grant(&self, token: &VerifiedToken) -> Result<Option<Arc<Grant>>, StoreError> {
        let partition = model::account_partition(&token.tenant, token.account);
        let row = self
            .get(SESSIONS, &partition, &model::id_sort(token.grant))
            .await?;
        let Some(row) = row else { return Ok(None) };
        let session: SessionRecord = row.json()?;
        let kind = match session.minted_by {
            Some(by) => CallerKind::Minted {
                by,
                session: session.id,
            },
            None => CallerKind::Session { session: session.id },
        };
        Ok(Some(Arc::new(Grant {
            account: token.account,
            kind,
            expires: session.expires,
            scopes: None,
            scoped: Mutex::default(),
        })))
    }

    async fn key_grant(
        &self,
        token: &VerifiedToken,
        now: Timestamp,
    ) -> Result<Option<Arc<Grant>>, StoreError> {
        let Some((mut key, version)) = self.read_key(&token.tenant, token.account, token.grant).await? else {
            return Ok(None);
        };
        let is_old = key
            .last_used
            .is_none_or(|used| now.since(used) >= LAST_USED_GRAIN);
        if is_old {
            key.last_used = Some(now);
            let sort = model::id_sort(key.id);
            let batch = Batch::new().put_if(KEYS, sort, &key, Condition::Version(version));
            let noted = self
                .commit(&model::account_partition(&token.tenant, token.account), batch)
                .await;
            if let Err(error) = noted {
                tracing::debug!(%error, "the last use of a key was not noted");
            }
        }
        Ok(Some(Arc::new(Grant {
            account: token.account,
            kind: CallerKind::ApiKey { key: key.id },
            expires: Timestamp::from_millis(i64::MAX),
            scopes: Some(key.scopes),
            scoped: Mutex::default(),
        })))
    }

    /// What an account may do; `None` once it is erased. Read from the rows, not from what else is remembered of
    /// the account, so that ages do not add up.
    pub(crate) async fn authority(
        &self,
        tenant: &Tenant,
        account: Id,
    ) -> Result<Option<Arc<Authority>>, IdentityError> {
        let now = self.now();
        if let Some(authority) = self.authorities.get(&account, now) {
            return Ok(Some(authority));
        }
        let since = self.authorities.before_load();
        let read = self.read_account(tenant, account).await?;
        let Some(read) = read.filter(|read| read.account.erased.is_none()) else {
            return Ok(None);
        };
        let book = self.role_book(tenant).await?;
        let authority = Arc::new(Authority {
            handle: read.account.handle.as_str().into(),
            permissions: Arc::new(book.permissions(&read.account.roles)),
        });
        self.authorities.remember(since, account, authority.clone(), now);
        Ok(Some(authority))
    }

    /// Sessions and keys that were used here in the last seconds.
    pub(crate) fn grants_in_use(&self) -> usize {
        self.grants.len()
    }
}

#[async_trait]
impl Authenticator for Identity {
    async fn authenticate(&self, credential: &Credential) -> Result<Caller, AuthError> {
        let token = self.verified(credential).await?;
        if token.expires <= self.now() {
            return Err(AuthError::Expired);
        }
        let grant = self
            .grant(&token)
            .await
            .map_err(unavailable)?
            .ok_or(AuthError::Invalid)?;
        let authority = self
            .authority(&token.tenant, token.account)
            .await
            .map_err(unavailable)?;
        let authority = authority.ok_or(AuthError::Invalid)?;
        Ok(Caller {
            tenant: token.tenant.clone(),
            account: token.account,
            handle: authority.handle.clone(),
            kind: grant.kind,
            permissions: grant.permissions(&authority.permissions),
        })
    }
}
