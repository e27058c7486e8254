//! An event as a message: CloudEvents 1.0 in binary content mode.
//!
//! The attributes are headers `ce-…`, percent-encoded as in the binding to HTTP, and the document is the payload as it
//! is, so that any client of NATS can read a topic. The tenant, the key and the trace are extension attributes; the
//! key goes by the name that the extension "partitioning" gives it.

use async_nats::{
    HeaderMap, HeaderName,
    header::{HeaderValue, NATS_MESSAGE_ID},
};
use bytes::Bytes;
use holon_base::{Id, Tenant, Timestamp};
use holon_ports::{Event, Position};
use std::fmt::Write as _;

const VERSION: HeaderName = HeaderName::from_static("ce-specversion");
pub(crate) const ID: HeaderName = HeaderName::from_static("ce-id");
const SOURCE: HeaderName = HeaderName::from_static("ce-source");
const TYPE: HeaderName = HeaderName::from_static("ce-type");
const SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
pub(crate) const TIME: HeaderName = HeaderName::from_static("ce-time");
const TENANT: HeaderName = HeaderName::from_static("ce-tenant");
const KEY: HeaderName = HeaderName::from_static("ce-partitionkey");
const TRACE: HeaderName = HeaderName::from_static("ce-traceparent");

/// What an envelope may take beside its document, in bytes: the attributes at their longest, each byte encoded.
pub(crate) const ENVELOPE_BYTES: usize = 16 << 10;

/// The headers of an event, with its id as that of the message: by it the server knows an event that it has.
pub(crate) fn encode(event: &Event) -> HeaderMap {
    let mut headers = attributes(event);
    headers.insert(NATS_MESSAGE_ID, event.id.to_string());
    headers
}

/// The attributes of an event.
pub(crate) fn attributes(event: &Event) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(VERSION, "1.0");
    headers.insert(ID, event.id.to_string());
    headers.insert(SOURCE, "/holon");
    headers.insert(TIME, event.time.to_string());
    headers.insert(TENANT, event.tenant.as_str());
    let texts = [
        (TYPE, event.kind.as_str()),
        (SUBJECT, &event.subject),
        (KEY, &event.key),
        (TRACE, event.traceparent.as_deref().unwrap_or_default()),
    ];
    for (name, text) in texts {
        // An attribute that is there is not empty.
        if !text.is_empty() {
            headers.insert(name, escape(text));
        }
    }
    headers
}

pub(crate) fn decode(headers: &HeaderMap, data: Bytes, position: Position) -> Result<Event, String> {
    let required = |name: HeaderName| {
        headers
            .get(name.clone())
            .map(HeaderValue::as_str)
            .ok_or_else(|| format!("header {name} is missing"))
    };
    let text = |name: HeaderName| -> Result<String, String> {
        match headers.get(name.clone()) {
            Some(value) => unescape(value.as_str()).ok_or_else(|| format!("header {name} is malformed")),
            None => Ok(String::new()),
        }
    };
    let trace = text(TRACE)?;
    Ok(Event {
        position,
        id: id(headers)?,
        time: time(headers)?,
        tenant: Tenant::new(required(TENANT)?).map_err(|error| error.to_string())?,
        key: text(KEY)?,
        kind: text(TYPE)?,
        subject: text(SUBJECT)?,
        data,
        traceparent: (!trace.is_empty()).then(|| trace.into()),
        redelivered: 0,
    })
}

pub(crate) fn id(headers: &HeaderMap) -> Result<Id, String> {
    headers
        .get(ID)
        .and_then(|id| id.as_str().parse().ok())
        .ok_or_else(|| "header ce-id is missing or no id".to_owned())
}

pub(crate) fn time(headers: &HeaderMap) -> Result<Timestamp, String> {
    headers
        .get(TIME)
        .and_then(|time| Timestamp::parse(time.as_str()))
        .ok_or_else(|| "header ce-time is missing or no time".to_owned())
}

/// Encodes what may not be in a header: spaces, quotes, percent signs and whatever is not printable ASCII.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' => _ = write!(out, "%{byte:02X}"),
            0x21..=0x7e => out.push(char::from(byte)),
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

/// `None` if it is not what [`escape`] makes.
pub(crate) fn unescape(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back() {
        for text in ["", "post:42", "a b\"c%41", "kéy\0\r\n", "日本"] {
            let escaped = escape(text);
            assert!(escaped.bytes().all(|b| b.is_ascii_graphic()), "{escaped}");
            assert_eq!(unescape(&escaped).as_deref(), Some(text));
        }
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_longest_envelope_fits() {
        let long = "\0".repeat(holon_base::limits::KEY_BYTES);
        let event = Event {
            position: Position {
                partition: 0,
                offset: 0,
            },
            id: Id::MAX,
            time: Timestamp::EPOCH,
            tenant: Tenant::new(&"t".repeat(32)).unwrap(),
            key: long.clone(),
            kind: long.clone(),
            subject: long.clone(),
            data: Bytes::new(),
            traceparent: Some(long.into()),
            redelivered: 0,
        };
        let headers = encode(&event);
        let size: usize = headers
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
            .map(|(name, value)| AsRef::<str>::as_ref(name).len() + value.as_str().len() + 4)
            .sum();
        assert!(size < ENVELOPE_BYTES, "{size}");
        assert_eq!(decode(&headers, Bytes::new(), event.position), Ok(event));
    }
}
