//! A sorted set: an index by member for changes and one by score for reads.
//!
//! Setting and removing cost O(log n); a range costs its offset and its length.

use std::collections::{BTreeSet, HashMap};
use std::{cmp::Ordering, sync::Arc};

/// Bytes that a member takes beside its text, in both indexes, near enough.
const MEMBER_OVERHEAD: usize = 112;

/// Highest score first, then by member.
#[derive(Debug, Clone)]
struct Ranked {
    score: f64,
    member: Arc<str>,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then_with(|| self.member.cmp(&other.member))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

#[derive(Debug, Default)]
pub(super) struct SortedSet {
    scores: HashMap<Arc<str>, f64>,
    ranked: BTreeSet<Ranked>,
    bytes: usize,
}

impl SortedSet {
    pub(super) fn set(&mut self, member: &str, score: f64, keep: usize) {
        // Minus zero is zero.
        let score = score + 0.0;
        self.remove(member);
        let member: Arc<str> = member.into();
        self.bytes += member.len() + MEMBER_OVERHEAD;
        self.scores.insert(Arc::clone(&member), score);
        self.ranked.insert(Ranked { score, member });
        while self.ranked.len() > keep {
            let Some(lowest) = self.ranked.pop_last() else {
                return;
            };
            self.scores.remove(&lowest.member);
            self.bytes -= lowest.member.len() + MEMBER_OVERHEAD;
        }
    }

    pub(super) fn remove(&mut self, member: &str) -> bool {
        let Some((member, score)) = self.scores.remove_entry(member) else {
            return false;
        };
        self.bytes -= member.len() + MEMBER_OVERHEAD;
        self.ranked.remove(&Ranked { score, member });
        true
    }

    pub(super) fn range(&self, offset: usize, limit: usize) -> Vec<(String, f64)> {
        self.ranked
            .iter()
            .skip(offset)
            .take(limit)
            .map(|ranked| (ranked.member.as_ref().to_owned(), ranked.score))
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranked.is_empty()
    }

    /// What it takes, near enough.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
