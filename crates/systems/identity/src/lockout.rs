//! Lockout: guessing gets slow, and no stranger can keep an owner out.
//!
//! The scheme is that of *device cookies* (OWASP, "Slow Down Online Guessing Attacks with Device Cookies"): a device
//! that has signed in to an account holds a signed token that says so. Its attempts are counted in a bucket of its
//! own, which no stranger can reach. Everybody else is counted by (account, network), so that a guesser in one
//! network slows only that network down, and by network over all accounts, against one password tried on many.
//! A network is an IPv4 /24 or an IPv6 /56.
//!
//! A bucket lets some failures through for free; after that each failure doubles the wait until the next attempt, up
//! to a quarter of an hour. Failures are forgotten by half for every six hours without one. An attempt is
//! counted as a failure *before* the password is checked and taken back when it was right, so that a burst of
//! parallel guesses gains nothing.
//!
//! Counts are in memory, bounded, and of one node: over N nodes a guesser gets N times the free tries, and a restart
//! forgets them. A guesser with many networks gets each network's tries, four an hour in the long run; against
//! those stand the strength of passwords and the audit log.

use crate::secret::{Secret, decode, encode, random, same};
use holon_base::{Id, Tenant, Timestamp};
use parking_lot::Mutex;
use std::{collections::HashMap, net::IpAddr, time::Duration};

/// Failures that cost nothing for one account from one network.
const ACCOUNT_FREE: u32 = 5;
/// Failures that cost nothing for one network over all accounts: offices share one.
const NETWORK_FREE: u32 = 50;
/// Failures that cost nothing on a device that has signed in before.
const DEVICE_FREE: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
/// Longer than the longest wait, or waiting would undo the waiting.
const HALF_LIFE: Duration = Duration::from_secs(6 * 60 * 60);
/// How long a device stays known after its last login.
pub const DEVICE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The most buckets; beyond it the quietest go first.
const BUCKETS: usize = 100_000;

/// Where an attempt comes from, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address: an IPv4 /24, an IPv6 /56; IPv4 written as IPv6 is IPv4.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(IpAddr::V4((v4.to_bits() & !0xff).into())),
            IpAddr::V6(v6) => Self(IpAddr::V6((v6.to_bits() & !(u128::MAX >> 56)).into())),
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = if self.0.is_ipv4() { 24 } else { 56 };
        write!(f, "{}/{bits}", self.0)
    }
}

/// A handle as the buckets know it: a keyed hash, since even a mistyped one can be somebody's.
pub type HandleHash = [u8; 32];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Account(HandleHash, Network),
    Network(Network),
    Device(HandleHash, [u8; 16]),
}

impl Key {
    fn free(&self) -> u32 {
        match self {
            Self::Account(..) => ACCOUNT_FREE,
            Self::Network(_) => NETWORK_FREE,
            Self::Device(..) => DEVICE_FREE,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    failures: u32,
    last: Timestamp,
}

impl Bucket {
    /// Failures that still count.
    fn failures_at(self, now: Timestamp) -> u32 {
        let halvings = now.since(self.last).as_millis() / HALF_LIFE.as_millis();
        self.failures
            .checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX))
            .unwrap_or(0)
    }

    fn open_at(self, free: u32, now: Timestamp) -> Timestamp {
        let failures = self.failures_at(now);
        if failures < free {
            return Timestamp::from_millis(i64::MIN);
        }
        let wait = FIRST_WAIT
            .saturating_mul(1_u32 << (failures - free).min(20))
            .min(LONGEST_WAIT);
        self.last.plus(wait)
    }
}

/// An attempt that was let through. Counted as a failure until told otherwise.
#[derive(Debug)]
#[must_use = "tell the lockout how the attempt ended"]
pub struct Attempt {
    keys: Vec<Key>,
}

/// A bucket in which attempts have to wait: for the glass box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slowed {
    /// `account`, `network` or `device`.
    pub kind: &'static str,
    /// `None` for a device.
    pub network: Option<Network>,
    pub failures: u32,
    pub until: Timestamp,
}

/// Counts attempts and says who has to wait.
#[derive(Debug, Default)]
pub struct Lockout {
    buckets: Mutex<HashMap<Key, Bucket>>,
}

impl Lockout {
    /// Lets an attempt through or answers how long it has to wait.
    pub fn admit(
        &self,
        handle: HandleHash,
        from: Network,
        device: Option<[u8; 16]>,
        now: Timestamp,
    ) -> Result<Attempt, Duration> {
        let keys = match device {
            Some(device) => vec![Key::Device(handle, device)],
            None => vec![Key::Account(handle, from), Key::Network(from)],
        };
        let mut buckets = self.buckets.lock();
        let open = keys
            .iter()
            .filter_map(|key| Some(buckets.get(key)?.open_at(key.free(), now)))
            .max();
        if let Some(open) = open.filter(|open| *open > now) {
            return Err(open.since(now));
        }
        if buckets.len() + keys.len() > BUCKETS {
            make_room(&mut buckets, now);
        }
        for key in &keys {
            let bucket = buckets.entry(*key).or_insert(Bucket {
                failures: 0,
                last: now,
            });
            bucket.failures = bucket.failures_at(now).saturating_add(1);
            bucket.last = now;
        }
        Ok(Attempt { keys })
    }

