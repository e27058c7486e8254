//! Histories made from executions in which one call follows the other, and what tampers with them.

use super::{NOTES, json};
use bytes::Bytes;
use holon_base::Tenant;
use holon_chaos::linear::{Answer, Call, History, Operation};
use holon_ports::{Batch, Condition, Op, Partition, Scan, Value};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Rows that the calls meet in; the last one holds counters.
const SORTS: [&str; 3] = ["a", "b", "n"];
const COUNTER: usize = 2;
const APART: u64 = 100;

/// What one client does next.
#[derive(Debug, Clone)]
enum Step {
    Put {
        row: usize,
    },
    PutBoth,
    PutIfAbsent {
        row: usize,
    },
    /// With the version that the row has, or with another.
    PutIfVersion {
        row: usize,
        is_right: bool,
    },
    Delete {
        row: usize,
    },
    Add {
        delta: i64,
    },
    Get {
        row: usize,
    },
    Scan,
}

#[derive(Debug, Clone)]
struct Planned {
    step: Step,
    /// How far before and after its moment the call begins and ends.
    jitter: (u64, u64),
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    LostAndDone,
    LostAndNotDone,
}

fn step() -> impl Strategy<Value = Step> {
    let text_row = 0..COUNTER;
    prop_oneof![
        text_row.clone().prop_map(|row| Step::Put { row }),
        Just(Step::PutBoth),
        text_row.clone().prop_map(|row| Step::PutIfAbsent { row }),
        (text_row.clone(), any::<bool>()).prop_map(|(row, is_right)| Step::PutIfVersion { row, is_right }),
        (0..SORTS.len()).prop_map(|row| Step::Delete { row }),
        (-3..4_i64).prop_map(|delta| Step::Add { delta }),
        (0..SORTS.len()).prop_map(|row| Step::Get { row }),
        (0..SORTS.len()).prop_map(|row| Step::Get { row }),
        Just(Step::Scan),
    ]
}

fn planned(reach: u64) -> impl Strategy<Value = Planned> {
    let far = reach * APART;
    let fate = prop_oneof![
        8 => Just(Fate::Answered),
        1 => Just(Fate::LostAndDone),
        1 => Just(Fate::LostAndNotDone),
    ];
    (step(), (0..far, 0..far), fate).prop_map(|(step, jitter, fate)| Planned { step, jitter, fate })
}

/// A history of at most so many calls, each of which meets about twice `reach` others.
pub fn history(length: usize, reach: u64) -> impl Strategy<Value = History> {
    proptest::collection::vec(planned(reach), 1..=length).prop_map(execute)
}

type Rows = BTreeMap<&'static str, (Value, u64)>;

/// Plays the calls one by one on plain rows.
fn execute(plan: Vec<Planned>) -> History {
    let mut rows = Rows::new();
    let mut history = History::new();
    for (number, planned) in (1..).zip(plan) {
        let moment = 1_000_000 + number * APART;
        let call = call_of(&planned.step, number, &rows);
        let answer = if planned.fate == Fate::LostAndNotDone {
            None
        } else {
            let answer = play(&call, number, &mut rows);
            (planned.fate == Fate::Answered).then_some(answer)
        };
        history.push(Operation {
            call,
            started: moment - planned.jitter.0,
            answered: answer.map(|answer| (moment + planned.jitter.1, answer)),
        });
    }
    history
}

