//! Shards: where slots are, and how they are told to go elsewhere. Where there is no PostgreSQL there are none, and
//! reads say so with an empty list, while whoever wants to change something is told.

use super::Admin;
use axum::{extract::State, http::StatusCode};
use holon_base::{ErrorKind, Tenant};
use holon_ports::Partition;
use holon_postgres::{Moving, Postgres, PostgresError, Rule, ShardOptions, Spread, status};
use holon_web::{ApiError, Json, Path};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where everything is.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shards {
    /// False if everything is in one data directory: then there is nothing to move.
    pub sharded: bool,
    /// The version of the directory of slots.
    pub version: i64,
    /// In the order in which they were added.
    pub shards: Vec<Shard>,
    /// The most specific first; whatever no rule covers goes by its hash.
    pub rules: Vec<PinnedRule>,
    /// What is on its way, what moves now first.
    pub moves: Vec<Move>,
    /// The process that moves slots now, if one does.
    #[schema(required)]
    pub mover: Option<String>,
}

/// A database that has slots, or could have.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    pub name: String,
    /// `active`; `draining`: its slots go elsewhere; `retired`: nothing is left there, and it may be shut down.
    pub state: String,
    /// Slots that it has now, of 4,096 and those of rules.
    pub slots: u32,
    /// False if its database does not answer.
    pub up: bool,
    /// As its database estimates.
    #[schema(required)]
    pub rows: Option<u64>,
    /// Of its whole database, with indexes.
    #[schema(required)]
    pub bytes: Option<u64>,
    /// Events that wait for the log.
    #[schema(required)]
    pub outbox: Option<u64>,
    pub replicas: Vec<Replica>,
}

/// A standby that serves reads that may lag.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    pub up: bool,
    /// How much of the primary's log it has not replayed.
    #[schema(required)]
    pub lag_bytes: Option<u64>,
    /// How long ago what it replayed last was committed, if it is behind.
    #[schema(required)]
    pub lag_seconds: Option<f64>,
}

/// Which partitions have a slot of their own: one of `partition`, `tenant` alone, `prefix`, or `low` and perhaps `high`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleText {
    /// Whose; without one, those of all tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub tenant: Option<String>,
    /// One partition, such as `user:42`; of the tenant `main` if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub partition: Option<String>,
    /// Partitions that begin so, such as `eu:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub prefix: Option<String>,
    /// Partitions from here on, in the order of their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub low: Option<String>,
    /// Up to here, and without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub high: Option<String>,
}

/// A rule, its slot, and where that is.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PinnedRule {
    pub rule: RuleText,
    pub slot: i32,
    pub shard: String,
    /// False while its rows are being gathered.
    pub active: bool,
}

/// Slots on their way between two shards.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// Null while rows are gathered from all shards, for a rule.
    #[schema(required)]
    pub from: Option<String>,
    pub to: String,
    /// `waiting`, `copying`, `frozen` (commits are held back), `opening` (they go on, at the target) or `clearing`.
    pub stage: String,
    pub slots: u32,
    /// Copied so far.
    pub rows: u64,
    pub bytes: u64,
    pub age_seconds: f64,
    /// Why it does not go on, if it does not; it is tried again.
    #[schema(required)]
    pub trouble: Option<String>,
}

/// A shard to add.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewShard {
    /// For good: 1 to 32 of a-z, 0-9 and '-'.
    #[schema(max_length = 32)]
    pub name: String,
    /// `postgres://user:password@host:5432/database`, as nodes reach it. Several hosts, with commas between, are a
    /// primary and those that may take its place.
    #[schema(max_length = 2048)]
    pub url: String,
    /// Standbys, for reads that may lag.
    #[serde(default)]
    #[schema(max_items = 8)]
    pub replicas: Vec<String>,
}

/// Which slots go where. Without `slots` or `count`, as many as it takes for the target to have its share.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MoveRequest {
    #[schema(max_length = 32)]
    pub to: String,
    /// Only from this shard; otherwise from those that have most.
    #[serde(default)]
    #[schema(max_length = 32)]
    pub from: Option<String>,
    #[serde(default)]
    #[schema(minimum = 1)]
    pub count: Option<u32>,
    #[serde(default)]
    #[schema(max_items = 8192)]
    pub slots: Option<Vec<i32>>,
}

/// Where what leaves goes.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainRequest {
    /// One shard; otherwise all others evenly.
    #[serde(default)]
    #[schema(max_length = 32)]
    pub to: Option<String>,
}

