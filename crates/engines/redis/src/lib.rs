//! Cache on Redis 7 or later, a single server or a Cluster.
//!
//! **Two tiers.** Every node keeps what it read in its own memory, bounded by bytes, and uses it for a moment
//! ([`RedisOptions::local_fresh`], a second) without asking Redis. Who writes or deletes a key tells the other nodes
//! over the bus, and they forget it. The bus may lose a message; then the moment bounds how old an answer can be. A
//! node sees its own writes at once.
//!
//! **On the server.** A key of the cache is one key of Redis, so nothing needs to share a slot. What must be one step
//! is a function there (`functions.lua`): token buckets by the server's clock, sorted sets with their bound,
//! increments whose time counts from the first, and the leases of loads.
//!
//! **Loads** run once for all who ask, on whatever node (`load.rs`): a stampede on a cold key reaches the truth once. What
//! is deleted or set while a load runs is not replaced by what the load brings, on any node. On *another* node than
//! the one that deleted, a caller may for as long as the message takes still join a load from before.
//!
//! **When Redis is away** commands time out, and after some failures in a row a circuit breaker opens (in a Cluster, one
//! for each of 64 ranges of slots) and calls fail at once until a probe finds Redis back. Which way a use of the
//! cache fails is decided where it is known:
//!
//! | call | when Redis is away |
//! |---|---|
//! | `load` | open: the loader runs, once at a time for each key and node, and its value is kept in the node's memory for the moment above |
//! | `get`, `get_many` | `Unavailable`; the caller may go to the truth |
//! | `set`, `delete` | `Unavailable`; the key is deleted on the servers when they are back, before this node reads it again |
//! | `take` | `Unavailable`; rate limits fail open and count how often |
//! | `incr`, `zadd`, `zrem`, `zrange` | `Unavailable`; what counts on them chooses |
//!
//! Nothing that must not be lost is kept here, sessions among it: those are rows of the Store, and the caches in front of
//! them are loads, so they fail open to the rows.
//!
//! **Limits.** How much the servers keep is their `maxmemory`, with a policy that evicts such as `allkeys-lfu`; a server
//! that refuses writes because it is full answers `Unavailable`. Buckets count in floating point, exact to a billionth
//! of a token. A command that timed out may still be done later, when a frozen server wakes. Redis replicates behind
//! its answers: what a primary had not passed on when it died is undone by the replica that takes over, so a deleted
//! value may be back and a bucket fuller; their times to live bound that. TLS is not built in.

mod breaker;
mod functions;
mod invalidate;
mod link;
mod load;
mod local;
mod value;

pub use breaker::BreakerState;

use async_trait::async_trait;
use bytes::Bytes;
use holon_ports::cache::{BucketState, LoadPolicy, Loaded, Loader, check_bucket, check_key, check_sorted};
use holon_ports::{Bus, Cache, CacheError};
use invalidate::Invalidation;
use link::{Fault, Link, Repeat};
use load::Found;
use local::{Local, Look};
use redis::Value;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::{Duration, Instant};

/// Keys that are asked for at the same time.
const KEYS_AT_ONCE: usize = 256;

/// Which Redis, and how to use it.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host:port[/database]`; of a Cluster one or more of its servers.
    pub urls: Vec<String>,
    pub cluster: bool,
    /// Before every key, so that several deployments can share one Redis.
    pub prefix: String,
    /// What the servers may keep together; a value larger than an eighth of it is not kept.
    pub bytes: u64,
    /// What this node may keep in its own memory.
    pub local_bytes: u64,
    /// How long this node uses a value without asking Redis; zero for never.
    pub local_fresh: Duration,
    /// How long a command may take.
    pub timeout: Duration,
    /// Failures in a row after which a circuit breaker opens.
    pub failures: u32,
    /// How often an open breaker tries whether Redis is back.
    pub probe_every: Duration,
    /// How long a load of a node that died keeps others from loading.
    pub lease: Duration,
    /// Tells nodes what others changed.
    pub bus: Arc<dyn Bus>,
}

impl RedisOptions {
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>, bus: Arc<dyn Bus>) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            cluster: false,
            prefix: "holon:".into(),
            bytes: 256 << 20,
            local_bytes: 32 << 20,
            local_fresh: Duration::from_secs(1),
            timeout: Duration::from_millis(250),
            failures: 5,
            probe_every: Duration::from_millis(500),
            lease: Duration::from_secs(3),
            bus,
        }
    }
}

/// What is wrong with the options. None of these says what a URL holds, which may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    #[error("a redis url is not of the form redis://[user:password@]host:port[/database]")]
    Url,
    #[error("more than one redis url, and not a cluster")]
    ManyUrls,
}

