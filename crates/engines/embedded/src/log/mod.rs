//! The Log port: events in the same database as the rows.
//!
//! The committer numbers the events of each partition and writes them in the batch of the commit that tells them; so
//! offsets have no gaps, and an event is there if and only if what it tells of is. What is published of a partition
//! (its bounds, bytes and last time) is in memory, found again at the start from the keys.
//!
//! | file | idea |
//! |---|---|
//! | [`topics`] | topics and partitions |
//! | [`groups`] | who reads which partition, and how far: division, fencing, redelivery |
//! | [`member`] | the loop of one member: wait, read, hand out |
//! | [`dead`] | events that a group gave up on |
//! | [`retention`] | dropping the oldest events |

pub(crate) mod dead;
pub(crate) mod groups;
pub(crate) mod member;
pub(crate) mod retention;
pub(crate) mod topics;

use crate::{
    committer::{Message, RawWrite},
    encoding::{self, meta},
    files::{Files, as_log_error, read_error, read_u64},
    prepare::{CommitRequest, Span, event_step},
    shared::{Shared, closed},
    tables,
};
use async_trait::async_trait;
use groups::Group;
use holon_base::{Timestamp, limits};
use holon_ports::{
    Event, Log, LogError, Member, NewEvent, Position, StoreError, TopicSpec,
    log::{Bounds, DeadLetter, Progress, Rewind},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;
use topics::{PartitionState, Retention, Topic};

/// The most bytes of events that one read hands out, beyond its first event.
const READ_BYTES: usize = 8 << 20;
const NO_LIMIT: u64 = u64::MAX;

pub(crate) struct EmbeddedLog(pub Arc<Shared>);

/// What an event with a value of this size takes.
pub(crate) fn event_bytes(value: usize) -> u64 {
    12 + value as u64
}

/// Reads events of a partition; `from` must not be below its first event.
pub(crate) fn read_events(
    shared: &Shared,
    topic: &Topic,
    partition: u16,
    from: u64,
    max: usize,
) -> Result<Vec<Event>, StoreError> {
    let Some(state) = topic.state(partition) else {
        return Ok(Vec::new());
    };
    if from >= state.next || max == 0 {
        return Ok(Vec::new());
    }
    let range =
        encoding::event_key(topic.id, partition, from)..encoding::event_key(topic.id, partition, state.next);
    let files = shared.files()?;
    let mut events = Vec::with_capacity(max.min((state.next - from) as usize).min(1_024));
    let mut bytes = 0;
    for guard in files.events.range(range).take(max) {
        let (key, value) = guard.into_inner().map_err(|error| read_error(&error))?;
        bytes += value.len();
        let event = encoding::event_offset(&key)
            .and_then(|offset| encoding::event(Position { partition, offset }, value))
            .map_err(|damaged| StoreError::Corrupt(format!("topic {}: {damaged}", topic.name)))?;
        events.push(event);
        if bytes >= READ_BYTES {
            break;
        }
    }
    Ok(events)
}

/// When the event at an offset was told; `None` if it is not kept.
fn time_at(
    shared: &Shared,
    topic: &Topic,
    partition: u16,
    offset: u64,
) -> Result<Option<Timestamp>, StoreError> {
    let value = shared
        .files()?
        .events
        .get(encoding::event_key(topic.id, partition, offset))
        .map_err(|error| read_error(&error))?;
    value
        .map(|value| encoding::event_time(&value))
        .transpose()
        .map_err(|damaged| StoreError::Corrupt(damaged.to_string()))
}

/// The first offset whose event was told at or after a time. Times do not go back within a partition, so this is a
/// binary search.
fn offset_at(shared: &Shared, topic: &Topic, partition: u16, time: Timestamp) -> Result<u64, StoreError> {
    let bounds = topic.bounds(partition).unwrap_or_default();
    let (mut low, mut high) = (bounds.first, bounds.next);
    while low < high {
        let middle = low + (high - low) / 2;
        // An event that was dropped meanwhile was older than all that are kept.
        let is_before = time_at(shared, topic, partition, middle)?.is_none_or(|told| told < time);
        if is_before {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn encode_spec(id: u16, spec: &TopicSpec) -> Vec<u8> {
    let age = spec.max_age.map_or(NO_LIMIT, |age| age.as_millis() as u64);
    let mut out = Vec::with_capacity(20);
    out.extend(id.to_be_bytes());
    out.extend(spec.partitions.to_be_bytes());
    out.extend(age.to_be_bytes());
    out.extend(spec.max_bytes.unwrap_or(NO_LIMIT).to_be_bytes());
    out
}

fn retention_of(spec: &TopicSpec) -> Retention {
    Retention {
        max_age: spec.max_age,
        max_bytes: spec.max_bytes,
    }
}

/// Finds the topics and how far each of their partitions is.
pub(crate) fn recover(shared: &Shared) -> Result<(), StoreError> {
    for (key, value) in shared.meta_with_prefix(meta::TOPICS)? {
        let damaged = || StoreError::Corrupt("the record of a topic is malformed".into());
        let name = std::str::from_utf8(&key[meta::TOPICS.len()..]).map_err(|_| damaged())?;
        let number = |at: usize| Some(u16::from_be_bytes(value.get(at..at + 2)?.try_into().ok()?));
        let (id, partitions) = number(0).zip(number(2)).ok_or_else(damaged)?;
        let limit = |at| read_u64(&value, at).map(|limit| (limit != NO_LIMIT).then_some(limit));
        let (max_age, max_bytes) = limit(4).zip(limit(12)).ok_or_else(damaged)?;
        let retention = Retention {
            max_age: max_age.map(Duration::from_millis),
            max_bytes,
        };
        let files = shared.files()?;
        let partitions = (0..partitions)
            .map(|partition| recover_partition(&files, id, partition))
            .collect::<Result<_, _>>()?;
        drop(files);
        // Names of topics are few and live as long as the process, as those in the code do.
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        shared
            .topics
            .insert(Arc::new(Topic::new(id, name, retention, partitions)));
    }
    groups::recover(shared)
}

fn recover_partition(files: &Files, topic: u16, partition: u16) -> Result<PartitionState, StoreError> {
    let read = |error: fjall::Error| read_error(&error);
    let saved = files.meta.get(meta::partition(topic, partition)).map_err(read)?;
    let saved = saved
        .map(|record| retention::decode(&record))
        .transpose()?
        .unwrap_or_default();
    let mut state = PartitionState {
        first: saved.first,
        next: saved.counted_to.max(saved.first),
        bytes: saved.bytes,
        last_time: Timestamp::from_millis(i64::MIN),
    };
    // Only what was told since the record was written is counted anew.
    let end = encoding::event_key(topic, partition, u64::MAX);
    for guard in files
        .events
        .range(encoding::event_key(topic, partition, state.next)..=end)
    {
        let (key, value) = guard.into_inner().map_err(read)?;
        let offset =
            encoding::event_offset(&key).map_err(|damaged| StoreError::Corrupt(damaged.to_string()))?;
        if offset != state.next {
            return Err(StoreError::Corrupt(format!(
                "partition {partition} of topic {topic} has no event {} but has {offset}",
                state.next
            )));
        }
        state.next = offset + 1;
        state.bytes += event_bytes(value.len());
    }
    if state.next > state.first {
        let last = files
            .events
            .get(encoding::event_key(topic, partition, state.next - 1))
            .map_err(read)?
            .ok_or_else(|| {
                StoreError::Corrupt(format!(
                    "the last event of partition {partition} of topic {topic} is gone"
                ))
            })?;
        state.last_time =
            encoding::event_time(&last).map_err(|damaged| StoreError::Corrupt(damaged.to_string()))?;
    }
    Ok(state)
}

impl EmbeddedLog {
    fn topic(&self, name: &str) -> Result<Arc<Topic>, LogError> {
        self.0
            .topics
            .get(name)
            .ok_or_else(|| LogError::NoSuchTopic(name.to_owned()))
    }

    fn group(&self, name: &str, topic: &str) -> Result<Arc<Group>, LogError> {
        let topic = self.topic(topic)?;
        if !tables::is_name(name) {
            return Err(LogError::Invalid(format!(
                "a group's name is 1 to 64 of a-z, 0-9, '.' and '_'; got {name:?}"
            )));
        }
        Ok(self.0.groups.get_or_create(name, &topic))
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        if !tables::is_name(spec.name) {
            return Err(LogError::Invalid(format!(
                "a topic's name is 1 to 64 of a-z, 0-9, '.' and '_'; got {:?}",
                spec.name
            )));
        }
        if spec.partitions == 0 {
            return Err(LogError::Invalid(format!(
                "topic {} needs a partition",
                spec.name
            )));
        }
        let existing = self.0.topics.get(spec.name);
        let id = match &existing {
            Some(topic) if topic.spec() == *spec => return Ok(()),
            Some(topic) if topic.partitions.len() != usize::from(spec.partitions) => {
                return Err(LogError::Invalid(format!(
                    "topic {} has {} partitions and cannot get {}, since keys would move",
                    spec.name,
                    topic.partitions.len(),
                    spec.partitions
                )));
            }
            Some(topic) => topic.id,
            None => self
                .0
                .topics
                .next_id()
                .ok_or_else(|| LogError::Invalid("there are too many topics".into()))?,
        };
        self.0
            .write_raw(vec![RawWrite::meta(
                meta::topic(spec.name),
                encode_spec(id, spec),
            )])
            .await
            .map_err(as_log_error)?;
        match existing {
            Some(topic) => *topic.retention.lock() = retention_of(spec),
            None => {
                let empty = PartitionState {
                    last_time: Timestamp::from_millis(i64::MIN),
                    ..PartitionState::default()
                };
                let partitions = vec![empty; usize::from(spec.partitions)];
                let topic = Topic::new(id, spec.name, retention_of(spec), partitions);
                self.0.topics.insert(Arc::new(topic));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn create_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let _one_at_a_time = self.0.creation.lock().await;
        for spec in topics {
            self.create_topic(spec).await?;
        }
        Ok(())
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        Ok(self.0.topics.all().iter().map(|topic| topic.spec()).collect())
    }

    async fn append(&self, events: Vec<NewEvent>) -> Result<Vec<Position>, LogError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        self.0.admit().map_err(as_log_error)?;
        let bytes: usize = events.iter().map(NewEvent::size).sum();
        if bytes > limits::COMMIT_BYTES {
            return Err(LogError::TooLarge {
                what: "append",
                size: bytes,
                limit: limits::COMMIT_BYTES,
            });
        }
        let mut steps = Vec::with_capacity(events.len());
        for event in &events {
            event.check_limits().map_err(as_log_error)?;
            let step = event_step(&self.0.topics, event);
            steps.push(step.ok_or_else(|| LogError::NoSuchTopic(event.topic.to_owned()))?);
        }
        let (answer, answered) = oneshot::channel();
        let request = CommitRequest {
            rows: Vec::new(),
            commits: vec![Ok(Span {
                rows: 0,
                events: steps.len(),
            })],
            events: steps,
            bytes,
            answer,
        };
        self.0
            .send(Message::Commit(request))
            .await
            .map_err(as_log_error)?;
        let results = answered.await.map_err(|_| as_log_error(closed()))?;
        let committed = results.into_iter().next().unwrap_or_else(|| Err(closed()));
        Ok(committed.map_err(as_log_error)?.positions)
    }

    async fn read(&self, topic: &str, partition: u16, from: u64, max: usize) -> Result<Vec<Event>, LogError> {
        let bounds = self.bounds(topic, partition).await?;
        let topic = self.topic(topic)?;
        read_events(&self.0, &topic, partition, from.max(bounds.first), max).map_err(as_log_error)
    }

    async fn bounds(&self, topic: &str, partition: u16) -> Result<Bounds, LogError> {
        let topic = self.topic(topic)?;
        topic.bounds(partition).ok_or_else(|| {
            LogError::Invalid(format!(
                "topic {} has {} partitions and no partition {partition}",
                topic.name,
                topic.partitions.len()
            ))
        })
    }

    async fn join(&self, group: &str, topic: &str) -> Result<Box<dyn Member>, LogError> {
        if self.0.is_closed() {
            return Err(as_log_error(closed()));
        }
        let group = self.group(group, topic)?;
        Ok(Box::new(member::EmbeddedMember::join(Arc::clone(&self.0), group)))
    }

    async fn progress(&self, group: &str, topic: &str) -> Result<Vec<Progress>, LogError> {
        let topic = self.topic(topic)?;
        let committed = match self.0.groups.get(group, topic.id) {
            Some(group) => group.committed(),
            None => vec![0; topic.partitions.len()],
        };
        let mut progress = Vec::with_capacity(committed.len());
        for (partition, committed) in (0_u16..).zip(committed) {
            let bounds = topic.bounds(partition).unwrap_or_default();
            // A group that was overtaken by retention goes on at the first event kept.
            let committed = committed.max(bounds.first);
            let oldest = if committed < bounds.next {
                time_at(&self.0, &topic, partition, committed).map_err(as_log_error)?
            } else {
                None
            };
            progress.push(Progress {
                partition,
                committed,
                next: bounds.next,
                oldest,
            });
        }
        Ok(progress)
    }

    async fn groups(&self) -> Result<Vec<(String, String)>, LogError> {
        Ok(self.0.groups.names())
    }

    async fn rewind(&self, group: &str, topic: &str, to: Rewind) -> Result<(), LogError> {
        let group = self.group(group, topic)?;
        let topic = &group.topic;
        let mut targets = Vec::with_capacity(topic.partitions.len());
        for partition in 0..topic.partitions.len() as u16 {
            let bounds = topic.bounds(partition).unwrap_or_default();
            let target = match to {
                Rewind::Start => bounds.first,
                Rewind::End => bounds.next,
                Rewind::Time(time) => offset_at(&self.0, topic, partition, time).map_err(as_log_error)?,
                Rewind::Offset(position) if position.partition != partition => continue,
                Rewind::Offset(position) if position.offset > bounds.next => {
                    return Err(LogError::Invalid(format!(
                        "partition {partition} of {} ends at {}, before {}",
                        topic.name, bounds.next, position.offset
                    )));
                }
                Rewind::Offset(position) => position.offset.max(bounds.first),
            };
            targets.push((partition, target));
        }
        if targets.is_empty() {
            return Err(LogError::Invalid(format!(
                "topic {} has no such partition",
                topic.name
            )));
        }
        group.rewind(&self.0, &targets);
        // The new offsets travel with this empty write, which is synced: what an operator did stays done.
        self.0.write_raw(Vec::new()).await.map_err(as_log_error)
    }

    async fn bury(
        &self,
        group: &str,
        topic: &str,
        event: &Event,
        error: &str,
        attempts: u32,
    ) -> Result<(), LogError> {
        let group = self.group(group, topic)?;
        dead::bury(&self.0, &group, event, error, attempts)
            .await
            .map_err(as_log_error)
    }

    async fn dead_letters(
        &self,
        group: &str,
        topic: &str,
        from: u64,
        max: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        let topic = self.topic(topic)?;
        dead::list(&self.0, &topic, group, from, max).map_err(as_log_error)
    }

    async fn unbury(&self, group: &str, topic: &str, number: u64) -> Result<Option<DeadLetter>, LogError> {
        let topic = self.topic(topic)?;
        let Some(group) = self.0.groups.get(group, topic.id) else {
            return Ok(None);
        };
        dead::unbury(&self.0, &group, number).await.map_err(as_log_error)
    }
}