/// Which partitions get a slot of their own, and on which shard.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PinRequest {
    pub rule: RuleText,
    #[schema(max_length = 32)]
    pub shard: String,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Slots that will move.
    pub slots: u64,
}

impl RuleText {
    fn of(rule: &Rule) -> Self {
        let name = |tenant: &Option<Tenant>| tenant.as_ref().map(|tenant| tenant.as_str().to_owned());
        match rule {
            Rule::Partition(partition) => Self {
                tenant: Some(partition.tenant.as_str().to_owned()),
                partition: Some(partition.entity.clone()),
                ..Self::default()
            },
            Rule::Tenant(tenant) => Self {
                tenant: Some(tenant.as_str().to_owned()),
                ..Self::default()
            },
            Rule::Prefix { tenant, prefix } => Self {
                tenant: name(tenant),
                prefix: Some(prefix.clone()),
                ..Self::default()
            },
            Rule::Range { tenant, low, high } => Self {
                tenant: name(tenant),
                low: Some(low.clone()),
                high: high.clone(),
                ..Self::default()
            },
        }
    }

    fn rule(self) -> Result<Rule, ApiError> {
        let tenant = self.tenant.as_deref().map(Tenant::new).transpose();
        let tenant = tenant.map_err(|error| ApiError::invalid("rule.tenant", error.to_string()))?;
        match (self.partition, self.prefix, self.low, self.high) {
            (Some(entity), None, None, None) => Ok(Rule::Partition(Partition::new(
                &tenant.unwrap_or_default(),
                entity,
            ))),
            (None, Some(prefix), None, None) if !prefix.is_empty() => Ok(Rule::Prefix { tenant, prefix }),
            (None, None, Some(low), high) if high.as_ref().is_none_or(|high| *high > low) => {
                Ok(Rule::Range { tenant, low, high })
            }
            (None, None, None, None) if tenant.is_some() => Ok(Rule::Tenant(tenant.unwrap_or_default())),
            _ => Err(ApiError::invalid(
                "rule",
                "say one of: a partition; a prefix; low and, above it, perhaps high; or a tenant alone",
            )),
        }
    }
}

fn problem(error: PostgresError) -> ApiError {
    match error {
        PostgresError::Options(detail) => ApiError::new(ErrorKind::Invalid, "invalid", detail),
        error @ PostgresError::NoShard { .. } => {
            let mut problem = ApiError::not_found("shard");
            problem.detail = error.to_string();
            problem
        }
        PostgresError::Conflict(detail) => ApiError::conflict("shards-busy", detail),
        // What the administrator has typed is wrong; no text holds a password.
        error @ (PostgresError::Connect { .. }
        | PostgresError::Unsuitable { .. }
        | PostgresError::WrongShard { .. }
        | PostgresError::Emptied { .. }
        | PostgresError::SchemaTooNew { .. }) => ApiError::conflict("shard-unsuitable", error.to_string()),
        error @ PostgresError::Refused { .. } => ApiError::internal(error),
    }
}

impl Admin {
    fn postgres(&self) -> Result<&Postgres, ApiError> {
        self.engines.postgres().ok_or_else(|| {
            ApiError::conflict(
                "no-shards",
                "this server keeps everything in its data directory, so there are no shards; they are there on \
                 PostgreSQL: set engines.postgres",
            )
        })
    }
}

/// Shards with their slots, the rules of partitions that have slots of their own, and what is on its way.
#[utoipa::path(
    get,
    path = "/v1/admin/shards",
    operation_id = "listShards",
    tag = "admin",
    responses((status = 200, description = "How they stand", body = Shards))
)]
pub async fn list_shards(State(admin): State<Arc<Admin>>) -> Result<Json<Shards>, ApiError> {
    let Some(postgres) = admin.engines.postgres() else {
        return Ok(Json(Shards {
            sharded: false,
            version: 0,
            shards: Vec::new(),
            rules: Vec::new(),
            moves: Vec::new(),
            mover: None,
        }));
    };
    Ok(Json(postgres.status().await.map_err(problem)?.into()))
}

