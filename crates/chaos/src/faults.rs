//! What is done to the cluster. Each fault is struck, lasts a while, and is healed, all by one call.

use crate::{
    disk::{Disk, DiskError},
    http::{Http, Request},
};
use holon_lab::{Cluster, LabError};
use http::Method;
use rand::{
    RngExt as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{fmt, time::Duration};
use tokio::time::sleep;

/// How long what was killed stays away, longer than a client's retries alone would hide.
const AWAY: Duration = Duration::from_secs(8);
const FROZEN: Duration = Duration::from_secs(30);
const ISOLATED: Duration = Duration::from_secs(20);
const SLOW: Duration = Duration::from_secs(20);
const SLOWER_BY: Duration = Duration::from_millis(500);
const FULL: Duration = Duration::from_secs(12);
/// Of the 2,048 that each of two shards has.
const SLOTS: usize = 512;
/// How long they may take one way.
const MOVED: Duration = Duration::from_secs(180);
const ANSWER: Duration = Duration::from_secs(15);
/// How long a shard may take to have a standby again that has everything.
const SYNCHRONOUS: Duration = Duration::from_secs(90);

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL of a node.
    NodeKilled,
    /// SIGSTOP of a node for 30 s.
    NodeFrozen,
    /// A node reaches no server and no other node, but clients reach it.
    NodeIsolated,
    /// SIGKILL of a NATS server.
    NatsKilled,
    /// SIGKILL of a primary of the Redis Cluster.
    RedisKilled,
    /// SIGKILL of a PostgreSQL primary, and promotion of its standby.
    PostgresKilled,
    /// Every statement on one shard takes half a second longer.
    ShardSlow,
    /// The disk of one shard's primary is full.
    DiskFull,
    /// Slots move from one shard to another and back: no fault, but it may cost nobody more than a wait.
    SlotsMoved,
}

impl Fault {
    pub const ALL: [Self; 9] = [
        Self::NodeKilled,
        Self::NodeFrozen,
        Self::NodeIsolated,
        Self::NatsKilled,
        Self::RedisKilled,
        Self::PostgresKilled,
        Self::ShardSlow,
        Self::DiskFull,
        Self::SlotsMoved,
    ];

    /// For a table.
    pub fn title(self) -> &'static str {
        match self {
            Self::NodeKilled => "SIGKILL of a node, started again after 8 s",
            Self::NodeFrozen => "SIGSTOP of a node for 30 s",
            Self::NodeIsolated => "a node cut off from all servers and nodes for 20 s",
            Self::NatsKilled => "SIGKILL of a NATS server, started again after 8 s",
            Self::RedisKilled => "SIGKILL of a Redis primary, started again after 8 s",
            Self::PostgresKilled => "SIGKILL of a PostgreSQL primary, its standby promoted at once",
            Self::ShardSlow => "every statement on one shard 500 ms slower for 20 s",
            Self::DiskFull => "the disk of one shard's primary full for 12 s",
            Self::SlotsMoved => "a quarter of a shard's slots moved to the other, and back",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("no disk of the cluster is one that can be filled")]
    NoDisk,
    #[error("the cluster has no {0}")]
    Nobody(&'static str),
    #[error("slots do not move: {0}")]
    Moves(String),
}

/// What is struck.
pub struct Target<'a> {
    pub cluster: &'a Cluster,
    /// Small disks of one shard, if there are any.
    pub disk: Option<&'a Disk>,
    pub http: &'a Http,
    /// The administrator's token.
    pub admin: &'a str,
}

