//! What a node says of itself, under the deployment's secret.

use crate::secret::Key;
use holon_base::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr};

/// What every node tells all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    pub node: u16,
    /// Grows each time a process takes this node's number. Of two, the larger is the one that runs.
    pub generation: u64,
    pub roles: Vec<String>,
    /// How much it can bear, relative to other nodes.
    pub capacity: u32,
    /// The program's version.
    pub version: String,
    /// The version of the schema that it runs on; none on the embedded engine.
    pub schema: Option<i32>,
    /// Where it serves clients.
    pub http: Option<SocketAddr>,
    /// Where it answers other nodes; none where there can be no others.
    pub grpc: Option<SocketAddr>,
    pub started: Timestamp,
    /// The services whose shards it takes.
    #[serde(default)]
    pub services: BTreeMap<String, Shards>,
    /// It is about to end, in good order.
    #[serde(default)]
    pub leaving: bool,
}

/// How a service is divided. All nodes of a deployment must say the same of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shards {
    pub shards: u32,
    /// Nodes that have each shard: the owner, and those that come next.
    pub copies: usize,
}

impl NodeFacts {
    /// As it is told: its authentication code, and then JSON.
    pub(crate) fn seal(&self, key: &Key) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{}{json}", key.code("facts", &[json.as_bytes()]))
    }

    /// What a node of this deployment has said; `None` for anybody else's words.
    pub(crate) fn open(key: &Key, sealed: &str) -> Option<Self> {
        let (code, json) = sealed.split_at_checked(Key::CODE_LENGTH)?;
        key.verify("facts", &[json.as_bytes()], code)
            .then(|| serde_json::from_str(json).ok())?
    }
}
