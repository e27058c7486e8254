//! What goes in and out, as JSON.

use crate::{
    model::{AccountRecord, KeyRecord, SessionRecord},
    service::sign_in::SignedIn,
};
use holon_base::{Id, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// An account, as anybody may see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    pub id: Id,
    #[schema(pattern = "^[a-z0-9_]{1,32}$")]
    pub handle: String,
    pub name: String,
    pub bio: String,
    pub created: Timestamp,
}

impl From<AccountRecord> for Account {
    fn from(record: AccountRecord) -> Self {
        Self {
            id: record.id,
            handle: record.handle,
            name: record.name,
            bio: record.bio,
            created: record.created,
        }
    }
}

/// An account with its roles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedAccount {
    #[serde(flatten)]
    pub account: Account,
    pub roles: Vec<String>,
}

/// The caller's own account and what it may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    #[serde(flatten)]
    pub account: Account,
    pub roles: Vec<String>,
    /// What this credential may do; `*` stands for everything.
    pub permissions: BTreeSet<String>,
    pub tenant: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewAccount {
    /// 1 to 32 letters (made lower case), figures and `_`; never changes.
    #[schema(pattern = "^[A-Za-z0-9_]{1,32}$", min_length = 1, max_length = 32)]
    pub handle: String,
    /// At most 64 characters as people count them; the handle where it is missing.
    #[schema(max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub name: Option<String>,
    /// At most 280 characters as people count them.
    #[schema(
        max_length = 280,
        pattern = "^[^\\u0000-\\u0009\\u000b-\\u001f\\u007f-\\u009f]*$"
    )]
    pub bio: Option<String>,
    /// At least 8 characters and none of the common ones. Only an administrator leaves it out.
    #[schema(min_length = 8, max_length = 256)]
    pub password: Option<String>,
}

/// What is to change; what is missing stays.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountUpdate {
    #[schema(max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub name: Option<String>,
    #[schema(
        max_length = 280,
        pattern = "^[^\\u0000-\\u0009\\u000b-\\u001f\\u007f-\\u009f]*$"
    )]
    pub bio: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    #[schema(max_length = 64)]
    pub handle: String,
    #[schema(max_length = 1024)]
    pub password: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefreshRequest {
    /// The last one that was given; each is good once.
    #[schema(max_length = 256)]
    pub refresh_token: String,
}

/// What a login or refresh gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// A JWT for `Authorization: Bearer`.
    pub access_token: String,
    /// Good once, for the next tokens.
    pub refresh_token: String,
    /// Always `Bearer`.
    pub token_type: String,
    /// How long the access token lives, in seconds.
    pub expires_in: u64,
    pub account: Account,
}

impl From<SignedIn> for Tokens {
    fn from(signed_in: SignedIn) -> Self {
        Self {
            access_token: signed_in.access_token,
            refresh_token: signed_in.refresh_token,
            token_type: "Bearer".into(),
            expires_in: signed_in.expires_in.as_secs(),
            account: signed_in.account.into(),
        }
    }
}

/// One sign-in on one device, or one token that an administrator minted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    pub id: Id,
    pub created: Timestamp,
    /// When its tokens were last refreshed.
    pub last_used: Timestamp,
    pub expires: Timestamp,
    pub user_agent: String,
    pub address: String,
    /// Whether it is the one that this request used.
    pub current: bool,
    /// The administrator who minted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minted_by: Option<Id>,
}

impl Session {
    pub fn new(record: SessionRecord, current: Option<Id>) -> Self {
        Self {
            current: current == Some(record.id),
            id: record.id,
            created: record.created,
            last_used: record.last_used,
            expires: record.expires,
            user_agent: record.user_agent,
            address: record.address,
            minted_by: record.minted_by,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sessions {
    pub items: Vec<Session>,
}

/// A new password. `current` may be missing only where there was none.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordChange {
    #[schema(max_length = 1024)]
    pub current: Option<String>,
    #[schema(min_length = 8, max_length = 256)]
    pub new: String,
}

/// A system, a permission, or `*` for all.
#[derive(ToSchema)]
#[schema(pattern = "^(\\*|[a-z][a-z0-9-]*(\\.[a-z][a-z0-9-]*)*)$", max_length = 64)]
pub struct Permission(#[allow(dead_code, reason = "stands for a string in the document")] String);

/// The name of a role.
#[derive(ToSchema)]
#[schema(pattern = "^[a-z][a-z0-9-]{0,31}$")]
pub struct RoleName(#[allow(dead_code, reason = "stands for a string in the document")] String);

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewApiKey {
    /// For its owner to know it by.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*\\S[^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    pub name: String,
    /// Systems (`feed`), permissions (`identity.audit.read`), or `*` for all that the account may.
    #[schema(value_type = Vec<Permission>, min_items = 1, max_items = 50)]
    pub scopes: Vec<String>,
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    pub id: Id,
    pub name: String,
    pub scopes: Vec<String>,
    pub created: Timestamp,
    /// To the hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// What the key starts with.
    pub prefix: String,
}

impl ApiKey {
    pub fn new(record: KeyRecord, prefix: String) -> Self {
        Self {
            id: record.id,
            name: record.name,
            scopes: record.scopes,
            created: record.created,
            last_used: record.last_used,
            prefix,
        }
    }
}

/// A new API key: the one time that it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedApiKey {
    #[serde(flatten)]
    pub info: ApiKey,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApiKeys {
    pub items: Vec<ApiKey>,
}

/// Everything that every system keeps of a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    pub account: Account,
    /// By system; each in its own shape.
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    pub systems: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Erasure {
    /// The account's password, if it has one.
    #[schema(max_length = 1024)]
    pub password: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MintRequest {
    /// Seconds that the token lives.
    #[schema(minimum = 1, maximum = 3600, default = 900)]
    pub expires_in: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MintedToken {
    pub access_token: String,
    /// Seconds.
    pub expires_in: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AssignedRoles {
    #[schema(value_type = Vec<RoleName>, max_items = 20)]
    pub roles: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Permissions {
    /// Such as `identity.audit.read`; `*` for all.
    #[schema(value_type = Vec<Permission>, max_items = 100)]
    pub permissions: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Roles {
    pub items: Vec<crate::roles::Role>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantInfo {
    pub name: String,
    pub created: Timestamp,
    /// An API key of the tenant's own administrator; shown once, when the tenant is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub administrator_token: Option<String>,
}

/// A set of JSON Web Keys (RFC 7517).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KeySet {
    pub keys: Vec<crate::tokens::Jwk>,
}

/// What is going on inside identity on this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityInside {
    /// Accounts of the tenant.
    pub accounts: u64,
    /// Sessions and API keys that this node remembers from recent requests.
    pub sessions: usize,
    /// Passwords that are being checked, or wait for it, now.
    pub passwords_in_hand: usize,
    pub keys: Vec<SigningKey>,
    /// Whose attempts to sign in have to wait, the longest first.
    pub lockouts: Vec<LockedOut>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningKey {
    pub kid: String,
    pub created: Timestamp,
    pub active_from: Timestamp,
    /// Whether it signs now.
    pub active: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockedOut {
    /// `account` (one account from one network), `network` or `device`.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    pub failures: u32,
    pub until: Timestamp,
}
