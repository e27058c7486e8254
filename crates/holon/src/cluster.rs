//! This node among the others of its deployment: whether it may join, and how others know it.
//!
//! Nodes meet in the database, which all of them have. What they must have in common is in rows of one partition, and a
//! node joins by one commit there, on the condition that nothing changed since it looked: it compares its settings with
//! those of the nodes that run, and puts down its own address, by which those that come after it begin to gossip. A node
//! runs if the process that put its row down still has the lease of its number. When none runs, the settings of the next to
//! start are those of the deployment: so they are changed by stopping all nodes and starting them anew.

use crate::{
    engines::{FACTS, Number, facts, lease_name},
    node::{Node, NodeError},
    settings::{Settings, shared},
};
use holon_cluster::{Cluster, JoinOptions, Key, Listener, NodeFacts, Timing};
use holon_ports::{Batch, Condition, Leases, RowKey, Scan, Store, StoreError, store::Consistency};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

const SETTINGS_ROW: &[u8] = b"settings";
/// Rows of nodes have their number after it.
const NODE_ROWS: &[u8] = b"node.";
/// More rows than there can be nodes.
const ALL_NODES: usize = 1_024;

/// The settings that nodes share, as text by name.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SharedRecord {
    settings: BTreeMap<String, String>,
}

/// A process that joined.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeRecord {
    node: u16,
    /// Who had the lease of the node's number.
    holder: String,
    /// Where other nodes reach it.
    address: SocketAddr,
}

/// A node that has joined.
pub struct Joined {
    pub cluster: Arc<Cluster>,
    /// Its row, if other nodes can be.
    row: Option<(Arc<dyn Store>, Vec<u8>)>,
}

impl Joined {
    /// Joins the nodes of the deployment; `http` is where this one serves clients.
    ///
    /// # Errors
    /// If it may not, or cannot; the text says what to do.
    pub async fn join(settings: &Settings, node: &Node, http: SocketAddr) -> Result<Self, NodeError> {
        let clock = Arc::clone(&node.context.clock);
        let mut facts = own_facts(settings, node, http);
        let Some(number) = node.engines.number() else {
            return Ok(Self {
                cluster: Cluster::alone(facts, clock),
                row: None,
            });
        };
        facts.generation = number.generation;
        let store = Arc::clone(&node.context.ports.store);
        let listener = listen(settings, http).await?;
        facts.http = Some(SocketAddr::new(
            reached(http.ip(), listener.address().ip()),
            http.port(),
        ));

        let meeting = Meeting {
            store: &*store,
            leases: &*node.context.ports.leases,
            settings,
            number,
        };
        let mut seeds = meeting.join(listener.address()).await?;
        seeds.extend(settings.cluster_seeds.iter().cloned());
        let options = JoinOptions {
            facts,
            key: Key::new(node.engines.secret("cluster")?),
            seeds,
            timing: Timing::default(),
            clock,
        };
        let cluster = Cluster::join(listener, options).await?;
        let row = node_row(settings.node);
        Ok(Self {
            cluster,
            row: Some((store, row)),
        })
    }

    /// Leaves in good order, so that nobody has to find out.
    pub async fn leave(&self) {
        if let Some((store, row)) = &self.row {
            // The lease of its number says the same a little later.
            if let Err(error) = store
                .commit(&facts(), Batch::new().delete(FACTS, row.clone()))
                .await
            {
                tracing::warn!(%error, "cannot take this node's row out");
            }
        }
        self.cluster.leave().await;
    }
}

/// What a node says of itself.
pub fn own_facts(settings: &Settings, node: &Node, http: SocketAddr) -> NodeFacts {
    NodeFacts {
        node: settings.node,
        generation: 0,
        roles: settings.roles.clone(),
        capacity: settings.cluster_capacity,
        version: env!("CARGO_PKG_VERSION").into(),
        schema: node.engines.schema(),
        http: Some(http),
        grpc: None,
        started: node.context.clock.now(),
        services: BTreeMap::new(),
        leaving: false,
    }
}

async fn listen(settings: &Settings, http: SocketAddr) -> Result<Listener, NodeError> {
    let listen = settings
        .cluster_listen
        .unwrap_or_else(|| SocketAddr::new(http.ip(), 0));
    let listener = Listener::bind(listen, settings.cluster_advertise).await;
    Ok(listener.map_err(|error| {
        format!(
            "{error}: --set cluster.listen=ADDR:PORT, or cluster.advertise, says where others reach this node"
        )
    })?)
}

/// An address that others can connect to.
fn reached(own: IpAddr, of_nodes: IpAddr) -> IpAddr {
    if own.is_unspecified() { of_nodes } else { own }
}

fn node_row(node: u16) -> Vec<u8> {
    [NODE_ROWS, node.to_string().as_bytes()].concat()
}

/// What it takes to join.
struct Meeting<'a> {
    store: &'a dyn Store,
    leases: &'a dyn Leases,
    settings: &'a Settings,
    number: &'a Number,
}

impl Meeting<'_> {
    /// Joins, or says why not. Answers the addresses of the other nodes that run.
    async fn join(&self, address: SocketAddr) -> Result<Vec<String>, NodeError> {
        let own = SharedRecord {
            settings: shared(self.settings),
        };
        let record = NodeRecord {
            node: self.settings.node,
            holder: self.number.holder.clone(),
            address,
        };
        loop {
            let key = RowKey::new(FACTS, facts(), SETTINGS_ROW);
            let row = self.store.get(&key, Consistency::Strong).await?;
            let others = self.others().await?;
            let (common, condition) = match &row {
                Some(row) => (Some(row.json::<SharedRecord>()?), Condition::Version(row.version)),
                None => (None, Condition::Absent),
            };
            if let Some(common) = &common
                && !others.is_empty()
            {
                compare(&own, common)?;
            }
            // Written even if it is the same, so that of two that join at once one looks again.
            let batch = Batch::new().put_if(FACTS, SETTINGS_ROW, &own, condition).put(
                FACTS,
                node_row(record.node),
                &record,
            );
            match self.store.commit(&facts(), batch).await {
                Ok(_) => {
                    let addresses = others.iter().map(|other| other.address.to_string());
                    return Ok(addresses.collect());
                }
                Err(StoreError::ConditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The other nodes that run.
    async fn others(&self) -> Result<Vec<NodeRecord>, NodeError> {
        let scan = Scan::all(FACTS, facts(), ALL_NODES).prefix(NODE_ROWS);
        let mut others = Vec::new();
        for row in self.store.scan(&scan).await?.rows {
            let record: NodeRecord = row.json()?;
            if record.node == self.settings.node {
                continue;
            }
            let lease = self.leases.current(&lease_name(record.node)).await?;
            if lease.is_some_and(|lease| lease.holder == record.holder) {
                others.push(record);
            }
        }
        Ok(others)
    }
}

/// Names the first setting that differs.
fn compare(own: &SharedRecord, common: &SharedRecord) -> Result<(), NodeError> {
    let differs = own
        .settings
        .iter()
        .find_map(|(key, value)| match common.settings.get(key) {
            Some(expected) if expected != value => Some((key, value, expected)),
            // A version that does not know it yet, or does not any more.
            _ => None,
        });
    let Some((key, value, expected)) = differs else {
        return Ok(());
    };
    Err(format!(
        "{key} is {value:?} here and {expected:?} on the nodes that run (one that was killed counts for 10 s more), and must \
         be the same on all: start this one with --set {key}={expected}, or stop all nodes and start them with another value"
    )
    .into())
}
