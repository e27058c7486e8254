//! Cache in one process, bounded by bytes.
//!
//! What to keep is decided by `quick_cache`: a Clock-PRO-like policy with ghost entries that, as S3-FIFO does (Yang
//! et al., "FIFO queues are all you need for cache eviction", SOSP 2023), lets what is seen once pass through a small
//! part of the cache, so that a scan does not push out what is in use. The table is divided into shards, each behind
//! a reader-writer lock; a read takes one of these for reading and nothing else.
//!
//! Writers of one key, and loads of it, meet at one of [`STRIPES`] locks chosen by the key. Under it a change is read,
//! computed and written back, and a load is found or begun. A load in flight is an entry in its stripe; whoever
//! writes or deletes the key meanwhile takes that entry out, and a load that finds itself taken out answers those who
//! waited for it and keeps nothing. So an old value never comes back. A load runs in a task of its own, so that it
//! goes on when the caller who began it goes away.
//!
//! Expiry is looked at on every read, by the clock handed in: a value past its time is not there, whether or not its
//! bytes have been given back.

mod bucket;
mod sorted;

use async_trait::async_trait;
use bucket::Bucket;
use bytes::Bytes;
use futures::FutureExt;
use holon_base::{Clock, ErrorKind, Timestamp, trace};
use holon_ports::cache::{BucketState, LoadPolicy, Loaded, Loader, check_key, check_sorted};
use holon_ports::{Cache, CacheError};
use parking_lot::{Mutex, MutexGuard};
use quick_cache::{OptionsBuilder, Weighter, sync};
use sorted::SortedSet;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::{panic::AssertUnwindSafe, time::Duration};
use tokio::sync::watch;

/// Locks that writers and loads meet at.
const STRIPES: usize = 64;
/// Bytes that an entry takes beside its key and its value, near enough.
const ENTRY_OVERHEAD: usize = 128;
/// The smallest shard that is worth having.
const SHARD_BYTES: u64 = 4 << 20;

/// How large a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// What all entries may take together, with their keys and what it costs to keep them.
    pub bytes: u64,
    /// How large an entry is on average, a hint that sizes the table.
    pub average_entry_bytes: u64,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            average_entry_bytes: 1_024,
        }
    }
}

/// How a cache is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    pub entries: u64,
    pub bytes: u64,
    pub capacity: u64,
    /// Reads that found an entry, be it past its time.
    pub hits: u64,
    pub misses: u64,
    /// Loaders run; every other caller who missed waited for one of these.
    pub loads: u64,
}

#[derive(Clone)]
enum Shape {
    Bytes(Bytes),
    /// "There is none", remembered.
    Nothing,
    Number(i64),
    Bucket(Bucket),
    Sorted(Arc<Mutex<SortedSet>>),
}

#[derive(Clone)]
struct Entry {
    shape: Shape,
    /// Up to here it is served as it is.
    fresh_until: Timestamp,
    /// From here on it is not there.
    expires: Timestamp,
    /// What it counts for; kept here since it must not change while the entry is in the table.
    weight: u64,
}

