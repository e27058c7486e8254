//! Lanes: how concurrent commits share round trips and syncs.
//!
//! A shard has a few lanes, each one connection and one task. A partition's commits always take the same lane, so they
//! keep their order. A lane sends all commits that wait for it as one call of `holon.commit`, which decides each of them
//! alone and applies them in one transaction: one round trip, one sync of the write-ahead log (group commit: DeWitt et
//! al., 1984). While a call is under way the next commits gather, so that calls grow with the load and a lone commit
//! waits for nobody.
//!
//! Inside a call the partitions are locked in ascending order (no deadlocks), and commits to the same partition are put
//! in successive *waves*. A failed condition is an answer like any other and costs the others nothing. If the server
//! refuses a call as a whole, nothing of it has happened, and each commit is sent again by itself, so that one
//! that cannot be applied does not take others with it. If the answer is lost, all are told so and nothing is sent again.

use crate::{
    commit::{Action, Prepared},
    encoding::{EventRow, Place, StepRow},
    error::Trouble,
    link::{Link, Socket},
    shard::token,
};
use holon_base::Clock;
use holon_ports::{Committed, StoreError};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_postgres::{Row, types::PgLsn};

/// The most commits in a call: each takes a lock, and a server's table of locks has some thousands of places.
const CALL_COMMITS: usize = 256;
/// A call is closed once it has so many bytes.
const CALL_BYTES: usize = 4 << 20;
/// Commits that may wait for a lane; more wait at the door.
pub(crate) const QUEUE: usize = 1_024;
/// How often a call is sent again that had to give way to others.
const ATTEMPTS: u32 = 5;

const COMMIT: &str = "SELECT owned, versions, failed, reasons \
                      FROM holon.commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
/// What a replica must have replayed to have seen the commit: flushed, so that it is on its way to the replica.
const TOKEN: &str = "SELECT pg_current_wal_flush_lsn()";

const NO_COUNTER: i16 = 2;

/// A commit that waits for its lane.
pub(crate) struct Pending {
    pub prepared: Arc<Prepared>,
    pub slot: i32,
    /// The version of the directory that it was routed by.
    pub directory: i64,
    pub since: Instant,
    pub answer: oneshot::Sender<Answer>,
}

pub(crate) type Answer = Result<Outcome, StoreError>;

#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Committed(Committed),
    /// The shard does not take it: the directory that it was routed by is too old.
    Moved,
}

pub(crate) struct Lane {
    /// The number of the shard, for tokens.
    pub shard: i32,
    pub socket: Socket,
    pub waiting: mpsc::Receiver<Pending>,
    pub clock: Arc<dyn Clock>,
    pub patience: Duration,
    /// Told when events were committed.
    pub told: Arc<Notify>,
    pub stop: watch::Receiver<bool>,
}

impl Lane {
    /// Runs until it is stopped; what waits then is still sent.
    pub async fn run(mut self) {
        loop {
            let first = tokio::select! {
                first = self.waiting.recv() => first,
                _ = self.stop.changed(), if !self.waiting.is_closed() => {
                    self.waiting.close();
                    continue;
                }
            };
            let Some(first) = first else { return };
            // Whoever was just answered and is about to commit again gets to do so before the call is closed.
            tokio::task::yield_now().await;
            let mut bytes = first.prepared.bytes;
            let mut group = vec![first];
            while group.len() < CALL_COMMITS && bytes < CALL_BYTES {
                let Ok(next) = self.waiting.try_recv() else { break };
                bytes += next.prepared.bytes;
                group.push(next);
            }
            for (pending, answer) in self.settle(group).await {
                // Whoever no longer waits does not care.
                let _ = pending.answer.send(answer);
            }
        }
    }

    async fn settle(&self, group: Vec<Pending>) -> Vec<(Pending, Answer)> {
        let trouble = match self.send(&group).await {
            Ok(answers) => return group.into_iter().zip(answers).collect(),
            Err(trouble) => trouble,
        };
        if group.len() == 1 || !matches!(trouble, Trouble::Refused { .. }) {
            let error = trouble.of_write();
            return group
                .into_iter()
                .map(|pending| (pending, Err(error.clone())))
                .collect();
        }
        let mut answers = Vec::with_capacity(group.len());
        for pending in group {
            let one = [pending];
            let answer = match self.send(&one).await {
                Ok(mut answer) => answer.pop().unwrap_or_else(|| Err(malformed())),
                Err(trouble) => Err(trouble.of_write()),
            };
            answers.extend(one.into_iter().zip([answer]));
        }
        answers
    }

