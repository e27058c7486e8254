//! Cursors: where a list goes on, opaque to the caller and signed, so that nobody can point a list at keys that it
//! would not have shown.
//!
//! A cursor is bound to a scope (the list and its filters): one list's cursor is refused by another.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

const TAG_BYTES: usize = 16;
/// The longest cursor that is looked at, in characters.
pub const MAX_CURSOR_CHARS: usize = 2_048;

/// A signed cursor as the caller sees it.
pub type Cursor = String;

/// A cursor that this deployment did not make for this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that this list gave out; start again without it")]
pub struct CursorError;

/// Signs and checks cursors with one key of the deployment (HMAC-SHA-256, truncated to 128 bits as RFC 2104 allows).
#[derive(Clone)]
pub struct CursorSigner {
    key: [u8; 32],
}

impl CursorSigner {
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    fn tag(&self, scope: &str, position: &[u8]) -> [u8; TAG_BYTES] {
        // HMAC pads a short key with zeros to the hash's block; doing it here leaves no length that could fail.
        let mut block = [0; 64];
        block[..self.key.len()].copy_from_slice(&self.key);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        mac.update(&(scope.len() as u64).to_be_bytes());
        mac.update(scope.as_bytes());
        mac.update(position);
        let full = mac.finalize().into_bytes();
        std::array::from_fn(|i| full[i])
    }

    /// Wraps a position (the last sort key shown, say) for a scope such as `feed.home:42:latest`.
    pub fn seal(&self, scope: &str, position: &[u8]) -> Cursor {
        let mut raw = self.tag(scope, position).to_vec();
        raw.extend_from_slice(position);
        URL_SAFE_NO_PAD.encode(raw)
    }

    /// Gives the position back if this deployment sealed it for this scope.
    pub fn open(&self, scope: &str, cursor: &str) -> Result<Vec<u8>, CursorError> {
        if cursor.len() > MAX_CURSOR_CHARS {
            return Err(CursorError);
        }
        let raw = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| CursorError)?;
        let (tag, position) = raw.split_at_checked(TAG_BYTES).ok_or(CursorError)?;
        let expected = self.tag(scope, position);
        let difference = expected.iter().zip(tag).fold(0, |acc, (a, b)| acc | (a ^ b));
        if difference == 0 {
            Ok(position.to_vec())
        } else {
            Err(CursorError)
        }
    }
}

impl fmt::Debug for CursorSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorSigner(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_only_where_it_was_sealed_and_only_unchanged() {
        let signer = CursorSigner::new([7; 32]);
        let cursor = signer.seal("feed.home:1", b"position");
        assert_eq!(signer.open("feed.home:1", &cursor), Ok(b"position".to_vec()));
        assert_eq!(signer.open("feed.home:2", &cursor), Err(CursorError));
        assert_eq!(
            CursorSigner::new([8; 32]).open("feed.home:1", &cursor),
            Err(CursorError)
        );
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(
                changed == cursor || signer.open("feed.home:1", &changed).is_err(),
                "byte {at}"
            );
        }
        for rubbish in ["", "A", "!!!", &"A".repeat(5_000)] {
            assert_eq!(signer.open("feed.home:1", rubbish), Err(CursorError));
        }
    }
}
