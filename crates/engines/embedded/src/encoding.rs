//! How rows and events lie in the key-value store below.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `rows` | table (u16), tenant, entity, sort (raw) | kind (1), version (8), expiry (8), payload |
//! | `events` | topic (u16), partition (u16), offset (u64) | id, time, five lengths, five texts, data |
//! | `expiry` | time (i64), row key | nothing |
//! | `meta` | a letter and what it is of | small |
//!
//! Numbers in keys are big-endian, so that bytes sort as numbers do; texts end in `00 00` (see [`holon_base::key`]),
//! so that one partition is one range and no partition's rows lie in another's. A row's value starts with a header of
//! fixed length, so that its payload is handed on as a slice of the block that was read, without a copy.

use bytes::{BufMut, Bytes};
use fjall::Slice;
use holon_base::{Id, KeyReader, KeyWriter, Tenant, Timestamp};
use holon_ports::{Event, NewEvent, Partition, Position, Row, Value};
use std::sync::Arc;

/// Bytes before the payload of a row.
pub(crate) const ROW_HEADER: usize = 17;
const VERSION_AT: usize = 1;
const NEVER: i64 = i64::MAX;

const JSON: u8 = 0;
const BINARY: u8 = 1;
const COUNTER: u8 = 2;

/// Where an event's id and time are written once they are known.
const EVENT_ID_AT: usize = 0;
const EVENT_TIME_AT: usize = 8;
const EVENT_HEADER: usize = 16 + 5 * 2;
const NO_TEXT: u16 = u16::MAX;

/// What is wrong with stored bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Damaged(pub String);

impl Damaged {
    fn new(what: &str) -> Self {
        Self(what.to_owned())
    }
}

/// What all keys of one partition of one table start with.
pub(crate) fn partition_prefix(table: u16, partition: &Partition, spare: usize) -> Vec<u8> {
    let tenant = partition.tenant.as_str();
    KeyWriter::with_capacity(2 + tenant.len() + partition.entity.len() + 4 + spare)
        .u16(table)
        .str(tenant)
        .str(&partition.entity)
        .into_vec()
}

pub(crate) fn row_key(table: u16, partition: &Partition, sort: &[u8]) -> Vec<u8> {
    let mut key = partition_prefix(table, partition, sort.len());
    key.extend_from_slice(sort);
    key
}

/// Takes a row's key apart: its partition, and where its sort key starts.
pub(crate) fn split_row_key(key: &[u8]) -> Result<(Partition, usize), Damaged> {
    let damaged = |_| Damaged::new("a row's key is malformed");
    let mut reader = KeyReader::new(key);
    reader.u16().map_err(damaged)?;
    let tenant = reader.str().map_err(damaged)?;
    let entity = reader.str().map_err(damaged)?;
    let tenant = Tenant::new(&tenant).map_err(|error| Damaged(error.to_string()))?;
    Ok((Partition { tenant, entity }, key.len() - reader.rest().len()))
}

/// A row's value with its version still to be written.
pub(crate) fn row_value(value: &Value, expires: Option<Timestamp>) -> Vec<u8> {
    let mut out = Vec::with_capacity(ROW_HEADER + value.size());
    out.put_u8(match value {
        Value::Json(_) => JSON,
        Value::Binary(_) => BINARY,
        Value::Counter(_) => COUNTER,
    });
    out.put_u64(0);
    out.put_i64(expires.map_or(NEVER, Timestamp::millis));
    match value {
        Value::Json(bytes) | Value::Binary(bytes) => out.put_slice(bytes),
        Value::Counter(count) => out.put_i64(*count),
    }
    out
}

pub(crate) fn set_version(value: &mut [u8], version: u64) {
    value[VERSION_AT..VERSION_AT + 8].copy_from_slice(&version.to_be_bytes());
}

/// What the committer must know of a row to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowHead {
    pub version: u64,
    pub expires: Option<Timestamp>,
    /// `None` for a row that is no counter.
    pub counter: Option<i64>,
}

fn be_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

fn expiry(raw: u64) -> Option<Timestamp> {
    let ms = raw as i64;
    (ms != NEVER).then(|| Timestamp::from_millis(ms))
}

