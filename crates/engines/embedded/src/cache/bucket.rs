//! A token bucket in whole numbers.
//!
//! The level is counted in millionths of a millionth of a token (10⁻¹²), so that a rate of a millionth of a token a
//! second still gains a whole number of them each millisecond, and a refill never rounds a token away or into being,
//! however often it is asked. The bucket is refilled when it is looked at, for the time since the last look; there
//! is no timer.

use holon_base::Timestamp;
use holon_ports::CacheError;
use holon_ports::cache::{BucketState, check_bucket};
use std::time::Duration;

/// Units in one token.
const TOKEN: u128 = 1_000_000_000_000;
/// Units that one millisecond brings at one token a second.
const UNITS_PER_MS: f64 = 1e9;

/// Tokens of a bucket at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    units: u128,
    at: Timestamp,
}

impl Bucket {
    /// Takes tokens if they are all there. Also answers until when the bucket needs to be remembered: once full, it
    /// is like new.
    pub(super) fn take(
        before: Option<Self>,
        now: Timestamp,
        tokens: u64,
        capacity: u64,
        per_second: f64,
    ) -> Result<(Self, BucketState), CacheError> {
        check_bucket(tokens, capacity, per_second)?;
        let full = u128::from(capacity) * TOKEN;
        let rate = (per_second * UNITS_PER_MS).round() as u128;
        let mut units = match before {
            None => full,
            // A clock that went back brings nothing; counting goes on from the new time.
            Some(bucket) => {
                let elapsed = now.since(bucket.at).as_millis();
                full.min(bucket.units.saturating_add(elapsed.saturating_mul(rate)))
            }
        };
        let needed = u128::from(tokens) * TOKEN;
        let allowed = units >= needed;
        if allowed {
            units -= needed;
        }
        let state = BucketState {
            allowed,
            remaining: (units / TOKEN) as u64,
            retry_after: if allowed {
                Duration::ZERO
            } else {
                time_for(needed - units, rate)
            },
            reset_after: time_for(full - units, rate),
        };
        Ok((Self { units, at: now }, state))
    }
}

/// Until so many units have come, rounded up to a millisecond.
fn time_for(units: u128, rate: u128) -> Duration {
    Duration::from_millis(u64::try_from(units.div_ceil(rate)).unwrap_or(u64::MAX))
}
