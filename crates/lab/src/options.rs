//! What a cluster is made of.

use crate::{error::LabError, node::NodeOptions};
use std::path::{Path, PathBuf};

/// A cluster as it is to be; by default as the issue has it: three nodes, two shards with a standby each, three NATS
/// servers, a Redis Cluster of three primaries with a replica each, and S3.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The `holon` that nodes run.
    pub binary: PathBuf,
    /// Nodes, numbered from 1.
    pub nodes: Vec<NodeOptions>,
    /// Shards, called a, b and so on.
    pub shards: usize,
    /// Whether each shard has a standby.
    pub standbys: bool,
    /// Settings of PostgreSQL for all shards.
    pub postgres_settings: Vec<(String, String)>,
    /// 1, or 3 that keep each event three times.
    pub nats: usize,
    /// Primaries of the Redis Cluster, at least three, or 1 for a single server.
    pub redis_primaries: usize,
    pub redis_replicas: usize,
    /// Whether blobs are on S3; in each node's own directory otherwise, which is right for one node.
    pub s3: bool,
    /// Whether nodes reach servers and each other through links that can be cut. Costs some speed.
    pub links: bool,
    /// The port of node 1; the others have the next ones. Any free ports if not given.
    pub first_port: Option<u16>,
    /// Settings of every node.
    pub settings: Vec<(String, String)>,
    /// Whether nodes are told where to ask for chaos: the console then has its panel.
    pub chaos: bool,
}

impl ClusterOptions {
    /// The whole cluster, with nodes that run this `holon`.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            nodes: vec![NodeOptions::default(); 3],
            shards: 2,
            standbys: true,
            postgres_settings: Vec::new(),
            nats: 3,
            redis_primaries: 3,
            redis_replicas: 1,
            s3: true,
            links: true,
            first_port: None,
            settings: Vec::new(),
            chaos: false,
        }
    }

    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn check(&self) -> Result<(), LabError> {
        let wrong = |text: String| Err(LabError::Setup(text));
        if !self.binary.is_file() {
            return wrong(format!(
                "{} is no program; build it with `cargo build -p holon`, or say where it is",
                self.binary.display()
            ));
        }
        if !(1..=99).contains(&self.nodes.len()) {
            return wrong(format!("{} nodes; expected 1 to 99", self.nodes.len()));
        }
        if !(1..=8).contains(&self.shards) {
            return wrong(format!("{} shards; expected 1 to 8", self.shards));
        }
        if !matches!(self.nats, 1 | 3) {
            return wrong(format!("{} NATS servers; expected 1 or 3", self.nats));
        }
        if self.redis_primaries == 2 || !(1..=9).contains(&self.redis_primaries) {
            return wrong(format!(
                "{} Redis primaries; expected 1, or 3 to 9",
                self.redis_primaries
            ));
        }
        if !self.s3 && self.nodes.len() > 1 {
            return wrong("several nodes without S3 would each have blobs that the others lack".into());
        }
        Ok(())
    }

    pub(crate) fn shard_names(&self) -> impl Iterator<Item = String> {
        ('a'..='h').take(self.shards).map(String::from)
    }
}

/// The `holon` beside the program that runs: where cargo puts it, for a binary and for a test.
///
/// # Errors
/// If there is none.
pub fn binary_beside() -> Result<PathBuf, LabError> {
    let own = std::env::current_exe().unwrap_or_default();
    let near = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("holon"));
    let found = near.into_iter().find(|path: &PathBuf| is_program(path));
    found.ok_or_else(|| {
        LabError::Setup(format!(
            "there is no holon beside {}; build it with `cargo build -p holon`, or say where it is",
            own.display()
        ))
    })
}

fn is_program(path: &Path) -> bool {
    path.is_file()
}
