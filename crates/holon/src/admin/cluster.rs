//! The deployment: its nodes, who leads what, and who has which shards. And what one node asks another.

use super::Admin;
use async_trait::async_trait;
use axum::extract::State;
use bytes::Bytes;
use holon_base::{ErrorKind, Timestamp};
use holon_cluster::{CallError, Handler, Liveness, Member, Request};
use holon_web::{ApiError, Json};
use serde::Serialize;
use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

/// The service under which nodes ask each other for what administrators see.
const SERVICE: &str = "admin";
const OVERVIEW: &str = "overview";
/// How long another node, or the database, may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The deployment, as the node that answers knows it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterOverview {
    /// The node that answers.
    pub node: u16,
    /// By number. Nodes that are gone are listed for an hour.
    pub nodes: Vec<NodeOverview>,
    /// Who does what one node does at a time, by name.
    pub leaders: Vec<LeaderOverview>,
    /// Why it is not known who leads, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaders_failure: Option<&'static str>,
    /// Who has which shards of in-memory state; empty while no system has any.
    pub placement: Vec<PlacedService>,
}

/// A node of the deployment.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeOverview {
    pub node: u16,
    /// Whether it is the one that answers.
    pub is_self: bool,
    pub state: NodeState,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// How unusual its present silence is: its length over the usual one. Above 4 it is suspect, above 8 dead.
    pub phi: f64,
    /// What it does: api, workers, relay.
    pub roles: Vec<String>,
    /// How much of the shards it takes, relative to others.
    pub capacity: u32,
    pub version: String,
    /// The version of the database's schema that it runs on; none in a data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<i32>,
    /// Where it serves clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub http: Option<SocketAddr>,
    /// Where it answers other nodes, over TCP, and gossips, over UDP; none in a data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub grpc: Option<SocketAddr>,
    /// Grows each time that a process takes this node's number.
    pub generation: u64,
    /// When its process started.
    pub started: Timestamp,
}

/// Whether a node is heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum NodeState {
    Alive,
    /// Not heard of for unusually long; still counted on.
    Suspect,
    /// Others have what it had.
    Dead,
    /// It ended in good order.
    Left,
}

/// Who does something that one node does at a time.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaderOverview {
    /// The lease: `job.` and a job, or `relay:` and an outbox.
    pub name: String,
    /// Whoever has it, as it calls itself; none while nobody has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The holder's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u16>,
    /// Grows each time that it changes hands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// When it ends unless it is renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// A service whose state is divided over nodes.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacedService {
    pub service: String,
    /// By number: the nodes that have it, the owner first.
    pub shards: Vec<Vec<u16>>,
}

impl Admin {
    async fn cluster_overview(&self) -> ClusterOverview {
        let view = self.cluster.view();
        let own = self.cluster.node();
        let services = view.services().into_iter();
        let placement = services.map(|(service, shards)| PlacedService {
            shards: (0..shards.shards)
                .map(|shard| view.owners(&service, shard))
                .collect(),
            service,
        });
        // The nodes are of interest most when the database is away.
        let (leaders, leaders_failure) = match tokio::time::timeout(PATIENCE, self.leaders()).await {
            Ok(Ok(leaders)) => (leaders, None),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot find out who leads");
                (Vec::new(), Some("the database does not answer"))
            }
            Err(_) => (Vec::new(), Some("the database does not answer in time")),
        };
        ClusterOverview {
            node: own,
            nodes: view.members.values().map(|member| node(member, own)).collect(),
            leaders,
            leaders_failure,
            placement: placement.collect(),
        }
    }

    /// Who has the leases of jobs and outboxes.
    async fn leaders(&self) -> Result<Vec<LeaderOverview>, ApiError> {
        let mut names = self.engines.relay_leases().await?;
        names.extend(self.jobs.iter().map(|job| crate::jobs::lease_name(job)));
        names.sort_unstable();
        let mut leaders = Vec::with_capacity(names.len());
        for name in names {
            let lease = self.ports.leases.current(&name).await?;
            leaders.push(LeaderOverview {
                name,
                node: lease.as_ref().and_then(|lease| node_of(&lease.holder)),
                fence: lease.as_ref().map(|lease| lease.fence.0),
                expires: lease.as_ref().map(|lease| lease.expires),
                holder: lease.map(|lease| lease.holder),
            });
        }
        Ok(leaders)
    }

    /// Another node's overview, as it wrote it.
    pub(super) async fn overview_of(&self, node: u16) -> Result<Bytes, ApiError> {
        let request = Request::of_node(SERVICE, OVERVIEW, PATIENCE);
        let answer = self.cluster.call_node(node, request).await;
        answer.map_err(|error| {
            let detail = error.to_string();
            match error.kind() {
                ErrorKind::NotFound => ApiError::not_found("node"),
                kind @ ErrorKind::Timeout => ApiError::new(kind, "node-silent", detail),
                kind @ ErrorKind::Unavailable => ApiError::new(kind, "node-unavailable", detail),
                _ => ApiError::internal(detail),
            }
        })
    }

    /// Lets other nodes ask for what this one's administrator sees.
    pub fn serve_nodes(self: &Arc<Self>) {
        let asked = OfNodes(Arc::downgrade(self));
        self.cluster.serve_node(SERVICE, Arc::new(asked));
    }
}

fn node(member: &Member, own: u16) -> NodeOverview {
    let facts = member.facts.clone();
    NodeOverview {
        node: facts.node,
        is_self: facts.node == own,
        state: match member.liveness {
            Liveness::Alive => NodeState::Alive,
            Liveness::Suspect => NodeState::Suspect,
            Liveness::Dead => NodeState::Dead,
            Liveness::Left => NodeState::Left,
        },
        since: member.since,
        phi: (member.phi * 100.0).round() / 100.0,
        roles: facts.roles,
        capacity: facts.capacity,
        version: facts.version,
        schema: facts.schema,
        http: facts.http,
        grpc: facts.grpc,
        generation: facts.generation,
        started: facts.started,
    }
}

/// The number in a holder's name, such as `node-3-...`.
fn node_of(holder: &str) -> Option<u16> {
    let rest = holder.strip_prefix("node-")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// Answers other nodes. They have the deployment's secret, and ask for whoever may see it there.
struct OfNodes(Weak<Admin>);

#[async_trait]
impl Handler for OfNodes {
    async fn handle(&self, request: Request) -> Result<Bytes, CallError> {
        let Some(admin) = self.0.upgrade() else {
            return Err(CallError::failed(ErrorKind::Unavailable, "this node ends"));
        };
        match request.method.as_str() {
            OVERVIEW => serde_json::to_vec(&admin.overview().await)
                .map(Bytes::from)
                .map_err(|error| CallError::failed(ErrorKind::Internal, error.to_string())),
            other => Err(CallError::Invalid(format!("there is no method {other:?}"))),
        }
    }
}

/// The nodes of the deployment, who leads what, and who has which shards.
#[utoipa::path(
    get,
    path = "/v1/admin/cluster",
    operation_id = "getCluster",
    tag = "admin",
    responses((status = 200, description = "The deployment now, as this node knows it", body = ClusterOverview))
)]
pub async fn get_cluster(State(admin): State<Arc<Admin>>) -> Json<ClusterOverview> {
    Json(admin.cluster_overview().await)
}
