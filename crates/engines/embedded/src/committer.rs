//! The committer: one thread that makes every change.
//!
//! Callers put requests into a bounded queue. The committer takes all that wait (group commit: DeWitt et al.,
//! "Implementation Techniques for Main Memory Database Systems", 1984), decides each commit in turn against the rows
//! as they are and as the commits before it in the group leave them, gathers the writes of all into one batch, writes
//! that to the journal with one sync, and only then answers. While it syncs, the next group gathers: the more callers
//! there are, the less each sync costs.
//!
//! One thread that decides is what makes commits serialisable, over all partitions and not only within one. fjall
//! applies a batch to memory after the journal has it, so nobody reads what could still be lost.
//!
//! When the journal cannot be written, nobody can say how much of the group is on disk. Its callers are told that
//! the outcome is unknown, and from then on everything is refused until the engine is opened again: an fsync that
//! failed once must not be tried again (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).

use crate::{
    encoding::{self, RowHead, meta},
    files::{Files, is_full, read_error},
    log::topics::Topic,
    prepare::{CommitRequest, EventStep, RowStep, Span, Write},
    shared::Shared,
};
use bytes::Bytes;
use fjall::{OwnedWriteBatch, PersistMode, Slice};
use holon_base::Timestamp;
use holon_ports::{Committed, Condition, Position, StoreError, Value, store::WriteToken};
use std::{collections::HashMap, sync::Arc, time::Instant};
use tokio::sync::{mpsc, oneshot};

/// A group takes no more requests once it has this much, so that one huge fan-out does not hold up all others.
const GROUP_BYTES: usize = 8 << 20;

/// What a row of the engine's own goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Only where nobody else writes rows: what commits decide by is not told.
    Rows,
    Expiry,
    Events,
    Meta,
}

/// A write of the engine's own records.
#[derive(Debug)]
pub(crate) struct RawWrite {
    pub place: Place,
    pub key: Vec<u8>,
    /// `None` removes it.
    pub value: Option<Vec<u8>>,
}

impl RawWrite {
    pub fn meta(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            place: Place::Meta,
            key: key.into(),
            value: Some(value.into()),
        }
    }

    fn weight(&self) -> usize {
        64 + self.value.as_ref().map_or(0, Vec::len)
    }

    pub fn remove(place: Place, key: impl Into<Vec<u8>>) -> Self {
        Self {
            place,
            key: key.into(),
            value: None,
        }
    }
}

pub(crate) enum Message {
    Commit(CommitRequest),
    /// Writes of the engine's own, atomic. Without `durable` they are on disk after the next sync.
    Raw {
        writes: Vec<RawWrite>,
        durable: bool,
        answer: Option<oneshot::Sender<Result<(), StoreError>>>,
    },
    /// Removes the rows that these entries of the expiry index lead to, where they are still to be removed.
    Sweep {
        entries: Vec<Slice>,
        answer: oneshot::Sender<Result<u64, StoreError>>,
    },
    Stop,
}

/// Who is told what once the group is durable.
enum Answer {
    Commits(
        oneshot::Sender<Vec<Result<Committed, StoreError>>>,
        Vec<Result<Committed, StoreError>>,
    ),
    Raw(oneshot::Sender<Result<(), StoreError>>),
    Sweep(oneshot::Sender<Result<u64, StoreError>>, Result<u64, StoreError>),
}

pub(crate) struct Committer {
    shared: Arc<Shared>,
    files: Files,
    queue: mpsc::Receiver<Message>,
    /// The last sequence number given to a commit; the version of what that commit wrote.
    sequence: u64,
    /// [`Group::rows`] of the next group: empty, and as large as it was needed before.
    rows: HashMap<Bytes, GroupRow>,
}

/// What is gathered for one journal write.
struct Group {
    batch: OwnedWriteBatch,
    /// The rows that this group read or wrote. Only what is left at the end is written: a batch must not hold a row
    /// twice, and a counter that sixty callers add to is one write.
    rows: HashMap<Bytes, GroupRow>,
    told: HashMap<(u16, u16), Told>,
    answers: Vec<Answer>,
    now: Timestamp,
    durable: bool,
    first_expiry: i64,
    tally: Tally,
}

/// A row as the commits so far leave it.
struct GroupRow {
    head: Option<RowHead>,
    write: RowWrite,
}

enum RowWrite {
    /// Only read.
    Nothing,
    Put(Vec<u8>),
    Remove,
}

/// Where a partition that got events will be once the group is durable.
struct Told {
    topic: Arc<Topic>,
    next: u64,
    last_time: Timestamp,
    added_bytes: u64,
}

#[derive(Default)]
struct Tally {
    commits: u64,
    refused: u64,
    rows: u64,
    events: u64,
}