    /// The password was right. The account's or device's bucket is empty again; the network's gets only this
    /// attempt back, or one good account would wash away the failures on others.
    pub fn succeeded(&self, attempt: Attempt) {
        let mut buckets = self.buckets.lock();
        for key in attempt.keys {
            match key {
                Key::Account(..) | Key::Device(..) => {
                    buckets.remove(&key);
                }
                Key::Network(_) => give_back(&mut buckets, key),
            }
        }
    }

    /// The attempt was never decided: nothing is held against anybody.
    pub fn undecided(&self, attempt: Attempt) {
        let mut buckets = self.buckets.lock();
        for key in attempt.keys {
            give_back(&mut buckets, key);
        }
    }

    /// Who has to wait at this moment, the longest wait first, at most `most`.
    pub fn slowed(&self, now: Timestamp, most: usize) -> Vec<Slowed> {
        let mut slowed: Vec<Slowed> = self
            .buckets
            .lock()
            .iter()
            .filter_map(|(key, bucket)| {
                let until = bucket.open_at(key.free(), now);
                let (kind, network) = match key {
                    Key::Account(_, network) => ("account", Some(*network)),
                    Key::Network(network) => ("network", Some(*network)),
                    Key::Device(..) => ("device", None),
                };
                let failures = bucket.failures_at(now);
                (until > now).then_some(Slowed {
                    kind,
                    network,
                    failures,
                    until,
                })
            })
            .collect();
        slowed.sort_by_key(|slowed| (std::cmp::Reverse(slowed.until), slowed.network));
        slowed.truncate(most);
        slowed
    }
}

fn give_back(buckets: &mut HashMap<Key, Bucket>, key: Key) {
    if let Some(bucket) = buckets.get_mut(&key) {
        bucket.failures = bucket.failures.saturating_sub(1);
        if bucket.failures == 0 {
            buckets.remove(&key);
        }
    }
}

/// Drops what counts no more; if that is not enough, the half that was quiet the longest.
fn make_room(buckets: &mut HashMap<Key, Bucket>, now: Timestamp) {
    buckets.retain(|_, bucket| bucket.failures_at(now) > 0);
    if buckets.len() <= BUCKETS * 9 / 10 {
        return;
    }
    let mut times: Vec<Timestamp> = buckets.values().map(|bucket| bucket.last).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    buckets.retain(|_, bucket| bucket.last > median);
}

/// A device that has signed in before: `<account>.<nonce>.<time>.<mac>`. It opens nothing; it only has its own bucket.
pub(crate) fn device_token(secret: &Secret, account: Id, device: [u8; 16], now: Timestamp) -> String {
    let mac = device_mac(secret, account, device, now.millis());
    format!("{account}.{}.{}.{}", encode(&device), now.millis(), encode(&mac))
}

/// The device of a token, if this deployment gave it out for this account and it is not too old.
pub(crate) fn known_device(secret: &Secret, account: Id, token: &str, now: Timestamp) -> Option<[u8; 16]> {
    let mut parts = token.split('.');
    let (owner, device, time, mac) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || owner.parse() != Ok(account) {
        return None;
    }
    let device: [u8; 16] = decode(device)?.try_into().ok()?;
    let time: i64 = time.parse().ok()?;
    let genuine = same(&device_mac(secret, account, device, time), &decode(mac)?);
    let is_young = now.since(Timestamp::from_millis(time)) < DEVICE_LIFETIME;
    (genuine && is_young).then_some(device)
}

/// A device that was never seen.
pub fn new_device() -> [u8; 16] {
    random()
}

fn device_mac(secret: &Secret, account: Id, device: [u8; 16], time: i64) -> [u8; 32] {
    let account = account.as_u64().to_be_bytes();
    secret.derive("device", &[&account, &device, &time.to_be_bytes()])
}

