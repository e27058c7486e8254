//! A partition of a Store, as `holon_ports::Store` promises it.
//!
//! Versions are chosen by the engine; what is promised is that a row's version grows with every change, also across a
//! delete. So the model takes the version of a commit from its answer, and holds it against what the rows had. A commit
//! whose answer was lost has a version all the same: the first answer that shows it settles it.

use super::{Effect, Model};
use bytes::Bytes;
use holon_ports::{Condition, Op, Scan, Table, Value};
use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    ops::{Bound, RangeBounds as _},
};

/// What is asked of one partition.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    Commit(Vec<Op>),
    Get { table: Table, sort: Bytes },
    Scan(Scan),
}

/// What it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With the version of all rows that the commit wrote.
    Committed(u64),
    /// The first step whose condition did not hold.
    ConditionFailed(usize),
    /// The first step that adds to something else than a counter.
    NotACounter(usize),
    Row(Option<(Value, u64)>),
    Rows {
        rows: Vec<(Bytes, Value, u64)>,
        more: bool,
    },
}

/// A row, or what is known of one that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    pub value: Option<Value>,
    pub version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    Known(u64),
    /// Of the commit with this number in the history, whose answer was lost; it is above what its rows had.
    Lost {
        commit: usize,
        above: u64,
    },
}

impl Version {
    /// What the next version of the row must exceed.
    fn floor(self) -> u64 {
        match self {
            Self::Known(version) => version,
            Self::Lost { above, .. } => above,
        }
    }
}

/// The rows of a partition. A row that was never written is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows(BTreeMap<(Table, Bytes), Cell>);

impl Hash for Rows {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for (key, cell) in &self.0 {
            key.hash(hasher);
            cell.version.hash(hasher);
            if let Some(Value::Counter(count)) = cell.value {
                count.hash(hasher);
            }
        }
    }
}

impl Rows {
    fn cell(&self, table: Table, sort: &Bytes) -> Option<&Cell> {
        self.0.get(&(table, sort.clone()))
    }

    fn floor(&self, table: Table, sort: &Bytes) -> u64 {
        self.cell(table, sort).map_or(0, |cell| cell.version.floor())
    }

    fn value(&self, table: Table, sort: &Bytes) -> Option<&Value> {
        self.cell(table, sort)?.value.as_ref()
    }

    /// Whether a row that is there can have this version; settles it if it was not known. `None` if it cannot.
    #[must_use]
    fn with_version(self, table: Table, sort: &Bytes, version: u64) -> Option<Self> {
        match self.cell(table, sort)?.version {
            Version::Known(known) => (known == version).then_some(self),
            Version::Lost { commit, .. } => self.settle(commit, version),
        }
    }

    /// Gives all rows of a commit with a lost answer their version.
    fn settle(mut self, settled: usize, version: u64) -> Option<Self> {
        for cell in self.0.values_mut() {
            if let Version::Lost { commit, above } = cell.version
                && commit == settled
            {
                if version <= above {
                    return None;
                }
                cell.version = Version::Known(version);
            }
        }
        Some(self)
    }

    fn set(&mut self, table: Table, sort: &Bytes, value: Option<Value>, version: Version) {
        self.0.insert((table, sort.clone()), Cell { value, version });
    }
}

/// The model; see the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct PartitionModel;

impl Model for PartitionModel {
    type State = Rows;
    type Call = Call;
    type Answer = Answer;

    fn start(&self) -> Rows {
        Rows::default()
    }

    fn apply(&self, state: &Rows, number: usize, call: &Call, answer: Option<&Answer>) -> Effect<Rows> {
        let after = match (call, answer) {
            (Call::Commit(ops), answer) => commit(state, number, ops, answer),
            (Call::Get { table, sort }, Some(Answer::Row(row))) => get(state, *table, sort, row.as_ref()),
            (Call::Scan(asked), Some(Answer::Rows { rows, more })) => scan(state, asked, rows, *more),
            // A read whose answer was lost did nothing.
            (Call::Get { .. } | Call::Scan(_), None) => Some(state.clone()),
            _ => None,
        };
        match (after, answer) {
            (None, _) => Effect::Impossible,
            // One that finds nothing to delete may find something a moment later.
            (Some(after), Some(Answer::Committed(_))) => Effect::Becomes(after),
            (Some(after), _) if after == *state => Effect::Nothing,
            (Some(after), _) => Effect::Becomes(after),
        }
    }