impl Drop for Committer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.fail("the committer panicked".into());
        }
    }
}

impl Committer {
    pub fn new(shared: Arc<Shared>, files: Files, queue: mpsc::Receiver<Message>, sequence: u64) -> Self {
        files.set_published(sequence);
        Self {
            shared,
            files,
            queue,
            sequence,
            rows: HashMap::new(),
        }
    }

    /// Works until it is told to stop, or nobody is left to ask for anything.
    pub fn run(mut self) {
        let mut messages = Vec::new();
        while let Some(first) = self.queue.blocking_recv() {
            let mut bytes = weight(&first);
            messages.push(first);
            while bytes < GROUP_BYTES {
                let Ok(next) = self.queue.try_recv() else { break };
                bytes += weight(&next);
                messages.push(next);
            }
            let stop = messages.iter().any(|message| matches!(message, Message::Stop));
            self.commit_group(std::mem::take(&mut messages));
            if stop {
                break;
            }
        }
    }

    fn commit_group(&mut self, messages: Vec<Message>) {
        let room = self.has_room();
        let mut group = Group {
            batch: self.files.db.batch(),
            rows: std::mem::take(&mut self.rows),
            told: HashMap::new(),
            answers: Vec::with_capacity(messages.len()),
            now: self.shared.clock.now(),
            durable: false,
            first_expiry: i64::MAX,
            tally: Tally::default(),
        };
        for message in messages {
            match message {
                Message::Commit(request) => self.take_commits(&mut group, request, &room),
                Message::Raw {
                    writes,
                    durable,
                    answer,
                } => {
                    group.durable |= durable;
                    for write in writes {
                        self.raw_write(&mut group.batch, write);
                    }
                    group.answers.extend(answer.map(Answer::Raw));
                }
                Message::Sweep { entries, answer } => {
                    let swept = self.sweep(&mut group, &entries);
                    group.answers.push(Answer::Sweep(answer, swept));
                }
                Message::Stop => group.durable = true,
            }
        }
        self.add_offsets(&mut group.batch);
        self.write(group);
    }

