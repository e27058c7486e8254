//! What a caller does before a commit is sent: everything that needs no knowledge of other commits.

use crate::{
    directory::hash,
    encoding::{escape, is_queryable},
    tables::{TableSql, Tables},
};
use bytes::Bytes;
use holon_base::{Id, IdGenerator, Tenant, Timestamp};
use holon_ports::{Batch, Condition, NewEvent, Op, Partition, StoreError, Table, Value};
use serde::de::IgnoredAny;
use std::{collections::HashMap, sync::Arc};

/// What a step does to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing = 0,
    Put = 1,
    Delete = 2,
    Add = 3,
}

pub(crate) const JSON: i16 = 0;
pub(crate) const BINARY: i16 = 1;
pub(crate) const COUNTER: i16 = 2;

/// A step on one row.
#[derive(Debug)]
pub(crate) struct Step {
    /// Its place in the caller's batch, for errors.
    pub op: usize,
    pub table: Arc<TableSql>,
    pub sort: Bytes,
    pub condition: Condition,
    pub action: Action,
    pub kind: i16,
    pub bytes: Option<Bytes>,
    pub queryable: bool,
    pub counter: Option<i64>,
    pub extra: i64,
    pub low: i64,
    pub high: i64,
    /// Of an add: what the row held counts for nothing.
    pub fresh: bool,
    pub expires: Option<Timestamp>,
}

impl Step {
    fn new(op: usize, table: Arc<TableSql>, sort: Bytes, condition: Condition, action: Action) -> Self {
        Self {
            op,
            table,
            sort,
            condition,
            action,
            kind: JSON,
            bytes: None,
            queryable: false,
            counter: None,
            extra: 0,
            low: i64::MIN,
            high: i64::MAX,
            fresh: false,
            expires: None,
        }
    }

    /// Whether the row as it is must be known.
    pub fn reads(&self) -> bool {
        self.condition != Condition::Any || self.action == Action::Add
    }

    /// As `holon.step` has it.
    pub fn condition_row(&self) -> (i16, Option<i64>) {
        match self.condition {
            Condition::Any => (0, None),
            Condition::Absent => (1, None),
            Condition::Present => (2, None),
            // No row has a version that a bigint cannot hold.
            Condition::Version(version) => (3, Some(i64::try_from(version).unwrap_or(-1))),
        }
    }

    fn put(&mut self, value: Value) -> Result<(), StoreError> {
        match value {
            Value::Json(bytes) => {
                let text = std::str::from_utf8(&bytes).ok();
                let is_json = text.is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
                if !is_json {
                    return Err(StoreError::Invalid(format!("step {} puts no JSON", self.op)));
                }
                self.queryable = text.is_some_and(is_queryable);
                self.kind = JSON;
                self.bytes = Some(bytes);
            }
            Value::Binary(bytes) => {
                self.kind = BINARY;
                self.bytes = Some(bytes);
            }
            Value::Counter(count) => {
                self.kind = COUNTER;
                self.counter = Some(count);
            }
        }
        Ok(())
    }
}

/// Saturating additions, one after another, as one: `x` becomes `x + sum`, kept within `low..=high`. Such functions
/// are closed under composition, so any number of them is one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    sum: i128,
    low: i64,
    high: i64,
}

/// The largest change that two bigints can say; a larger one takes every count to its end anyway.
const LARGEST: i128 = 2 * i64::MAX as i128;

impl Sum {
    const NOTHING: Self = Self {
        sum: 0,
        low: i64::MIN,
        high: i64::MAX,
    };

    /// Whatever the count was, it is 0.
    const FRESH: Self = Self {
        sum: 0,
        low: 0,
        high: 0,
    };

    fn then(self, delta: i64) -> Self {
        Self {
            sum: self.sum + i128::from(delta),
            low: self.low.saturating_add(delta),
            high: self.high.saturating_add(delta),
        }
    }

