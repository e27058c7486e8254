//! Roles: names for sets of permissions (NIST RBAC, core), per tenant.
//!
//! An account has roles, a role has permissions, a caller may do what any of its roles permits. Whoever hands out
//! roles or defines them can only pass on what they have themselves, so that the right to manage roles is not the
//! right to everything.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// May do everything (`*`). Cannot be changed.
pub const ADMINISTRATOR: &str = "administrator";
/// What every account is at first. Needs no permission for what anybody signed in may do.
pub const MEMBER: &str = "member";

/// The most permissions of a role.
pub const PERMISSIONS_MAX: usize = 100;
/// The most roles of an account.
pub const ACCOUNT_ROLES_MAX: usize = 20;

/// A role and what it permits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// 1 to 32 of `a-z`, `0-9` and `-`, starting with a letter.
    #[schema(pattern = "^[a-z][a-z0-9-]{0,31}$")]
    pub name: String,
    /// Such as `identity.audit.read`; `*` for all.
    #[schema(max_items = 100)]
    pub permissions: BTreeSet<String>,
}

/// The roles of a tenant: those that are always there and those that were defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleBook(BTreeMap<String, BTreeSet<String>>);

impl RoleBook {
    /// The built-in roles with the defined ones over them, except that nothing changes `administrator`.
    pub fn new(defined: impl IntoIterator<Item = Role>) -> Self {
        let mut roles = BTreeMap::from([(MEMBER.to_owned(), BTreeSet::new())]);
        roles.extend(defined.into_iter().map(|role| (role.name, role.permissions)));
        roles.insert(ADMINISTRATOR.to_owned(), BTreeSet::from(["*".to_owned()]));
        Self(roles)
    }

    pub fn contains(&self, role: &str) -> bool {
        self.0.contains_key(role)
    }

    /// By name.
    pub fn roles(&self) -> Vec<Role> {
        self.0
            .iter()
            .map(|(name, permissions)| Role {
                name: name.clone(),
                permissions: permissions.clone(),
            })
            .collect()
    }

    /// All that these roles permit together. A role that is no longer there permits nothing.
    pub fn permissions(&self, roles: &[String]) -> BTreeSet<String> {
        roles
            .iter()
            .filter_map(|role| self.0.get(role))
            .flatten()
            .cloned()
            .collect()
    }
}

/// What a key with these scopes may do for an account with these permissions.
pub fn within_scopes(permissions: &BTreeSet<String>, scopes: &[String]) -> BTreeSet<String> {
    let held = |permission: &str| permissions.contains("*") || permissions.contains(permission);
    let mut allowed = BTreeSet::new();
    for scope in scopes {
        if scope == "*" {
            allowed.extend(permissions.iter().cloned());
        } else if is_system(scope) || held(scope) {
            allowed.insert(scope.clone());
        }
    }
    allowed
}

/// A scope that names a system and not a permission.
pub fn is_system(scope: &str) -> bool {
    scope != "*" && !scope.contains('.')
}

/// 1 to 32 of `a-z`, `0-9` and `-`, starting with a letter.
pub fn is_role_name(name: &str) -> bool {
    name.len() <= 32 && is_word(name)
}

/// `*`, or words of `a-z`, `0-9` and `-` with dots between, at most 64 characters.
pub fn is_permission(permission: &str) -> bool {
    permission == "*" || permission.len() <= 64 && permission.split('.').all(is_word)
}

fn is_word(word: &str) -> bool {
    word.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && word
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(permissions: &[&str]) -> BTreeSet<String> {
        permissions
            .iter()
            .map(|permission| (*permission).to_owned())
            .collect()
    }

    #[test]
    fn a_caller_may_what_any_of_its_roles_permits() {
        let book = RoleBook::new([
            Role {
                name: "auditor".into(),
                permissions: set(&["identity.audit.read"]),
            },
            Role {
                name: "support".into(),
                permissions: set(&["identity.accounts.list"]),
            },
            Role {
                name: ADMINISTRATOR.into(),
                permissions: set(&[]),
            },
        ]);
        let roles = ["auditor", "support", "gone"].map(str::to_owned);
        assert_eq!(
            book.permissions(&roles),
            set(&["identity.audit.read", "identity.accounts.list"])
        );
        assert_eq!(
            book.permissions(&[ADMINISTRATOR.to_owned()]),
            set(&["*"]),
            "cannot be redefined"
        );
        assert_eq!(book.permissions(&[MEMBER.to_owned()]), set(&[]));
    }

    #[test]
    fn a_key_may_no_more_than_its_scopes_and_its_account() {
        let account = set(&["a.read", "a.write"]);
        let scopes = |scopes: &[&str]| {
            within_scopes(
                &account,
                &scopes.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(scopes(&["a.read"]), set(&["a.read"]));
        assert_eq!(
            scopes(&["a.read", "b.write"]),
            set(&["a.read"]),
            "not what the account has lost"
        );
        assert_eq!(scopes(&["feed"]), set(&["feed"]));
        assert_eq!(scopes(&["*"]), account);
        assert_eq!(
            within_scopes(&set(&["*"]), &["a.read".to_owned()]),
            set(&["a.read"])
        );
    }

    #[test]
    fn names_are_plain() {
        assert!(
            is_role_name("team-lead2") && !is_role_name("Team") && !is_role_name("") && !is_role_name("a.b")
        );
        assert!(is_permission("*") && is_permission("identity.audit.read") && is_permission("feed"));
        for bad in ["", ".", "a.", "*.a", "A.b", "a b", &"a".repeat(65)] {
            assert!(!is_permission(bad), "{bad}");
        }
    }
}
