//! 64-bit Snowflake ids (Twitter, 2010): 41 bits of milliseconds since 2024-01-01, 10 of node, 12 of sequence.
//!
//! Ids of one generator grow strictly, also when the wall clock goes back: the generator then stays at the last
//! millisecond that it used and counts on from there. Ids of several nodes are ordered by time to the millisecond.

use crate::time::{Clock, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr, sync::Arc};

/// 2024-01-01T00:00:00Z in milliseconds since 1970.
pub const EPOCH_MS: i64 = 1_704_067_200_000;
const NODE_BITS: u32 = 10;
const SEQUENCE_BITS: u32 = 12;
/// The largest node number.
pub const MAX_NODE: u16 = (1 << NODE_BITS) - 1;
const MAX_SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;
const MAX_MS: u64 = (1 << 41) - 1;

/// An id. Serialised as a decimal string, since JavaScript's numbers end at 2^53.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u64);

impl Id {
    pub const MIN: Self = Self(0);
    pub const MAX: Self = Self(i64::MAX as u64);

    pub const fn from_u64(raw: u64) -> Self {
        Self(raw)
    }

    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// When the id was made, by the clock of the node that made it.
    pub const fn time(self) -> Timestamp {
        Timestamp::from_millis((self.0 >> (NODE_BITS + SEQUENCE_BITS)) as i64 + EPOCH_MS)
    }

    /// The smallest id that could be made at this moment: a bound for ranges by time.
    pub fn first_at(time: Timestamp) -> Self {
        let ms = u64::try_from(time.millis() - EPOCH_MS).unwrap_or(0).min(MAX_MS);
        Self(ms << (NODE_BITS + SEQUENCE_BITS))
    }

    pub const fn node(self) -> u16 {
        (self.0 >> SEQUENCE_BITS) as u16 & MAX_NODE
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is a decimal number below 2^63")]
pub struct ParseIdError;

impl FromStr for Id {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let canonical = !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        if !canonical {
            return Err(ParseIdError);
        }
        let raw: u64 = text.parse().map_err(|_| ParseIdError)?;
        if raw > Self::MAX.0 {
            Err(ParseIdError)
        } else {
            Ok(Self(raw))
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Makes ids. Clones share one sequence.
#[derive(Debug, Clone)]
pub struct IdGenerator {
    node: u16,
    clock: Arc<dyn Clock>,
    // Milliseconds since EPOCH_MS << 12 | sequence: the last one given out.
    last: Arc<Mutex<u64>>,
}

impl IdGenerator {
    /// A generator for a node, 0 to [`MAX_NODE`]; no two running nodes may share a number.
    ///
    /// # Panics
    /// If the node number is too large: that is a mistake in wiring, found at start-up.
    pub fn new(node: u16, clock: Arc<dyn Clock>) -> Self {
        assert!(node <= MAX_NODE, "node number {node} is above {MAX_NODE}");
        Self {
            node,
            clock,
            last: Arc::new(Mutex::new(0)),
        }
    }

    /// Never gives an id at or below this one again: called with the largest id found on disk, so that a clock
    /// that went back while the process was down makes no id twice.
    pub fn advance_past(&self, id: Id) {
        let floor = (id.0 >> (NODE_BITS + SEQUENCE_BITS)) << SEQUENCE_BITS | MAX_SEQUENCE;
        let mut last = self.last.lock();
        *last = (*last).max(floor);
    }

    /// The next id, larger than every earlier one of this generator. Never waits: when a millisecond's 4,096 ids
    /// are used up, it borrows from the next.
    pub fn next(&self) -> Id {
        let now = u64::try_from(self.clock.now().millis() - EPOCH_MS)
            .unwrap_or(0)
            .min(MAX_MS);
        let mut last = self.last.lock();
        *last = (*last + 1).max(now << SEQUENCE_BITS);
        let (ms, sequence) = (*last >> SEQUENCE_BITS, *last & MAX_SEQUENCE);
        Id(ms << (NODE_BITS + SEQUENCE_BITS) | u64::from(self.node) << SEQUENCE_BITS | sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{ManualClock, SystemClock};
    use std::{collections::HashSet, time::Duration};

    #[test]
    fn ids_grow_even_when_the_clock_goes_back() {
        let clock = ManualClock::new(Timestamp::from_millis(EPOCH_MS + 1_000));
        let ids = IdGenerator::new(7, Arc::new(clock.clone()));
        let mut last = Id::MIN;
        for step in 0..20_000 {
            match step {
                5_000 => clock.set(Timestamp::from_millis(EPOCH_MS)),
                15_000 => clock.advance(Duration::from_secs(60)),
                _ => {}
            }
            let id = ids.next();
            assert!(id > last, "{id} after {last}");
            assert_eq!(id.node(), 7);
            last = id;
        }
        assert!(last.time() >= clock.now());
    }

    #[test]
    fn ids_go_on_after_what_was_found_on_disk() {
        let clock = ManualClock::new(Timestamp::from_millis(EPOCH_MS + 5));
        let later = Id::first_at(Timestamp::from_millis(EPOCH_MS + 900));
        let ids = IdGenerator::new(0, Arc::new(clock));
        ids.advance_past(later);
        assert!(ids.next() > later);
    }

    #[test]
    fn threads_never_share_an_id() {
        let ids = IdGenerator::new(1, Arc::new(SystemClock));
        let made: Vec<Id> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..5_000).map(|_| ids.next()).collect::<Vec<_>>()))
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap())
                .collect()
        });
        assert_eq!(made.iter().collect::<HashSet<_>>().len(), made.len());
    }

    #[test]
    fn only_plain_decimals_are_ids() {
        assert_eq!("42".parse(), Ok(Id::from_u64(42)));
        assert_eq!(i64::MAX.to_string().parse(), Ok(Id::MAX));
        for bad in [
            "",
            "-1",
            "+1",
            "042",
            "1e3",
            "9223372036854775808",
            "99999999999999999999999",
            "٤",
        ] {
            assert_eq!(bad.parse::<Id>(), Err(ParseIdError), "{bad}");
        }
        assert_eq!(serde_json::to_string(&Id::from_u64(9)).unwrap(), "\"9\"");
    }
}
