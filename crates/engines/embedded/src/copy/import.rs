//! Writing everything as it was elsewhere.

use super::Mark;
use crate::{
    Engine, EngineError,
    committer::{Place, RawWrite},
    encoding::{self, meta},
    leases,
    log::{dead, event_bytes, retention, topics::Topic},
    tables,
};
use holon_ports::{Event, Partition, Row, StoreError, Table, TopicSpec, log::DeadLetter};
use std::sync::Arc;

impl Engine {
    fn known_topic(&self, name: &str) -> Result<Arc<Topic>, StoreError> {
        let topic = self.core.shared.topics.get(name);
        topic.ok_or_else(|| StoreError::Invalid(format!("topic {name} was not created")))
    }

    /// Makes a table that a copy has.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if that is no table's name.
    pub async fn import_table(&self, name: &str) -> Result<(), StoreError> {
        if !tables::is_name(name) {
            return Err(StoreError::Invalid(format!("{name:?} is no table's name")));
        }
        // Names of tables are few and live as long as the process, as those in the code do.
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        self.ports.store.create_tables(&[Table(name)]).await
    }

    /// Writes rows over whatever is there; durable on return.
    ///
    /// # Errors
    /// [`StoreError::NoSuchTable`] before [`Self::import_table`].
    pub async fn import_rows(&self, table: &str, rows: &[(Partition, Row)]) -> Result<(), StoreError> {
        let shared = &self.core.shared;
        let table = shared.tables.id(table)?;
        let mut writes = Vec::with_capacity(rows.len());
        for (partition, row) in rows {
            let key = encoding::row_key(table, partition, &row.sort);
            let mut value = encoding::row_value(&row.value, row.expires);
            encoding::set_version(&mut value, row.version);
            if let Some(expires) = row.expires {
                writes.push(RawWrite {
                    place: Place::Expiry,
                    key: encoding::expiry_key(expires, &key),
                    value: Some(Vec::new()),
                });
                shared.expects_expiry(expires.millis());
            }
            writes.push(RawWrite {
                place: Place::Rows,
                key,
                value: Some(value),
            });
        }
        shared.write_raw(writes).await
    }

    /// Makes a topic that a copy has, with the first offset of each partition, and nothing in it yet.
    ///
    /// # Errors
    /// If it is there with other partitions, or has other events.
    pub async fn import_topic(&self, spec: &TopicSpec, firsts: &[u64]) -> Result<(), StoreError> {
        let created = self.ports.log.create_topics(std::slice::from_ref(spec)).await;
        created.map_err(|error| StoreError::Invalid(error.to_string()))?;
        let topic = self.known_topic(spec.name)?;
        let mut writes = Vec::new();
        for (partition, first) in (0_u16..).zip(firsts) {
            let Some(state) = topic.partitions.get(usize::from(partition)) else {
                continue;
            };
            let mut state = state.lock();
            if state.next > 0 {
                // An earlier attempt has begun it.
                continue;
            }
            (state.first, state.next) = (*first, *first);
            let saved = retention::Saved {
                first: *first,
                counted_to: *first,
                bytes: 0,
            };
            let key = meta::partition(topic.id, partition);
            writes.push(RawWrite::meta(key, retention::encode(saved)));
        }
        self.core.shared.write_raw(writes).await
    }

    /// Writes events of one partition, which go on where those before them ended; durable on return. What is there
    /// already is skipped.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if there is a gap.
    pub async fn import_events(&self, topic: &str, events: &[Event]) -> Result<(), StoreError> {
        let topic = self.known_topic(topic)?;
        let Some(first) = events.first() else {
            return Ok(());
        };
        let partition = first.position.partition;
        let state = topic.partitions.get(usize::from(partition)).ok_or_else(|| {
            StoreError::Invalid(format!("topic {} has no partition {partition}", topic.name))
        })?;
        let mut after = *state.lock();
        let begun = after.next;
        let mut writes = Vec::with_capacity(events.len());
        for event in events.iter().filter(|event| event.position.offset >= begun) {
            let offset = event.position.offset;
            if offset != after.next || event.position.partition != partition {
                return Err(StoreError::Invalid(format!(
                    "event {} of topic {}/{partition} is missing before {offset}",
                    after.next, topic.name
                )));
            }
            let value = encoding::stored_event_value(event);
            after.next += 1;
            after.bytes += event_bytes(value.len());
            after.last_time = after.last_time.max(event.time);
            writes.push(RawWrite {
                place: Place::Events,
                key: encoding::event_key(topic.id, partition, offset).to_vec(),
                value: Some(value),
            });
        }
        self.core.shared.write_raw(writes).await?;
        *state.lock() = after;
        topic.wake();
        Ok(())
    }

    /// Writes a dead letter under its number.
    ///
    /// # Errors
    /// If its topic was not created.
    pub async fn import_dead_letter(
        &self,
        group: &str,
        topic: &str,
        letter: &DeadLetter,
    ) -> Result<(), StoreError> {
        let topic = self.known_topic(topic)?;
        let next_key = meta::dead_letters_next(topic.id, group);
        let known = self.core.shared.meta(&next_key)?;
        let next = known.and_then(|next| crate::read_u64(&next, 0)).unwrap_or(0);
        let record = dead::encode(&letter.event, &letter.error, letter.attempts, letter.at);
        let writes = vec![
            RawWrite::meta(meta::dead_letter(topic.id, group, letter.number), record),
            RawWrite::meta(next_key, next.max(letter.number + 1).to_be_bytes()),
        ];
        self.core.shared.write_raw(writes).await
    }

    /// Notes a lease that nobody holds, whose next fence is above this one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn import_lease(&self, name: &str, fence: u64, version: u64) -> Result<(), StoreError> {
        let (table, partition, row) = leases::past(name, fence, version)?;
        self.import_rows(table.0, &[(partition, row)]).await
    }

    /// Notes what was given out elsewhere; versions and ids go on above it once the engine was opened anew.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn import_mark(&self, mark: Mark) -> Result<(), StoreError> {
        let record = [mark.sequence, mark.last_id.as_u64()]
            .map(u64::to_be_bytes)
            .concat();
        self.core
            .shared
            .write_raw(vec![RawWrite::meta(meta::HIGH_WATER, record)])
            .await
    }

    /// Writes a secret over the one of that name.
    ///
    /// # Errors
    /// If it is no secret's name, or cannot be written.
    pub fn import_secret(&self, name: &str, secret: [u8; 32]) -> Result<(), EngineError> {
        self.secrets.put(name, secret)
    }
}
