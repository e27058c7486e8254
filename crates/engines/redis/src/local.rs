//! What a node keeps in its own memory, in front of Redis: values it read a moment ago, and the loads it has begun.
//!
//! An entry is used for a short time only ([`crate::RedisOptions::local_fresh`]), which bounds how old it can be
//! whatever happens to the messages of other nodes. What is read from Redis may have been replaced by the time it is
//! put here; so the number of changes of the key's stripe is looked at before asking, and the answer is kept only if
//! there was none since.

use crate::value::Reading;
use bytes::Bytes;
use holon_ports::cache::Loaded;
use parking_lot::Mutex;
use quick_cache::{Weighter, sync};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Locks that the writers and loads of a node meet at.
const STRIPES: usize = 256;
/// Bytes that an entry takes beside its key and its value, near enough.
const ENTRY_OVERHEAD: usize = 160;

/// A value of the node's own memory.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    reading: Reading,
    until: Instant,
    weight: u64,
}

/// How a value that is there may be used.
pub(crate) enum Look {
    Fresh(Option<Bytes>),
    /// Still good, but it should be loaded anew.
    Stale(Option<Bytes>),
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<Arc<str>, Kept> for ByWeight {
    fn weight(&self, _: &Arc<str>, kept: &Kept) -> u64 {
        kept.weight
    }
}

/// How far a load is.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    Begun,
    /// It goes on, but there is an older value that may be served until then.
    Stale(Bytes, Instant),
    Done(Loaded),
}

pub(crate) struct Flight {
    /// No two flights of a node have the same number.
    pub(crate) number: u64,
    pub(crate) progress: watch::Receiver<Progress>,
}

#[derive(Default)]
pub(crate) struct Stripe {
    changes: u64,
    pub(crate) flights: HashMap<Arc<str>, Flight>,
}

#[derive(Default)]
struct Shard {
    stripe: Mutex<Stripe>,
    changed: Notify,
}

pub(crate) struct Local {
    entries: sync::Cache<Arc<str>, Kept, ByWeight>,
    shards: Vec<Shard>,
    hasher: std::hash::RandomState,
    fresh: Duration,
    largest: u64,
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
}

impl Local {
    pub(crate) fn new(bytes: u64, fresh: Duration) -> Self {
        let items = (bytes / 1_024).clamp(16, 1 << 22) as usize;
        Self {
            entries: sync::Cache::with_weighter(items, bytes, ByWeight),
            shards: (0..STRIPES).map(|_| Shard::default()).collect(),
            hasher: std::hash::RandomState::new(),
            fresh,
            largest: bytes / 8,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    fn shard(&self, key: &str) -> &Shard {
        &self.shards[self.hasher.hash_one(key) as usize % STRIPES]
    }

    /// What is told whenever something of the key's stripe changed.
    pub(crate) fn changed(&self, key: &str) -> &Notify {
        &self.shard(key).changed
    }

    pub(crate) fn look(&self, key: &str) -> Option<Look> {
        let look = self.peek(key);
        let counter = if look.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        look
    }

    fn peek(&self, key: &str) -> Option<Look> {
        let now = Instant::now();
        let reading = self.entries.get(key).filter(|kept| kept.until > now)?.reading;
        Some(if reading.fresh_until > now {
            Look::Fresh(reading.value)
        } else {
            Look::Stale(reading.value)
        })
    }

    /// How often the key's stripe changed; see [`Local::fill`].
    pub(crate) fn changes(&self, key: &str) -> u64 {
        self.shard(key).stripe.lock().changes
    }

    /// Keeps what was read, unless something changed since `changes` was asked for.
    pub(crate) fn fill(&self, key: &str, changes: u64, reading: Reading) {
        let stripe = self.shard(key).stripe.lock();
        if stripe.changes == changes {
            self.insert(key, reading);
        }
    }

    fn insert(&self, key: &str, reading: Reading) {
        let content = reading.value.as_ref().map_or(0, Bytes::len);
        let weight = (key.len() + content + ENTRY_OVERHEAD) as u64;
        let until = reading.expires.min(Instant::now() + self.fresh);
        if weight > self.largest {
            self.entries.remove(key);
            return;
        }
        let kept = Kept {
            reading,
            until,
            weight,
        };
        self.entries.insert(key.into(), kept);
    }

    /// The key was or is about to be written: its entry is forgotten, and a load under way answers nobody who asks
    /// from now on. Answers the number of changes after this one.
    pub(crate) fn written(&self, key: &str) -> u64 {
        let shard = self.shard(key);
        let mut stripe = shard.stripe.lock();
        stripe.flights.remove(key);
        self.forget_in(&mut stripe, key);
        let changes = stripe.changes;
        drop(stripe);
        shard.changed.notify_waiters();
        changes
    }

    /// A load of another node ended: its value may be newer than the entry here.
    pub(crate) fn loaded_elsewhere(&self, key: &str) {
        let shard = self.shard(key);
        self.forget_in(&mut shard.stripe.lock(), key);
        shard.changed.notify_waiters();
    }

    fn forget_in(&self, stripe: &mut Stripe, key: &str) {
        stripe.changes += 1;
        self.entries.remove(key);
    }

    /// Ends a write of this node that began with [`Local::written`]: keeps what was written, unless something changed
    /// since.
    pub(crate) fn settle(&self, key: &str, changes: u64, reading: Option<Reading>) {
        let shard = self.shard(key);
        let mut stripe = shard.stripe.lock();
        let is_alone = stripe.changes == changes;
        stripe.flights.remove(key);
        self.forget_in(&mut stripe, key);
        if let (true, Some(reading)) = (is_alone, reading) {
            self.insert(key, reading);
        }
        drop(stripe);
        shard.changed.notify_waiters();
    }

    /// Messages of other nodes were lost: nothing here can be trusted.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let mut stripe = shard.stripe.lock();
            stripe.changes += 1;
            stripe.flights.clear();
            drop(stripe);
            shard.changed.notify_waiters();
        }
        self.entries.clear();
    }

    /// The load of a key that is under way, or one that `begin` makes.
    pub(crate) fn flight(
        &self,
        key: &str,
        begin: impl FnOnce() -> Flight,
    ) -> Result<watch::Receiver<Progress>, Look> {
        let mut stripe = self.shard(key).stripe.lock();
        if let Some(flight) = stripe.flights.get(key) {
            return Ok(flight.progress.clone());
        }
        // A load may have ended between the caller's look and the lock.
        if let Some(Look::Fresh(value)) = self.peek(key) {
            return Err(Look::Fresh(value));
        }
        let flight = begin();
        let progress = flight.progress.clone();
        stripe.flights.insert(key.into(), flight);
        Ok(progress)
    }

    /// Takes a flight out at its end and keeps its value, unless the key was written since it began.
    pub(crate) fn land(&self, key: &str, number: u64, reading: Option<Reading>) {
        let mut stripe = self.shard(key).stripe.lock();
        let is_current = stripe
            .flights
            .get(key)
            .is_some_and(|flight| flight.number == number);
        if !is_current {
            return;
        }
        stripe.flights.remove(key);
        self.forget_in(&mut stripe, key);
        if let Some(reading) = reading {
            self.insert(key, reading);
        }
    }
}