/// How the cache is doing; counts are since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisStats {
    /// The worst of all breakers.
    pub breaker: BreakerState,
    /// Breakers that are not closed, and all of them.
    pub breakers_open: usize,
    pub breakers: usize,
    pub breakers_opened: u64,
    pub connections: u64,
    pub commands: u64,
    pub timeouts: u64,
    pub failures: u64,
    /// Calls that an open breaker failed.
    pub refused: u64,
    /// Keys to delete on the servers as soon as they can be reached.
    pub owed: usize,
    pub local_entries: u64,
    pub local_bytes: u64,
    pub local_hits: u64,
    pub local_misses: u64,
    /// Loaders run on this node.
    pub loads: u64,
    pub invalidations_sent: u64,
    pub invalidations_received: u64,
    pub invalidations_lost: u64,
}

/// The cache of one node. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct RedisCache {
    inner: Arc<Inner>,
}

struct Inner {
    link: Arc<Link>,
    local: Arc<Local>,
    told: Invalidation,
    lease: Duration,
    largest: u64,
    flights: AtomicU64,
    loads: AtomicU64,
}

impl RedisCache {
    /// Connects. A Redis that is away is no error: the breakers are open then, and close when it comes.
    ///
    /// # Errors
    /// [`RedisError`] if the options make no sense.
    pub async fn connect(options: RedisOptions) -> Result<Self, RedisError> {
        let link = Link::new(&options)?;
        let local = Arc::new(Local::new(options.local_bytes, options.local_fresh));
        // Deployments that share a bus have prefixes of their own; a prefix may hold what a subject may not.
        let prefix: String = options.prefix.bytes().map(|byte| format!("{byte:02x}")).collect();
        let subject = format!("cache.changes.p{}", &prefix[..prefix.len().min(200)]);
        let told = Invalidation::start(Arc::clone(&options.bus), subject, Arc::clone(&local)).await;
        link.start().await;
        Ok(Self {
            inner: Arc::new(Inner {
                link,
                local,
                told,
                lease: options.lease,
                largest: options.bytes / 8,
                flights: AtomicU64::new(0),
                loads: AtomicU64::new(0),
            }),
        })
    }

    pub fn cache(&self) -> Arc<dyn Cache> {
        Arc::new(self.clone())
    }

    pub fn stats(&self) -> RedisStats {
        let Inner {
            link, local, told, ..
        } = &*self.inner;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let states: Vec<BreakerState> = link.breaker_states().collect();
        let is = |state| states.contains(&state);
        RedisStats {
            breaker: if is(BreakerState::Open) {
                BreakerState::Open
            } else if is(BreakerState::HalfOpen) {
                BreakerState::HalfOpen
            } else {
                BreakerState::Closed
            },
            breakers_open: states
                .iter()
                .filter(|state| **state != BreakerState::Closed)
                .count(),
            breakers: states.len(),
            breakers_opened: count(&link.counts.opened),
            connections: count(&link.counts.connections),
            commands: count(&link.counts.commands),
            timeouts: count(&link.counts.timeouts),
            failures: count(&link.counts.failures),
            refused: count(&link.counts.refused),
            owed: link.owed(),
            local_entries: local.entries(),
            local_bytes: local.bytes(),
            local_hits: count(&local.hits),
            local_misses: count(&local.misses),
            loads: count(&self.inner.loads),
            invalidations_sent: count(&told.counts().sent),
            invalidations_received: count(&told.counts().received),
            invalidations_lost: count(&told.counts().lost),
        }
    }
}

impl Inner {
    fn is_too_large(&self, key: &str, value: &Bytes) -> bool {
        (key.len() + value.len() + value::HEAD_BYTES) as u64 > self.largest
    }

    async fn value(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        if check_key(key).is_err() {
            return Ok(None);
        }
        if let Some(Look::Fresh(value) | Look::Stale(value)) = self.local.look(key) {
            return Ok(value);
        }
        let changes = self.local.changes(key);
        let redis_key = self.link.key(key);
        let asked = Instant::now();
        let command = functions::read("get", &redis_key);
        let answer = self.link.call(&redis_key, command, Repeat::Yes).await;
        let found = answer.and_then(|answer| load::found(answer, asked));
        match found.map_err(|fault| fault.of(key))? {
            Found::Nothing => Ok(None),
            Found::Kept(reading) => {
                let value = reading.value.clone();
                self.local.fill(key, changes, reading);
                Ok(value)
            }
        }
    }

    /// Replaces whatever a key holds; `None` for nothing.
    async fn write(&self, key: &str, value: Option<(Bytes, Duration)>) -> Result<(), CacheError> {
        let redis_key = self.link.key(key);
        let value = value.filter(|(bytes, ttl)| !ttl.is_zero() && !self.is_too_large(key, bytes));
        let command = match &value {
            None => {
                let mut command = redis::cmd("DEL");
                command.arg(&redis_key);
                command
            }
            Some((bytes, ttl)) => {
                let mut command = redis::cmd("SET");
                let encoded = value::encode(bytes, Duration::ZERO);
                let ttl_ms = value::milliseconds(*ttl).max(1);
                command
                    .arg(&redis_key)
                    .arg(encoded.as_ref())
                    .arg("PX")
                    .arg(ttl_ms);
                command
            }
        };
        let changes = self.local.written(key);
        let reading = value.map(|(bytes, ttl)| load::written(bytes, ttl));
        let answer = self.link.call(&redis_key, command, Repeat::Yes).await;
        let kept = if answer.is_ok() { reading } else { None };
        self.local.settle(key, changes, kept);
        // Told in any case: what timed out may have been done.
        self.told.written(key);
        if answer.is_err() {
            self.link.owe(&redis_key);
        }
        answer.map(|_| ()).map_err(|fault| fault.of(key))
    }

