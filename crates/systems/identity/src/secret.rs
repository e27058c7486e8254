//! The deployment's secret, from which every other one is derived, and what random secrets are made of.
//!
//! One 32-byte secret lives outside the store (in the data directory, or in the settings of a cluster, the same on
//! all its nodes). Whoever has only a copy of the store can neither sign tokens nor guess handles nor forge devices.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::fmt;

/// The secret of one deployment.
#[derive(Clone)]
pub(crate) struct Secret([u8; 32]);

impl Secret {
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// A secret for one purpose: HMAC-SHA-256 over the label and the parts, each with its length, so that no two
    /// lists of parts are the same bytes. About a microsecond.
    pub(crate) fn derive(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        // HMAC pads a short key with zeros to the hash's block; doing it here leaves no length that could fail.
        let mut block = [0; 64];
        block[..self.0.len()].copy_from_slice(&self.0);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Whether two byte strings are the same, in a time that depends on their length alone.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Bytes from the thread's cryptographic generator, which the operating system seeds.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes);
    bytes
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let secret = Secret::new([3; 32]);
        assert_ne!(
            secret.derive("a", &[b"bc", b"d"]),
            secret.derive("a", &[b"b", b"cd"])
        );
        assert_ne!(secret.derive("ab", &[b"c"]), secret.derive("a", &[b"bc"]));
        assert_eq!(secret.derive("a", &[b"b"]), secret.derive("a", &[b"b"]));
        assert_ne!(
            Secret::new([4; 32]).derive("a", &[b"b"]),
            secret.derive("a", &[b"b"])
        );
    }

    #[test]
    fn only_the_same_bytes_are_the_same() {
        assert!(same(b"", b"") && same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
