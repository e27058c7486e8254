//! How values are written as Redis strings, and how answers of the functions are read.
//!
//! A value is `V`, how long before its end it is stale, when the lease of a load on it ends, that load's token, and
//! the bytes. All in text of a fixed width, so that a function changes the lease in place and never moves the bytes.

use bytes::{BufMut, Bytes, BytesMut};
use redis::Value;
use std::time::{Duration, Instant};

/// Bytes before those of the value.
pub(crate) const HEAD_BYTES: usize = 41;
const NO_LEASE: &[u8] = b"ffffffffffff0000000000000000";
/// No value lives longer: about a hundred years, in milliseconds.
const FOREVER_MS: u64 = 3_000_000_000_000;

/// "There is none", remembered.
pub(crate) const NOTHING: &[u8] = b"N";

/// Milliseconds as Redis takes them; zero stays zero, which means not to keep at all.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis())
        .unwrap_or(u64::MAX)
        .min(FOREVER_MS)
}

/// A value that is stale for the last `stale` of its life.
pub(crate) fn encode(value: &[u8], stale: Duration) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + value.len());
    out.put_u8(b'V');
    out.put_slice(format!("{:012x}", milliseconds(stale)).as_bytes());
    out.put_slice(NO_LEASE);
    out.put_slice(value);
    out.freeze()
}

/// A value, or "there is none", as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) value: Option<Bytes>,
    pub(crate) fresh_until: Instant,
    pub(crate) expires: Instant,
}

/// What a string of Redis turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Kept(Reading),
    /// Nothing yet: a load is under way.
    Loading,
    OtherShape,
    /// Not written by this engine.
    Unreadable,
}

/// Reads a string that had so many milliseconds left when the server was asked, which was not before `asked`.
pub(crate) fn decode(raw: Vec<u8>, left_ms: i64, asked: Instant) -> Held {
    let expires = asked + Duration::from_millis(u64::try_from(left_ms).unwrap_or(0).min(FOREVER_MS));
    match raw.first() {
        Some(b'L') => Held::Loading,
        Some(b'N') => Held::Kept(Reading {
            value: None,
            fresh_until: expires,
            expires,
        }),
        Some(b'V') if raw.len() >= HEAD_BYTES => {
            let digits = std::str::from_utf8(&raw[1..13]).ok();
            let Some(stale_ms) = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
                return Held::Unreadable;
            };
            let stale = Duration::from_millis(stale_ms.min(FOREVER_MS));
            Held::Kept(Reading {
                value: Some(Bytes::from(raw).slice(HEAD_BYTES..)),
                fresh_until: expires.checked_sub(stale).unwrap_or(asked),
                expires,
            })
        }
        Some(b'B' | b'-' | b'0'..=b'9') => Held::OtherShape,
        _ => Held::Unreadable,
    }
}

/// A string of an answer.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

pub(crate) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

pub(crate) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => text(value)?.parse().ok(),
    }
}

/// A whole number that may be above what an integer holds.
pub(crate) fn count(value: &Value) -> Option<u64> {
    let number: f64 = text(value)?.parse().ok()?;
    (number >= 0.0).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let asked = Instant::now();
        let raw = encode(b"bytes", Duration::from_secs(3)).to_vec();
        let Held::Kept(reading) = decode(raw, 10_000, asked) else {
            panic!("a value")
        };
        assert_eq!(reading.value, Some(Bytes::from_static(b"bytes")));
        assert_eq!(reading.fresh_until, asked + Duration::from_secs(7));
        assert_eq!(reading.expires, asked + Duration::from_secs(10));
        for (raw, held) in [
            ("L0123", Held::Loading),
            ("17", Held::OtherShape),
            ("-17", Held::OtherShape),
            ("B1:2", Held::OtherShape),
            ("", Held::Unreadable),
            ("V12", Held::Unreadable),
            ("hello", Held::Unreadable),
        ] {
            assert_eq!(decode(raw.into(), 1, asked), held, "{raw}");
        }
    }
}