/// Adds a shard while all nodes serve; they learn of it within a second. It has no slots until some are moved. For a
/// shard that is there, its address is replaced, which nodes take up when they start; one that was drained is back.
#[utoipa::path(
    post,
    path = "/v1/admin/shards",
    operation_id = "addShard",
    tag = "admin",
    request_body = NewShard,
    responses((status = 200, description = "It is there", body = Shards))
)]
pub async fn add_shard(
    State(admin): State<Arc<Admin>>,
    Json(new): Json<NewShard>,
) -> Result<Json<Shards>, ApiError> {
    let mut options = ShardOptions::new(new.name, new.url);
    options.replicas = new.replicas;
    admin.postgres()?.add_shard(&options).await.map_err(problem)?;
    list_shards(State(admin)).await
}

/// Moves slots to a shard, while all nodes serve.
#[utoipa::path(
    post,
    path = "/v1/admin/shards/moves",
    operation_id = "moveSlots",
    tag = "admin",
    request_body = MoveRequest,
    responses((status = 202, description = "They will move", body = Asked))
)]
pub async fn move_slots(
    State(admin): State<Arc<Admin>>,
    Json(request): Json<MoveRequest>,
) -> Result<(StatusCode, Json<Asked>), ApiError> {
    let spread = match (request.slots, request.count) {
        (None, None) => Spread::Share,
        (None, Some(count)) => Spread::Count(count),
        (Some(slots), None) => Spread::Slots(slots),
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "count",
                "say slots or a count of them, not both",
            ));
        }
    };
    let wish = Moving {
        to: request.to,
        from: request.from,
        spread,
    };
    let slots = admin.postgres()?.move_slots(&wish).await.map_err(problem)?;
    Ok((StatusCode::ACCEPTED, Json(Asked { slots })))
}

/// Moves everything off a shard. When nothing is left and its events have been told, it is `retired`.
#[utoipa::path(
    post,
    path = "/v1/admin/shards/{shard}/drain",
    operation_id = "drainShard",
    tag = "admin",
    params(("shard" = String, Path, description = "Its name")),
    request_body = DrainRequest,
    responses((status = 202, description = "Its slots will move", body = Asked))
)]
pub async fn drain_shard(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Json(request): Json<DrainRequest>,
) -> Result<(StatusCode, Json<Asked>), ApiError> {
    let drained = admin.postgres()?.drain_shard(&name, request.to.as_deref()).await;
    let slots = drained.map_err(problem)?;
    Ok((StatusCode::ACCEPTED, Json(Asked { slots })))
}

/// Gives partitions a slot of their own on a shard of choice; rows that are there move.
#[utoipa::path(
    post,
    path = "/v1/admin/shards/pins",
    operation_id = "pinPartitions",
    tag = "admin",
    request_body = PinRequest,
    responses((status = 202, description = "They will move", body = Asked))
)]
pub async fn pin_partitions(
    State(admin): State<Arc<Admin>>,
    Json(request): Json<PinRequest>,
) -> Result<(StatusCode, Json<Asked>), ApiError> {
    let rule = request.rule.rule()?;
    admin
        .postgres()?
        .pin(&rule, &request.shard)
        .await
        .map_err(problem)?;
    Ok((StatusCode::ACCEPTED, Json(Asked { slots: 1 })))
}

impl From<status::Status> for Shards {
    fn from(status: status::Status) -> Self {
        Self {
            sharded: true,
            version: status.version,
            shards: status.shards.into_iter().map(Into::into).collect(),
            rules: status
                .rules
                .into_iter()
                .map(|of| PinnedRule {
                    rule: RuleText::of(&of.rule),
                    slot: of.slot,
                    shard: of.shard,
                    active: of.active,
                })
                .collect(),
            moves: status
                .moves
                .into_iter()
                .map(|of| Move {
                    from: of.from,
                    to: of.to,
                    stage: of.stage,
                    slots: of.slots,
                    rows: of.rows,
                    bytes: of.bytes,
                    age_seconds: of.age_seconds,
                    trouble: of.trouble,
                })
                .collect(),
            mover: status.mover,
        }
    }
}

impl From<status::ShardStatus> for Shard {
    fn from(of: status::ShardStatus) -> Self {
        Self {
            name: of.name,
            state: of.state,
            slots: of.slots,
            up: of.contents.is_some(),
            rows: of.contents.map(|contents| contents.rows),
            bytes: of.contents.map(|contents| contents.bytes),
            outbox: of.contents.map(|contents| contents.outbox),
            replicas: of
                .replicas
                .into_iter()
                .map(|replica| Replica {
                    up: replica.is_up,
                    lag_bytes: replica.lag_bytes,
                    lag_seconds: replica.lag_seconds,
                })
                .collect(),
        }
    }
}