fn call_of(step: &Step, number: u64, rows: &Rows) -> Call {
    let text = format!("by {number}");
    let commit = |batch: Batch| Call::Commit(batch.ops);
    match *step {
        Step::Put { row } => commit(Batch::new().put(NOTES, SORTS[row], &text)),
        Step::PutBoth => commit(Batch::new().put(NOTES, "a", &text).put(NOTES, "b", &text)),
        Step::PutIfAbsent { row } => commit(Batch::new().put_if_absent(NOTES, SORTS[row], &text)),
        Step::PutIfVersion { row, is_right } => {
            let version = rows.get(SORTS[row]).map_or(0, |(_, version)| *version);
            let named = if is_right { version } else { version + 1_000 };
            commit(Batch::new().put_if(NOTES, SORTS[row], &text, Condition::Version(named)))
        }
        Step::Delete { row } => commit(Batch::new().delete(NOTES, SORTS[row])),
        Step::Add { delta } => commit(Batch::new().add(NOTES, SORTS[COUNTER], delta)),
        Step::Get { row } => Call::Get {
            table: NOTES,
            sort: SORTS[row].into(),
        },
        Step::Scan => Call::Scan(Scan::all(NOTES, Partition::new(&Tenant::default(), "p"), 10)),
    }
}

fn sort_of(bytes: &Bytes) -> &'static str {
    SORTS
        .into_iter()
        .find(|sort| sort.as_bytes() == bytes)
        .expect("a row of these")
}

/// Versions are the numbers of the calls.
fn play(call: &Call, number: u64, rows: &mut Rows) -> Answer {
    match call {
        Call::Get { sort, .. } => Answer::Row(rows.get(sort_of(sort)).cloned()),
        Call::Scan(_) => Answer::Rows {
            rows: rows
                .iter()
                .map(|(sort, (value, version))| (Bytes::from(*sort), value.clone(), *version))
                .collect(),
            more: false,
        },
        Call::Commit(ops) => {
            for (step, op) in ops.iter().enumerate() {
                let Op::Put { sort, condition, .. } = op else {
                    continue;
                };
                let row = rows.get(sort_of(sort));
                let holds = match condition {
                    Condition::Absent => row.is_none(),
                    Condition::Version(named) => row.is_some_and(|(_, version)| version == named),
                    _ => true,
                };
                if !holds {
                    return Answer::ConditionFailed(step);
                }
            }
            for op in ops {
                match op {
                    Op::Put { sort, value, .. } => {
                        rows.insert(sort_of(sort), (value.clone(), number));
                    }
                    Op::Delete { sort, .. } => {
                        rows.remove(sort_of(sort));
                    }
                    Op::Add { sort, delta, .. } => {
                        let row = rows.entry(sort_of(sort)).or_insert((Value::Counter(0), 0));
                        if let Value::Counter(count) = &mut row.0 {
                            *count += delta;
                        }
                        row.1 = number;
                    }
                    Op::Check { .. } | Op::Event(_) => {}
                }
            }
            Answer::Committed(number)
        }
    }
}

/// One answer becomes another that the same history also has, or a wrong one.
#[derive(Debug, Clone)]
pub struct Tampering {
    victim: prop::sample::Index,
    donor: prop::sample::Index,
    kind: u8,
}

pub fn tampering() -> impl Strategy<Value = Tampering> {
    (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        0..4_u8,
    )
        .prop_map(|(victim, donor, kind)| Tampering { victim, donor, kind })
}

impl Tampering {
    pub fn apply(&self, mut history: History) -> History {
        let donor = history[self.donor.index(history.len())].answered.clone();
        let victim = self.victim.index(history.len());
        let operation = &mut history[victim];
        let Some((at, answer)) = &mut operation.answered else {
            return history;
        };
        match (self.kind, &mut *answer) {
            // It is answered as another one was.
            (0, answer) => {
                if let Some((_, other)) = donor
                    && std::mem::discriminant(&other) == std::mem::discriminant(answer)
                {
                    *answer = other;
                }
            }
            (1, Answer::Committed(version)) => *version = version.saturating_sub(2),
            (1, Answer::Row(row)) => *row = row.is_none().then(|| (json("by nobody"), 3)),
            (2, Answer::Row(Some((Value::Counter(count), _)))) => *count += 1,
            (2, Answer::Rows { rows, .. }) => {
                rows.pop();
            }
            // It took less long than it did.
            (3, _) => *at = operation.started + 1,
            _ => {}
        }
        history
    }
}
