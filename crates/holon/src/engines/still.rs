//! Servers while no node runs on them: what a copy reads from or writes to.
//!
//! A copy takes a lease that keeps nodes from starting, and then looks whether any runs; a node takes the lease of its
//! number, and then looks for the copy's. So of two that begin at once at least one sees the other.

use super::{
    carried::{COPY_LEASE, Carried},
    number,
    servers::{self, EVENT_NODES, FACTS},
};
use crate::{node::NodeError, settings::Settings};
use holon_base::{Clock, IdGenerator, Timestamp};
use holon_nats::{Nats, NatsOptions};
use holon_objects::ObjectBlobs;
use holon_ports::{Lease, LeaseError, Leases, Log, Store, Table};
use holon_postgres::{Postgres, PostgresOptions};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

/// How long nodes are kept from starting after a copy died. Should it run out while the copy goes on, because the database
/// did not answer, nodes still do not serve what is unfinished, and what changes while it is read is found when it is
/// compared.
const COPY_TTL: Duration = Duration::from_secs(5);
/// How long the last events may take from the outboxes to the log.
const RELAY_TIME: Duration = Duration::from_secs(600);
/// The secrets that a node derives; those that were carried over come before them.
const SECRETS: [&str; 3] = ["blob", "cursor", "jwt-seal"];

pub struct Still {
    pub postgres: Postgres,
    pub store: Arc<dyn Store>,
    pub nats: Nats,
    pub log: Arc<dyn Log>,
    pub blobs: ObjectBlobs,
    /// The deployment's, from which others are derived.
    pub secret: Vec<u8>,
    pub now: Timestamp,
    stop: watch::Sender<bool>,
    keeper: JoinHandle<()>,
}

impl Still {
    /// Opens servers on which no node runs, and keeps nodes from starting. Time stands still for what is read.
    pub async fn open(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Self, NodeError> {
        std::fs::create_dir_all(&settings.data)
            .map_err(|error| format!("cannot make {}: {error}", settings.data.display()))?;
        let options = PostgresOptions::new(servers::shards(settings)?)
            .node(settings.node + EVENT_NODES)
            .clock(Arc::clone(clock));
        let postgres = Postgres::connect(options).await?;
        let leases = postgres.leases();
        let lease = match alone(&*leases).await {
            Ok(lease) => lease,
            Err(error) => {
                postgres.close().await;
                return Err(error);
            }
        };
        let (stop, stopped) = watch::channel(false);
        let keeper = tokio::spawn(keep(Arc::clone(&leases), lease, stopped));
        let secret = settings.secret.as_ref().ok_or("engines.secret is not set")?;
        let secret = secret.expose().as_bytes().to_vec();
        let store = postgres.store();
        let tables: Vec<Table> = holon_objects::TABLES.into_iter().chain([FACTS]).collect();
        store.create_tables(&tables).await?;
        servers::compare_secret(&*store, &secret).await?;
        let carried = Carried::read(&*store, &secret).await?;
        let ids = IdGenerator::new(settings.node, Arc::clone(clock));
        let mut options = NatsOptions::new(
            settings.nats.expose().to_vec(),
            &settings.prefix,
            Arc::clone(clock),
            ids,
            leases,
        );
        options.replicas = settings.nats_replicas;
        let nats = Nats::connect(options).await?;
        let blob_secret = carried.secrets.get("blob").copied();
        let blob_secret = blob_secret.unwrap_or_else(|| servers::derive(&secret, "blob"));
        let blobs = servers::blobs(settings, &store, blob_secret, clock).await?;
        Ok(Self {
            log: nats.log(),
            postgres,
            store,
            nats,
            blobs,
            secret,
            now: clock.now(),
            stop,
            keeper,
        })
    }

    /// Every secret that a node of this deployment uses.
    pub async fn secrets(&self) -> Result<Vec<(String, [u8; 32])>, NodeError> {
        let mut secrets = Carried::read(&*self.store, &self.secret).await?.secrets;
        for name in SECRETS {
            let derived = servers::derive(&self.secret, name);
            secrets.entry(name.to_owned()).or_insert(derived);
        }
        Ok(secrets.into_iter().collect())
    }

    /// Takes what is left in the outboxes to the log.
    pub async fn empty_outboxes(&self) -> Result<(), NodeError> {
        let outbox = self.postgres.outbox();
        let end = Instant::now() + RELAY_TIME;
        let (stop, stopped) = watch::channel(false);
        let relay = self.nats.relay(self.postgres.outbox());
        let running = tokio::spawn(async move { relay.run(stopped).await });
        let emptied = async {
            for source in outbox.sources().await? {
                while !outbox.read(&source, 1).await?.is_empty() {
                    if Instant::now() > end {
                        return Err(NodeError::from(format!(
                            "events of shard {source} do not reach the log"
                        )));
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Ok(())
        };
        let emptied = emptied.await;
        stop.send_replace(true);
        running.await?;
        emptied
    }

    pub async fn close(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.keeper.await {
            tracing::error!(%error, "the lease of the copy was not given back");
        }
        self.postgres.close().await;
    }
}

/// Takes the lease of a copy, and makes sure that no node runs.
async fn alone(leases: &dyn Leases) -> Result<Lease, NodeError> {
    let holder = format!("{:016x}", rand::random::<u64>());
    let end = Instant::now() + COPY_TTL + COPY_TTL / 4;
    let mut lease = loop {
        match leases.acquire(COPY_LEASE, &holder, COPY_TTL).await {
            Ok(lease) => break lease,
            // One that was killed is waited for.
            Err(LeaseError::Held { .. }) if Instant::now() < end => {
                tokio::time::sleep(COPY_TTL / 40).await;
            }
            Err(LeaseError::Held { .. }) => return Err("another copy of this deployment goes on".into()),
            Err(error) => return Err(error.into()),
        }
    };
    for node in 0..EVENT_NODES {
        if let Err(error) = until_ended(leases, node, &mut lease).await {
            let _ = leases.release(&lease).await;
            return Err(error);
        }
    }
    Ok(lease)
}

/// Waits until the lease of a node that was killed is over; one that is renewed is a node that runs.
async fn until_ended(leases: &dyn Leases, node: u16, own: &mut Lease) -> Result<(), NodeError> {
    let name = number::lease_name(node);
    let Some(first) = leases.current(&name).await? else {
        return Ok(());
    };
    while let Some(held) = leases.current(&name).await? {
        if held.expires > first.expires {
            return Err(format!("node {node} runs on these servers; stop all nodes first").into());
        }
        tokio::time::sleep(COPY_TTL / 20).await;
        *own = leases.renew(own, COPY_TTL).await?;
    }
    Ok(())
}

/// Keeps the lease until told to stop, and gives it back.
async fn keep(leases: Arc<dyn Leases>, mut lease: Lease, mut stop: watch::Receiver<bool>) {
    while tokio::time::timeout(COPY_TTL / 3, stop.wait_for(|stop| *stop))
        .await
        .is_err()
    {
        match leases.renew(&lease, COPY_TTL).await {
            Ok(renewed) => lease = renewed,
            Err(error) => tracing::warn!(%error, "cannot renew the lease of the copy"),
        }
    }
    if let Err(error) = leases.release(&lease).await {
        tracing::warn!(%error, "cannot give back the lease of the copy");
    }
}