pub(crate) fn row_head(value: &[u8]) -> Result<RowHead, Damaged> {
    let head = || {
        let counter = match *value.first()? {
            COUNTER => Some(be_u64(value, ROW_HEADER)? as i64),
            JSON | BINARY => None,
            _ => return None,
        };
        Some(RowHead {
            version: be_u64(value, VERSION_AT)?,
            expires: expiry(be_u64(value, VERSION_AT + 8)?),
            counter,
        })
    };
    head().ok_or_else(|| Damaged::new("a row's header is malformed"))
}

/// The row in a value, without a copy of its payload.
pub(crate) fn row(sort: Bytes, value: Slice) -> Result<Row, Damaged> {
    let head = row_head(&value)?;
    let kind = value[0];
    let value = match head.counter {
        Some(count) => Value::Counter(count),
        None => {
            let payload = Bytes::from(value).slice(ROW_HEADER..);
            if kind == JSON {
                Value::Json(payload)
            } else {
                Value::Binary(payload)
            }
        }
    };
    Ok(Row {
        sort,
        value,
        version: head.version,
        expires: head.expires,
    })
}

pub(crate) fn is_expired(expires: Option<Timestamp>, now: Timestamp) -> bool {
    expires.is_some_and(|expires| expires <= now)
}

/// The index entry that leads the sweeper to a row.
pub(crate) fn expiry_key(expires: Timestamp, row_key: &[u8]) -> Vec<u8> {
    let mut key = KeyWriter::with_capacity(8 + row_key.len())
        .i64(expires.millis())
        .into_vec();
    key.extend_from_slice(row_key);
    key
}

pub(crate) fn split_expiry_key(key: &[u8]) -> Result<(Timestamp, &[u8]), Damaged> {
    let mut reader = KeyReader::new(key);
    let expires = reader
        .i64()
        .map_err(|_| Damaged::new("an entry of the expiry index is malformed"))?;
    Ok((Timestamp::from_millis(expires), reader.rest()))
}

/// The address of an event.
pub(crate) fn event_key(topic: u16, partition: u16, offset: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..2].copy_from_slice(&topic.to_be_bytes());
    key[2..4].copy_from_slice(&partition.to_be_bytes());
    key[4..].copy_from_slice(&offset.to_be_bytes());
    key
}

pub(crate) fn event_offset(key: &[u8]) -> Result<u64, Damaged> {
    if key.len() != 12 {
        return Err(Damaged::new("an event's key is malformed"));
    }
    be_u64(key, 4).ok_or_else(|| Damaged::new("an event's key is malformed"))
}

/// An event's value with its id and time still to be written. Every text must be shorter than 65,535 bytes.
pub(crate) fn event_value(event: &NewEvent) -> Vec<u8> {
    envelope(
        [
            Some(event.tenant.as_str()),
            Some(&event.key),
            Some(event.kind),
            Some(&event.subject),
            event.traceparent.as_deref(),
        ],
        &event.data,
    )
}

/// A whole event, as a dead letter keeps it.
pub(crate) fn stored_event_value(event: &Event) -> Vec<u8> {
    let mut value = envelope(
        [
            Some(event.tenant.as_str()),
            Some(&event.key),
            Some(&event.kind),
            Some(&event.subject),
            event.traceparent.as_deref(),
        ],
        &event.data,
    );
    set_event_id(&mut value, event.id, event.time);
    value
}

fn envelope(texts: [Option<&str>; 5], data: &[u8]) -> Vec<u8> {
    let lengths: usize = texts.iter().flatten().map(|text| text.len()).sum();
    let mut out = Vec::with_capacity(EVENT_HEADER + lengths + data.len());
    out.put_bytes(0, 16);
    for text in texts {
        out.put_u16(text.map_or(NO_TEXT, |text| text.len() as u16));
    }
    for text in texts.iter().flatten() {
        out.put_slice(text.as_bytes());
    }
    out.put_slice(data);
    out
}

pub(crate) fn set_event_id(value: &mut [u8], id: Id, time: Timestamp) {
    value[EVENT_ID_AT..EVENT_ID_AT + 8].copy_from_slice(&id.as_u64().to_be_bytes());
    value[EVENT_TIME_AT..EVENT_TIME_AT + 8].copy_from_slice(&time.millis().to_be_bytes());
}