/// The hash under which attempts on a handle are counted.
pub(crate) fn handle_hash(secret: &Secret, tenant: &Tenant, handle: &str) -> HandleHash {
    secret.derive("lockout", &[tenant.as_str().as_bytes(), handle.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: HandleHash = [1; 32];
    const BOB: HandleHash = [2; 32];

    fn network(text: &str) -> Network {
        Network::of(text.parse().unwrap())
    }

    fn start() -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    /// Fails as often as it is let through at this moment; answers how often and the wait after that.
    fn fail_until_slowed(
        lockout: &Lockout,
        handle: HandleHash,
        from: Network,
        now: Timestamp,
    ) -> (u32, Duration) {
        for tries in 0.. {
            match lockout.admit(handle, from, None, now) {
                Ok(_counted_as_failure) => {}
                Err(wait) => return (tries, wait),
            }
        }
        unreachable!()
    }

    #[test]
    fn guessing_from_one_network_gets_exponentially_slower() {
        let lockout = Lockout::default();
        let from = network("203.0.113.7");
        let mut now = start();
        let (free, mut wait) = fail_until_slowed(&lockout, ADA, from, now);
        assert_eq!((free, wait), (ACCOUNT_FREE, Duration::from_secs(1)));
        let mut waits = Vec::new();
        for _ in 0..12 {
            now = now.plus(wait);
            let (tries, next) = fail_until_slowed(&lockout, ADA, network("203.0.113.200"), now);
            assert_eq!(tries, 1, "one try after each wait");
            waits.push(next.as_secs());
            wait = next;
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
        // After a quiet while, half of it is forgotten, and later all.
        assert!(
            lockout
                .admit(ADA, from, None, now.plus(Duration::from_secs(24 * 3600)))
                .is_ok()
        );
    }

    #[test]
    fn a_stranger_slows_neither_other_networks_nor_known_devices() {
        let lockout = Lockout::default();
        let now = start();
        for stranger in 0..1_000_u32 {
            let from = Network::of(std::net::Ipv4Addr::from(0x0a00_0000 + (stranger % 40) * 256).into());
            let _ = lockout.admit(ADA, from, None, now);
        }
        assert!(lockout.admit(ADA, network("198.51.100.1"), None, now).is_ok());
        // Also from the very network that is slowed.
        assert!(lockout.admit(ADA, network("10.0.0.5"), None, now).is_err());
        assert!(
            lockout
                .admit(ADA, network("10.0.0.5"), Some([9; 16]), now)
                .is_ok()
        );
    }

    #[test]
    fn one_password_on_many_accounts_is_slowed_by_network() {
        let lockout = Lockout::default();
        let from = network("2001:db8:1::1");
        let tries = (0..200_u8)
            .filter(|account| lockout.admit([*account; 32], from, None, start()).is_ok())
            .count();
        assert_eq!(tries, NETWORK_FREE as usize);
    }

    #[test]
    fn a_right_password_clears_its_account_and_only_its_own_try_on_the_network() {
        let lockout = Lockout::default();
        let (from, now) = (network("203.0.113.7"), start());
        for _ in 0..NETWORK_FREE - 1 {
            let attempt = lockout.admit(BOB, from, Some([1; 16]), now);
            if let Ok(attempt) = attempt {
                lockout.succeeded(attempt);
            }
            let account: [u8; 32] = random();
            let _failed = lockout.admit(account, from, None, now).unwrap();
        }
        let own = lockout.admit(ADA, from, None, now).unwrap();
        lockout.succeeded(own);
        let _failed = lockout.admit(ADA, from, None, now).unwrap();
        assert!(
            lockout.admit(ADA, from, None, now).is_err(),
            "the network's other failures still count"
        );
        let waits = lockout.slowed(now, 10);
        assert_eq!(waits.len(), 1);
        assert_eq!((waits[0].kind, waits[0].failures), ("network", NETWORK_FREE));
    }

    #[test]
    fn memory_is_bounded() {
        let lockout = Lockout::default();
        for step in 0..BUCKETS as u64 + 5_000 {
            let mut handle = [0; 32];
            handle[..8].copy_from_slice(&step.to_be_bytes());
            let from = Network::of(std::net::Ipv6Addr::from(u128::from(step) << 72).into());
            let now = start().plus(Duration::from_millis(step));
            let _failed = lockout.admit(handle, from, None, now).unwrap();
        }
        assert!(lockout.buckets.lock().len() <= BUCKETS);
    }

    #[test]
    fn a_device_is_known_only_for_its_account_and_its_time() {
        let (secret, now) = (Secret::new([5; 32]), start());
        let token = device_token(&secret, Id::from_u64(7), [4; 16], now);
        assert_eq!(known_device(&secret, Id::from_u64(7), &token, now), Some([4; 16]));
        assert_eq!(known_device(&secret, Id::from_u64(8), &token, now), None);
        assert_eq!(
            known_device(&Secret::new([6; 32]), Id::from_u64(7), &token, now),
            None
        );
        assert_eq!(
            known_device(&secret, Id::from_u64(7), &token, now.plus(DEVICE_LIFETIME)),
            None
        );
        assert_eq!(
            known_device(&secret, Id::from_u64(7), &token.replace("7.", "8."), now),
            None
        );
        for rubbish in ["", "7", "7..0.", "7.AAAA.x.y", "....."] {
            assert_eq!(known_device(&secret, Id::from_u64(7), rubbish, now), None);
        }
    }
}
