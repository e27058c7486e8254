//! Many streams of posts, each newest first, become one: newest first, each post once. No I/O: the merge says which
//! streams it needs more of, and its owner fetches them.
//!
//! A stream that has not been read yet has a *bound*: all it may hold is older. So a stream is only fetched when
//! the merge gets down to its bound, and the outboxes that matter only below a timeline's floor cost nothing above
//! it. A heap of heads makes a step O(log streams).

use crate::model::Entry;
use holon_base::Id;
use std::{
    cmp::Ordering,
    collections::{BinaryHeap, VecDeque},
};

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The next post, and the number of the stream that had it.
    Post(Id, Entry, usize),
    /// These streams must be fetched further: see [`Merge::feed`].
    Fetch(Vec<usize>),
    Done,
}

#[derive(Debug, Default)]
struct Stream {
    buffer: VecDeque<(Id, Entry)>,
    /// What is not fetched yet is older than this; `None` when all is fetched.
    bound: Option<Id>,
}

/// The head of a stream: what it has, or the newest that it could have.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    newest: u64,
    fetched: bool,
    stream: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        // Where both could be the same post, the stream that is not fetched goes first, so that nothing is passed
        // over; among equals the stream with the lower number wins.
        (self.newest, !self.fetched, other.stream).cmp(&(other.newest, !other.fetched, self.stream))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A merge of streams.
#[derive(Debug, Default)]
pub struct Merge {
    streams: Vec<Stream>,
    heads: BinaryHeap<Head>,
    last: Option<Id>,
}

impl Merge {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a stream that holds only posts older than `bound`; answers its number.
    pub fn stream(&mut self, bound: Id) -> usize {
        let stream = self.streams.len();
        self.streams.push(Stream {
            buffer: VecDeque::new(),
            bound: Some(bound),
        });
        self.push_head(stream);
        stream
    }

    /// Adds a stream whose first posts are there already; see [`Merge::feed`].
    pub fn fetched(&mut self, posts: Vec<(Id, Entry)>, more: bool) -> usize {
        self.streams.push(Stream::default());
        let stream = self.streams.len() - 1;
        self.feed(stream, posts, more);
        stream
    }

    /// From where a stream must be fetched: only posts older than this are wanted. `None` when all is fetched.
    pub fn bound(&self, stream: usize) -> Option<Id> {
        self.streams[stream].bound
    }

    /// Gives a stream its next posts, newest first. `more` says whether it may have others, all older than the last.
    pub fn feed(&mut self, stream: usize, posts: Vec<(Id, Entry)>, more: bool) {
        let state = &mut self.streams[stream];
        state.bound = match posts.last() {
            Some((oldest, _)) if more => Some(*oldest),
            _ => None,
        };
        state.buffer.extend(posts);
        self.push_head(stream);
    }

    /// The next post, each once.
    pub fn step(&mut self) -> Step {
        loop {
            let Some(head) = self.heads.pop() else {
                return Step::Done;
            };
            if !head.fetched {
                let mut wanted = vec![head.stream];
                while let Some(next) = self.heads.peek() {
                    if next.fetched {
                        break;
                    }
                    wanted.push(next.stream);
                    self.heads.pop();
                }
                return Step::Fetch(wanted);
            }
            let Some((id, entry)) = self.streams[head.stream].buffer.pop_front() else {
                continue;
            };
            self.push_head(head.stream);
            if self.last.replace(id) != Some(id) {
                return Step::Post(id, entry, head.stream);
            }
        }
    }

    fn push_head(&mut self, stream: usize) {
        let state = &self.streams[stream];
        let (newest, fetched) = match (state.buffer.front(), state.bound) {
            (Some((id, _)), _) => (id.as_u64(), true),
            // Ids are below 2^63, so a bound of 0 means an empty stream.
            (None, Some(bound)) if bound > Id::MIN => (bound.as_u64() - 1, false),
            (None, _) => return,
        };
        self.heads.push(Head {
            newest,
            fetched,
            stream,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn entry() -> Entry {
        Entry {
            author: Id::from_u64(1),
            kind: Kind::Post,
            target: None,
        }
    }

    proptest! {
        #[test]
        fn it_is_the_sorted_union_however_it_is_fetched(
            streams in prop::collection::vec((prop::collection::btree_set(1..200_u64, 0..40), 0..250_u64), 0..8),
            chunk in 1..7_usize,
        ) {
            let mut merge = Merge::new();
            let mut sources = Vec::new();
            let mut expected = BTreeSet::new();
            for (ids, bound) in &streams {
                merge.stream(Id::from_u64(*bound));
                let ids: Vec<u64> = ids.iter().rev().copied().filter(|id| id < bound).collect();
                expected.extend(ids.iter().copied());
                sources.push(ids);
            }
            let mut merged = Vec::new();
            loop {
                match merge.step() {
                    Step::Post(id, _, stream) => {
                        prop_assert!(sources[stream].contains(&id.as_u64()));
                        merged.push(id.as_u64());
                    }
                    Step::Fetch(wanted) => for stream in wanted {
                        let bound = merge.bound(stream).unwrap().as_u64();
                        let posts: Vec<_> = sources[stream].iter().filter(|id| **id < bound).take(chunk)
                            .map(|id| (Id::from_u64(*id), entry())).collect();
                        let more = posts.len() == chunk;
                        merge.feed(stream, posts, more);
                    },
                    Step::Done => break,
                }
            }
            prop_assert_eq!(merged, expected.into_iter().rev().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_stream_is_not_fetched_before_the_merge_gets_there() {
        let mut merge = Merge::new();
        let newest = vec![(Id::from_u64(20), entry()), (Id::from_u64(5), entry())];
        let timeline = merge.fetched(newest, false);
        let deep = merge.stream(Id::from_u64(10));
        assert_eq!(merge.step(), Step::Post(Id::from_u64(20), entry(), timeline));
        assert_eq!(merge.step(), Step::Fetch(vec![deep]));
        merge.feed(deep, Vec::new(), false);
        assert_eq!(merge.step(), Step::Post(Id::from_u64(5), entry(), timeline));
        assert_eq!(merge.step(), Step::Done);
    }
}
