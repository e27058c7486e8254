//! A circuit breaker (Nygard, "Release It!", 2007).
//!
//! After some failures in a row it opens: calls fail at once, so that a cache that is away costs its users nothing
//! but the misses. Whether it is back is tried by a probe in the background and never by a caller, who would have to
//! wait for the timeout.

use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Keys that a breaker remembers to delete.
const OWED_KEYS: usize = 16_384;

/// Whether calls go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// Calls fail at once while a probe is under way.
    HalfOpen,
    /// Calls fail at once.
    Open,
}

const CLOSED: u8 = 0;
const HALF_OPEN: u8 = 1;
const OPEN: u8 = 2;

#[derive(Debug)]
pub(crate) struct Breaker {
    state: AtomicU8,
    failures: AtomicU32,
    opens_after: u32,
    /// What could not be deleted or replaced, so that what the server has of it may be old.
    owed: Mutex<HashSet<String>>,
}

impl Breaker {
    pub(crate) fn new(opens_after: u32) -> Self {
        Self {
            state: AtomicU8::new(CLOSED),
            failures: AtomicU32::new(0),
            opens_after: opens_after.max(1),
            owed: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.state.load(Ordering::Acquire) {
            CLOSED => BreakerState::Closed,
            HALF_OPEN => BreakerState::HalfOpen,
            _ => BreakerState::Open,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state() == BreakerState::Closed
    }

    pub(crate) fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// True if this failure opened it; then the caller must see to the probe.
    pub(crate) fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        failures >= self.opens_after && self.open()
    }

    /// True if it was closed before.
    pub(crate) fn open(&self) -> bool {
        self.state
            .compare_exchange(CLOSED, OPEN, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// A probe begins or has failed.
    pub(crate) fn probing(&self, under_way: bool) {
        let state = if under_way { HALF_OPEN } else { OPEN };
        self.state.store(state, Ordering::Release);
    }

    pub(crate) fn close(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.state.store(CLOSED, Ordering::Release);
    }

    /// Remembers a key to delete; false if there are too many already.
    pub(crate) fn owe(&self, key: &str) -> bool {
        let mut owed = self.owed.lock();
        if owed.len() >= OWED_KEYS && !owed.contains(key) {
            return false;
        }
        owed.insert(key.to_owned());
        true
    }

    pub(crate) fn owed(&self) -> Vec<String> {
        self.owed.lock().iter().cloned().collect()
    }

    pub(crate) fn owed_count(&self) -> usize {
        self.owed.lock().len()
    }

    pub(crate) fn paid(&self, key: &str) {
        self.owed.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_says_so_once() {
        let breaker = Breaker::new(3);
        assert!(!breaker.failed() && !breaker.failed());
        breaker.succeeded();
        assert!(!breaker.failed() && !breaker.failed());
        assert!(breaker.failed());
        assert!(!breaker.failed());
        breaker.probing(true);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.probing(false);
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.close();
        assert!(breaker.is_closed());
        assert!(!breaker.failed());
    }
}
