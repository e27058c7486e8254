//! The checker of histories, on histories that must pass and on histories that must not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

#[path = "linear/exhaustive.rs"]
mod exhaustive;
#[path = "linear/random.rs"]
mod random;

use bytes::Bytes;
use holon_base::Tenant;
use holon_chaos::linear::{Answer, Call, Operation, PartitionModel, Verdict, check, describe};
use holon_ports::{Batch, Condition, Partition, Scan, Table, Value};
use proptest::prelude::*;

const NOTES: Table = Table("test.notes");
const BUDGET: usize = 1_000_000;

fn json(text: &str) -> Value {
    Value::Json(Bytes::from(format!("\"{text}\"")))
}

/// A call from one time to another, or to never.
fn op(started: u64, ended: Option<u64>, call: Call, answer: Answer) -> Operation<Call, Answer> {
    Operation {
        call,
        started,
        answered: ended.map(|ended| (ended, answer)),
    }
}

fn commit(
    started: u64,
    ended: impl Into<Option<u64>>,
    batch: Batch,
    version: u64,
) -> Operation<Call, Answer> {
    op(
        started,
        ended.into(),
        Call::Commit(batch.ops),
        Answer::Committed(version),
    )
}

fn put(sort: &'static str, text: &str) -> Batch {
    Batch::new().put(NOTES, sort, text)
}

fn get(started: u64, ended: u64, sort: &'static str, seen: Option<(Value, u64)>) -> Operation<Call, Answer> {
    let call = Call::Get {
        table: NOTES,
        sort: sort.into(),
    };
    op(started, Some(ended), call, Answer::Row(seen))
}

