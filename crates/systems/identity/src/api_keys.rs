//! API keys: long-lived credentials for programs.
//!
//! `hk_<tenant>.<account>.<key>_<secret>`: the first part finds the row, the secret is 256 random bits, shown once and
//! kept as SHA-256 (a slow hash would protect nothing that 256 bits do not). A key may do what its scopes name and its
//! account may do, whichever is less: a scope is a system (`feed`: what anybody signed in may do there), a permission
//! (`identity.audit.read`) or `*` for all that the account may.

use crate::secret::{encode, random, same, sha256};
use holon_base::{Id, Tenant};

/// The most keys of an account.
pub const KEYS_MAX: usize = 50;
/// The longest key that is looked at, in bytes.
pub const KEY_BYTES_MAX: usize = 256;

/// A key, taken apart and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyText {
    pub tenant: Tenant,
    pub account: Id,
    pub key: Id,
    hash: [u8; 32],
}

impl ApiKeyText {
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > KEY_BYTES_MAX {
            return None;
        }
        let (name, secret) = text.strip_prefix("hk_")?.split_once('_')?;
        let mut parts = name.split('.');
        let key = Self {
            tenant: Tenant::new(parts.next()?).ok()?,
            account: parts.next()?.parse().ok()?,
            key: parts.next()?.parse().ok()?,
            hash: sha256(secret.as_bytes()),
        };
        parts.next().is_none().then_some(key)
    }

    /// Whether its secret is the one of this stored hash; in constant time.
    pub fn matches(&self, stored: &str) -> bool {
        same(encode(&self.hash).as_bytes(), stored.as_bytes())
    }
}

/// The part of a key that is no secret.
pub fn prefix(tenant: &Tenant, account: Id, key: Id) -> String {
    format!("hk_{tenant}.{account}.{key}")
}

/// A key's whole text and the hash under which it is stored.
pub fn make(tenant: &Tenant, account: Id, key: Id, secret: [u8; 32]) -> (String, String) {
    let secret = encode(&secret);
    let hash = encode(&sha256(secret.as_bytes()));
    (format!("{}_{secret}", prefix(tenant, account, key)), hash)
}

pub fn new_secret() -> [u8; 32] {
    random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_name_and_believed_by_its_secret() {
        let tenant = Tenant::new("shop-2").unwrap();
        // A secret may contain the separator: only the first one counts.
        for _ in 0..200 {
            let (text, hash) = make(&tenant, Id::from_u64(5), Id::from_u64(6), new_secret());
            let key = ApiKeyText::parse(&text).unwrap();
            assert_eq!(
                (&key.tenant, key.account, key.key),
                (&tenant, Id::from_u64(5), Id::from_u64(6))
            );
            assert!(key.matches(&hash));
            let (_, other) = make(&tenant, Id::from_u64(5), Id::from_u64(6), new_secret());
            assert!(!key.matches(&other));
            assert!(!hash.contains(&text[text.len() - 20..]));
        }
        for rubbish in [
            "",
            "hk_",
            "hk_main.1_x",
            "hk_main.1.2",
            "hk_main.1.2.3_x",
            "hr_main.1.2_x",
            "hk_Main.1.2_x",
        ] {
            assert_eq!(ApiKeyText::parse(rubbish), None, "{rubbish}");
        }
    }
}