    /// Calls a function that changes a key of another shape than a value.
    async fn change(
        &self,
        key: &str,
        function: &str,
        arguments: &[&str],
        repeat: Repeat,
    ) -> Result<Value, CacheError> {
        let redis_key = self.link.key(key);
        let mut command = functions::call(function, &redis_key);
        command.arg(arguments);
        let answer = self.link.call(&redis_key, command, repeat).await;
        self.local.written(key);
        answer.map_err(|fault| fault.of(key))
    }
}

fn unreadable() -> CacheError {
    CacheError::Unavailable("redis answered what it should not".into())
}

#[async_trait]
impl Cache for RedisCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        self.inner.value(key).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
        let mut values = Vec::with_capacity(keys.len());
        // One connection to a server carries them all at once, whatever their slots.
        for some in keys.chunks(KEYS_AT_ONCE) {
            let answers = some.iter().map(|key| self.inner.value(key));
            values.extend(futures::future::try_join_all(answers).await?);
        }
        Ok(values)
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), CacheError> {
        check_key(key)?;
        self.inner.write(key, Some((value, ttl))).await
    }

    async fn delete(&self, key: &str) -> Result<(), CacheError> {
        if check_key(key).is_err() {
            return Ok(());
        }
        self.inner.write(key, None).await
    }

    async fn load(&self, key: &str, policy: LoadPolicy, loader: Loader) -> Loaded {
        check_key(key)?;
        self.inner.load(key, policy, loader).await
    }

    async fn incr(&self, key: &str, delta: i64, ttl: Duration) -> Result<i64, CacheError> {
        check_key(key)?;
        let arguments = [&delta.to_string(), &*value::milliseconds(ttl).to_string()];
        let sum = self.inner.change(key, "incr", &arguments, Repeat::No).await?;
        value::integer(&sum).ok_or_else(unreadable)
    }

    async fn take(
        &self,
        key: &str,
        tokens: u64,
        capacity: u64,
        per_second: f64,
    ) -> Result<BucketState, CacheError> {
        check_key(key)?;
        check_bucket(tokens, capacity, per_second)?;
        let arguments = [
            &tokens.to_string(),
            &*capacity.to_string(),
            &per_second.to_string(),
        ];
        let answer = self.inner.change(key, "take", &arguments, Repeat::No).await?;
        let Value::Array(parts) = answer else {
            return Err(unreadable());
        };
        let [allowed, remaining, retry, reset] = parts.as_slice() else {
            return Err(unreadable());
        };
        let count = |part| value::count(part).ok_or_else(unreadable);
        Ok(BucketState {
            allowed: value::integer(allowed) == Some(1),
            remaining: count(remaining)?.min(capacity),
            retry_after: Duration::from_millis(count(retry)?),
            reset_after: Duration::from_millis(count(reset)?),
        })
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
        // Minus zero is zero. Redis reads `inf` as Rust writes it.
        let negated = (0.0 - score).to_string();
        let keep = i64::try_from(keep).unwrap_or(i64::MAX).to_string();
        let arguments = [member, &negated, &keep, &value::milliseconds(ttl).to_string()];
        self.inner.change(key, "zadd", &arguments, Repeat::Yes).await?;
        Ok(())
    }

    async fn zrem(&self, key: &str, member: &str) -> Result<bool, CacheError> {
        if check_key(key).is_err() {
            return Ok(false);
        }
        let removed = self.inner.change(key, "zrem", &[member], Repeat::No).await?;
        Ok(value::integer(&removed) == Some(1))
    }

    async fn zrange(&self, key: &str, offset: usize, limit: usize) -> Result<Vec<(String, f64)>, CacheError> {
        if check_key(key).is_err() || limit == 0 {
            return Ok(Vec::new());
        }
        let Ok(first) = i64::try_from(offset) else {
            return Ok(Vec::new());
        };
        let last = first.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX) - 1);
        let redis_key = self.inner.link.key(key);
        let mut command = functions::read("zrange", &redis_key);
        command.arg(first).arg(last);
        let answer = self.inner.link.call(&redis_key, command, Repeat::Yes).await;
        let Value::Array(parts) = answer.map_err(|fault: Fault| fault.of(key))? else {
            return Err(unreadable());
        };
        parts
            .chunks(2)
            .map(|pair| {
                let [member, negated] = pair else {
                    return Err(unreadable());
                };
                let member = value::text(member).ok_or_else(unreadable)?;
                let negated: f64 = value::text(negated)
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(unreadable)?;
                Ok((member.to_owned(), 0.0 - negated))
            })
            .collect()
    }
}