fn scan(started: u64, ended: u64, seen: &[(&'static str, Value, u64)]) -> Operation<Call, Answer> {
    let asked = Scan::all(NOTES, Partition::new(&Tenant::default(), "p"), 100);
    let rows = seen
        .iter()
        .map(|(sort, value, version)| (Bytes::from(*sort), value.clone(), *version));
    let answer = Answer::Rows {
        rows: rows.collect(),
        more: false,
    };
    op(started, Some(ended), Call::Scan(asked), answer)
}

fn refused(started: u64, ended: u64, batch: Batch, step: usize) -> Operation<Call, Answer> {
    op(
        started,
        Some(ended),
        Call::Commit(batch.ops),
        Answer::ConditionFailed(step),
    )
}

fn passes(history: &[Operation<Call, Answer>]) {
    let verdict = check(&PartitionModel, history, BUDGET);
    if let Verdict::Broken(breach) = &verdict {
        panic!("{}", describe(history, breach));
    }
    assert_eq!(verdict, Verdict::Linearisable);
}

/// Fails, at this operation, and names it.
fn fails_at(history: &[Operation<Call, Answer>], operation: usize) {
    let Verdict::Broken(breach) = check(&PartitionModel, history, BUDGET) else {
        panic!("{history:#?} passes");
    };
    let words = describe(history, &breach);
    assert_eq!(breach.operation, operation, "{words}");
    assert!(words.contains(&format!("operation {operation}")), "{words}");
}

#[test]
fn what_can_have_happened_passes() {
    // One after the other.
    passes(&[
        get(0, 1, "a", None),
        commit(2, 3, put("a", "one"), 7),
        get(4, 5, "a", Some((json("one"), 7))),
        commit(6, 7, Batch::new().delete(NOTES, "a"), 9),
        get(8, 9, "a", None),
        commit(10, 11, put("a", "two"), 10),
        scan(12, 13, &[("a", json("two"), 10)]),
    ]);
    // A read beside a write may see it or not, also where another that began later does not; the order of two writes
    // shows only afterwards.
    passes(&[
        commit(0, 10, put("a", "one"), 8),
        get(1, 9, "a", Some((json("one"), 8))),
        get(2, 8, "a", None),
    ]);
    passes(&[
        commit(0, 10, put("a", "one"), 8),
        commit(1, 10, put("a", "two"), 7),
        get(11, 12, "a", Some((json("one"), 8))),
    ]);
    // Conditions, and who is refused because of whom.
    passes(&[
        commit(0, 5, Batch::new().put_if_absent(NOTES, "a", "one"), 3),
        refused(0, 5, Batch::new().put_if_absent(NOTES, "a", "two"), 0),
        commit(
            6,
            9,
            Batch::new().put_if(NOTES, "a", "three", Condition::Version(3)),
            4,
        ),
        refused(
            6,
            9,
            Batch::new().put_if(NOTES, "a", "four", Condition::Version(3)),
            0,
        ),
        get(10, 11, "a", Some((json("three"), 4))),
    ]);
    // Counters.
    passes(&[
        commit(0, 5, Batch::new().add(NOTES, "n", 2), 1),
        commit(0, 5, Batch::new().add(NOTES, "n", 3).add(NOTES, "n", 1), 2),
        get(1, 4, "n", Some((Value::Counter(2), 1))),
        get(6, 7, "n", Some((Value::Counter(6), 2))),
    ]);
}

#[test]
fn a_lost_answer_is_either_way_and_at_any_later_time() {
    let lost = || commit(0, None, put("a", "lost"), 0);
    passes(&[lost(), get(5, 6, "a", None)]);
    passes(&[lost(), get(5, 6, "a", Some((json("lost"), 4)))]);
    // It happens late, and over what came meanwhile.
    passes(&[
        lost(),
        get(1, 2, "a", None),
        commit(3, 4, put("a", "one"), 5),
        get(5, 6, "a", Some((json("one"), 5))),
        get(7, 8, "a", Some((json("lost"), 9))),
        get(9, 10, "a", Some((json("lost"), 9))),
    ]);
    // But once, with one version, above the one before, and whole.
    fails_at(
        &[
            lost(),
            get(1, 2, "a", Some((json("lost"), 2))),
            commit(3, 4, put("a", "one"), 5),
            get(5, 6, "a", Some((json("lost"), 9))),
        ],
        3,
    );
    fails_at(
        &[
            lost(),
            get(1, 2, "a", Some((json("lost"), 2))),
            get(3, 4, "a", Some((json("lost"), 3))),
        ],
        2,
    );
    fails_at(
        &[
            commit(0, 1, put("a", "one"), 5),
            commit(2, None, put("a", "lost"), 0),
            get(5, 6, "a", Some((json("lost"), 4))),
        ],
        2,
    );
    let both = put("a", "lost").put(NOTES, "b", "lost");
    fails_at(
        &[
            commit(0, None, both, 0),
            get(1, 2, "a", Some((json("lost"), 3))),
            get(3, 4, "b", None),
        ],
        2,
    );
    // One that would have been refused does nothing.
    let conditional = Batch::new().put_if_absent(NOTES, "a", "lost");
    fails_at(
        &[
            commit(0, 1, put("a", "one"), 5),
            commit(2, None, conditional, 0),
            get(3, 4, "a", Some((json("lost"), 8))),
        ],
        2,
    );
    // And one with a lost answer explains who is refused.
    passes(&[
        commit(0, None, Batch::new().put_if_absent(NOTES, "a", "lost"), 0),
        refused(5, 6, Batch::new().put_if_absent(NOTES, "a", "one"), 0),
        get(7, 8, "a", Some((json("lost"), 2))),
    ]);
}

#[test]
fn a_stale_read_fails() {
    fails_at(
        &[
            commit(0, 1, put("a", "one"), 1),
            commit(2, 3, put("a", "two"), 2),
            get(4, 5, "a", Some((json("one"), 1))),
        ],
        2,
    );
    // An acknowledged commit that is gone is the same.
    fails_at(&[commit(0, 1, put("a", "one"), 1), get(4, 5, "a", None)], 1);
}

#[test]
fn a_read_that_goes_back_in_time_fails() {
    // Both reads are beside the write, so each alone would be right.
    fails_at(
        &[
            commit(0, 20, put("a", "one"), 1),
            get(1, 5, "a", Some((json("one"), 1))),
            get(6, 9, "a", None),
        ],
        2,
    );
}

#[test]
fn a_lost_update_fails() {
    let seen = || Batch::new().put_if(NOTES, "a", "mine", Condition::Version(1));
    fails_at(
        &[
            commit(0, 1, put("a", "one"), 1),
            commit(2, 8, seen(), 2),
            commit(3, 9, seen(), 3),
        ],
        2,
    );
    // Two additions of which one is gone.
    fails_at(
        &[
            commit(0, 5, Batch::new().add(NOTES, "n", 1), 1),
            commit(0, 5, Batch::new().add(NOTES, "n", 1), 2),
            get(6, 7, "n", Some((Value::Counter(1), 2))),
        ],
        2,
    );
}

#[test]
fn a_double_application_fails() {
    fails_at(
        &[
            commit(0, 5, Batch::new().add(NOTES, "n", 1), 1),
            commit(0, None, Batch::new().add(NOTES, "n", 1), 0),
            get(6, 7, "n", Some((Value::Counter(3), 3))),
        ],
        2,
    );
    // What was refused has happened.
    fails_at(
        &[
            commit(0, 1, put("a", "one"), 1),
            refused(2, 3, Batch::new().put_if_absent(NOTES, "a", "two"), 0),
            get(4, 5, "a", Some((json("two"), 2))),
        ],
        2,
    );
}

#[test]
fn a_torn_commit_fails() {
    let both = |text: &str| put("a", text).put(NOTES, "b", text);
    fails_at(
        &[
            commit(0, 1, both("one"), 1),
            commit(2, 20, both("two"), 2),
            scan(3, 9, &[("a", json("two"), 2), ("b", json("one"), 1)]),
        ],
        2,
    );
    // Read row by row, where the second read begins after the first.
    fails_at(
        &[
            commit(0, 1, both("one"), 1),
            commit(2, 20, both("two"), 2),
            get(3, 4, "a", Some((json("two"), 2))),
            get(5, 6, "b", Some((json("one"), 1))),
        ],
        3,
    );
}

#[test]
fn versions_that_do_not_grow_fail() {
    fails_at(
        &[commit(0, 1, put("a", "one"), 5), commit(2, 3, put("a", "two"), 5)],
        1,
    );
    fails_at(
        &[
            commit(0, 1, put("a", "one"), 5),
            commit(2, 3, Batch::new().delete(NOTES, "a"), 6),
            commit(4, 5, put("a", "two"), 6),
        ],
        2,
    );
}

#[test]
fn many_lost_answers_are_no_trouble() {
    let mut history = vec![];
    for n in 0..40 {
        history.push(commit(n, None, put("a", &format!("lost {n}")), 0));
        history.push(commit(n, None, Batch::new().add(NOTES, "n", 1), 0));
        history.push(commit(
            100 + 2 * n,
            101 + 2 * n,
            put("a", &format!("{n}")),
            1_000 + n,
        ));
        history.push(get(100 + 2 * n, 101 + 2 * n, "b", None));
    }
    passes(&history);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the intervals are around moments at which the calls took effect one by one.
    #[test]
    fn sequential_executions_with_jittered_intervals_pass(history in random::history(40, 5)) {
        let verdict = check(&PartitionModel, &history, BUDGET);
        if let Verdict::Broken(breach) = &verdict {
            panic!("{}", describe(&history, breach));
        }
        prop_assert_eq!(verdict, Verdict::Linearisable);
    }

    /// Answers that were tampered with are found wrong exactly if no order at all explains them.
    #[test]
    fn a_tampered_history_is_judged_as_by_trying_all_orders(
        history in random::history(7, 3),
        tampering in random::tampering(),
    ) {
        let history = tampering.apply(history);
        let expected = exhaustive::is_linearisable(&PartitionModel, &history);
        let found = check(&PartitionModel, &history, BUDGET);
        prop_assert_eq!(found == Verdict::Linearisable, expected, "{:#?}", history);
    }
}
