//! Identity: who there is.

use async_trait::async_trait;
use holon_base::{ErrorKind, Id, Tenant, Timestamp};
use serde::{Deserialize, Serialize};

/// Topic of what happens to accounts. Key: the account's id.
pub const ACCOUNTS_TOPIC: &str = "identity.accounts";

/// An account was made. Data: [`AccountChanged`].
pub const ACCOUNT_CREATED: &str = "identity.account.created.v1";
/// Its handle's owner changed name or bio. Data: [`AccountChanged`].
pub const ACCOUNT_UPDATED: &str = "identity.account.updated.v1";
/// Its owner or an administrator asked for its erasure. Data: [`AccountErased`].
pub const ACCOUNT_ERASED: &str = "identity.account.erased.v1";
/// One session, or all of them (`session` is `None`), ended. Data: [`SessionEnded`].
pub const SESSION_ENDED: &str = "identity.session.ended.v1";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountChanged {
    pub id: Id,
    pub handle: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountErased {
    pub id: Id,
    pub handle: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionEnded {
    pub account: Id,
    #[serde(default)]
    pub session: Option<Id>,
}

/// What other systems show of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountSummary {
    pub id: Id,
    /// 1 to 32 of `a-z`, `0-9` and `_`, unique in the tenant, lower case.
    pub handle: String,
    pub name: String,
    #[serde(default)]
    pub bio: String,
    pub created: Timestamp,
}

/// Looks accounts up. Implemented by identity; answers come from a cache and are at most a few seconds old for
/// name and bio. Ids and handles never change owner.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// The account with this handle; `None` if there is none or it was erased.
    async fn by_handle(&self, tenant: &Tenant, handle: &str)
    -> Result<Option<AccountSummary>, AccountsError>;

    /// The answer has the order of the ids.
    async fn by_ids(&self, tenant: &Tenant, ids: &[Id])
    -> Result<Vec<Option<AccountSummary>>, AccountsError>;
}

/// Accounts could not be looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("accounts cannot be looked up: {message}")]
pub struct AccountsError {
    pub kind: ErrorKind,
    pub message: String,
}
