//! A node's number: taken by a lease, so that no two processes make the same ids, and kept for as long as it runs.
//!
//! The lease also tells the time: its end is counted by the database's clock, which is the one that all nodes have in
//! common.

use crate::node::NodeError;
use holon_base::{Clock, Timestamp};
use holon_ports::{Lease, LeaseError, Leases};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How long the number of a node that died is kept from others.
const NUMBER_TTL: Duration = Duration::from_secs(10);
/// Clocks that differ by more are refused, and by more than a fifth of it, told.
const CLOCK_SKEW: Duration = Duration::from_secs(1);
/// How often the database is asked for its time; the quickest answer is the best.
const CLOCK_ATTEMPTS: usize = 5;

/// The name of the lease of a number.
pub fn lease_name(node: u16) -> String {
    format!("node.{node}")
}

/// How far this machine's clock is ahead of the database's: it is somewhere between the two, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ahead {
    least: i64,
    most: i64,
}

impl Ahead {
    /// The database looked at its clock between the sending and the answer, and says whole milliseconds.
    fn new(sent: Timestamp, database: Timestamp, answered: Timestamp) -> Self {
        Self {
            least: sent.millis() - database.millis() - 1,
            most: answered.millis() - database.millis() + 1,
        }
    }

    /// By how much the clocks are apart at the least.
    fn apart(self) -> Duration {
        let apart = self.least.max(-self.most).max(0);
        Duration::from_millis(apart.unsigned_abs())
    }

    fn width(self) -> i64 {
        self.most - self.least
    }

    fn check(self) -> Result<(), NodeError> {
        if self.apart() > CLOCK_SKEW {
            let direction = if self.least > 0 { "ahead of" } else { "behind" };
            return Err(format!(
                "the clock of this machine is {:.1} s {direction} that of the first database, and more than {} s is too \
                 much: ids are ordered by time, and calls between nodes carry it; set the clocks first, such as by NTP",
                self.apart().as_secs_f64(),
                CLOCK_SKEW.as_secs()
            )
            .into());
        }
        if self.apart() > CLOCK_SKEW / 5 {
            tracing::warn!(
                milliseconds = self.apart().as_millis() as u64,
                "the clock of this machine and that of the first database are apart"
            );
        }
        Ok(())
    }
}

/// Refuses a clock that is off for certain. A slow answer leaves room for doubt, so the quickest of a few counts.
pub async fn compare_clocks(leases: &dyn Leases, lease: &Lease, clock: &dyn Clock) -> Result<(), NodeError> {
    let mut best: Option<Ahead> = None;
    for _ in 0..CLOCK_ATTEMPTS {
        let sent = clock.now();
        let renewed = leases.renew(lease, NUMBER_TTL).await?;
        let found = Ahead::new(sent, renewed.expires.minus(NUMBER_TTL), clock.now());
        if best.is_none_or(|best| found.width() < best.width()) {
            best = Some(found);
        }
    }
    best.map_or(Ok(()), Ahead::check)
}

/// Takes a node's number, after waiting for a process that died with it.
pub async fn take_number(leases: &dyn Leases, node: u16) -> Result<Lease, NodeError> {
    let (name, holder) = (lease_name(node), format!("{:016x}", rand::random::<u64>()));
    let end = Instant::now() + NUMBER_TTL + NUMBER_TTL / 4;
    let mut told = false;
    loop {
        match leases.acquire(&name, &holder, NUMBER_TTL).await {
            Ok(lease) => return Ok(lease),
            Err(LeaseError::Held { .. }) if Instant::now() < end => {
                if !told {
                    eprintln!("node {node} is running, or was until a moment ago; waiting for its number");
                    told = true;
                }
                tokio::time::sleep(NUMBER_TTL / 40).await;
            }
            Err(LeaseError::Held { .. }) => {
                return Err(format!(
                    "another process runs as node {node}; give each a number of its own with --set node=N"
                )
                .into());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Renews the lease of a node's number until `stop` turns true, and gives it back then. Says so when another has it.
pub async fn keep_number(
    leases: Arc<dyn Leases>,
    mut lease: Lease,
    lost: watch::Sender<Option<String>>,
    mut stop: watch::Receiver<bool>,
) {
    while tokio::time::timeout(NUMBER_TTL / 3, stop.wait_for(|stop| *stop))
        .await
        .is_err()
    {
        let renewed = match leases.renew(&lease, NUMBER_TTL).await {
            // It ran out while the database was away; if nobody took it, it is still ours.
            Err(LeaseError::Lost) => leases.acquire(&lease.name, &lease.holder, NUMBER_TTL).await,
            renewed => renewed,
        };
        match renewed {
            Ok(renewed) => lease = renewed,
            Err(LeaseError::Held { .. } | LeaseError::Lost) => {
                lost.send_replace(Some(format!(
                    "another process took {} while the database could not be reached",
                    lease.name
                )));
                return;
            }
            Err(error) => tracing::warn!(%error, "cannot renew the lease of this node's number"),
        }
    }
    if let Err(error) = leases.release(&lease).await {
        tracing::warn!(%error, "cannot give back this node's number");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(sent: i64, database: i64, answered: i64) -> Ahead {
        let at = Timestamp::from_millis;
        Ahead::new(at(sent), at(database), at(answered))
    }

    #[test]
    fn a_clock_is_refused_if_it_is_off_for_certain() {
        let refused = |found: Ahead| found.check().err().map(|error| error.to_string());
        assert_eq!(refused(ahead(1_000, 1_005, 1_010)), None);
        let text = refused(ahead(5_000, 1_000, 5_010)).unwrap();
        assert!(text.contains("4.0 s ahead of"), "{text}");
        let text = refused(ahead(1_000, 4_000, 1_010)).unwrap();
        assert!(text.contains("3.0 s behind"), "{text}");
        // The answer took 3 s: the database may have looked at once, or just now.
        assert_eq!(refused(ahead(1_000, 1_000, 4_000)), None);
        assert_eq!(refused(ahead(1_000, 4_000, 4_000)), None);
        assert!(refused(ahead(1_000, 5_100, 4_000)).is_some());
        assert!(refused(ahead(1_000, -100, 4_000)).is_some());
    }
}
