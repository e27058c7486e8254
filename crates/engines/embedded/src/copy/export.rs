//! Reading everything as it was at one moment.

use crate::{
    Engine, EngineError,
    encoding::{self, meta},
    files::{read_error, read_u64},
    leases,
    log::{dead, retention},
    shared::{FilesGuard, Shared},
};
use bytes::Bytes;
use fjall::Readable;
use holon_base::{Id, KeyReader, Timestamp, key::prefix_end};
use holon_objects::copy::CollectionsWait;
use holon_ports::{
    Event, Partition, Position, Row, StoreError, TopicSpec,
    log::{Bounds, DeadLetter},
    store::TableCursor,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

/// What a page of a copy may take beyond its first row or event, in bytes.
const PAGE_BYTES: usize = 4 << 20;

/// Rows of a table, and where the next are; `None` after the last.
pub type Page = (Vec<(Partition, Row)>, Option<TableCursor>);

/// What was given out last: versions and ids below were used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub sequence: u64,
    pub last_id: Id,
}

/// How far a group was in each partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub group: String,
    pub topic: String,
    pub offsets: Vec<u64>,
}

/// Everything in a data directory as it was at one moment. Blobs are not collected while it is there, and what was
/// overwritten since stays on disk.
pub struct Snapshot {
    shared: Arc<Shared>,
    snapshot: fjall::Snapshot,
    now: Timestamp,
    tables: BTreeMap<String, u16>,
    topics: Vec<(u16, TopicSpec)>,
    _collections: CollectionsWait,
}

fn damaged(damaged: encoding::Damaged) -> StoreError {
    StoreError::Corrupt(damaged.to_string())
}

impl Engine {
    /// Everything as it is now; what is acknowledged is in it.
    ///
    /// # Errors
    /// If the engine is closed, or what it holds is damaged.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let collections = self.objects.hold_off_collections().await;
        let shared = Arc::clone(&self.core.shared);
        let snapshot = shared.files()?.snapshot();
        // What is created after the snapshot was taken has nothing in it.
        let mut tables = BTreeMap::new();
        for (name, id) in shared.meta_with_prefix(meta::TABLES)? {
            let name = String::from_utf8_lossy(&name[meta::TABLES.len()..]).into_owned();
            let id = id.as_ref().try_into().ok().map(u16::from_be_bytes);
            let id = id.ok_or_else(|| StoreError::Corrupt("the record of a table is malformed".into()))?;
            tables.insert(name, id);
        }
        let topics = shared.topics.all();
        Ok(Snapshot {
            now: shared.clock.now(),
            topics: topics.iter().map(|topic| (topic.id, topic.spec())).collect(),
            shared,
            snapshot,
            tables,
            _collections: collections,
        })
    }

    /// The secrets that were made so far, by name.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn secrets(&self) -> Result<Vec<(String, [u8; 32])>, EngineError> {
        self.secrets.all()
    }
}

impl Snapshot {
    /// When it was taken; what was expired by then is not in it.
    pub fn taken(&self) -> Timestamp {
        self.now
    }

    /// The names of all tables, but for [`Self::leases`].
    pub fn tables(&self) -> Vec<String> {
        let leases = leases::TABLES.map(|table| table.0);
        let names = self.tables.keys().filter(|name| !leases.contains(&name.as_str()));
        names.cloned().collect()
    }

    /// # Errors
    /// If the engine is closed, or the record is damaged.
    pub fn mark(&self) -> Result<Mark, StoreError> {
        let files = self.shared.files()?;
        let record = self.snapshot.get(&files.meta, meta::HIGH_WATER);
        let record = record.map_err(|error| read_error(&error))?;
        let (sequence, last_id) = crate::high_water(record.as_deref())?;
        Ok(Mark { sequence, last_id })
    }

