//! A whole cluster on one machine, and everything that may happen to it.
//!
//! [`Cluster::start`] starts, in one directory, nodes of Holon and all that they stand on: shards of PostgreSQL with
//! standbys, a NATS cluster, a Redis Cluster, an S3 server, and between them *links* that can be cut and slowed. It is
//! what `holon-lab up` (`make cluster`) runs, what chaos tests are made with, and what the console's chaos panel asks.
//!
//! ```text
//!             node-1            node-2            node-3          127.0.0.1:8081 ...
//!               │ └──── mesh ────┘ └──── mesh ─────┘│             gossip and calls: src/mesh.rs
//!          127.0.1.1         127.0.1.2         127.0.1.3          a link to each server: src/link.rs
//!               └──────────┬──────┴──────────┬──────┘
//!        postgres-a1 ═ postgres-a2    nats-1 nats-2 nats-3        ═ streams, synchronously: src/shard.rs
//!        postgres-b1 ═ postgres-b2    redis-1 ... redis-6  s3
//! ```
//!
//! - Processes are killed (SIGKILL), frozen (SIGSTOP) and started again, by [`Node`] and [`Part`].
//! - A PostgreSQL primary is replaced by its standby with [`Shard::fail_over`].
//! - A node is cut off from everything, or from one server or node, with [`Cluster::cut_off`], [`Cluster::set_link`] and
//!   [`Cluster::set_between`].
//!
//! Each part has a directory of its own name in the cluster's, with its data, its ports and its log; the next start goes
//! on from there. The lab is no part of what ships, and nothing that ships knows it: a node is told an address where
//! chaos can be asked for, or none.

#![expect(
    clippy::missing_errors_doc,
    reason = "LabError says what went wrong; where more is promised it is written"
)]

mod cluster;
mod control;
mod error;
mod link;
mod mesh;
mod network;
mod node;
mod options;
mod part;
mod report;
mod shard;

pub use cluster::{Cluster, NODE_START};
pub use control::{Parts, Refusal};
pub use error::{LabError, guarded};
pub use link::Condition;
pub use node::{Node, NodeOptions};
pub use options::{ClusterOptions, binary_beside};
pub use part::{Kind, Part, State};
pub use report::{Action, PartReport, Reach, SLOW};
pub use shard::{PATIENCE, Replication, Shard};

use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

/// Writes a file that nobody else may read.
pub fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}