    fn has_room(&self) -> Result<(), StoreError> {
        self.shared.admit()?;
        let options = &self.shared.options;
        match (options.free_space.0)(&options.dir) {
            Ok(free) if free < options.reserve_bytes => Err(StoreError::Full),
            // A file system that cannot say how full it is will say so when it is written to.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn take_commits(&mut self, group: &mut Group, request: CommitRequest, room: &Result<(), StoreError>) {
        let CommitRequest {
            rows,
            events,
            commits,
            answer,
            ..
        } = request;
        let mut rows = rows.into_iter();
        let mut events = events.into_iter();
        let mut answers = Vec::with_capacity(commits.len());
        for commit in commits {
            let result = commit.and_then(|span| {
                let steps: Vec<RowStep> = (&mut rows).take(span.rows).collect();
                let told = (&mut events).take(span.events);
                match room {
                    Ok(()) => self.take_commit(group, steps, told, span),
                    Err(why) => {
                        told.for_each(drop);
                        Err(why.clone())
                    }
                }
            });
            match &result {
                Ok(_) => group.tally.commits += 1,
                Err(_) => group.tally.refused += 1,
            }
            answers.push(result);
        }
        group.answers.push(Answer::Commits(answer, answers));
    }

    /// Decides one commit, and adds its writes to the group if it may happen.
    fn take_commit(
        &mut self,
        group: &mut Group,
        steps: Vec<RowStep>,
        events: impl Iterator<Item = EventStep>,
        span: Span,
    ) -> Result<Committed, StoreError> {
        // Conditions see the rows as they were before the commit, so all are decided before anything is written.
        if let Err(refusal) = steps.iter().try_for_each(|step| self.decide(group, step)) {
            events.for_each(drop);
            return Err(refusal);
        }
        self.sequence += 1;
        for step in steps {
            self.write_step(group, step);
        }
        let positions = events.map(|event| self.tell(group, event)).collect();
        group.durable |= span.rows + span.events > 0;
        group.tally.rows += span.rows as u64;
        group.tally.events += span.events as u64;
        Ok(Committed {
            version: self.sequence,
            token: WriteToken(self.sequence),
            positions,
        })
    }

    fn decide(&self, group: &mut Group, step: &RowStep) -> Result<(), StoreError> {
        if !step.reads() {
            return Ok(());
        }
        let row = self.look_up(group, &step.key)?;
        let holds = match step.condition {
            Condition::Any => true,
            Condition::Absent => row.is_none(),
            Condition::Present => row.is_some(),
            Condition::Version(version) => row.is_some_and(|row| row.version == version),
        };
        if !holds {
            return Err(StoreError::ConditionFailed { op: step.op });
        }
        let is_add = matches!(step.write, Write::Add(..));
        if is_add && row.is_some_and(|row| row.counter.is_none()) {
            return Err(StoreError::NotACounter { op: step.op });
        }
        Ok(())
    }

    /// The row as the commits before this one leave it; `None` if it is not there or expired.
    fn look_up(&self, group: &mut Group, key: &Bytes) -> Result<Option<RowHead>, StoreError> {
        let head = match group.rows.get(key) {
            Some(row) => row.head,
            None => {
                let value = self.files.rows.get(key).map_err(|error| read_error(&error))?;
                let head = value
                    .map(|value| encoding::row_head(&value))
                    .transpose()
                    .map_err(|damaged| StoreError::Corrupt(damaged.to_string()))?;
                let write = RowWrite::Nothing;
                group.rows.insert(key.clone(), GroupRow { head, write });
                head
            }
        };
        Ok(head.filter(|head| !encoding::is_expired(head.expires, group.now)))
    }

    fn write_step(&self, group: &mut Group, step: RowStep) {
        let (value, expires) = match step.write {
            Write::Nothing => return,
            Write::Delete => {
                let removed = GroupRow {
                    head: None,
                    write: RowWrite::Remove,
                };
                group.rows.insert(step.key, removed);
                return;
            }
            Write::Put(value, expires) => (value, expires),
            Write::Add(delta, expires) => {
                // It was looked up when the commit was decided, or written by an earlier step of it.
                let row = group
                    .rows
                    .get(&step.key)
                    .and_then(|row| row.head)
                    .filter(|row| !encoding::is_expired(row.expires, group.now));
                let count = row.and_then(|row| row.counter).unwrap_or(0).saturating_add(delta);
                let expires = expires.or(row.and_then(|row| row.expires));
                (encoding::row_value(&Value::Counter(count), expires), expires)
            }
        };
        self.put(group, step.key, value, expires);
    }

    fn put(&self, group: &mut Group, key: Bytes, mut value: Vec<u8>, expires: Option<Timestamp>) {
        encoding::set_version(&mut value, self.sequence);
        if let Some(expires) = expires {
            let entry = encoding::expiry_key(expires, &key);
            group
                .batch
                .insert(&self.files.expiry, entry, Slice::from(Bytes::new()));
            group.first_expiry = group.first_expiry.min(expires.millis());
        }
        let row = GroupRow {
            head: encoding::row_head(&value).ok(),
            write: RowWrite::Put(value),
        };
        group.rows.insert(key, row);
    }

    /// Gives an event its id, its time and its place.
    fn tell(&self, group: &mut Group, event: EventStep) -> Position {
        let EventStep {
            topic,
            partition,
            mut value,
        } = event;
        let told = group.told.entry((topic.id, partition)).or_insert_with(|| {
            let state = topic.state(partition).unwrap_or_default();
            Told {
                topic: Arc::clone(&topic),
                next: state.next,
                last_time: state.last_time,
                added_bytes: 0,
            }
        });
        let offset = told.next;
        told.next += 1;
        told.last_time = told.last_time.max(group.now);
        told.added_bytes += crate::log::event_bytes(value.len());
        encoding::set_event_id(&mut value, self.shared.ids.next(), told.last_time);
        let key = encoding::event_key(topic.id, partition, offset);
        group.batch.insert(&self.files.events, key, value);
        Position { partition, offset }
    }

    fn raw_write(&self, batch: &mut OwnedWriteBatch, write: RawWrite) {
        let keyspace = match write.place {
            Place::Rows => &self.files.rows,
            Place::Expiry => &self.files.expiry,
            Place::Events => &self.files.events,
            Place::Meta => &self.files.meta,
        };
        match write.value {
            Some(value) => batch.insert(keyspace, write.key, value),
            None => batch.remove(keyspace, write.key),
        }
    }

    fn sweep(&self, group: &mut Group, entries: &[Slice]) -> Result<u64, StoreError> {
        let mut swept = 0;
        for entry in entries {
            let damaged = |damaged: encoding::Damaged| StoreError::Corrupt(damaged.to_string());
            let (expires, row_key) = encoding::split_expiry_key(entry).map_err(damaged)?;
            if expires > group.now {
                continue;
            }
            let row_key = Bytes::from(entry.clone()).slice_ref(row_key);
            let head = match group.rows.get(&row_key) {
                Some(row) => row.head,
                None => {
                    let value = self
                        .files
                        .rows
                        .get(&row_key)
                        .map_err(|error| read_error(&error))?;
                    let head = value.map(|value| encoding::row_head(&value)).transpose();
                    head.map_err(damaged)?
                }
            };
            // A row that was written again since has another expiry, and another entry if it has one.
            if head.is_some_and(|head| head.expires == Some(expires)) {
                let removed = GroupRow {
                    head: None,
                    write: RowWrite::Remove,
                };
                group.rows.insert(row_key, removed);
                swept += 1;
            }
            group.batch.remove(&self.files.expiry, entry.clone());
        }
        Ok(swept)
    }

    /// The offsets that were committed since the last group travel with this one.
    fn add_offsets(&self, batch: &mut OwnedWriteBatch) {
        let offsets = std::mem::take(&mut *self.shared.offsets.lock());
        for (key, offset) in offsets {
            batch.insert(&self.files.meta, key, offset.to_be_bytes());
        }
    }

    fn write(&mut self, mut group: Group) {
        // In order, since each then goes into the memtable next to the one before, whose neighbourhood is in the cache.
        let mut writes: Vec<_> = group.rows.drain().collect();
        writes.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (key, row) in writes {
            match row.write {
                RowWrite::Nothing => {}
                RowWrite::Put(value) => group.batch.insert(&self.files.rows, key, value),
                RowWrite::Remove => group.batch.remove(&self.files.rows, key),
            }
        }
        self.rows = std::mem::take(&mut group.rows);
        if group.batch.is_empty() {
            self.answer(group);
            return;
        }
        if group.tally.commits > 0 {
            // Ids that callers took for what they commit are below this one, so none is given out twice.
            let high_water = [self.sequence, self.shared.ids.next().as_u64()];
            group.batch.insert(
                &self.files.meta,
                meta::HIGH_WATER,
                high_water.map(u64::to_be_bytes).concat(),
            );
        }
        let mode = if group.durable {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        let began = Instant::now();
        let batch = std::mem::replace(&mut group.batch, self.files.db.batch());
        if let Err(error) = self.files.write(batch.durability(Some(mode)), self.sequence) {
            // After a background write failed, fjall refuses before it writes anything.
            let was_not_tried = matches!(error, fjall::Error::Poisoned);
            let why = if is_full(&error) {
                "no space left on the device".to_owned()
            } else if was_not_tried {
                "a write in the background failed; the disk may be full or broken".to_owned()
            } else {
                format!("{error:?}")
            };
            let refusal = if was_not_tried {
                StoreError::Unavailable(why.clone())
            } else {
                StoreError::Unknown(why.clone())
            };
            self.shared.fail(why);
            refuse(group.answers, &refusal);
            return;
        }
        if group.durable {
            let Tally {
                commits,
                refused,
                rows,
                events,
            } = group.tally;
            self.shared
                .counters
                .count_group(commits, refused, rows, events, began.elapsed());
        }
        if group.first_expiry != i64::MAX {
            self.shared.expects_expiry(group.first_expiry);
        }
        self.publish(&mut group);
        self.answer(group);
    }

    /// Shows the events that are now durable to readers.
    fn publish(&self, group: &mut Group) {
        let mut topics: HashMap<u16, Arc<Topic>> = HashMap::new();
        for ((_, partition), told) in group.told.drain() {
            let Told {
                topic,
                next,
                last_time,
                added_bytes,
            } = told;
            if let Some(state) = topic.partitions.get(usize::from(partition)) {
                let mut state = state.lock();
                state.next = next;
                state.last_time = last_time;
                state.bytes += added_bytes;
            }
            topics.entry(topic.id).or_insert(topic);
        }
        for topic in topics.values() {
            topic.wake();
        }
    }

    fn answer(&self, group: Group) {
        for answer in group.answers {
            // Who asked may have gone away; what was done stays done.
            match answer {
                Answer::Commits(to, results) => drop(to.send(results)),
                Answer::Raw(to) => drop(to.send(Ok(()))),
                Answer::Sweep(to, swept) => drop(to.send(swept)),
            }
        }
    }
}

/// Tells everyone in a group that its journal write failed.
fn refuse(answers: Vec<Answer>, why: &StoreError) {
    for answer in answers {
        match answer {
            Answer::Commits(to, results) => {
                // What was refused before the write did not happen for certain, and keeps its own answer.
                let results = results.into_iter().map(|result| result.and(Err(why.clone())));
                drop(to.send(results.collect()));
            }
            Answer::Raw(to) => drop(to.send(Err(why.clone()))),
            Answer::Sweep(to, _) => drop(to.send(Err(why.clone()))),
        }
    }
}

fn weight(message: &Message) -> usize {
    match message {
        Message::Commit(request) => request.bytes,
        Message::Raw { writes, .. } => writes.iter().map(RawWrite::weight).sum(),
        Message::Sweep { entries, .. } => entries.len() * 64,
        Message::Stop => GROUP_BYTES,
    }
}