    fn conflict(&self, one: &Call, other: &Call) -> bool {
        meets(one, other) || meets(other, one)
    }
}

/// Whether one writes a row that the other reads, writes or holds to a condition.
fn meets(writing: &Call, other: &Call) -> bool {
    let Call::Commit(ops) = writing else {
        return false;
    };
    ops.iter().any(|op| match op {
        Op::Put { table, sort, .. } | Op::Delete { table, sort, .. } | Op::Add { table, sort, .. } => {
            touches(other, *table, sort)
        }
        Op::Check { .. } | Op::Event(_) => false,
    })
}

fn touches(call: &Call, row_table: Table, row_sort: &Bytes) -> bool {
    match call {
        Call::Get { table, sort } => *table == row_table && sort == row_sort,
        Call::Scan(scan) => {
            scan.table == row_table && (scan.start.clone(), scan.end.clone()).contains(row_sort)
        }
        Call::Commit(ops) => ops.iter().any(|op| match op {
            Op::Put { table, sort, .. }
            | Op::Delete { table, sort, .. }
            | Op::Check { table, sort, .. }
            | Op::Add { table, sort, .. } => *table == row_table && sort == row_sort,
            Op::Event(_) => false,
        }),
    }
}

fn get(state: &Rows, table: Table, sort: &Bytes, answer: Option<&(Value, u64)>) -> Option<Rows> {
    match (state.value(table, sort), answer) {
        (None, None) => Some(state.clone()),
        (Some(value), Some((seen, version))) if value == seen => {
            state.clone().with_version(table, sort, *version)
        }
        _ => None,
    }
}

fn scan(state: &Rows, asked: &Scan, seen: &[(Bytes, Value, u64)], more: bool) -> Option<Rows> {
    let bound = |bound: &Bound<Bytes>| bound.clone().map(|sort| (asked.table, sort));
    let start = match bound(&asked.start) {
        Bound::Unbounded => Bound::Included((asked.table, Bytes::new())),
        other => other,
    };
    let end = bound(&asked.end);
    if is_empty_range(&start, &end) {
        return (seen.is_empty() && !more).then(|| state.clone());
    }
    let range = state.0.range((start, end));
    let mut there: Vec<(&Bytes, &Value)> = range
        .take_while(|((table, _), _)| *table == asked.table)
        .filter_map(|((_, sort), cell)| Some((sort, cell.value.as_ref()?)))
        .collect();
    if asked.reverse {
        there.reverse();
    }
    let is_all = there.len() <= seen.len();
    let is_complete = is_all || (seen.len() == asked.limit && more);
    let are_equal = there.len() >= seen.len()
        && there
            .iter()
            .zip(seen)
            .all(|((sort, value), (seen_sort, seen_value, _))| *sort == seen_sort && *value == seen_value);
    if !are_equal || !is_complete {
        return None;
    }
    let settled = state.clone();
    seen.iter().try_fold(settled, |rows, (sort, _, version)| {
        rows.with_version(asked.table, sort, *version)
    })
}

fn is_empty_range(start: &Bound<(Table, Bytes)>, end: &Bound<(Table, Bytes)>) -> bool {
    match (start, end) {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
        _ => false,
    }
}

