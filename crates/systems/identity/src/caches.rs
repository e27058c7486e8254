//! What is remembered of rows in this process, so that a request costs no read.
//!
//! Every node drops what it changed itself at once, and what others changed when the bus tells. A bus message can be
//! lost, so nothing is believed for longer than a few seconds ([`crate::IdentityOptions::staleness`]).
//!
//! A load and a change may overlap: the loader reads the old row, the change drops what is remembered, the loader
//! remembers the old row. So a loader notes the count of changes before it reads and looks again after it has
//! remembered: if the count has moved, it forgets. Whichever comes last, the old row does not stay.

use holon_base::Timestamp;
use quick_cache::sync::Cache;
use std::{
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

#[derive(Clone)]
struct Kept<V> {
    value: V,
    at: Timestamp,
}

/// Remembers values for a while. Cheap values: they are cloned out.
pub(crate) struct Remembered<K, V> {
    cache: Cache<K, Kept<V>>,
    changes: AtomicU64,
    believed_for: Duration,
}

/// Taken before a load.
#[derive(Clone, Copy)]
pub(crate) struct Since(u64);

impl<K: Eq + Hash + Clone, V: Clone> Remembered<K, V> {
    pub(crate) fn new(items: usize, believed_for: Duration) -> Self {
        Self {
            cache: Cache::new(items),
            changes: AtomicU64::new(0),
            believed_for,
        }
    }

    pub(crate) fn get(&self, key: &K, now: Timestamp) -> Option<V> {
        let kept = self.cache.get(key)?;
        (now.since(kept.at) <= self.believed_for).then_some(kept.value)
    }

    pub(crate) fn before_load(&self) -> Since {
        Since(self.changes.load(Ordering::SeqCst))
    }

    pub(crate) fn remember(&self, since: Since, key: K, value: V, now: Timestamp) {
        self.cache.insert(key.clone(), Kept { value, at: now });
        if self.changes.load(Ordering::SeqCst) != since.0 {
            self.cache.remove(&key);
        }
    }

    /// Call after the change was committed.
    pub(crate) fn forget(&self, key: &K) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.cache.remove(key);
    }

    pub(crate) fn forget_all(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.cache.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.cache.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_overlaps_a_change_is_not_remembered() {
        let now = Timestamp::EPOCH;
        let remembered = Remembered::new(10, Duration::from_secs(5));
        let since = remembered.before_load();
        remembered.forget(&1);
        remembered.remember(since, 1, "old", now);
        assert_eq!(remembered.get(&1, now), None);
        let since = remembered.before_load();
        remembered.remember(since, 1, "new", now);
        assert_eq!(remembered.get(&1, now), Some("new"));
        assert_eq!(
            remembered.get(&1, now.plus(Duration::from_secs(6))),
            None,
            "too old"
        );
        remembered.forget_all();
        assert_eq!(remembered.get(&1, now), None);
    }
}
