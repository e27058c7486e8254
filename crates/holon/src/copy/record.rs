//! What a copy is made of: records, each in one canonical encoding.
//!
//! The same bytes go into a backup and under a checksum. They say what a deployment holds and nothing of where: two
//! homes hold the same if their records are the same, in whatever order they are read.

use super::CopyError;
use bytes::{Buf, BufMut, Bytes};
use holon_base::{Id, Tenant, Timestamp};
use holon_ports::{Event, Partition, Position, Row, TopicSpec, Value, log::DeadLetter};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// One thing that a deployment holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Comes first.
    Head(Head),
    Secret {
        name: String,
        secret: [u8; 32],
    },
    /// A file of the data directory that people rely on, such as the administrator's token.
    File {
        name: String,
        content: Bytes,
    },
    /// A table; its rows come after it.
    Table(String),
    Row {
        table: Arc<str>,
        partition: Partition,
        row: Row,
    },
    /// A topic; its events come after it.
    Topic(Topic),
    Event {
        topic: Arc<str>,
        event: Event,
    },
    /// How far a group is; comes after the events.
    Group(Group),
    Letter {
        group: String,
        topic: String,
        letter: DeadLetter,
    },
    /// The last fence of a lease.
    Fence {
        name: String,
        fence: u64,
    },
    Chunk {
        hash: [u8; 32],
        writing: u64,
        content: Bytes,
    },
}

/// What a copy is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// When it was as it is in the copy.
    pub taken: Timestamp,
    /// What holds it, for people.
    pub home: String,
    /// The program's version.
    pub program: String,
    /// Versions of rows up to here, and ids, were given out.
    pub sequence: u64,
    pub last_id: Id,
    /// Tells one copy from another.
    pub number: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Topic {
    pub name: String,
    pub max_age_ms: Option<u64>,
    pub max_bytes: Option<u64>,
    /// The first offset and the one after the last, by partition.
    pub bounds: Vec<(u64, u64)>,
}

impl Topic {
    pub fn new(spec: &TopicSpec, bounds: Vec<(u64, u64)>) -> Self {
        Self {
            name: spec.name.to_owned(),
            max_age_ms: spec.max_age.map(|age| age.as_millis() as u64),
            max_bytes: spec.max_bytes,
            bounds,
        }
    }

    pub fn spec(&self) -> TopicSpec {
        TopicSpec {
            name: lasting(&self.name),
            partitions: self.bounds.len() as u16,
            max_age: self.max_age_ms.map(Duration::from_millis),
            max_bytes: self.max_bytes,
        }
    }
}

/// How far a group is in a topic, by partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub group: String,
    pub topic: String,
    pub committed: Vec<u64>,
}

/// Names of tables and topics are few and live as long as the process, as those in the code do.
pub fn lasting(name: &str) -> &'static str {
    static NAMES: parking_lot::Mutex<Vec<&'static str>> = parking_lot::Mutex::new(Vec::new());
    let mut names = NAMES.lock();
    if let Some(known) = names.iter().find(|known| **known == name) {
        return known;
    }
    let leaked: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.push(leaked);
    leaked
}

const JSON: u8 = 0;
const BINARY: u8 = 1;
const COUNTER: u8 = 2;
const NEVER: i64 = i64::MAX;

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

fn put_json<T: Serialize>(out: &mut Vec<u8>, document: &T) -> Result<(), CopyError> {
    let bytes = serde_json::to_vec(document).map_err(|error| CopyError::Record(error.to_string()))?;
    put_bytes(out, &bytes);
    Ok(())
}

fn put_event(out: &mut Vec<u8>, event: &Event) {
    out.put_u16(event.position.partition);
    out.put_u64(event.position.offset);
    out.put_u64(event.id.as_u64());
    out.put_i64(event.time.millis());
    for text in [event.tenant.as_str(), &event.key, &event.kind, &event.subject] {
        put_bytes(out, text.as_bytes());
    }
    out.put_u8(u8::from(event.traceparent.is_some()));
    put_bytes(out, event.traceparent.as_deref().unwrap_or_default().as_bytes());
    put_bytes(out, &event.data);
}

