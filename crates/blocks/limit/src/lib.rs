//! How often somebody may call: a token bucket for each caller, kept through the [`Cache`] port.
//!
//! A bucket holds up to a policy's *capacity* and gains its tokens steadily; a call takes one (or its cost) or is
//! refused. So a caller may be as fast as the bucket is deep for a moment, and as fast as it fills for long (Turner,
//! "New directions in communications", 1986; the policing of ATM and of most public APIs since). Unlike a window that
//! starts anew each minute, it never lets twice the limit through around a boundary.
//!
//! Buckets are in the cache, so on a shared cache all nodes count together, and a caller who does not call takes no
//! memory: a full bucket is forgotten. **It fails open**: when the cache is away, or has let a bucket go for want of
//! room, calls pass. To refuse everybody because nobody can be counted would make the limiter the outage that it is
//! there to prevent; [`TokenBucketLimiter::passed_uncounted`] says how often it happened.

use async_trait::async_trait;
use holon_ports::{Cache, CacheError};
use holon_web::limit::{Decision, RateLimiter, Subject};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

/// How often one caller may call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// What the `RateLimit` fields call it: letters, digits and `-`.
    pub name: &'static str,
    /// Calls that may come at once, at least 1.
    pub capacity: u64,
    /// Calls a second for long: 0.000001 to 1,000,000,000.
    pub per_second: f64,
}

impl Policy {
    /// Until an empty bucket is full.
    fn window(&self) -> Duration {
        Duration::try_from_secs_f64(self.capacity as f64 / self.per_second).unwrap_or(Duration::MAX)
    }
}

/// The policy of each kind of caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policies {
    /// For an account, whatever sessions and keys it uses.
    pub signed_in: Policy,
    /// For an address from which nobody is signed in. Many people may share one.
    pub address: Policy,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            signed_in: Policy {
                name: "signed-in",
                capacity: 600,
                per_second: 100.0,
            },
            address: Policy {
                name: "address",
                capacity: 300,
                per_second: 50.0,
            },
        }
    }
}

/// A token bucket for each caller.
pub struct TokenBucketLimiter {
    cache: Arc<dyn Cache>,
    policies: Policies,
    passed_uncounted: AtomicU64,
}

impl TokenBucketLimiter {
    pub fn new(cache: Arc<dyn Cache>, policies: Policies) -> Self {
        Self {
            cache,
            policies,
            passed_uncounted: AtomicU64::new(0),
        }
    }

    /// Calls that passed because the cache could not count them, since start.
    pub fn passed_uncounted(&self) -> u64 {
        self.passed_uncounted.load(Ordering::Relaxed)
    }

    fn pass_uncounted(&self, policy: &Policy, error: &CacheError) -> Decision {
        let before = self.passed_uncounted.fetch_add(1, Ordering::Relaxed);
        // The first, then every thousandth: an outage must not flood the log too.
        if before.is_multiple_of(1_000) {
            tracing::warn!(policy = policy.name, %error, passed = before + 1, "cannot count calls, letting them pass");
        }
        Decision {
            allowed: true,
            policy: policy.name,
            limit: policy.capacity,
            window: policy.window(),
            remaining: policy.capacity,
            reset: Duration::ZERO,
            retry_after: Duration::ZERO,
        }
    }
}

#[async_trait]
impl RateLimiter for TokenBucketLimiter {
    /// A cost above the policy's capacity counts as the capacity: it is allowed when the bucket is full.
    async fn take(&self, subject: &Subject, cost: u32) -> Decision {
        let (policy, key) = match subject {
            Subject::Account { tenant, account } => (
                &self.policies.signed_in,
                format!("limit:account:{tenant}:{account}"),
            ),
            Subject::Address(address) => (&self.policies.address, format!("limit:address:{address}")),
        };
        let tokens = u64::from(cost).min(policy.capacity);
        let taken = self
            .cache
            .take(&key, tokens, policy.capacity, policy.per_second)
            .await;
        match taken {
            Ok(bucket) => Decision {
                allowed: bucket.allowed,
                policy: policy.name,
                limit: policy.capacity,
                window: policy.window(),
                remaining: bucket.remaining,
                reset: bucket.reset_after,
                retry_after: bucket.retry_after,
            },
            Err(error) => self.pass_uncounted(policy, &error),
        }
    }
}