/// Strikes, waits, and heals. Answers what was hit.
///
/// # Errors
/// What could not be done, which says nothing about Holon.
pub async fn strike(fault: Fault, target: &Target<'_>, random: &mut StdRng) -> Result<String, FaultError> {
    let cluster = target.cluster;
    let node = 1 + random.random_range(0..cluster.nodes().len() as u16);
    match fault {
        Fault::NodeKilled => {
            cluster.node(node)?.kill().await?;
            sleep(AWAY).await;
            cluster.restart_node(node).await?;
            Ok(format!("node-{node}"))
        }
        Fault::NodeFrozen => {
            cluster.node(node)?.freeze().await?;
            sleep(FROZEN).await;
            cluster.node(node)?.thaw().await?;
            Ok(format!("node-{node}"))
        }
        Fault::NodeIsolated => {
            cluster.cut_off(node)?;
            sleep(ISOLATED).await;
            cluster.heal_node(node)?;
            Ok(format!("node-{node}"))
        }
        Fault::NatsKilled => {
            let server = cluster
                .nats()
                .choose(random)
                .ok_or(FaultError::Nobody("NATS server"))?;
            server.kill().await?;
            sleep(AWAY).await;
            cluster.restart_server(&server.name).await?;
            Ok(server.name.clone())
        }
        Fault::RedisKilled => {
            let primaries = cluster.redis_primaries().await?;
            let server = primaries
                .choose(random)
                .ok_or(FaultError::Nobody("Redis primary"))?;
            server.kill().await?;
            sleep(AWAY).await;
            cluster.restart_server(&server.name).await?;
            Ok(server.name.clone())
        }
        Fault::PostgresKilled => {
            let shard = cluster
                .shards()
                .choose(random)
                .ok_or(FaultError::Nobody("shard"))?;
            shard.synchronous(SYNCHRONOUS).await?;
            let killed = shard.primary().await;
            shard.fail_over().await?;
            sleep(AWAY).await;
            cluster.restart_server(&killed.name).await?;
            shard.synchronous(SYNCHRONOUS).await?;
            Ok(killed.name.clone())
        }
        Fault::ShardSlow => {
            let shard = cluster
                .shards()
                .choose(random)
                .ok_or(FaultError::Nobody("shard"))?;
            cluster.slow_shard(&shard.name, SLOWER_BY)?;
            sleep(SLOW).await;
            cluster.slow_shard(&shard.name, Duration::ZERO)?;
            Ok(format!("shard {}", shard.name))
        }
        Fault::DiskFull => fill(cluster, target.disk.ok_or(FaultError::NoDisk)?).await,
        Fault::SlotsMoved => {
            let url = cluster.node(node)?.url();
            let mut names: Vec<&str> = cluster.shards().iter().map(|shard| shard.name.as_str()).collect();
            names.shuffle(random);
            let [from, to, ..] = names.as_slice() else {
                return Err(FaultError::Nobody("second shard"));
            };
            move_slots(target, &url, from, to).await?;
            move_slots(target, &url, to, from).await?;
            Ok(format!("{SLOTS} slots of shard {from}, through node-{node}"))
        }
    }
}

/// Moves slots as `holon shards move --wait` does.
async fn move_slots(target: &Target<'_>, url: &str, from: &str, to: &str) -> Result<(), FaultError> {
    let ask = Request::new(Method::POST, "/v1/admin/shards/moves")
        .body(json!({ "from": from, "to": to, "count": SLOTS }));
    let answer = target.http.send(url, target.admin, &ask, ANSWER).await;
    let answer = answer.map_err(FaultError::Moves)?;
    if !answer.is_success() {
        let said = String::from_utf8_lossy(&answer.body);
        return Err(FaultError::Moves(format!("{} {said}", answer.status)));
    }
    let began = tokio::time::Instant::now();
    let look = Request::get("/v1/admin/shards");
    let mut last = String::new();
    while began.elapsed() < MOVED {
        sleep(Duration::from_millis(500)).await;
        match target.http.send(url, target.admin, &look, ANSWER).await {
            Ok(answer) => {
                let moves = answer.json()["moves"].take();
                if answer.is_success() && moves.as_array().is_some_and(Vec::is_empty) {
                    return Ok(());
                }
                last = moves.to_string();
            }
            Err(error) => last = error,
        }
    }
    Err(FaultError::Moves(format!(
        "not done after {} s: {last}",
        MOVED.as_secs()
    )))
}

/// Fills the disk of a primary. PostgreSQL ends itself when it cannot write its log, and is started again once there is
/// room.
async fn fill(cluster: &Cluster, disk: &Disk) -> Result<String, FaultError> {
    let shard = cluster.shard(disk.shard())?;
    let primary = shard.primary().await;
    let filled = disk.fill(&primary.name)?;
    sleep(FULL).await;
    drop(filled);
    if primary.state().await == holon_lab::State::Stopped {
        cluster.restart_server(&primary.name).await?;
    }
    shard.synchronous(SYNCHRONOUS).await?;
    Ok(format!("{} of shard {}", primary.name, shard.name))
}
