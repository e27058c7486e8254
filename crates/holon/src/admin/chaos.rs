//! Chaos: killing, freezing and cutting off parts of the cluster that a lab runs this node in.
//!
//! The lab (`holon-lab up`) tells a node an address of its own by the setting `chaos.control`; what is asked for here is
//! passed on there, and nothing is done by this process. Without that address, which is how Holon ships, there is
//! nothing to see and nothing to break. It needs a permission of its own, `admin.chaos`.

use super::Admin;
use crate::{
    client::{Answer, Client, ClientError, Sending},
    settings::Secret,
};
use axum::{extract::State, http::StatusCode};
use holon_base::ErrorKind;
use holon_web::{ApiError, Json, Path};
use http::Method;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// How long the lab may take: servers that are frozen are asked how they are, and do not answer.
const PATIENCE: Duration = Duration::from_secs(12);

/// Where the lab is asked.
pub struct Chaos {
    client: Client,
    /// A secret of the lab's, with which every path begins.
    secret: String,
}

impl Chaos {
    /// # Errors
    /// If the setting is no such address.
    pub fn new(control: &Secret) -> Result<Self, String> {
        let expected =
            "chaos.control: expected http://127.0.0.1:PORT/SECRET, which holon-lab gives to its nodes";
        let url = control.expose();
        let rest = url.strip_prefix("http://").ok_or(expected)?;
        let (authority, secret) = rest.split_once('/').ok_or(expected)?;
        let client = Client::new(&format!("http://{authority}"), PATIENCE).map_err(|_| expected)?;
        Ok(Self {
            client,
            secret: secret.trim_end_matches('/').to_owned(),
        })
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Answer, ApiError> {
        let path = format!("/{}{path}", self.secret);
        let asked = self.client.once(method, &path, Sending::default());
        let away = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "the lab does not answer");
            ApiError::new(
                ErrorKind::Unavailable,
                "lab-away",
                "the lab that runs this cluster does not answer; if it was ended, start it again with `make cluster`",
            )
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error @ ClientError::Transport(_))) => Err(away(&error)),
            Ok(Err(error)) => Err(ApiError::internal(error)),
            Err(late) => Err(away(&late)),
        }
    }
}

/// What there is to break.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChaosParts {
    /// Nodes first, then their servers.
    pub items: Vec<ChaosPart>,
}

/// A process of the cluster, and what can be done to it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChaosPart {
    /// Such as `node-2` or `postgres-a1`.
    pub name: String,
    pub kind: ChaosKind,
    /// Whether it is the node that answers.
    #[serde(default)]
    pub is_self: bool,
    pub state: ChaosState,
    /// Where it listens.
    pub address: String,
    /// What it is among its like, such as primary or standby.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    pub reach: ChaosReach,
    /// How much later what is said to it arrives, in milliseconds.
    pub delay_ms: u64,
    /// What is being done to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<ChaosAction>,
    /// Why what was asked for last did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What it can be told now.
    pub actions: Vec<ChaosAction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ChaosKind {
    Node,
    Postgres,
    Nats,
    Redis,
    S3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ChaosState {
    Running,
    /// Its process is there and stopped: connections stay open, and nothing answers.
    Frozen,
    Stopped,
}

/// How much of what goes to and from it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ChaosReach {
    Whole,
    Partly,
    CutOff,
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ChaosAction {
    /// SIGKILL.
    Kill,
    /// Start it again on what it left.
    Start,
    /// SIGSTOP.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// A node: off all servers and other nodes. A server: off all nodes.
    Cut,
    /// Half a second later for everything that is said to it.
    Slow,
    /// Take back what was cut or slowed.
    Heal,
    /// Kill a PostgreSQL primary and promote its standby.
    FailOver,
}

impl ChaosAction {
    /// As the lab's paths have it.
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Start => "start",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Cut => "cut",
            Self::Slow => "slow",
            Self::Heal => "heal",
            Self::FailOver => "failOver",
        }
    }
}

/// What is to happen.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub struct ChaosRequest {
    pub action: ChaosAction,
}

/// As the lab says it.
#[derive(Debug, Deserialize)]
struct LabParts {
    parts: Vec<ChaosPart>,
}

#[derive(Debug, Deserialize)]
struct LabRefusal {
    error: String,
}

impl Admin {
    fn chaos(&self) -> Result<&Chaos, ApiError> {
        self.chaos.as_ref().ok_or_else(|| {
            ApiError::new(
                ErrorKind::NotFound,
                "chaos-off",
                "nothing can be broken here: this node was not told of a lab by chaos.control, as the nodes of \
                 `make cluster` are",
            )
        })
    }

    fn seen_from_here(&self, part: ChaosPart) -> ChaosPart {
        ChaosPart {
            is_self: part.name == format!("node-{}", self.node),
            ..part
        }
    }
}

/// Everything that the lab runs, how it is, and what can be done to it.
#[utoipa::path(
    get,
    path = "/v1/admin/chaos",
    operation_id = "listChaos",
    tag = "admin",
    responses((status = 200, description = "The parts of the cluster now", body = ChaosParts))
)]
pub async fn list_chaos(State(admin): State<Arc<Admin>>) -> Result<Json<ChaosParts>, ApiError> {
    let answer = admin.chaos()?.ask(Method::GET, "/parts").await?;
    let parts: LabParts = answer.json().map_err(ApiError::internal)?;
    let items = parts.parts.into_iter().map(|part| admin.seen_from_here(part));
    Ok(Json(ChaosParts {
        items: items.collect(),
    }))
}

/// Does something to a part, a moment after this is answered: it may be the node that answers.
#[utoipa::path(
    post,
    path = "/v1/admin/chaos/{part}",
    operation_id = "tellChaos",
    tag = "admin",
    params(("part" = String, Path, description = "Such as node-2", max_length = 32)),
    request_body = ChaosRequest,
    responses((status = 202, description = "It will be done; how it went is in the list", body = ChaosPart))
)]
pub async fn tell_chaos(
    State(admin): State<Arc<Admin>>,
    Path(part): Path<String>,
    Json(request): Json<ChaosRequest>,
) -> Result<(StatusCode, Json<ChaosPart>), ApiError> {
    let chaos = admin.chaos()?;
    let is_name = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if part.is_empty() || !is_name(&part) {
        return Err(ApiError::not_found("part of the cluster"));
    }
    let path = format!("/parts/{part}/{}", request.action.name());
    let answer = chaos.ask(Method::POST, &path).await?;
    let refusal = || match answer.json::<LabRefusal>() {
        Ok(refusal) => refusal.error,
        Err(_) => "the lab refuses".to_owned(),
    };
    match answer.status {
        StatusCode::ACCEPTED => {}
        StatusCode::NOT_FOUND => {
            return Err(ApiError::new(ErrorKind::NotFound, "not-found", refusal()));
        }
        StatusCode::CONFLICT => return Err(ApiError::conflict("not-now", refusal())),
        status => return Err(ApiError::internal(format!("the lab answered {status}"))),
    }
    let part: ChaosPart = answer.json().map_err(ApiError::internal)?;
    Ok((StatusCode::ACCEPTED, Json(admin.seen_from_here(part))))
}
