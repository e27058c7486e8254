//! The limiter over the embedded cache, and over one that is away.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use async_trait::async_trait;
use bytes::Bytes;
use holon_base::{Id, ManualClock, Tenant, Timestamp};
use holon_embedded::cache::{CacheOptions, EmbeddedCache};
use holon_limit::{Policies, Policy, TokenBucketLimiter};
use holon_ports::cache::{BucketState, LoadPolicy, Loaded, Loader};
use holon_ports::{Cache, CacheError};
use holon_web::limit::{RateLimiter, Subject};
use std::{sync::Arc, time::Duration};

fn policies() -> Policies {
    Policies {
        signed_in: Policy {
            name: "signed-in",
            capacity: 10,
            per_second: 2.0,
        },
        address: Policy {
            name: "address",
            capacity: 3,
            per_second: 0.5,
        },
    }
}

fn limiter() -> (TokenBucketLimiter, ManualClock) {
    let clock = ManualClock::new(Timestamp::from_millis(1_800_000_000_000));
    let cache = EmbeddedCache::new(CacheOptions::default(), Arc::new(clock.clone()));
    (TokenBucketLimiter::new(Arc::new(cache), policies()), clock)
}

fn address(text: &str) -> Subject {
    Subject::address(text.parse().unwrap())
}

fn account(tenant: &str, id: u64) -> Subject {
    Subject::Account {
        tenant: Tenant::new(tenant).unwrap(),
        account: Id::from_u64(id),
    }
}

#[tokio::test]
async fn a_caller_may_be_as_fast_as_the_bucket_is_deep_and_then_as_it_fills() {
    let (limiter, clock) = limiter();
    let caller = address("192.0.2.1");
    for left in [2, 1, 0] {
        let decision = limiter.take(&caller, 1).await;
        assert!(decision.allowed);
        assert_eq!((decision.limit, decision.remaining), (3, left));
        assert_eq!(decision.policy, "address");
        assert_eq!(decision.window, Duration::from_secs(6));
    }
    let refused = limiter.take(&caller, 1).await;
    assert!(!refused.allowed);
    assert_eq!(refused.retry_after, Duration::from_secs(2));
    assert_eq!(refused.reset, Duration::from_secs(6));
    clock.advance(Duration::from_millis(1_999));
    assert!(!limiter.take(&caller, 1).await.allowed);
    clock.advance(Duration::from_millis(1));
    assert!(limiter.take(&caller, 1).await.allowed);
    assert!(!limiter.take(&caller, 1).await.allowed);
}

#[tokio::test]
async fn callers_do_not_take_from_each_other() {
    let (limiter, _) = limiter();
    for _ in 0..10 {
        assert!(limiter.take(&account("main", 1), 1).await.allowed);
    }
    assert!(!limiter.take(&account("main", 1), 1).await.allowed);
    assert!(limiter.take(&account("main", 2), 1).await.allowed);
    assert!(limiter.take(&account("shop", 1), 1).await.allowed);
    assert!(limiter.take(&address("192.0.2.1"), 3).await.allowed);
    assert!(limiter.take(&address("192.0.2.2"), 3).await.allowed);
    // One household's IPv6 addresses are one caller.
    assert!(limiter.take(&address("2001:db8::1"), 3).await.allowed);
    assert!(!limiter.take(&address("2001:db8::2"), 1).await.allowed);
}

#[tokio::test]
async fn a_dear_call_costs_more_and_the_dearest_needs_a_full_bucket() {
    let (limiter, clock) = limiter();
    let caller = account("main", 1);
    assert_eq!(limiter.take(&caller, 7).await.remaining, 3);
    assert!(!limiter.take(&caller, 4).await.allowed);
    assert!(limiter.take(&caller, 3).await.allowed);
    let refused = limiter.take(&caller, 1_000).await;
    assert!(!refused.allowed);
    assert_eq!(refused.retry_after, Duration::from_secs(5));
    clock.advance(refused.retry_after);
    assert!(limiter.take(&caller, 1_000).await.allowed);
}

/// A cache that is away.
struct Away;

fn away<T>() -> Result<T, CacheError> {
    Err(CacheError::Unavailable("connection refused".into()))
}

#[async_trait]
impl Cache for Away {
    async fn get(&self, _: &str) -> Result<Option<Bytes>, CacheError> {
        away()
    }
    async fn get_many(&self, _: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
        away()
    }
    async fn set(&self, _: &str, _: Bytes, _: Duration) -> Result<(), CacheError> {
        away()
    }
    async fn delete(&self, _: &str) -> Result<(), CacheError> {
        away()
    }
    async fn load(&self, _: &str, _: LoadPolicy, _: Loader) -> Loaded {
        away()
    }
    async fn incr(&self, _: &str, _: i64, _: Duration) -> Result<i64, CacheError> {
        away()
    }
    async fn take(&self, _: &str, _: u64, _: u64, _: f64) -> Result<BucketState, CacheError> {
        away()
    }
    async fn zadd(&self, _: &str, _: &str, _: f64, _: usize, _: Duration) -> Result<(), CacheError> {
        away()
    }
    async fn zrem(&self, _: &str, _: &str) -> Result<bool, CacheError> {
        away()
    }
    async fn zrange(&self, _: &str, _: usize, _: usize) -> Result<Vec<(String, f64)>, CacheError> {
        away()
    }
}

#[tokio::test]
async fn calls_pass_and_are_noted_while_the_cache_is_away() {
    let limiter = TokenBucketLimiter::new(Arc::new(Away), policies());
    for _ in 0..20 {
        assert!(limiter.take(&address("192.0.2.1"), 1).await.allowed);
    }
    assert_eq!(limiter.passed_uncounted(), 20);
}
