//! What is kept, and where. Nothing here does I/O.
//!
//! | table | partition | sort | holds |
//! |---|---|---|---|
//! | `identity.accounts` | `account:<id>` | `account` | [`AccountRecord`] |
//! | `identity.credentials` | `account:<id>` | `password` | [`CredentialRecord`] |
//! | `identity.sessions` | `account:<id>` | id | [`SessionRecord`], expires when idle |
//! | `identity.keys` | `account:<id>` | id | [`KeyRecord`] |
//! | `identity.audit_of` | `account:<id>` | id, newest first | [`AuditEntry`] without its address |
//! | `identity.handles` | `handle:<keyed hash>` | `handle` | [`HandleRecord`] |
//! | `identity.directory` | `directory` | id, newest first | that the account is there |
//! | `identity.counts` | `directory` | `accounts` | how many are |
//! | `identity.audit` | `audit:<year>-<month>` | id, newest first | [`AuditEntry`] |
//! | `identity.roles` | `roles` | name | [`crate::roles::Role`] |
//! | `identity.tenants` | `tenants` of `main` | name | [`TenantRecord`] |
//! | `identity.signing_keys` | `signing-keys` of `main` | kid | [`crate::tokens::KeyRecord`] |
//! | `identity.settings` | `settings` | `administrator` | [`AdministratorRecord`] |

use bytes::Bytes;
use holon_base::{Id, KeyWriter, Tenant, Timestamp, key::KeyReader};
use holon_contracts::identity::AccountSummary;
use holon_ports::{Partition, RowKey, Table};
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

pub const ACCOUNTS: Table = Table("identity.accounts");
pub const CREDENTIALS: Table = Table("identity.credentials");
pub const SESSIONS: Table = Table("identity.sessions");
pub const KEYS: Table = Table("identity.keys");
pub const AUDIT_OF: Table = Table("identity.audit_of");
pub const HANDLES: Table = Table("identity.handles");
pub const DIRECTORY: Table = Table("identity.directory");
pub const COUNTS: Table = Table("identity.counts");
pub const AUDIT: Table = Table("identity.audit");
pub const ROLES: Table = Table("identity.roles");
pub const TENANTS: Table = Table("identity.tenants");
pub const SIGNING_KEYS: Table = Table("identity.signing_keys");
pub const SETTINGS: Table = Table("identity.settings");

pub const TABLES: [Table; 13] = [
    ACCOUNTS,
    CREDENTIALS,
    SESSIONS,
    KEYS,
    AUDIT_OF,
    HANDLES,
    DIRECTORY,
    COUNTS,
    AUDIT,
    ROLES,
    TENANTS,
    SIGNING_KEYS,
    SETTINGS,
];

/// The sort key of the one account row of a partition.
pub const ACCOUNT_ROW: &[u8] = b"account";
/// In place of an account that will never be made: see `service::accounts`.
pub const ABANDONED_ROW: &[u8] = b"abandoned";
pub const PASSWORD_ROW: &[u8] = b"password";
pub const HANDLE_ROW: &[u8] = b"handle";
pub const ACCOUNT_COUNT_ROW: &[u8] = b"accounts";
pub const ADMINISTRATOR_ROW: &[u8] = b"administrator";
/// Changes with every change of the signing keys, so that two nodes do not rotate at once.
pub const ROTATION_ROW: &[u8] = b"~rotation";

/// The most graphemes of a name.
pub const NAME_GRAPHEMES: usize = 64;
/// The most graphemes of a bio.
pub const BIO_GRAPHEMES: usize = 280;
/// The longest name or bio, whatever its graphemes are made of, in bytes.
pub const TEXT_BYTES: usize = 8 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountRecord {
    pub id: Id,
    pub handle: String,
    pub name: String,
    pub bio: String,
    pub created: Timestamp,
    pub roles: Vec<String>,
    /// When its erasure began. From then on nobody finds the account; the row goes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<Timestamp>,
}