impl Record {
    /// Appends the canonical encoding.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), CopyError> {
        match self {
            Self::Head(head) => {
                out.put_u8(1);
                put_json(out, head)?;
            }
            Self::Secret { name, secret } => {
                out.put_u8(2);
                put_bytes(out, name.as_bytes());
                out.put_slice(secret);
            }
            Self::File { name, content } => {
                out.put_u8(3);
                put_bytes(out, name.as_bytes());
                put_bytes(out, content);
            }
            Self::Table(name) => {
                out.put_u8(4);
                put_bytes(out, name.as_bytes());
            }
            Self::Row {
                table,
                partition,
                row,
            } => {
                out.put_u8(5);
                for text in [table, partition.tenant.as_str(), &partition.entity] {
                    put_bytes(out, text.as_bytes());
                }
                put_bytes(out, &row.sort);
                out.put_u64(row.version);
                out.put_i64(row.expires.map_or(NEVER, Timestamp::millis));
                match &row.value {
                    Value::Json(bytes) => {
                        out.put_u8(JSON);
                        put_bytes(out, bytes);
                    }
                    Value::Binary(bytes) => {
                        out.put_u8(BINARY);
                        put_bytes(out, bytes);
                    }
                    Value::Counter(count) => {
                        out.put_u8(COUNTER);
                        put_bytes(out, &count.to_be_bytes());
                    }
                }
            }
            Self::Topic(topic) => {
                out.put_u8(6);
                put_json(out, topic)?;
            }
            Self::Event { topic, event } => {
                out.put_u8(7);
                put_bytes(out, topic.as_bytes());
                put_event(out, event);
            }
            Self::Group(group) => {
                out.put_u8(8);
                put_json(out, group)?;
            }
            Self::Letter { group, topic, letter } => {
                out.put_u8(9);
                put_bytes(out, group.as_bytes());
                put_bytes(out, topic.as_bytes());
                out.put_u64(letter.number);
                out.put_i64(letter.at.millis());
                out.put_u32(letter.attempts);
                out.put_u32(letter.event.redelivered);
                put_bytes(out, letter.error.as_bytes());
                put_event(out, &letter.event);
            }
            Self::Fence { name, fence } => {
                out.put_u8(10);
                put_bytes(out, name.as_bytes());
                out.put_u64(*fence);
            }
            Self::Chunk {
                hash,
                writing,
                content,
            } => {
                out.put_u8(11);
                out.put_slice(hash);
                out.put_u64(*writing);
                put_bytes(out, content);
            }
        }
        Ok(())
    }

    /// Takes one record off the front of what was encoded.
    pub fn decode(from: &mut Bytes) -> Result<Self, CopyError> {
        let mut reader = Reader(from);
        Ok(match reader.u8()? {
            1 => Self::Head(reader.json()?),
            2 => Self::Secret {
                name: reader.text()?,
                secret: reader.hash()?,
            },
            3 => Self::File {
                name: reader.text()?,
                content: reader.bytes()?,
            },
            4 => Self::Table(reader.text()?),
            5 => reader.row()?,
            6 => Self::Topic(reader.json()?),
            7 => Self::Event {
                topic: reader.text()?.into(),
                event: reader.event()?,
            },
            8 => Self::Group(reader.json()?),
            9 => reader.letter()?,
            10 => Self::Fence {
                name: reader.text()?,
                fence: reader.u64()?,
            },
            11 => Self::Chunk {
                hash: reader.hash()?,
                writing: reader.u64()?,
                content: reader.bytes()?,
            },
            other => return Err(CopyError::Record(format!("there is no kind {other}"))),
        })
    }
}

/// Takes fields off the front; says so when there are too few bytes.
struct Reader<'a>(&'a mut Bytes);

