//! `order=ranked`: what of the newest posts a reader most likely wants first, and why. No I/O, no clock, no chance:
//! the same candidates at the same time give the same order.
//!
//! Three passes, as large feeds do it (brief 16; Twitter, "The recommendation algorithm", 2023): a **light** pass
//! keeps the promising by recency and affinity alone; a **heavy** pass scores those by all features; a **diversity**
//! pass lets no author in more than twice in any ten. A score is a weighted sum of features between 0 and 1, so that each
//! feature's share of it can be told.

use holon_base::{Id, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Candidates that the light pass keeps.
pub const HEAVY: usize = 200;
/// No author more than [`PER_AUTHOR`] times in any this many.
pub const WINDOW: usize = 10;
/// See [`WINDOW`].
pub const PER_AUTHOR: usize = 2;
/// A post loses half of its recency in this time.
const RECENCY_HALF_LIFE_HOURS: f64 = 6.0;
/// A like or reply counts half after this time.
const AFFINITY_HALF_LIFE_DAYS: f64 = 14.0;
/// Ranking time moves in steps, so that the same state gives the same order within one.
pub const TIME_STEP_MS: i64 = 10_000;

/// A feature's name and its weight; the weights sum to 1.
pub const WEIGHTS: [(&str, f64); 6] = [
    ("recency", 0.34),
    ("affinity", 0.26),
    ("engagement", 0.20),
    ("proximity", 0.08),
    ("conversation", 0.06),
    ("media", 0.06),
];

/// What ranking knows of a post.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub id: Id,
    /// Who put it into the timeline: the reposter of a repost.
    pub author: Id,
    pub created: Timestamp,
    pub likes: u64,
    pub reposts: u64,
    pub replies: u64,
    pub quotes: u64,
    /// A picture or a link.
    pub media: bool,
    /// A reply to, or a repost or quote of, somebody whom the reader follows too.
    pub near: bool,
    pub is_reply: bool,
}

/// A feature's part in a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Feature {
    pub name: &'static str,
    /// 0 to 1.
    pub value: f64,
    pub weight: f64,
    /// `value * weight` as a part of the score, 0 to 1.
    pub share: f64,
}

/// A post with its score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    pub id: Id,
    pub author: Id,
    pub score: f64,
    pub values: [f64; WEIGHTS.len()],
}

impl Scored {
    /// Each feature's part in the score.
    pub fn features(&self) -> [Feature; WEIGHTS.len()] {
        std::array::from_fn(|i| {
            let (name, weight) = WEIGHTS[i];
            let value = self.values[i];
            let share = if self.score > 0.0 {
                value * weight / self.score
            } else {
                0.0
            };
            Feature {
                name,
                value,
                weight,
                share,
            }
        })
    }
}

/// How much a reader cares for each author, from what they liked and replied to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Affinity(HashMap<Id, f64>);

impl Affinity {
    /// Adds one act of liking (weight 1) or replying (weight 2), say.
    pub fn add(&mut self, author: Id, at: Timestamp, weight: f64, now: Timestamp) {
        let days = now.since(at).as_secs_f64() / 86_400.0;
        *self.0.entry(author).or_default() += weight * (-days / AFFINITY_HALF_LIFE_DAYS).exp2();
    }

    /// 0 for a stranger, towards 1 for somebody whose posts are liked again and again.
    pub fn of(&self, author: Id) -> f64 {
        let acts = self.0.get(&author).copied().unwrap_or(0.0);
        acts / (acts + 3.0)
    }
}

/// The time that ranking goes by.
pub fn quantised(now: Timestamp) -> Timestamp {
    Timestamp::from_millis(now.millis().div_euclid(TIME_STEP_MS) * TIME_STEP_MS)
}

