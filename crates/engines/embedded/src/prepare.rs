//! What a caller does before the committer is asked: everything that needs no knowledge of other commits.
//!
//! Limits are checked, keys and values are encoded, and events are cut to their envelopes on the caller's thread, so
//! that the one committer has little left to do for each row.

use crate::{
    encoding,
    log::topics::{Topic, Topics},
    tables::Tables,
};
use bytes::Bytes;
use holon_base::Timestamp;
use holon_ports::{Batch, Committed, Condition, NewEvent, Op, Partition, StoreError};
use std::sync::Arc;
use tokio::sync::oneshot;

/// A step on one row, ready to be decided and written.
#[derive(Debug)]
pub(crate) struct RowStep {
    /// Its place in the caller's commit, for errors.
    pub op: usize,
    pub key: Bytes,
    pub condition: Condition,
    pub write: Write,
}

#[derive(Debug)]
pub(crate) enum Write {
    Nothing,
    /// A whole value but for its version.
    Put(Vec<u8>, Option<Timestamp>),
    Delete,
    Add(i64, Option<Timestamp>),
}

impl RowStep {
    /// Whether the row as it is must be known.
    pub fn reads(&self) -> bool {
        self.condition != Condition::Any || matches!(self.write, Write::Add(..))
    }
}

/// An event but for its id, time and offset.
#[derive(Debug)]
pub(crate) struct EventStep {
    pub topic: Arc<Topic>,
    pub partition: u16,
    pub value: Vec<u8>,
}

/// One commit of a request: how many of the request's rows and events are its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub rows: usize,
    pub events: usize,
}

/// Commits that travel together to the committer; each is atomic, together they are not.
///
/// All rows lie in one vector and all events in another, so that a fan-out to a thousand partitions does not cost a
/// thousand vectors.
#[derive(Debug)]
pub(crate) struct CommitRequest {
    pub rows: Vec<RowStep>,
    pub events: Vec<EventStep>,
    /// In the caller's order; an error was found here already and is passed through.
    pub commits: Vec<Result<Span, StoreError>>,
    pub bytes: usize,
    pub answer: oneshot::Sender<Vec<Result<Committed, StoreError>>>,
}

/// Puts a request together.
pub(crate) struct Preparation<'a> {
    tables: &'a Tables,
    topics: &'a Topics,
    rows: Vec<RowStep>,
    events: Vec<EventStep>,
    commits: Vec<Result<Span, StoreError>>,
    bytes: usize,
}

impl<'a> Preparation<'a> {
    pub fn new(tables: &'a Tables, topics: &'a Topics, commits: usize) -> Self {
        Self {
            tables,
            topics,
            rows: Vec::with_capacity(commits),
            events: Vec::new(),
            commits: Vec::with_capacity(commits),
            bytes: 0,
        }
    }

    pub fn add(&mut self, partition: &Partition, batch: Batch) {
        let (rows, events) = (self.rows.len(), self.events.len());
        let bytes = batch.size();
        let prepared = batch
            .check_limits(partition)
            .and_then(|()| self.add_steps(partition, batch));
        if prepared.is_err() {
            self.rows.truncate(rows);
            self.events.truncate(events);
        } else {
            self.bytes += bytes;
        }
        self.commits.push(prepared.map(|()| Span {
            rows: self.rows.len() - rows,
            events: self.events.len() - events,
        }));
    }

    fn add_steps(&mut self, partition: &Partition, batch: Batch) -> Result<(), StoreError> {
        for (op, step) in batch.ops.into_iter().enumerate() {
            let (table, sort, condition, write) = match step {
                Op::Put {
                    table,
                    sort,
                    value,
                    condition,
                    expires,
                } => {
                    let write = Write::Put(encoding::row_value(&value, expires), expires);
                    (table, sort, condition, write)
                }
                Op::Delete {
                    table,
                    sort,
                    condition,
                } => (table, sort, condition, Write::Delete),
                Op::Add {
                    table,
                    sort,
                    delta,
                    expires,
                } => (table, sort, Condition::Any, Write::Add(delta, expires)),
                Op::Check {
                    table,
                    sort,
                    condition,
                } => (table, sort, condition, Write::Nothing),
                Op::Event(event) => {
                    let step = event_step(self.topics, &event).ok_or_else(|| {
                        StoreError::Invalid(format!("topic {} was not created", event.topic))
                    })?;
                    self.events.push(step);
                    continue;
                }
            };
            let table = self.tables.id(table.0)?;
            self.rows.push(RowStep {
                op,
                key: encoding::row_key(table, partition, &sort).into(),
                condition,
                write,
            });
        }
        Ok(())
    }

    /// True when there is nothing for the committer to do.
    pub fn is_refused(&self) -> bool {
        self.commits.iter().all(Result::is_err)
    }

    pub fn request(self, answer: oneshot::Sender<Vec<Result<Committed, StoreError>>>) -> CommitRequest {
        CommitRequest {
            rows: self.rows,
            events: self.events,
            commits: self.commits,
            bytes: self.bytes,
            answer,
        }
    }

    /// The answers of a request that is refused as a whole.
    pub fn refusals(self, why: &StoreError) -> Vec<Result<Committed, StoreError>> {
        self.commits
            .into_iter()
            .map(|commit| Err(commit.err().unwrap_or_else(|| why.clone())))
            .collect()
    }
}

/// `None` if there is no such topic.
pub(crate) fn event_step(topics: &Topics, event: &NewEvent) -> Option<EventStep> {
    let topic = topics.get(event.topic)?;
    Some(EventStep {
        partition: topic.partition_of(&event.tenant, &event.key),
        value: encoding::event_value(event),
        topic,
    })
}