impl AccountRecord {
    pub fn summary(&self) -> AccountSummary {
        AccountSummary {
            id: self.id,
            handle: self.handle.clone(),
            name: self.name.clone(),
            bio: self.bio.clone(),
            created: self.created,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialRecord {
    /// A PHC string.
    pub password: String,
    pub changed: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionRecord {
    pub id: Id,
    pub created: Timestamp,
    pub last_used: Timestamp,
    pub expires: Timestamp,
    pub user_agent: String,
    pub address: String,
    /// How often its refresh token has been used.
    pub generation: u64,
    /// Base64; goes into its refresh tokens.
    pub salt: String,
    /// The administrator that minted it; then it has no refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minted_by: Option<Id>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    pub id: Id,
    pub name: String,
    /// SHA-256 of the secret, base64.
    pub hash: String,
    pub scopes: Vec<String>,
    pub created: Timestamp,
    /// To the hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

/// Whose a handle is. The row is found by a keyed hash of the handle, and stays for good: an erased account leaves
/// its row behind, empty, so that nobody takes the handle over and nobody can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandleRecord {
    /// `None` after erasure.
    pub account: Option<Id>,
    pub claimed: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantRecord {
    pub name: Tenant,
    pub created: Timestamp,
    pub by: Id,
}

/// The first administrator's key, until somebody has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdministratorRecord {
    pub account: Id,
    pub key: Id,
    pub delivered: bool,
}

/// One line of the audit log. Holds ids, names of roles and permissions, and an address; never what a person wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    pub id: Id,
    pub time: Timestamp,
    /// The account that did it; absent where nobody was signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Id>,
    /// Such as `login.failed`.
    pub action: String,
    /// What it was done to, such as `account:42` or `role:auditor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The address that it came from; taken out when an account it belongs to is erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

pub fn account_partition(tenant: &Tenant, account: Id) -> Partition {
    Partition::new(tenant, format!("account:{account}"))
}

pub fn account_key(tenant: &Tenant, account: Id) -> RowKey {
    RowKey::new(ACCOUNTS, account_partition(tenant, account), ACCOUNT_ROW)
}

pub fn directory_partition(tenant: &Tenant) -> Partition {
    Partition::new(tenant, "directory")
}

pub fn roles_partition(tenant: &Tenant) -> Partition {
    Partition::new(tenant, "roles")
}

pub fn settings_partition(tenant: &Tenant) -> Partition {
    Partition::new(tenant, "settings")
}

/// Of the deployment, not of a tenant: kept with the default one.
pub fn deployment_partition(entity: &str) -> Partition {
    Partition::new(&Tenant::default(), entity)
}

pub fn id_sort(id: Id) -> Bytes {
    KeyWriter::with_capacity(8).id(id).finish()
}

/// Newest first.
pub fn id_desc_sort(id: Id) -> Bytes {
    KeyWriter::with_capacity(8).id_desc(id).finish()
}

/// The id of a key that [`id_desc_sort`] made.
pub fn id_of_desc(sort: &[u8]) -> Option<Id> {
    KeyReader::new(sort).u64().ok().map(|raw| Id::from_u64(!raw))
}

/// A handle as it is kept: lower case, 1 to 32 of `a-z`, `0-9` and `_`. `None` if it is none.
pub fn normal_handle(text: &str) -> Option<String> {
    let plain =
        !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    plain.then(|| text.to_ascii_lowercase())
}

/// A name or bio as it is kept: without white space around it. `None` if it is too long, or has control characters
/// (line breaks are allowed where `lines` says so).
pub fn normal_text(text: &str, graphemes: usize, lines: bool) -> Option<String> {
    let is_plain = text.chars().all(|c| !c.is_control() || lines && c == '\n');
    let fits = text.len() <= TEXT_BYTES && text.graphemes(true).count() <= graphemes;
    (is_plain && fits).then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_plain_and_lower_case() {
        assert_eq!(normal_handle("Ada_9"), Some("ada_9".into()));
        for bad in ["", "a-b", "a b", "ä", "a.b", &"a".repeat(33)] {
            assert_eq!(normal_handle(bad), None, "{bad}");
        }
    }

    #[test]
    fn text_is_counted_as_people_count() {
        let family = "👨‍👩‍👧‍👦";
        assert_eq!(
            normal_text(&family.repeat(64), 64, false),
            Some(family.repeat(64))
        );
        assert_eq!(normal_text(&family.repeat(65), 64, false), None);
        assert_eq!(normal_text("  Ada  ", 64, false), Some("Ada".into()));
        assert_eq!(normal_text("a\nb", 64, false), None);
        assert_eq!(normal_text("a\nb", 64, true), Some("a\nb".into()));
        assert_eq!(normal_text("a\0b", 64, true), None);
        // One grapheme may be arbitrarily many bytes.
        assert_eq!(
            normal_text(&format!("e{}", "\u{301}".repeat(9_000)), 64, false),
            None
        );
    }

    #[test]
    fn newest_first_keys_go_both_ways() {
        let (old, new) = (Id::from_u64(5), Id::from_u64(900));
        assert!(id_desc_sort(new) < id_desc_sort(old));
        assert_eq!(id_of_desc(&id_desc_sort(new)), Some(new));
    }
}