/// Ranks candidates (each id once): first those of the heavy pass, then the others by their light score. A post
/// that the diversity rule leaves no place for is left out. A pinned post comes first of all.
///
/// `O(n log n)` and a look at the last nine for each place.
pub fn rank(
    candidates: &[Candidate],
    affinity: &Affinity,
    pinned: Option<Id>,
    now: Timestamp,
) -> Vec<Scored> {
    let mut light: Vec<(f64, &Candidate)> = candidates
        .iter()
        .map(|candidate| (light_score(candidate, affinity, now), candidate))
        .collect();
    light.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(y.id.cmp(&x.id)));
    let mut scored: Vec<Scored> = light
        .iter()
        .map(|(_, candidate)| heavy_score(candidate, affinity, now))
        .collect();
    let heavy = scored.len().min(HEAVY);
    scored[..heavy].sort_by(|a, b| b.score.total_cmp(&a.score).then(b.id.cmp(&a.id)));
    diversify(scored, pinned)
}

fn recency(candidate: &Candidate, now: Timestamp) -> f64 {
    let hours = now.since(candidate.created).as_secs_f64() / 3_600.0;
    (-hours / RECENCY_HALF_LIFE_HOURS).exp2()
}

fn light_score(candidate: &Candidate, affinity: &Affinity, now: Timestamp) -> f64 {
    0.6 * recency(candidate, now) + 0.4 * affinity.of(candidate.author)
}

fn heavy_score(candidate: &Candidate, affinity: &Affinity, now: Timestamp) -> Scored {
    let acts = candidate.likes as f64
        + 2.0 * candidate.reposts as f64
        + 2.0 * candidate.quotes as f64
        + 1.5 * candidate.replies as f64;
    // A rate, so that old posts with many likes do not stand above new ones with many for their age.
    let hours = now.since(candidate.created).as_secs_f64() / 3_600.0;
    let rate = acts / (hours + 2.0).powf(0.7);
    let flag = |on: bool| if on { 1.0 } else { 0.0 };
    let values = [
        recency(candidate, now),
        affinity.of(candidate.author),
        rate / (rate + 4.0),
        flag(candidate.near),
        if candidate.is_reply { 0.0 } else { 1.0 },
        flag(candidate.media),
    ];
    let score = values
        .iter()
        .zip(WEIGHTS)
        .map(|(value, (_, weight))| value * weight)
        .sum();
    Scored {
        id: candidate.id,
        author: candidate.author,
        score,
        values,
    }
}

