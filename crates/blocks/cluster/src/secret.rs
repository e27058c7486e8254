//! Authentication codes under a key that all nodes have in common (HMAC-SHA-256, RFC 2104).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt::Write as _;

/// The deployment's key for what nodes say to each other.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// Characters of a code: 32 bytes in hexadecimal.
    pub(crate) const CODE_LENGTH: usize = 64;

    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    fn mac(&self, purpose: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        // Each with its length, so that no two lists of parts look alike.
        for part in [purpose.as_bytes()].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    /// A code for some parts, which holds for this purpose only.
    pub(crate) fn code(&self, purpose: &str, parts: &[&[u8]]) -> String {
        let bytes = self.mac(purpose, parts).finalize().into_bytes();
        bytes
            .iter()
            .fold(String::with_capacity(Self::CODE_LENGTH), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }

    pub(crate) fn verify(&self, purpose: &str, parts: &[&[u8]], code: &str) -> bool {
        is_same(&self.code(purpose, parts), code)
    }
}

/// Whether two codes are the same, in a time that does not depend on where they differ.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    let differ = one
        .bytes()
        .zip(other.bytes())
        .fold(0, |differ, (a, b)| differ | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differ) == 0
}
