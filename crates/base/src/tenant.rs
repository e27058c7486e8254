//! Tenants: one deployment serves several apps, and every key starts with the one it belongs to.

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// The name of an app in this deployment: 1 to 32 of `a-z`, `0-9` and `-`, starting with a letter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tenant(Arc<str>);

/// A name that is no tenant's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tenant is 1 to 32 of a-z, 0-9 and '-', starting with a letter; got {0:?}")]
pub struct TenantError(String);

impl Tenant {
    /// Checks and takes a name.
    pub fn new(name: &str) -> Result<Self, TenantError> {
        let starts_with_letter = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !starts_with_letter || !plain || name.len() > 32 {
            return Err(TenantError(name.chars().take(64).collect()));
        }
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    /// The tenant of a deployment that serves one app.
    fn default() -> Self {
        Self("main".into())
    }
}

impl TryFrom<String> for Tenant {
    type Error = TenantError;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

impl From<Tenant> for String {
    fn from(tenant: Tenant) -> Self {
        tenant.0.as_ref().to_owned()
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenant({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_short_names_are_tenants() {
        for good in ["main", "a", "shop-2", &"x".repeat(32)] {
            assert_eq!(Tenant::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "2shop", "-a", "Main", "a b", "a/b", "ä", &"x".repeat(33)] {
            assert!(Tenant::new(bad).is_err(), "{bad:?}");
        }
    }
}