impl Entry {
    fn new(key: &str, shape: Shape, fresh_until: Timestamp, expires: Timestamp) -> Self {
        let content = match &shape {
            Shape::Bytes(bytes) => bytes.len(),
            Shape::Nothing | Shape::Number(_) | Shape::Bucket(_) => 0,
            Shape::Sorted(set) => set.lock().bytes(),
        };
        Self {
            shape,
            fresh_until,
            expires,
            weight: (key.len() + content + ENTRY_OVERHEAD) as u64,
        }
    }
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<Arc<str>, Entry> for ByWeight {
    fn weight(&self, _: &Arc<str>, entry: &Entry) -> u64 {
        entry.weight
    }
}

type Answer = watch::Receiver<Option<Loaded>>;

/// The loads in flight of the keys of one stripe.
#[derive(Default)]
struct Stripe {
    flights: HashMap<Arc<str>, Flight>,
}

struct Flight {
    /// No two flights of a cache have the same number.
    number: u64,
    answer: Answer,
}

/// The cache of one process. Cheap to clone; clones share their entries.
#[derive(Clone)]
pub struct EmbeddedCache {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    entries: sync::Cache<Arc<str>, Entry, ByWeight>,
    stripes: Vec<Mutex<Stripe>>,
    hasher: std::hash::RandomState,
    largest: u64,
    flights: AtomicU64,
}

impl EmbeddedCache {
    pub fn new(options: CacheOptions, clock: Arc<dyn Clock>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = (options.bytes / SHARD_BYTES).clamp(1, (cores * 4).next_power_of_two() as u64);
        let items = (options.bytes / options.average_entry_bytes.max(1)).clamp(16, 1 << 24);
        #[expect(
            clippy::expect_used,
            reason = "the two settings that it needs are given in the lines before"
        )]
        let sized = OptionsBuilder::new()
            .shards(shards as usize)
            .weight_capacity(options.bytes)
            .estimated_items_capacity(items as usize)
            .build()
            .expect("both capacities are given");
        let entries = sync::Cache::with_options(sized, ByWeight, Default::default(), Default::default());
        Self {
            inner: Arc::new(Inner {
                clock,
                entries,
                stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
                hasher: std::hash::RandomState::new(),
                largest: options.bytes / 8,
                flights: AtomicU64::new(0),
            }),
        }
    }

    pub fn stats(&self) -> CacheStats {
        let entries = &self.inner.entries;
        CacheStats {
            entries: entries.len() as u64,
            bytes: entries.weight(),
            capacity: entries.capacity(),
            hits: entries.hits(),
            misses: entries.misses(),
            loads: self.inner.flights.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    fn stripe(&self, key: &str) -> MutexGuard<'_, Stripe> {
        self.stripes[self.hasher.hash_one(key) as usize % STRIPES].lock()
    }

    /// The entry of a key, unless its time is over.
    fn live(&self, key: &str) -> Option<(Entry, Timestamp)> {
        let entry = self.entries.get(key)?;
        let now = self.clock.now();
        (entry.expires > now).then_some((entry, now))
    }

    fn value(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        match self.live(key).map(|(entry, _)| entry.shape) {
            None | Some(Shape::Nothing) => Ok(None),
            Some(Shape::Bytes(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(wrong_shape(key)),
        }
    }

    /// Puts an entry in, or takes the old one out if the new one is too large or over already. The stripe shows
    /// that the caller holds the key's lock; a load in flight is told that its value would be old.
    fn write(&self, stripe: &mut Stripe, key: &str, entry: Entry, now: Timestamp) {
        stripe.flights.remove(key);
        self.put(key, entry, now);
    }

    fn put(&self, key: &str, entry: Entry, now: Timestamp) {
        if entry.weight > self.largest || entry.expires <= now {
            self.entries.remove(key);
        } else {
            self.entries.insert(key.into(), entry);
        }
    }

    /// Finds the load of a key that is in flight, or begins one.
    fn flight(
        self: &Arc<Self>,
        key: &str,
        policy: LoadPolicy,
        loader: Loader,
        stripe: &mut Stripe,
    ) -> Answer {
        if let Some(flight) = stripe.flights.get(key) {
            return flight.answer.clone();
        }
        let (tell, answer) = watch::channel(None);
        let number = self.flights.fetch_add(1, Ordering::Relaxed);
        let flight = Flight {
            number,
            answer: answer.clone(),
        };
        let key: Arc<str> = key.into();
        stripe.flights.insert(Arc::clone(&key), flight);
        let landing = Landing {
            cache: Arc::clone(self),
            key,
            number,
        };
        let work = async move {
            // A loader that panics must not leave those who wait for it waiting.
            let loaded = match AssertUnwindSafe(async { loader().await }).catch_unwind().await {
                Ok(loaded) => loaded,
                Err(_) => Err(CacheError::Load {
                    kind: ErrorKind::Internal,
                    message: "the loader panicked".into(),
                }),
            };
            landing.keep(&loaded, policy);
            // No receiver is left when every caller went away; then nobody needs to be told.
            let _ = tell.send(Some(loaded));
        };
        match trace::current() {
            Some(traceparent) => tokio::spawn(trace::scope(traceparent, work)),
            None => tokio::spawn(work),
        };
        answer
    }
}

/// Where a load ends: takes its flight out of the stripe, also when its task is cut off.
struct Landing {
    cache: Arc<Inner>,
    key: Arc<str>,
    number: u64,
}

impl Landing {
    /// True if nobody wrote the key since the load began.
    fn land(&self, stripe: &mut Stripe) -> bool {
        let is_current = stripe
            .flights
            .get(&self.key)
            .is_some_and(|flight| flight.number == self.number);
        if is_current {
            stripe.flights.remove(&self.key);
        }
        is_current
    }

    fn keep(&self, loaded: &Loaded, policy: LoadPolicy) {
        let mut stripe = self.cache.stripe(&self.key);
        if !self.land(&mut stripe) {
            return;
        }
        let now = self.cache.clock.now();
        let entry = match loaded {
            Err(_) => return,
            Ok(None) => {
                let until = now.plus(policy.negative);
                Entry::new(&self.key, Shape::Nothing, until, until)
            }
            Ok(Some(bytes)) => {
                let fresh_until = now.plus(jittered(policy));
                let expires = fresh_until.plus(policy.stale);
                Entry::new(&self.key, Shape::Bytes(bytes.clone()), fresh_until, expires)
            }
        };
        self.cache.put(&self.key, entry, now);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.land(&mut self.cache.stripe(&self.key));
    }
}

fn jittered(policy: LoadPolicy) -> Duration {
    let jitter = f64::from(policy.jitter.clamp(0.0, 0.5));
    policy.fresh.mul_f64(1.0 - jitter * rand::random::<f64>())
}

fn wrong_shape(key: &str) -> CacheError {
    CacheError::WrongShape(key.to_owned())
}

#[async_trait]
impl Cache for EmbeddedCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        self.inner.value(key)
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
        keys.iter().map(|key| self.inner.value(key)).collect()
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), CacheError> {
        check_key(key)?;
        let now = self.inner.clock.now();
        let expires = now.plus(ttl);
        let entry = Entry::new(key, Shape::Bytes(value), expires, expires);
        let mut stripe = self.inner.stripe(key);
        self.inner.write(&mut stripe, key, entry, now);
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<(), CacheError> {
        let mut stripe = self.inner.stripe(key);
        stripe.flights.remove(key);
        self.inner.entries.remove(key);
        Ok(())
    }

    async fn load(&self, key: &str, policy: LoadPolicy, loader: Loader) -> Loaded {
        check_key(key)?;
        let mut answer = match self.inner.live(key) {
            Some((
                Entry {
                    shape: Shape::Nothing,
                    ..
                },
                _,
            )) => return Ok(None),
            Some((
                Entry {
                    shape: Shape::Bytes(bytes),
                    fresh_until,
                    ..
                },
                now,
            )) => {
                if fresh_until <= now {
                    let mut stripe = self.inner.stripe(key);
                    self.inner.flight(key, policy, loader, &mut stripe);
                }
                return Ok(Some(bytes));
            }
            Some(_) => return Err(wrong_shape(key)),
            None => {
                let mut stripe = self.inner.stripe(key);
                // A load may have ended between the look and the lock.
                match self.inner.live(key).map(|(entry, _)| entry.shape) {
                    Some(Shape::Nothing) => return Ok(None),
                    Some(Shape::Bytes(bytes)) => return Ok(Some(bytes)),
                    Some(_) => return Err(wrong_shape(key)),
                    None => self.inner.flight(key, policy, loader, &mut stripe),
                }
            }
        };
        let loaded = match answer.wait_for(Option::is_some).await {
            Ok(loaded) => loaded.clone(),
            Err(_) => None,
        };
        loaded.unwrap_or_else(|| Err(CacheError::Unavailable("the load was cut off".into())))
    }

    async fn incr(&self, key: &str, delta: i64, ttl: Duration) -> Result<i64, CacheError> {
        check_key(key)?;
        let mut stripe = self.inner.stripe(key);
        let (before, now, expires) = match self.inner.live(key) {
            Some((
                Entry {
                    shape: Shape::Number(number),
                    expires,
                    ..
                },
                now,
            )) => (number, now, expires),
            Some((
                Entry {
                    shape: Shape::Nothing,
                    ..
                },
                now,
            )) => (0, now, now.plus(ttl)),
            Some(_) => return Err(wrong_shape(key)),
            None => {
                let now = self.inner.clock.now();
                (0, now, now.plus(ttl))
            }
        };
        let sum = before.saturating_add(delta);
        let entry = Entry::new(key, Shape::Number(sum), expires, expires);
        self.inner.write(&mut stripe, key, entry, now);
        Ok(sum)
    }

    async fn take(
        &self,
        key: &str,
        tokens: u64,
        capacity: u64,
        per_second: f64,
    ) -> Result<BucketState, CacheError> {
        check_key(key)?;
        let mut stripe = self.inner.stripe(key);
        let before = match self.inner.live(key).map(|(entry, _)| entry.shape) {
            Some(Shape::Bucket(bucket)) => Some(bucket),
            None | Some(Shape::Nothing) => None,
            Some(_) => return Err(wrong_shape(key)),
        };
        let now = self.inner.clock.now();
        let (bucket, state) = Bucket::take(before, now, tokens, capacity, per_second)?;
        // A full bucket is like a new one, so it is forgotten as soon as it is full again.
        let expires = now.plus(state.reset_after);
        let entry = Entry::new(key, Shape::Bucket(bucket), expires, expires);
        self.inner.write(&mut stripe, key, entry, now);
        Ok(state)
    }

    async fn zadd(
        &self,
        key: &str,
        member: &str,
        score: f64,
        keep: usize,
        ttl: Duration,
    ) -> Result<(), CacheError> {
        check_key(key)?;
        check_sorted(score, keep)?;
        let mut stripe = self.inner.stripe(key);
        let set = match self.inner.live(key).map(|(entry, _)| entry.shape) {
            Some(Shape::Sorted(set)) => set,
            None | Some(Shape::Nothing) => Arc::default(),
            Some(_) => return Err(wrong_shape(key)),
        };
        set.lock().set(member, score, keep);
        let now = self.inner.clock.now();
        let expires = now.plus(ttl);
        let entry = Entry::new(key, Shape::Sorted(set), expires, expires);
        self.inner.write(&mut stripe, key, entry, now);
        Ok(())
    }

    async fn zrem(&self, key: &str, member: &str) -> Result<bool, CacheError> {
        let mut stripe = self.inner.stripe(key);
        let (set, now, expires) = match self.inner.live(key) {
            Some((
                Entry {
                    shape: Shape::Sorted(set),
                    expires,
                    ..
                },
                now,
            )) => (set, now, expires),
            None
            | Some((
                Entry {
                    shape: Shape::Nothing,
                    ..
                },
                _,
            )) => return Ok(false),
            Some(_) => return Err(wrong_shape(key)),
        };
        if !set.lock().remove(member) {
            return Ok(false);
        }
        if set.lock().is_empty() {
            self.inner.entries.remove(key);
            return Ok(true);
        }
        let entry = Entry::new(key, Shape::Sorted(set), expires, expires);
        self.inner.write(&mut stripe, key, entry, now);
        Ok(true)
    }

    async fn zrange(&self, key: &str, offset: usize, limit: usize) -> Result<Vec<(String, f64)>, CacheError> {
        match self.inner.live(key).map(|(entry, _)| entry.shape) {
            Some(Shape::Sorted(set)) => Ok(set.lock().range(offset, limit)),
            None | Some(Shape::Nothing) => Ok(Vec::new()),
            Some(_) => Err(wrong_shape(key)),
        }
    }
}