impl Reader<'_> {
    fn need(&self, bytes: usize) -> Result<(), CopyError> {
        if self.0.len() < bytes {
            return Err(CopyError::Record("it ends too soon".into()));
        }
        Ok(())
    }

    fn u8(&mut self) -> Result<u8, CopyError> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    fn u64(&mut self) -> Result<u64, CopyError> {
        self.need(8)?;
        Ok(self.0.get_u64())
    }

    fn u32(&mut self) -> Result<u32, CopyError> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    fn u16(&mut self) -> Result<u16, CopyError> {
        self.need(2)?;
        Ok(self.0.get_u16())
    }

    fn time(&mut self) -> Result<Timestamp, CopyError> {
        Ok(Timestamp::from_millis(self.u64()? as i64))
    }

    fn bytes(&mut self) -> Result<Bytes, CopyError> {
        let length = self.u32()? as usize;
        self.need(length)?;
        Ok(self.0.split_to(length))
    }

    fn hash(&mut self) -> Result<[u8; 32], CopyError> {
        self.need(32)?;
        let mut hash = [0; 32];
        self.0.copy_to_slice(&mut hash);
        Ok(hash)
    }

    fn text(&mut self) -> Result<String, CopyError> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.into()).map_err(|_| CopyError::Record("a text is not UTF-8".into()))
    }

    fn json<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T, CopyError> {
        serde_json::from_slice(&self.bytes()?).map_err(|error| CopyError::Record(error.to_string()))
    }

    fn tenant(&mut self) -> Result<Tenant, CopyError> {
        Tenant::new(&self.text()?).map_err(|error| CopyError::Record(error.to_string()))
    }

    fn row(&mut self) -> Result<Record, CopyError> {
        let table = self.text()?.into();
        let tenant = self.tenant()?;
        let partition = Partition::new(&tenant, self.text()?);
        let sort = self.bytes()?;
        let version = self.u64()?;
        let expires = self.time()?;
        let kind = self.u8()?;
        let value = self.bytes()?;
        let value = match kind {
            JSON => Value::Json(value),
            BINARY => Value::Binary(value),
            COUNTER => {
                let count = value.as_ref().try_into();
                let count = count.map_err(|_| CopyError::Record("a counter is eight bytes".into()))?;
                Value::Counter(i64::from_be_bytes(count))
            }
            other => return Err(CopyError::Record(format!("a row is of unknown kind {other}"))),
        };
        let row = Row {
            sort,
            value,
            version,
            expires: (expires.millis() != NEVER).then_some(expires),
        };
        Ok(Record::Row {
            table,
            partition,
            row,
        })
    }

    fn event(&mut self) -> Result<Event, CopyError> {
        let position = Position {
            partition: self.u16()?,
            offset: self.u64()?,
        };
        let (id, time, tenant) = (Id::from_u64(self.u64()?), self.time()?, self.tenant()?);
        let (key, kind, subject) = (self.text()?, self.text()?, self.text()?);
        let has_trace = self.u8()? == 1;
        let trace = self.text()?;
        Ok(Event {
            position,
            id,
            time,
            tenant,
            key,
            kind,
            subject,
            traceparent: has_trace.then(|| trace.into()),
            data: self.bytes()?,
            redelivered: 0,
        })
    }

    fn letter(&mut self) -> Result<Record, CopyError> {
        let (group, topic) = (self.text()?, self.text()?);
        let (number, at, attempts, redelivered) = (self.u64()?, self.time()?, self.u32()?, self.u32()?);
        let error = self.text()?;
        let mut event = self.event()?;
        event.redelivered = redelivered;
        let letter = DeadLetter {
            number,
            event,
            error,
            attempts,
            at,
        };
        Ok(Record::Letter { group, topic, letter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            position: Position {
                partition: 3,
                offset: 9,
            },
            id: Id::from_u64(77),
            time: Timestamp::from_millis(1_700_000_000_123),
            tenant: Tenant::default(),
            key: "user:1\0".into(),
            kind: "noted.v1".into(),
            subject: "note:ä".into(),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            data: Bytes::from_static(b"{}"),
            redelivered: 0,
        }
    }

    fn samples() -> Vec<Record> {
        let row = |value, expires| Record::Row {
            table: "test.notes".into(),
            partition: Partition::new(&Tenant::default(), "user:1"),
            row: Row {
                sort: Bytes::from_static(b"\0\xff"),
                value,
                version: 12,
                expires,
            },
        };
        vec![
            Record::Head(Head {
                taken: Timestamp::from_millis(5),
                home: "a directory".into(),
                program: "0".into(),
                sequence: 7,
                last_id: Id::from_u64(8),
                number: 9,
            }),
            Record::Secret {
                name: "cursor".into(),
                secret: [7; 32],
            },
            Record::File {
                name: "admin.token".into(),
                content: Bytes::from_static(b"token"),
            },
            Record::Table("test.notes".into()),
            row(Value::Json(Bytes::from_static(b"{\"a\": 1}")), None),
            row(Value::Binary(Bytes::new()), Some(Timestamp::from_millis(-1))),
            row(Value::Counter(i64::MIN), None),
            Record::Topic(Topic {
                name: "test.noted".into(),
                max_age_ms: Some(1),
                max_bytes: None,
                bounds: vec![(3, 10)],
            }),
            Record::Event {
                topic: "test.noted".into(),
                event: event(),
            },
            Record::Group(Group {
                group: "g".into(),
                topic: "test.noted".into(),
                committed: vec![4],
            }),
            Record::Letter {
                group: "g".into(),
                topic: "test.noted".into(),
                letter: DeadLetter {
                    number: 2,
                    event: event(),
                    error: "why".into(),
                    attempts: 5,
                    at: Timestamp::from_millis(6),
                },
            },
            Record::Fence {
                name: "job.x".into(),
                fence: 3,
            },
            Record::Chunk {
                hash: [1; 32],
                writing: 2,
                content: Bytes::from_static(b"chunk"),
            },
        ]
    }

    #[test]
    fn records_come_back_and_cut_ones_are_refused() {
        for record in samples() {
            let mut encoded = Vec::new();
            record.encode(&mut encoded).unwrap();
            let mut bytes = Bytes::from(encoded.clone());
            assert_eq!(Record::decode(&mut bytes).unwrap(), record);
            assert!(bytes.is_empty());
            for end in 0..encoded.len() {
                let cut = Record::decode(&mut Bytes::copy_from_slice(&encoded[..end]));
                assert!(cut.is_err(), "{record:?} cut at {end}");
            }
        }
    }
}
