//! Moving slots from shard to shard while the cluster serves.
//!
//! Some slots with the same way to go move together, as a *batch*. For a batch of slots from shard A to shard B:
//!
//! 1. *copying*: A is told to write down which rows of the slots change (`holon.changes`), and B that the slots are
//!    `arriving`. Then all rows are copied, page by page and at a bounded rate; then those that have changed since, again
//!    and again until few are left. Commits and reads go on at A.
//! 2. *frozen*: the directory says so, and nodes that know hold commits to the slots back; then A refuses them, after
//!    those that run have ended. The last changes are copied. Reads go on at A. This takes some tens of milliseconds.
//! 3. *opening*: the directory names B (version v). Then A's fence is raised to v, so that no reader with an older
//!    directory is answered there any more; only then does B take commits. So nobody reads at A what has been
//!    overwritten at B. Versions of B go on above those of A.
//! 4. *clearing*: what is left at A is deleted, at a bounded rate.
//!
//! A *pin* gives the partitions of a [`Rule`] a slot of their own on a shard of choice. If there are rows, they are
//! copied in the same way from all other shards at once: changes are written down by the rule
//! (`holon.pins`), freezing raises all fences, so that every node knows the rule, and rows that were at the target already
//! only get the new slot's number, at the end.
//!
//! Events that have not been told stay at A, and events of the slots at B wait for them: see [`crate::outbox`].
//!
//! # If the mover dies
//!
//! One node moves at a time, under a lease in the directory's database; where a batch stands is written there, so any
//! node carries on. Every write is *fenced* by the number of the lease: rows of `holon.slots` remember the largest, each
//! copied page locks and checks them in its own transaction, and the directory checks the lease in its. A batch that is
//! found frozen is thawed first and frozen again later, so that commits wait for a dead mover no longer than its
//! lease; from *opening* on it goes forward only. An error ends a session like a death does: what was sent and not
//! answered is thereby fenced off.

mod copy;
mod plan;
mod session;
mod steps;

pub use plan::{Moving, Spread};

use crate::{core::Core, error::PostgresError, leases::PostgresLeases};
use holon_ports::{Lease, LeaseError, Leases};
use session::Session;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// The lease of the one that moves.
const LEASE: &str = "shards.mover";
/// Commits to a frozen slot wait so long when its mover dies.
const LEASE_TIME: Duration = Duration::from_secs(3);
/// How often it is looked for something to do, and for news of the directory.
const LOOK: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why a session ended before its work did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    #[error("another mover has taken over")]
    Fenced,
    #[error("{database}: {detail}")]
    Database { database: String, detail: String },
    #[error(transparent)]
    Engine(#[from] PostgresError),
    #[error("lease: {0}")]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Store(#[from] holon_ports::StoreError),
    #[error("{0} did not answer in time")]
    Late(String),
    #[error("{0}")]
    Damaged(String),
}

/// Moves what there is to move, one node at a time, until the engine stops. Also keeps this node's directory fresh.
pub(crate) async fn run(core: Arc<Core>) {
    let mut stop = core.stop.subscribe();
    let mut failed = 0;
    loop {
        let pause = match failed {
            0 => LOOK,
            // Soon at first: slots may be frozen.
            failed => (FIRST_PAUSE * (1 << failed.min(10))).min(LONGEST_PAUSE),
        };
        let asked = async {
            tokio::select! {
                () = sleep(pause) => {}
                () = core.asked.notified(), if failed == 0 => {}
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = asked => {}
        }
        match look(&core, stop.clone()).await {
            Ok(()) => failed = 0,
            Err(error) => {
                tracing::warn!(%error, "slots do not move; will try again");
                failed += 1;
            }
        }
    }
}

async fn look(core: &Arc<Core>, mut stop: watch::Receiver<bool>) -> Result<(), MoveError> {
    core.refresh(i64::MAX).await?;
    if !session::is_there_work(core).await? {
        return Ok(());
    }
    let leases = PostgresLeases(Arc::clone(core));
    let asked = Instant::now();
    let lease = match leases.acquire(LEASE, &core.mover, LEASE_TIME).await {
        Ok(lease) => lease,
        Err(LeaseError::Held { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let outcome = tokio::select! {
        outcome = work(core, &lease) => outcome,
        lost = keep(&leases, &lease, asked) => Err(lost),
        // Wherever it is; the next mover carries on.
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    };
    // Also so that what this session has sent and not heard of is fenced off by the next.
    leases.give_up(&lease).await?;
    outcome
}

async fn work(core: &Arc<Core>, lease: &Lease) -> Result<(), MoveError> {
    let mut session = Session::open(core, lease).await?;
    let outcome = session.work().await;
    if let Err(error) = &outcome {
        session.tell(error).await;
    }
    outcome
}

/// Renews the lease; returns when it is over.
async fn keep(leases: &PostgresLeases, lease: &Lease, asked: Instant) -> MoveError {
    let mut until = asked + LEASE_TIME;
    let mut lease = lease.clone();
    loop {
        sleep(LEASE_TIME / 3).await;
        let asked = Instant::now();
        match timeout(LEASE_TIME / 3, leases.renew(&lease, LEASE_TIME)).await {
            Ok(Ok(renewed)) => {
                lease = renewed;
                until = asked + LEASE_TIME;
            }
            Ok(Err(LeaseError::Lost)) => return MoveError::Fenced,
            Ok(Err(_)) | Err(_) if Instant::now() < until => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return MoveError::Late("the directory".into()),
        }
    }
}