/// Puts posts in order so that in any [`WINDOW`] no author is there more than [`PER_AUTHOR`] times: each place
/// takes the best post whose author may stand there, and the list ends when none may. Where there are too few authors to fill a
/// window that way, the window is shared evenly among them instead.
fn diversify(mut waiting: Vec<Scored>, pinned: Option<Id>) -> Vec<Scored> {
    let authors: HashSet<Id> = waiting.iter().map(|post| post.author).collect();
    let per_author = PER_AUTHOR.max(WINDOW.div_ceil(authors.len().max(1)));
    let mut placed: Vec<Scored> = Vec::with_capacity(waiting.len());
    if let Some(first) = waiting.iter().position(|post| Some(post.id) == pinned) {
        placed.push(waiting.remove(first));
    }
    loop {
        let recent = &placed[placed.len().saturating_sub(WINDOW - 1)..];
        let fits =
            |post: &Scored| recent.iter().filter(|other| other.author == post.author).count() < per_author;
        let Some(next) = waiting.iter().position(fits) else {
            return placed;
        };
        placed.push(waiting.remove(next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn candidate(id: u64, author: u64, hours: u64, likes: u64) -> Candidate {
        Candidate {
            id: Id::from_u64(id),
            author: Id::from_u64(author),
            created: NOW.minus(std::time::Duration::from_secs(hours * 3_600)),
            likes,
            reposts: 0,
            replies: 0,
            quotes: 0,
            media: false,
            near: false,
            is_reply: false,
        }
    }

    fn order(ranked: &[Scored]) -> Vec<u64> {
        ranked.iter().map(|post| post.id.as_u64()).collect()
    }

    #[test]
    fn newer_liked_and_dear_come_first() {
        let ranked = rank(
            &[candidate(1, 1, 10, 0), candidate(2, 2, 1, 0)],
            &Affinity::default(),
            None,
            NOW,
        );
        assert_eq!(order(&ranked), [2, 1]);
        let ranked = rank(
            &[candidate(1, 1, 5, 500), candidate(2, 2, 5, 0)],
            &Affinity::default(),
            None,
            NOW,
        );
        assert_eq!(order(&ranked), [1, 2]);
        let mut affinity = Affinity::default();
        for _ in 0..5 {
            affinity.add(Id::from_u64(1), NOW, 1.0, NOW);
        }
        let ranked = rank(
            &[candidate(1, 1, 5, 0), candidate(2, 2, 5, 0)],
            &affinity,
            None,
            NOW,
        );
        assert_eq!(order(&ranked), [1, 2]);
    }

    #[test]
    fn old_likes_count_for_less() {
        let (mut old, mut new) = (Affinity::default(), Affinity::default());
        let author = Id::from_u64(1);
        old.add(
            author,
            NOW.minus(std::time::Duration::from_secs(60 * 86_400)),
            1.0,
            NOW,
        );
        new.add(author, NOW, 1.0, NOW);
        assert!(old.of(author) < new.of(author));
    }

    proptest! {
        #[test]
        fn a_window_is_never_one_authors(
            posts in prop::collection::vec((0..12_u64, 0..100_u64, 0..50_u64), 0..120),
            pinned in 0..150_u64,
        ) {
            let candidates: Vec<Candidate> = posts.iter().enumerate()
                .map(|(i, (author, hours, likes))| candidate(i as u64 + 1, *author, *hours, *likes)).collect();
            let authors: HashSet<u64> = posts.iter().map(|(author, ..)| *author).collect();
            let ranked = rank(&candidates, &Affinity::default(), Some(Id::from_u64(pinned)), NOW);
            if candidates.iter().any(|post| post.id.as_u64() == pinned) {
                prop_assert_eq!(ranked[0].id.as_u64(), pinned);
            }
            if authors.len() >= 5 {
                for window in ranked.windows(WINDOW) {
                    for post in window {
                        let times = window.iter().filter(|other| other.author == post.author).count();
                        prop_assert!(times <= PER_AUTHOR);
                    }
                }
            }
            let ids: HashSet<Id> = ranked.iter().map(|post| post.id).collect();
            prop_assert_eq!(ids.len(), ranked.len(), "each post once");
            for post in &ranked {
                let sum: f64 = post.features().iter().map(|feature| feature.share).sum();
                prop_assert!((sum - 1.0).abs() < 1e-9 || post.score == 0.0);
                prop_assert!(post.values.iter().all(|value| (0.0..=1.0).contains(value)));
            }
        }

        #[test]
        fn the_order_of_candidates_changes_nothing(
            posts in prop::collection::vec((0..8_u64, 0..100_u64, 0..50_u64), 0..60),
            seed: u64,
        ) {
            let mut candidates: Vec<Candidate> = posts.iter().enumerate()
                .map(|(i, (author, hours, likes))| candidate(i as u64 + 1, *author, *hours, *likes)).collect();
            let expected = rank(&candidates, &Affinity::default(), None, NOW);
            candidates.sort_by_key(|post| (post.id.as_u64() ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            prop_assert_eq!(rank(&candidates, &Affinity::default(), None, NOW), expected);
        }

        #[test]
        fn everything_is_shown_while_there_are_authors_enough(authors in 5..20_u64) {
            let candidates: Vec<Candidate> = (1..=authors * 2).map(|i| candidate(i, i % authors, i, 0)).collect();
            prop_assert_eq!(rank(&candidates, &Affinity::default(), None, NOW).len(), candidates.len());
        }
    }
}