fn commit(state: &Rows, number: usize, ops: &[Op], answer: Option<&Answer>) -> Option<Rows> {
    let refused = match answer {
        Some(Answer::ConditionFailed(step)) => Some(*step),
        Some(Answer::NotACounter(step)) => {
            // Which of two reasons is said first is the engine's business.
            let adds =
                matches!(ops.get(*step)?, Op::Add { table, sort, .. } if is_no_counter(state, *table, sort));
            return adds.then(|| state.clone());
        }
        Some(Answer::Committed(_)) | None => None,
        Some(_) => return None,
    };
    let mut before = state.clone();
    for (step, op) in ops.iter().enumerate() {
        if refused == Some(step) {
            return (!can_hold(&before, op)).then_some(before);
        }
        match holding(before, op) {
            Some(settled) => before = settled,
            // Without an answer, a commit that would be refused does nothing.
            None => return answer.is_none().then(|| state.clone()),
        }
    }
    if refused.is_some() {
        return None;
    }
    let version = match answer {
        Some(Answer::Committed(version)) => Version::Known(*version),
        _ => Version::Lost {
            commit: number,
            above: 0,
        },
    };
    match write(&before, ops, version) {
        Some(after) => Some(after),
        None => answer.is_none().then(|| state.clone()),
    }
}

fn condition_of(op: &Op) -> Option<(Table, &Bytes, Condition)> {
    match op {
        Op::Put {
            table,
            sort,
            condition,
            ..
        }
        | Op::Delete {
            table,
            sort,
            condition,
        }
        | Op::Check {
            table,
            sort,
            condition,
        } => Some((*table, sort, *condition)),
        Op::Add { .. } | Op::Event(_) => None,
    }
}

/// The rows if the condition of a step holds, with the version that it names settled.
fn holding(rows: Rows, op: &Op) -> Option<Rows> {
    let Some((table, sort, condition)) = condition_of(op) else {
        return Some(rows);
    };
    let is_there = rows.value(table, sort).is_some();
    match condition {
        Condition::Any => Some(rows),
        Condition::Absent => (!is_there).then_some(rows),
        Condition::Present => is_there.then_some(rows),
        Condition::Version(version) if is_there => rows.with_version(table, sort, version),
        Condition::Version(_) => None,
    }
}

/// Whether the condition of a step holds for certain: a version that nobody has seen is another one than that which
/// somebody names.
fn can_hold(rows: &Rows, op: &Op) -> bool {
    let Some((table, sort, condition)) = condition_of(op) else {
        return true;
    };
    if let Condition::Version(named) = condition {
        let cell = rows.cell(table, sort).filter(|cell| cell.value.is_some());
        return cell.is_some_and(|cell| cell.version == Version::Known(named));
    }
    holding(rows.clone(), op).is_some()
}

fn is_no_counter(rows: &Rows, table: Table, sort: &Bytes) -> bool {
    !matches!(rows.value(table, sort), None | Some(Value::Counter(_)))
}

/// The rows after all steps; `None` if an addition has nothing to add to, or the version is none that can come next.
fn write(before: &Rows, ops: &[Op], version: Version) -> Option<Rows> {
    let mut after = before.clone();
    let version_of = |table: Table, sort: &Bytes| {
        let floor = before.floor(table, sort);
        match version {
            Version::Known(next) => (next > floor).then_some(version),
            Version::Lost { commit, .. } => Some(Version::Lost { commit, above: floor }),
        }
    };
    for op in ops {
        match op {
            Op::Put {
                table, sort, value, ..
            } => {
                let version = version_of(*table, sort)?;
                after.set(*table, sort, Some(value.clone()), version);
            }
            Op::Delete { table, sort, .. } => {
                // What is not there is not changed.
                if after.value(*table, sort).is_some() {
                    let version = version_of(*table, sort)?;
                    after.set(*table, sort, None, version);
                }
            }
            Op::Add {
                table, sort, delta, ..
            } => {
                if is_no_counter(&after, *table, sort) {
                    return None;
                }
                let count = match after.value(*table, sort) {
                    Some(Value::Counter(count)) => *count,
                    _ => 0,
                };
                let version = version_of(*table, sort)?;
                let sum = Value::Counter(count.saturating_add(*delta));
                after.set(*table, sort, Some(sum), version);
            }
            Op::Check { .. } | Op::Event(_) => {}
        }
    }
    Some(after)
}