pub(crate) fn event_time(value: &[u8]) -> Result<Timestamp, Damaged> {
    be_u64(value, EVENT_TIME_AT)
        .map(|ms| Timestamp::from_millis(ms as i64))
        .ok_or_else(|| Damaged::new("an event's header is malformed"))
}

/// The event in a value, without a copy of its data.
pub(crate) fn event(position: Position, value: Slice) -> Result<Event, Damaged> {
    let malformed = || {
        Damaged(format!(
            "event {} of partition {} is malformed",
            position.offset, position.partition
        ))
    };
    let value = Bytes::from(value);
    let id = be_u64(&value, EVENT_ID_AT).ok_or_else(malformed)?;
    let time = event_time(&value)?;
    let mut at = EVENT_HEADER;
    let mut texts: [Option<&str>; 5] = [None; 5];
    for (i, text) in texts.iter_mut().enumerate() {
        let length = value
            .get(16 + 2 * i..18 + 2 * i)
            .and_then(|length| length.try_into().ok())
            .map(u16::from_be_bytes)
            .ok_or_else(malformed)?;
        if length == NO_TEXT {
            continue;
        }
        let bytes = value.get(at..at + usize::from(length)).ok_or_else(malformed)?;
        *text = Some(std::str::from_utf8(bytes).map_err(|_| malformed())?);
        at += usize::from(length);
    }
    let [Some(tenant), Some(key), Some(kind), Some(subject), traceparent] = texts else {
        return Err(malformed());
    };
    Ok(Event {
        position,
        id: Id::from_u64(id),
        time,
        tenant: Tenant::new(tenant).map_err(|_| malformed())?,
        key: key.to_owned(),
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        traceparent: traceparent.map(Arc::from),
        data: value.slice(at..),
        redelivered: 0,
    })
}

/// Keys of the `meta` keyspace.
pub(crate) mod meta {
    use holon_base::KeyWriter;

    /// The last sequence number and the last id given out.
    pub(crate) const HIGH_WATER: &[u8] = b"h";

    pub(crate) const TABLES: &[u8] = b"t";
    pub(crate) const TOPICS: &[u8] = b"l";
    /// What the records of groups start with, before the number of their topic.
    pub(crate) const OFFSETS: u8 = b'o';
    pub(crate) const DEAD_LETTERS: u8 = b'd';

    pub(crate) fn table(name: &str) -> Vec<u8> {
        [TABLES, name.as_bytes()].concat()
    }

    pub(crate) fn topic(name: &str) -> Vec<u8> {
        [TOPICS, name.as_bytes()].concat()
    }

    /// What is known of a partition: the first offset kept, and the bytes of the events up to an offset.
    pub(crate) fn partition(topic: u16, partition: u16) -> Vec<u8> {
        KeyWriter::with_capacity(5)
            .u8(b'p')
            .u16(topic)
            .u16(partition)
            .into_vec()
    }

    /// What all committed offsets of a topic start with.
    pub(crate) fn offsets(topic: u16) -> Vec<u8> {
        KeyWriter::with_capacity(32).u8(OFFSETS).u16(topic).into_vec()
    }

    pub(crate) fn offset(topic: u16, group: &str, partition: u16) -> Vec<u8> {
        KeyWriter::with_capacity(8 + group.len())
            .u8(OFFSETS)
            .u16(topic)
            .str(group)
            .u16(partition)
            .into_vec()
    }

    /// The number that the next dead letter of a group gets.
    pub(crate) fn dead_letters_next(topic: u16, group: &str) -> Vec<u8> {
        KeyWriter::with_capacity(8 + group.len())
            .u8(b'n')
            .u16(topic)
            .str(group)
            .into_vec()
    }

    pub(crate) fn dead_letters(topic: u16, group: &str) -> Vec<u8> {
        KeyWriter::with_capacity(16 + group.len())
            .u8(DEAD_LETTERS)
            .u16(topic)
            .str(group)
            .into_vec()
    }

    pub(crate) fn dead_letter(topic: u16, group: &str, number: u64) -> Vec<u8> {
        let mut key = dead_letters(topic, group);
        key.extend_from_slice(&number.to_be_bytes());
        key
    }
}
