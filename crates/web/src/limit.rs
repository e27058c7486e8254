//! How often somebody may call: the question as the edge asks it. `blocks/limit` answers it.

use async_trait::async_trait;
use holon_base::{Id, Tenant};
use std::{net::IpAddr, time::Duration};

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Whoever is signed in, whatever session or key they use.
    Account { tenant: Tenant, account: Id },
    /// Whoever is not; for IPv6 the first 64 bits, since that is what one person gets.
    Address(IpAddr),
}

impl Subject {
    /// Somebody by address, cut to what one person has.
    pub fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(four) => Self::Address(four.into()),
            IpAddr::V6(six) => {
                let network = u128::from(six) >> 64 << 64;
                Self::Address(IpAddr::V6(network.into()))
            }
        }
    }
}

/// What a limiter says of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// Names the policy in the `RateLimit` fields, such as `signed-in`; letters, digits and `-`.
    pub policy: &'static str,
    /// Calls that the window allows.
    pub limit: u64,
    /// The window of the limit.
    pub window: Duration,
    /// Calls that are left now.
    pub remaining: u64,
    /// Until the full limit is there again.
    pub reset: Duration,
    /// Until the next call is allowed; zero if it is now.
    pub retry_after: Duration,
}

/// Decides how often a subject may call. Implemented by `blocks/limit`.
///
/// It never fails: what to do when a shared counter is away (let pass, as a rule) is the limiter's to know.
#[async_trait]
pub trait RateLimiter: Send + Sync + 'static {
    /// Takes `cost` calls from the subject's allowance if they are there.
    async fn take(&self, subject: &Subject, cost: u32) -> Decision;
}
