//! Cache: what may be lost at any time and is cheaper to keep than to make again.
//!
//! Bounded by bytes. A value may vanish before its time, never after it. `load` is the usual way in: one caller
//! loads, the others wait; what is not there can be remembered too; expiry is spread so that keys made together do
//! not die together; and a value past its freshness can be served while one caller makes it anew.

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use holon_base::ErrorKind;
use std::time::Duration;

/// How [`Cache::load`] keeps what it loads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadPolicy {
    /// How long a value is fresh.
    pub fresh: Duration,
    /// How much longer it may be served while one caller loads it anew; zero for never.
    pub stale: Duration,
    /// How long "there is none" is remembered; zero for never.
    pub negative: Duration,
    /// Up to this share of `fresh` is taken off at random, 0 to 0.5.
    pub jitter: f32,
}

impl LoadPolicy {
    /// Fresh for a time, a tenth of jitter, nothing stale, nothing negative.
    pub const fn fresh(fresh: Duration) -> Self {
        Self {
            fresh,
            stale: Duration::ZERO,
            negative: Duration::ZERO,
            jitter: 0.1,
        }
    }
}

/// What a loader answers: the value, `None` for "there is none", or an error, which is never kept.
pub type Loaded = Result<Option<Bytes>, CacheError>;

/// Loads a value on a miss. Owned, since it may outlive the caller that started it.
pub type Loader = Box<dyn FnOnce() -> BoxFuture<'static, Loaded> + Send>;

/// The answer of a token bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketState {
    pub allowed: bool,
    /// Whole tokens left.
    pub remaining: u64,
    /// Until enough tokens are there for a request like this one; zero if it was allowed.
    pub retry_after: Duration,
    /// Until the bucket is full.
    pub reset_after: Duration,
}

/// Bounded, forgetful key and value.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError>;

    /// The answer has the order of the keys.
    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError>;

    /// Keeps a value for at most `ttl`; a value larger than an eighth of the cache is not kept.
    async fn set(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), CacheError>;

    /// Forgets a value. A `load` of this key that is under way will not bring the old value back.
    async fn delete(&self, key: &str) -> Result<(), CacheError>;

    /// Gets a value or loads it, once for all who ask at the same time. If the loading caller goes away, the load
    /// goes on for the others.
    async fn load(&self, key: &str, policy: LoadPolicy, loader: Loader) -> Loaded;

    /// Adds to a number that starts at 0 and answers the sum. `ttl` counts from the first increment.
    async fn incr(&self, key: &str, delta: i64, ttl: Duration) -> Result<i64, CacheError>;

    /// Takes tokens from a bucket that holds at most `capacity` and gains `per_second`; starts full.
    async fn take(
        &self,
        key: &str,
        tokens: u64,
        capacity: u64,
        per_second: f64,
    ) -> Result<BucketState, CacheError>;

    /// Sets the score of a member of a sorted set, which keeps at most `keep` members, the highest, for `ttl` from
    /// its last change.
    async fn zadd(
        &self,
        key: &str,
        member: &str,
        score: f64,
        keep: usize,
        ttl: Duration,
    ) -> Result<(), CacheError>;

    /// Takes a member out; false if it was not there.
    async fn zrem(&self, key: &str, member: &str) -> Result<bool, CacheError>;

    /// Members with their scores, highest first, equal scores by member; skips `offset`, answers up to `limit`.
    async fn zrange(&self, key: &str, offset: usize, limit: usize) -> Result<Vec<(String, f64)>, CacheError>;
}

/// Why a cache did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The loader failed; kind and message are its own.
    #[error("{message}")]
    Load { kind: ErrorKind, message: String },
    #[error("key {0:?} holds a value of another shape")]
    WrongShape(String),
    #[error("invalid request: {0}")]
    Invalid(String),
    #[error("cache is away: {0}")]
    Unavailable(String),
}

impl CacheError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Load { kind, .. } => *kind,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::WrongShape(_) => ErrorKind::Internal,
            Self::Unavailable(_) => ErrorKind::Unavailable,
        }
    }
}

/// The longest key, in bytes.
pub const KEY_BYTES: usize = 1_024;
/// The slowest and fastest refill of a bucket, in tokens a second.
const RATES: std::ops::RangeInclusive<f64> = 1e-6..=1e9;

/// # Errors
/// [`CacheError::Invalid`]; so with the other checks, which every engine makes.
pub fn check_key(key: &str) -> Result<(), CacheError> {
    if key.is_empty() || key.len() > KEY_BYTES {
        return Err(CacheError::Invalid(format!("a key is 1 to {KEY_BYTES} bytes")));
    }
    Ok(())
}

pub fn check_bucket(tokens: u64, capacity: u64, per_second: f64) -> Result<(), CacheError> {
    if !RATES.contains(&per_second) {
        return Err(CacheError::Invalid(format!(
            "a bucket gains 0.000001 to 1000000000 tokens a second, not {per_second}"
        )));
    }
    if capacity == 0 || tokens > capacity {
        return Err(CacheError::Invalid(format!(
            "{tokens} tokens from a bucket that holds at most {capacity}"
        )));
    }
    Ok(())
}

pub fn check_sorted(score: f64, keep: usize) -> Result<(), CacheError> {
    if score.is_nan() || keep == 0 {
        return Err(CacheError::Invalid(
            "a score is a number, and a sorted set keeps at least one member".into(),
        ));
    }
    Ok(())
}
