//! Work that one node does at a time: scheduled jobs and rebuilds, each under a lease.
//!
//! The lease of a job is held between its runs too, so that its period counts from one node's clock and no second
//! node runs it in between; when the node that holds it dies, another takes over within the lease's time.

use holon_base::Clock;
use holon_cluster::leader::{self, Candidate, Lapsed};
use holon_ports::{Lease, LeaseError, Leases};
use holon_web::Job;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::sync::watch;

/// The time of a job's lease: when its node dies, another runs it so much later.
const LEASE_TIME: Duration = Duration::from_secs(30);

/// Who asks for leases: this node, this run of it.
#[derive(Clone)]
pub struct Holder {
    pub leases: Arc<dyn Leases>,
    pub name: Arc<str>,
}

impl Holder {
    pub fn new(leases: Arc<dyn Leases>, node: u16, clock: &dyn Clock) -> Self {
        Self {
            leases,
            name: format!("node-{node}-{}-{}", std::process::id(), clock.now().millis()).into(),
        }
    }

    /// Does work under a lease that is kept as long as the work takes. When the lease is lost, the work is dropped:
    /// somebody else may be at it.
    ///
    /// # Errors
    /// [`LeaseError::Held`] when another has the lease; the work was not begun. [`LeaseError::Lost`] when it was
    /// lost on the way.
    pub async fn hold<T>(
        &self,
        name: &str,
        time: Duration,
        work: impl Future<Output = T>,
    ) -> Result<(T, Lease), LeaseError> {
        leader::hold(&*self.leases, name, &self.name, time, work).await
    }
}

/// The lease of a job.
pub fn lease_name(job: &str) -> String {
    format!("job.{job}")
}

/// Runs a job every so often, whenever this node leads it, until `stop` turns true; ends after the run in hand.
pub async fn run(job: Job, holder: Holder, mut stop: watch::Receiver<bool>) {
    let leases = Arc::clone(&holder.leases);
    let candidate = Candidate::start(leases, lease_name(job.name), &*holder.name, LEASE_TIME);
    while tokio::time::timeout(job.every, stop.wait_for(|stop| *stop))
        .await
        .is_err()
    {
        let Some(term) = candidate.leading() else {
            continue;
        };
        match term.run((job.run)()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(job = job.name, %error, "job failed, will run again"),
            Err(Lapsed) => tracing::warn!(
                job = job.name,
                "job dropped, since another node may run it by now"
            ),
        }
    }
    // So that another node need not wait for the lease to end.
    candidate.resign().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use holon_embedded::{Engine, EngineOptions};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn only_one_of_two_nodes_runs_a_job() {
        let directory = tempfile::tempdir().unwrap();
        let engine = Engine::open(EngineOptions::new(directory.path())).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let runs: Vec<Arc<AtomicUsize>> = (0..2).map(|_| Arc::default()).collect();
        let nodes: Vec<_> = runs
            .iter()
            .enumerate()
            .map(|(node, count)| {
                let count = Arc::clone(count);
                let job = Job {
                    name: "test.count",
                    every: Duration::from_millis(2),
                    run: Arc::new(move || {
                        count.fetch_add(1, Ordering::SeqCst);
                        Box::pin(async { Ok(()) })
                    }),
                };
                let holder = Holder {
                    leases: engine.ports().leases,
                    name: format!("node-{node}").into(),
                };
                tokio::spawn(run(job, holder, stopped.clone()))
            })
            .collect();
        let total = || -> usize { runs.iter().map(|count| count.load(Ordering::SeqCst)).sum() };
        while total() < 10 {
            tokio::task::yield_now().await;
        }
        assert!(runs.iter().any(|count| count.load(Ordering::SeqCst) == 0));
        stop.send(true).unwrap();
        for node in nodes {
            node.await.unwrap();
        }
        assert!(
            engine
                .ports()
                .leases
                .current("job.test.count")
                .await
                .unwrap()
                .is_none()
        );
        engine.close().await;
    }
}