    /// Sends a call, and again for as long as it is certain that nothing has happened and that another time may go
    /// better.
    async fn send(&self, group: &[Pending]) -> Result<Vec<Answer>, Trouble> {
        let since = group
            .iter()
            .map(|pending| pending.since)
            .min()
            .unwrap_or_else(Instant::now);
        let deadline = since + self.patience;
        let mut attempt = 0;
        loop {
            let link = self.socket.link(deadline).await?;
            let trouble = match self.call(&link, group).await {
                Ok(answers) => return Ok(answers),
                Err(trouble) => trouble,
            };
            attempt += 1;
            let again = match &trouble {
                Trouble::Lost(_) => false,
                Trouble::Away(_) => Instant::now() < deadline,
                refused if refused.spoils_link() => Instant::now() < deadline,
                refused => refused.is_passing() && attempt < ATTEMPTS,
            };
            if !again {
                return Err(trouble);
            }
            tokio::time::sleep(Duration::from_millis(5) * attempt.min(20)).await;
        }
    }

    async fn call(&self, link: &Link, group: &[Pending]) -> Result<Vec<Answer>, Trouble> {
        let now = self.clock.now().millis();
        let call = Call::new(group);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 11] = [
            &call.directory,
            &now,
            &call.locks,
            &call.slots,
            &call.waves,
            &call.tables,
            &call.has_conditions,
            &call.has_writes,
            &call.has_deletes,
            &call.steps,
            &call.events,
        ];
        let (committed, token) = link.query_both((COMMIT, &params), (TOKEN, &[])).await?;
        let answers = read_answers(&committed, &token, self.shard, group.len())
            .ok_or_else(|| Trouble::Lost("the answer is malformed".into()))?;
        if !call.events.is_empty() {
            self.told.notify_one();
        }
        Ok(answers)
    }
}

fn malformed() -> StoreError {
    StoreError::Unknown("the answer is malformed".into())
}

/// The parameters of `holon.commit`.
struct Call<'a> {
    directory: i64,
    locks: Vec<i64>,
    slots: Vec<i32>,
    waves: Vec<i32>,
    tables: Vec<&'a str>,
    has_conditions: bool,
    has_writes: bool,
    has_deletes: bool,
    steps: Vec<StepRow<'a>>,
    events: Vec<EventRow<'a>>,
}

impl<'a> Call<'a> {
    fn new(group: &'a [Pending]) -> Self {
        let mut call = Self {
            directory: group.iter().map(|pending| pending.directory).min().unwrap_or(0),
            locks: group.iter().map(|pending| pending.prepared.lock).collect(),
            slots: group.iter().map(|pending| pending.slot).collect(),
            waves: Vec::with_capacity(group.len()),
            tables: Vec::new(),
            has_conditions: false,
            has_writes: false,
            has_deletes: false,
            steps: Vec::new(),
            events: Vec::new(),
        };
        let mut waves: HashMap<i64, i32> = HashMap::with_capacity(group.len());
        for (commit, pending) in (1..).zip(group) {
            let prepared = &*pending.prepared;
            let wave = waves.entry(prepared.lock).or_default();
            *wave += 1;
            call.waves.push(*wave);
            let place = Place { wave: *wave, commit };
            for step in &prepared.steps {
                call.has_conditions |= step.reads();
                call.has_writes |= step.action != Action::Nothing;
                call.has_deletes |= step.action == Action::Delete;
                let table = call.table(&step.table.relation);
                call.steps.push(StepRow {
                    place,
                    table,
                    prepared,
                    step,
                    slot: pending.slot,
                });
            }
            let events = prepared.events.iter();
            call.events
                .extend(events.map(|prepared| EventRow { place, prepared }));
        }
        call.locks.sort_unstable();
        call.locks.dedup();
        call
    }

    /// The number of a table in the call, from 1.
    fn table(&mut self, relation: &'a str) -> i32 {
        let place = self.tables.iter().position(|table| *table == relation);
        let place = place.unwrap_or_else(|| {
            self.tables.push(relation);
            self.tables.len() - 1
        });
        place as i32 + 1
    }
}

fn read_answers(committed: &[Row], position: &[Row], shard: i32, commits: usize) -> Option<Vec<Answer>> {
    let row = committed.first()?;
    if !row.try_get::<_, bool>(0).ok()? {
        return Some(vec![Ok(Outcome::Moved); commits]);
    }
    let token = token(shard, position.first()?.try_get::<_, PgLsn>(0).ok()?);
    let versions: Vec<Option<i64>> = row.try_get(1).ok()?;
    let failed: Vec<Option<i32>> = row.try_get(2).ok()?;
    let reasons: Vec<Option<i16>> = row.try_get(3).ok()?;
    let answer = |commit: usize| -> Option<Answer> {
        let op = failed.get(commit)?.and_then(|op| usize::try_from(op).ok());
        Some(match (op, reasons.get(commit)?) {
            (Some(op), Some(NO_COUNTER)) => Err(StoreError::NotACounter { op }),
            (Some(op), _) => Err(StoreError::ConditionFailed { op }),
            (None, _) => Ok(Outcome::Committed(Committed {
                version: u64::try_from((*versions.get(commit)?)?).ok()?,
                token,
                positions: Vec::new(),
            })),
        })
    };
    (0..commits).map(answer).collect()
}
