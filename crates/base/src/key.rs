//! Order-preserving key encoding: byte order of the encoded key is the order of the values, part by part.
//!
//! The encoding is that of FoundationDB's tuple layer, without its type tags since every key here has a fixed
//! shape: text ends in `00` with an inner `00` written as `00 ff`, unsigned numbers are big-endian, signed ones
//! have their sign bit flipped, and a descending part is the complement of the ascending one.

use crate::id::Id;
use bytes::Bytes;

/// Builds a key, part by part.
#[derive(Debug, Clone, Default)]
pub struct KeyWriter(Vec<u8>);

impl KeyWriter {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Text or bytes of any length; sorts before all its own extensions.
    #[must_use]
    pub fn str(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        for &byte in bytes {
            self.0.push(byte);
            if byte == 0 {
                self.0.push(0xff);
            }
        }
        self.0.extend([0, 0]);
        self
    }

    #[must_use]
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    #[must_use]
    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Descending: larger values sort first.
    #[must_use]
    pub fn u64_desc(self, value: u64) -> Self {
        self.u64(!value)
    }

    #[must_use]
    pub fn i64(self, value: i64) -> Self {
        self.u64(value as u64 ^ 1 << 63)
    }

    #[must_use]
    pub fn id(self, id: Id) -> Self {
        self.u64(id.as_u64())
    }

    /// Descending: newer ids sort first.
    #[must_use]
    pub fn id_desc(self, id: Id) -> Self {
        self.u64_desc(id.as_u64())
    }

    pub fn finish(self) -> Bytes {
        Bytes::from(self.0)
    }

    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

/// A key that does not have the shape it is read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("key is malformed at byte {0}")]
pub struct KeyError(pub usize);

/// Reads a key back, part by part, in the order in which it was written.
#[derive(Debug, Clone)]
pub struct KeyReader<'a> {
    key: &'a [u8],
    at: usize,
}

impl<'a> KeyReader<'a> {
    pub fn new(key: &'a [u8]) -> Self {
        Self { key, at: 0 }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], KeyError> {
        let part = self.key.get(self.at..self.at + N).ok_or(KeyError(self.at))?;
        self.at += N;
        part.try_into().map_err(|_| KeyError(self.at))
    }

    pub fn bytes(&mut self) -> Result<Vec<u8>, KeyError> {
        let mut out = Vec::new();
        loop {
            let [byte] = self.take()?;
            if byte != 0 {
                out.push(byte);
                continue;
            }
            match self.take()? {
                [0] => return Ok(out),
                [0xff] => out.push(0),
                _ => return Err(KeyError(self.at - 1)),
            }
        }
    }

    pub fn str(&mut self) -> Result<String, KeyError> {
        let start = self.at;
        String::from_utf8(self.bytes()?).map_err(|_| KeyError(start))
    }

    pub fn u8(&mut self) -> Result<u8, KeyError> {
        self.take().map(|[byte]: [u8; 1]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, KeyError> {
        self.take().map(u16::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, KeyError> {
        self.take().map(u64::from_be_bytes)
    }

    pub fn u64_desc(&mut self) -> Result<u64, KeyError> {
        self.u64().map(|value| !value)
    }

    pub fn i64(&mut self) -> Result<i64, KeyError> {
        self.u64().map(|value| (value ^ 1 << 63) as i64)
    }

    pub fn id(&mut self) -> Result<Id, KeyError> {
        self.u64().map(Id::from_u64)
    }

    pub fn id_desc(&mut self) -> Result<Id, KeyError> {
        self.u64_desc().map(Id::from_u64)
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.key[self.at..]
    }

    /// Succeeds when the key has been read to its end.
    pub fn end(&self) -> Result<(), KeyError> {
        if self.at == self.key.len() {
            Ok(())
        } else {
            Err(KeyError(self.at))
        }
    }
}

/// The first key after all that start with `prefix`; `None` when there is none (all bytes `ff`, or empty).
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(part: &(Vec<u8>, i64, u64)) -> Vec<u8> {
        KeyWriter::new().bytes(&part.0).i64(part.1).u64(part.2).into_vec()
    }

    // Few byte values, so that equal prefixes, zeros and ff are common.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0_u8, 1, 0x61, 0xfe, 0xff]), 0..6)
    }

    proptest! {
        #[test]
        fn byte_order_is_value_order(a in (text(), any::<i64>(), any::<u64>()), b in (text(), any::<i64>(), any::<u64>())) {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
        }

        #[test]
        fn descending_is_the_reverse(a: u64, b: u64) {
            let key = |value| KeyWriter::new().u64_desc(value).into_vec();
            prop_assert_eq!(key(a).cmp(&key(b)), b.cmp(&a));
        }

        #[test]
        fn what_is_written_is_read(a in (text(), any::<i64>(), any::<u64>())) {
            let key = encode(&a);
            let mut reader = KeyReader::new(&key);
            prop_assert_eq!((reader.bytes().unwrap(), reader.i64().unwrap(), reader.u64().unwrap()), a);
            prop_assert!(reader.end().is_ok());
        }

        #[test]
        fn rubbish_is_an_error_and_never_a_panic(key: Vec<u8>) {
            let mut reader = KeyReader::new(&key);
            let _ = (reader.str(), reader.u64(), reader.u16(), reader.end());
        }

        #[test]
        fn a_prefix_ends_after_its_extensions(prefix in text(), more in text()) {
            let extended = [prefix.clone(), more].concat();
            if let Some(end) = prefix_end(&prefix) {
                prop_assert!(extended < end);
            }
        }
    }
}
