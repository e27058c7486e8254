//! A message: as it is published, as it crosses the bus, and as clients get it. Made once for a node, shared by all
//! of its connections.

use crate::RealtimeError;
use bytes::{BufMut, Bytes, BytesMut};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// What is published, and what a backfill answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The type that clients tell messages apart by, such as `post`.
    pub kind: &'static str,
    /// The cursor to resume from after this message; empty if one cannot. A connection gets each pair of kind and id
    /// once, so what happens again (an edit after an edit) needs another id.
    pub id: String,
    /// A JSON object without `type` and `since`: the hub puts those in.
    pub data: Bytes,
}

/// A message as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    kind: String,
    id: Arc<str>,
    text: Bytes,
}

impl Frame {
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The cursor; empty if it has none.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole JSON object, `type` and `since` included.
    pub fn json(&self) -> &Bytes {
        &self.text
    }

    pub(crate) fn shared_id(&self) -> Option<Arc<str>> {
        (!self.id.is_empty()).then(|| Arc::clone(&self.id))
    }

    /// Names the message among those of a room; `None` if it has no cursor.
    pub(crate) fn fingerprint(&self) -> Option<u64> {
        if self.id.is_empty() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        self.kind.hash(&mut hasher);
        self.id.hash(&mut hasher);
        Some(hasher.finish())
    }

    /// # Errors
    /// [`RealtimeError::Invalid`] if kind or id are no plain words or the data is no JSON object.
    pub(crate) fn new(kind: &str, id: &str, data: &[u8]) -> Result<Self, RealtimeError> {
        let is_plain = |text: &str| {
            text.len() <= 2_048
                && text
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
        };
        if kind.is_empty() || !is_plain(kind) {
            return Err(RealtimeError::Invalid("a kind is a plain word"));
        }
        if !is_plain(id) {
            return Err(RealtimeError::Invalid(
                "an id is visible ASCII without quotes and backslashes",
            ));
        }
        let data = data.trim_ascii();
        let members = data
            .strip_prefix(b"{")
            .and_then(|rest| rest.strip_suffix(b"}"))
            .ok_or(RealtimeError::Invalid("the data is a JSON object"))?
            .trim_ascii();
        let mut text = BytesMut::with_capacity(data.len() + kind.len() + id.len() + 24);
        text.put_slice(b"{\"type\":\"");
        text.put_slice(kind.as_bytes());
        if !id.is_empty() {
            text.put_slice(b"\",\"since\":\"");
            text.put_slice(id.as_bytes());
        }
        text.put_u8(b'"');
        if !members.is_empty() {
            text.put_u8(b',');
        }
        // A line break in JSON is only ever white space, and would end the line of an SSE event.
        text.extend(
            members
                .iter()
                .map(|&b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }),
        );
        text.put_u8(b'}');
        Ok(Self {
            kind: kind.to_owned(),
            id: id.into(),
            text: text.freeze(),
        })
    }

    pub(crate) fn from_outgoing(outgoing: &Outgoing) -> Result<Self, RealtimeError> {
        Self::new(outgoing.kind, &outgoing.id, &outgoing.data)
    }

    /// The event as server-sent events write it (WHATWG HTML, 9.2).
    pub(crate) fn write_event(&self, out: &mut BytesMut) {
        write_event(out, &self.kind, &self.id, &self.text);
    }
}

pub(crate) fn write_event(out: &mut BytesMut, kind: &str, id: &str, text: &[u8]) {
    out.reserve(kind.len() + id.len() + text.len() + 24);
    out.put_slice(b"event: ");
    out.put_slice(kind.as_bytes());
    if !id.is_empty() {
        out.put_slice(b"\nid: ");
        out.put_slice(id.as_bytes());
    }
    out.put_slice(b"\ndata: ");
    out.put_slice(text);
    out.put_slice(b"\n\n");
}

/// A publication on the bus: the rooms it is for and the message, each length-prefixed.
pub(crate) fn encode(rooms: &[&str], outgoing: &Outgoing) -> Bytes {
    let names: usize = rooms.iter().map(|room| room.len() + 2).sum();
    let mut out =
        BytesMut::with_capacity(names + outgoing.kind.len() + outgoing.id.len() + outgoing.data.len() + 8);
    out.put_u16(rooms.len() as u16);
    for text in rooms.iter().copied().chain([outgoing.kind, &outgoing.id]) {
        out.put_u16(text.len() as u16);
        out.put_slice(text.as_bytes());
    }
    out.put_slice(&outgoing.data);
    out.freeze()
}

/// The inverse of [`encode`]; `None` for bytes that are no publication.
pub(crate) fn decode(payload: &[u8]) -> Option<(Vec<&str>, Frame)> {
    let (count, mut rest) = payload.split_first_chunk::<2>()?;
    let mut text = || -> Option<&str> {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (text, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        std::str::from_utf8(text).ok()
    };
    let rooms = (0..u16::from_be_bytes(*count))
        .map(|_| text())
        .collect::<Option<Vec<_>>>()?;
    let kind = text()?;
    let id = text()?;
    let frame = Frame::new(kind, id, rest).ok()?;
    Some((rooms, frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(id: &str, data: &'static str) -> Outgoing {
        Outgoing {
            kind: "post",
            id: id.into(),
            data: data.into(),
        }
    }

    #[test]
    fn a_message_crosses_the_bus_and_gains_type_and_cursor() {
        let payload = encode(&["home.1", "home.2"], &outgoing("c7", r#"{"id":"7"}"#));
        let (rooms, frame) = decode(&payload).unwrap();
        assert_eq!(rooms, ["home.1", "home.2"]);
        assert_eq!(frame.json(), &r#"{"type":"post","since":"c7","id":"7"}"#);
        let bare = Frame::from_outgoing(&outgoing("", " {\n} ")).unwrap();
        assert_eq!(bare.json(), &r#"{"type":"post"}"#);
        let mut event = BytesMut::new();
        Frame::from_outgoing(&outgoing("9", "{\"a\":\n1}"))
            .unwrap()
            .write_event(&mut event);
        assert_eq!(
            event,
            "event: post\nid: 9\ndata: {\"type\":\"post\",\"since\":\"9\",\"a\": 1}\n\n"
        );
    }

    #[test]
    fn what_is_no_publication_is_refused_and_never_panics() {
        for data in ["", "[]", "7", "{"] {
            assert!(Frame::from_outgoing(&outgoing("1", data)).is_err(), "{data}");
        }
        assert!(Frame::from_outgoing(&outgoing("a\nb", "{}")).is_err());
        let whole = encode(&["r"], &outgoing("1", "{}"));
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), None, "cut at {end}");
        }
        assert!(decode(&whole).is_some());
    }
}