    /// Two parts of the sum, and the ends.
    fn row(mut self) -> (i64, i64, i64, i64) {
        if self.sum > LARGEST {
            (self.sum, self.low) = (LARGEST, self.high);
        } else if self.sum < -LARGEST {
            (self.sum, self.high) = (-LARGEST, self.low);
        }
        let first = self.sum.clamp(i64::MIN.into(), i64::MAX.into());
        (first as i64, (self.sum - first) as i64, self.low, self.high)
    }
}

/// An event with the id that it will have.
#[derive(Debug)]
pub(crate) struct PreparedEvent {
    pub id: Id,
    pub event: NewEvent,
}

/// A commit, ready to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub partition: Partition,
    pub tenant: Tenant,
    /// Escaped.
    pub entity: String,
    /// Names the partition's lock. Partitions that share one wait for each other, and nothing worse.
    pub lock: i64,
    pub steps: Vec<Step>,
    pub events: Vec<PreparedEvent>,
    pub bytes: usize,
}

/// Checks and prepares a commit.
pub(crate) fn prepare(
    tables: &Tables,
    ids: &IdGenerator,
    now: Timestamp,
    partition: Partition,
    batch: Batch,
) -> Result<Prepared, StoreError> {
    batch.check_limits(&partition)?;
    let bytes = batch.size();
    let mut steps = Vec::with_capacity(batch.ops.len());
    let mut events = Vec::new();
    let mut sums: HashMap<(Table, Bytes), (usize, Sum)> = HashMap::new();
    for (op, step) in batch.ops.into_iter().enumerate() {
        match step {
            Op::Put {
                table,
                sort,
                value,
                condition,
                expires,
            } => {
                let mut step = Step::new(op, tables.get(table.0)?, sort, condition, Action::Put);
                step.put(value)?;
                step.expires = expires;
                steps.push(step);
            }
            Op::Delete {
                table,
                sort,
                condition,
            } => steps.push(Step::new(
                op,
                tables.get(table.0)?,
                sort,
                condition,
                Action::Delete,
            )),
            Op::Check {
                table,
                sort,
                condition,
            } => steps.push(Step::new(
                op,
                tables.get(table.0)?,
                sort,
                condition,
                Action::Nothing,
            )),
            Op::Add {
                table,
                sort,
                delta,
                expires,
            } => {
                let relation = tables.get(table.0)?;
                let (place, sum) = sums.entry((table, sort.clone())).or_insert_with(|| {
                    let mut step = Step::new(op, relation, sort, Condition::Any, Action::Add);
                    step.kind = COUNTER;
                    steps.push(step);
                    (steps.len() - 1, Sum::NOTHING)
                });
                let step = &mut steps[*place];
                if step.expires.is_some_and(|expires| expires <= now) {
                    // What the additions before this one left has expired within the commit.
                    *sum = Sum::FRESH;
                    (step.fresh, step.expires) = (true, None);
                }
                *sum = sum.then(delta);
                step.expires = expires.or(step.expires);
                let (counter, extra, low, high) = sum.row();
                (step.counter, step.extra, step.low, step.high) = (Some(counter), extra, low, high);
            }
            Op::Event(event) => events.push(PreparedEvent {
                id: ids.next(),
                event,
            }),
        }
    }
    Ok(Prepared {
        tenant: partition.tenant.clone(),
        entity: escape(&partition.entity).into_owned(),
        lock: hash(&partition) as i64,
        partition,
        steps,
        events,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_additions_saturates_as_they_do() {
        const ENDS: [i64; 7] = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
        let of_three = ENDS
            .iter()
            .flat_map(|a| ENDS.iter().flat_map(move |b| ENDS.map(|c| [*a, *b, c])));
        for deltas in of_three {
            let sum = deltas.iter().fold(Sum::NOTHING, |sum, delta| sum.then(*delta));
            let (first, extra, low, high) = sum.row();
            for start in ENDS {
                let expected = deltas
                    .iter()
                    .fold(start, |count, delta| count.saturating_add(*delta));
                // As the SQL has it.
                let exact = i128::from(start) + i128::from(first) + i128::from(extra);
                let answer = exact.max(low.into()).min(high.into());
                assert_eq!(answer, i128::from(expected), "{start} and {deltas:?}");
            }
        }
    }
}
