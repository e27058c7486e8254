//! Counters that many change at once: plain ones ([`Counters`]) and those that count each member once
//! ([`UniqueCounters`]: likes, followers).
//!
//! # Why shards
//!
//! Commits to one partition wait for each other, so a counter in one row takes at most `1 / w` increments a second
//! when a commit takes `w` seconds: 1,000 at 1 ms, however many machines there are. A counter spread over `n` rows in
//! `n` partitions takes `n / w`, and an increment finds `1 / n` of the others before it. A read pays for it: it gets
//! `n` rows in one call. So a counter begins with one shard, which costs nothing, and doubles when it is busy; it
//! never shrinks, since a counter that was busy once is read far more often than counted.
//!
//! Busy is measured where the increments come in, over a second at a time, in two ways: the *rate* of increments per
//! shard, and how many are *in flight* per shard, as an increment finds it on arrival. By Little's law the second is
//! the rate times the time that a commit takes, so it grows when the store is slow though the rate is moderate.
//!
//! # How exact
//!
//! An increment is in the sum of every exact read that begins after it was acknowledged. A read of several shards is
//! no snapshot: of what is being counted while it runs, it may see one and not the other. An approximate read is a
//! sum that was exact at most [`CounterOptions::staleness`] ago.

mod plain;
mod shards;
mod unique;

pub use plain::Counters;
pub use unique::{Change, Member, Members, UniqueCounters};

use holon_base::ErrorKind;
use holon_ports::{StoreError, Table};
use std::time::Duration;

/// The longest name of a counter or of a member, in bytes.
pub const NAME_BYTES: usize = 512;
/// The most shards that a counter can have.
pub const MAX_SHARDS: u16 = 256;

/// The tables that counters of both kinds need.
pub fn tables() -> Vec<Table> {
    vec![shards::DIRECTORY, shards::COUNTS, unique::MEMBERS, unique::SEALS]
}

/// When a counter grows, and how old an approximate count may be.
#[derive(Debug, Clone, PartialEq)]
pub struct CounterOptions {
    /// A counter doubles above this many increments a second per shard, as this node sees them.
    pub rate_per_shard: f64,
    /// A counter doubles above this many increments in flight per shard on average, as this node sees them.
    pub in_flight_per_shard: f64,
    /// A counter is never grown beyond this many shards; rounded down to a power of two, 1 to [`MAX_SHARDS`].
    pub max_shards: u16,
    /// How old an approximate count may be.
    pub staleness: Duration,
    /// Counters whose load and number of shards are remembered in this process.
    pub remembered: usize,
}

impl Default for CounterOptions {
    fn default() -> Self {
        Self {
            rate_per_shard: 1_000.0,
            in_flight_per_shard: 32.0,
            max_shards: MAX_SHARDS,
            staleness: Duration::from_secs(5),
            remembered: 20_000,
        }
    }
}

/// Why a counter did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CounterError {
    #[error("invalid request: {0}")]
    Invalid(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CounterError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Store(error) => error.kind(),
        }
    }
}

fn check_name(what: &str, name: &str) -> Result<(), CounterError> {
    if name.is_empty() || name.len() > NAME_BYTES {
        return Err(CounterError::Invalid(format!(
            "a {what} is 1 to {NAME_BYTES} bytes"
        )));
    }
    Ok(())
}
