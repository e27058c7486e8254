//! Whether a concurrent history of changes to one member is linearisable: whether there is an order of the changes,
//! in which none comes before one that had ended when it began, that gives each the answer it got (Herlihy & Wing,
//! 1990). Searched for as Wing & Gong do, with the states that led nowhere remembered.

use std::collections::HashSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Add,
    Remove,
}

#[derive(Debug, Clone, Copy)]
pub struct Operation {
    pub what: Change,
    pub changed: bool,
    pub began: u64,
    pub ended: u64,
}

/// `history` has the operations of each task, in the order in which the task did them.
pub fn is_linearisable(history: &[Vec<Operation>], present_at_end: bool) -> bool {
    let start = (vec![0; history.len()], false);
    let mut seen = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some((done, present)) = open.pop() {
        let next: Vec<Option<&Operation>> = done
            .iter()
            .zip(history)
            .map(|(done, task)| task.get(*done))
            .collect();
        let Some(first_end) = next.iter().flatten().map(|operation| operation.ended).min() else {
            if present == present_at_end {
                return true;
            }
            continue;
        };
        for (task, operation) in next.iter().enumerate() {
            let Some(operation) = operation else { continue };
            let wanted = operation.what == Change::Add;
            let is_possible = operation.began <= first_end && operation.changed == (present != wanted);
            if !is_possible {
                continue;
            }
            let mut done = done.clone();
            done[task] += 1;
            if seen.insert((done.clone(), wanted)) {
                open.push((done, wanted));
            }
        }
    }
    false
}

#[test]
fn the_judge_knows_right_from_wrong() {
    let operation = |what, changed, began, ended| Operation {
        what,
        changed,
        began,
        ended,
    };
    let both_changed_at_once = [
        vec![operation(Change::Add, true, 0, 3)],
        vec![operation(Change::Add, true, 1, 2)],
    ];
    assert!(!is_linearisable(&both_changed_at_once, true));
    let one_changed = [
        vec![operation(Change::Add, true, 0, 3)],
        vec![operation(Change::Add, false, 1, 2)],
    ];
    assert!(is_linearisable(&one_changed, true));
    assert!(!is_linearisable(&one_changed, false));
    let too_early = [
        vec![operation(Change::Add, true, 2, 3)],
        vec![operation(Change::Add, false, 0, 1)],
    ];
    assert!(!is_linearisable(&too_early, true));
}