    /// Rows of a table in order, at most `max` and not much more than some MiB. `None` for the next cursor ends it.
    ///
    /// # Errors
    /// If the engine is closed, or a row is damaged.
    pub fn rows(&self, table: &str, cursor: Option<TableCursor>, max: usize) -> Result<Page, StoreError> {
        let id = self.tables.get(table);
        let prefix = id
            .ok_or_else(|| StoreError::NoSuchTable(table.to_owned()))?
            .to_be_bytes();
        let start = match cursor {
            Some(cursor) => Bound::Excluded(cursor.to_vec()),
            None => Bound::Included(prefix.to_vec()),
        };
        let end = prefix_end(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
        let files = self.shared.files()?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for guard in self.snapshot.range(&files.rows, (start, end)) {
            let (key, value) = guard.into_inner().map_err(|error| read_error(&error))?;
            let key = Bytes::from(key);
            bytes += key.len() + value.len();
            let (partition, sort_at) = encoding::split_row_key(&key).map_err(damaged)?;
            let row = encoding::row(key.slice(sort_at..), value).map_err(damaged)?;
            if !encoding::is_expired(row.expires, self.now) {
                rows.push((partition, row));
            }
            if rows.len() >= max || bytes >= PAGE_BYTES {
                return Ok((rows, Some(key)));
            }
        }
        Ok((rows, None))
    }

    pub fn topics(&self) -> Vec<TopicSpec> {
        self.topics.iter().map(|(_, spec)| spec.clone()).collect()
    }

    fn topic(&self, name: &str) -> Result<u16, StoreError> {
        let topic = self.topics.iter().find(|(_, spec)| spec.name == name);
        topic
            .map(|(id, _)| *id)
            .ok_or_else(|| StoreError::Invalid(format!("topic {name} was not created")))
    }

    /// The offsets of the events of a partition.
    ///
    /// # Errors
    /// If the engine is closed, or a record is damaged.
    pub fn bounds(&self, topic: &str, partition: u16) -> Result<Bounds, StoreError> {
        let topic = self.topic(topic)?;
        let files = self.shared.files()?;
        let read = |error: fjall::Error| read_error(&error);
        let range =
            encoding::event_key(topic, partition, 0)..=encoding::event_key(topic, partition, u64::MAX);
        let mut keys = self.snapshot.range(&files.events, range);
        let offset = |guard: fjall::Guard| {
            let key = guard.key().map_err(read)?;
            encoding::event_offset(&key).map_err(damaged)
        };
        let first = keys.next().map(offset).transpose()?;
        let Some(first) = first else {
            // Nothing is left of it, but its offsets go on where they were.
            let saved = self.snapshot.get(&files.meta, meta::partition(topic, partition));
            let saved = saved.map_err(read)?.map(|record| retention::decode(&record));
            let next = saved.transpose()?.unwrap_or_default().first;
            return Ok(Bounds { first: next, next });
        };
        let last = keys.next_back().map(offset).transpose()?.unwrap_or(first);
        Ok(Bounds {
            first,
            next: last + 1,
        })
    }

    /// Events of a partition from an offset on, at most `max` and not much more than some MiB.
    ///
    /// # Errors
    /// If the engine is closed, or an event is damaged.
    pub fn events(
        &self,
        topic: &str,
        partition: u16,
        from: u64,
        max: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let topic = self.topic(topic)?;
        let files = self.shared.files()?;
        let range =
            encoding::event_key(topic, partition, from)..=encoding::event_key(topic, partition, u64::MAX);
        let (mut events, mut bytes) = (Vec::new(), 0);
        for guard in self.snapshot.range(&files.events, range).take(max) {
            let (key, value) = guard.into_inner().map_err(|error| read_error(&error))?;
            bytes += value.len();
            let offset = encoding::event_offset(&key).map_err(damaged)?;
            events.push(encoding::event(Position { partition, offset }, value).map_err(damaged)?);
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(events)
    }

    /// The records of `meta` of one kind and topic: the name of the group, what is left of the key, and the value.
    fn of_groups(&self, kind: u8, topic: u16) -> Result<Vec<(String, Bytes, Bytes)>, StoreError> {
        let malformed = || StoreError::Corrupt("the record of a group is malformed".into());
        let files: FilesGuard<'_> = self.shared.files()?;
        let prefix = [&[kind][..], &topic.to_be_bytes()].concat();
        let mut found = Vec::new();
        for guard in self.snapshot.prefix(&files.meta, &prefix) {
            let (key, value) = guard.into_inner().map_err(|error| read_error(&error))?;
            let key = Bytes::from(key);
            let mut reader = KeyReader::new(&key[prefix.len()..]);
            let group = reader.str().map_err(|_| malformed())?;
            let rest = key.slice(key.len() - reader.rest().len()..);
            found.push((group, rest, value.into()));
        }
        Ok(found)
    }

    /// How far every group was.
    ///
    /// # Errors
    /// If the engine is closed, or a record is damaged.
    pub fn groups(&self) -> Result<Vec<Committed>, StoreError> {
        let malformed = || StoreError::Corrupt("the offset of a group is malformed".into());
        let mut groups = Vec::new();
        for (topic, spec) in &self.topics {
            let mut committed: BTreeMap<String, BTreeMap<u16, u64>> = BTreeMap::new();
            for (group, partition, offset) in self.of_groups(meta::OFFSETS, *topic)? {
                let partition = KeyReader::new(&partition).u16().map_err(|_| malformed())?;
                let offset = read_u64(&offset, 0).ok_or_else(malformed)?;
                committed.entry(group).or_default().insert(partition, offset);
            }
            for (group, committed) in committed {
                let mut offsets = Vec::with_capacity(usize::from(spec.partitions));
                for partition in 0..spec.partitions {
                    let bounds = self.bounds(spec.name, partition)?;
                    let offset = committed.get(&partition).copied().unwrap_or(bounds.first);
                    offsets.push(offset.clamp(bounds.first, bounds.next));
                }
                groups.push(Committed {
                    group,
                    topic: spec.name.to_owned(),
                    offsets,
                });
            }
        }
        Ok(groups)
    }

    /// The groups that have dead letters, with the topics that those are of.
    ///
    /// # Errors
    /// If the engine is closed, or a record is damaged.
    pub fn dead_letter_groups(&self) -> Result<Vec<(String, String)>, StoreError> {
        let mut found = BTreeSet::new();
        for (topic, spec) in &self.topics {
            for (group, ..) in self.of_groups(meta::DEAD_LETTERS, *topic)? {
                found.insert((group, spec.name.to_owned()));
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The dead letters of a group, oldest first.
    ///
    /// # Errors
    /// If the engine is closed, or a letter is damaged.
    pub fn dead_letters(&self, group: &str, topic: &str) -> Result<Vec<DeadLetter>, StoreError> {
        let topic = self.topic(topic)?;
        let files = self.shared.files()?;
        let range = meta::dead_letter(topic, group, 0)..=meta::dead_letter(topic, group, u64::MAX);
        let prefix = meta::dead_letters(topic, group);
        let letters = self.snapshot.range(&files.meta, range).map(|guard| {
            let (key, value) = guard.into_inner().map_err(|error| read_error(&error))?;
            dead::decode(dead::number_of(&key, &prefix)?, value.into())
        });
        letters.collect()
    }

    /// Every lease that there ever was, with its last fence.
    ///
    /// # Errors
    /// If the engine is closed, or a record is damaged.
    pub fn leases(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut fences = Vec::new();
        for table in leases::TABLES {
            let mut cursor = None;
            loop {
                let (rows, next) = self.rows(table.0, cursor, 1_000)?;
                for (partition, row) in rows {
                    fences.push(leases::fence(&partition, &row)?);
                }
                match next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
        }
        Ok(fences)
    }
}
