//! The overview: systems, consumers and the store, once or once a second.

use super::Admin;
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use holon_base::Timestamp;
use holon_realtime::{LiveRequest, Outgoing};
use holon_web::{ApiError, Health, Json, Query};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How often those who watch are told.
const PERIOD: Duration = Duration::from_secs(1);

/// A node from inside.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    pub version: &'static str,
    /// When the node started.
    pub started: Timestamp,
    pub uptime_seconds: u64,
    pub node: u16,
    pub systems: Vec<SystemOverview>,
    pub consumers: Vec<ConsumerOverview>,
    pub store: StoreOverview,
    /// Live connections and where they are.
    pub live: LiveOverview,
    /// Resident memory of the process; 0 where the system does not say.
    pub memory_bytes: u64,
}

/// How one system does, over the last minute.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemOverview {
    pub name: String,
    pub summary: String,
    pub ready: bool,
    pub detail: String,
    pub requests_per_second: f64,
    /// Share of answers that were 5xx, 0 to 1.
    pub error_rate: f64,
    /// Half of the requests took no longer; 0 without requests.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// How far a consumer group is.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerOverview {
    pub group: String,
    pub topic: String,
    /// Events that wait.
    pub lag: u64,
    /// Age of the oldest of them.
    pub oldest_seconds: f64,
    pub dead_letters: u64,
}

/// How the store does.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreOverview {
    /// Why nothing can be written any more, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Tables and journals.
    pub disk_bytes: u64,
    pub free_bytes: u64,
    pub commits_per_second: f64,
    /// Commits since the start.
    pub commits: u64,
    /// Events told since the start.
    pub events: u64,
    /// Commits that shared one sync to disk, on average.
    pub group_size: f64,
    /// Mean time to write and sync one such group.
    pub group_micros: f64,
    /// Commits that wait.
    pub queue_depth: u64,
    pub cache_bytes: u64,
    pub memtable_bytes: u64,
}

/// Live connections of this node.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveOverview {
    pub rooms: u64,
}

impl Admin {
    pub async fn overview(&self) -> Overview {
        let rates = self.metrics.rates();
        let mut systems = Vec::with_capacity(self.systems.len());
        for system in &self.systems {
            let Health { ready, detail } = system.health().await;
            let rates = rates.get(system.name()).copied().unwrap_or_default();
            let ms = |duration: Option<Duration>| duration.unwrap_or_default().as_secs_f64() * 1e3;
            systems.push(SystemOverview {
                name: system.name().to_owned(),
                summary: system.summary().to_owned(),
                ready,
                detail,
                requests_per_second: rates.requests_per_second,
                error_rate: rates.error_rate,
                p50_ms: ms(rates.p50),
                p99_ms: ms(rates.p99),
            });
        }
        self.engines.measure_relay(&self.metrics).await;
        let consumers = self.metrics.consumers().into_iter();
        let figures = self.engines.figures();
        Overview {
            version: env!("CARGO_PKG_VERSION"),
            started: self.started,
            uptime_seconds: self.since.elapsed().as_secs(),
            node: self.node,
            systems,
            consumers: consumers
                .map(|((group, topic), figures)| ConsumerOverview {
                    group,
                    topic,
                    lag: figures.lag,
                    oldest_seconds: figures.oldest_seconds,
                    dead_letters: figures.dead_letters,
                })
                .collect(),
            store: StoreOverview {
                failure: figures.failure,
                disk_bytes: figures.disk_bytes,
                free_bytes: figures.free_bytes,
                commits_per_second: figures.commits_per_second,
                commits: figures.commits,
                events: figures.events,
                group_size: figures.group_size,
                group_micros: figures.group_micros,
                queue_depth: figures.queue_depth,
                cache_bytes: figures.cache_bytes,
                memtable_bytes: figures.memtable_bytes,
            },
            live: LiveOverview {
                rooms: self.hub.occupied_rooms() as u64,
            },
            memory_bytes: memory_bytes(),
        }
    }

    /// Where those who watch this node are. A room of the node's own, since figures are a node's.
    fn room(&self) -> String {
        format!("admin.overview.{}", self.node)
    }

    async fn message(&self) -> Outgoing {
        Outgoing {
            kind: "overview",
            id: String::new(),
            data: serde_json::to_vec(&self.overview().await)
                .unwrap_or_default()
                .into(),
        }
    }
}

/// Tells those who watch, once a second while somebody does, until `stop` turns true.
pub async fn publish_overview(admin: Arc<Admin>, mut stop: watch::Receiver<bool>) {
    let room = admin.room();
    while tokio::time::timeout(PERIOD, stop.wait_for(|stop| *stop))
        .await
        .is_err()
    {
        if !admin.hub.is_occupied(&room) {
            continue;
        }
        if let Err(error) = admin.hub.publish(&room, admin.message().await).await {
            tracing::warn!(%error, "cannot tell those who watch the overview");
        }
    }
}

/// Resident memory of this process, in bytes.
pub fn memory_bytes() -> u64 {
    const PAGE: u64 = 4_096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE
}

/// Which node.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OverviewQuery {
    /// The node to look at; without it, the one that answers.
    #[param(maximum = 1023)]
    node: Option<u16>,
}

/// A node from inside, now: this one, or another that this one asks.
#[utoipa::path(
    get,
    path = "/v1/admin/overview",
    operation_id = "getOverview",
    tag = "admin",
    params(OverviewQuery),
    responses((status = 200, description = "The node now", body = Overview))
)]
pub async fn get_overview(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<OverviewQuery>,
) -> Result<Response, ApiError> {
    match query.node.filter(|node| *node != admin.node) {
        None => Ok(Json(admin.overview().await).into_response()),
        Some(node) => {
            let json = admin.overview_of(node).await?;
            Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
        }
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    /// The access token, where a header cannot be set.
    #[serde(rename = "access_token")]
    _access_token: Option<String>,
}

/// The node from inside, once a second: server-sent events or a WebSocket with messages of type `overview`.
#[utoipa::path(
    get,
    path = "/v1/admin/overview/live",
    operation_id = "watchOverview",
    tag = "admin",
    params(WatchQuery),
    responses((status = 200, description = "Events named overview", content_type = "text/event-stream", body = String))
)]
pub async fn watch_overview(
    State(admin): State<Arc<Admin>>,
    Query(_query): Query<WatchQuery>,
    request: LiveRequest,
) -> Result<Response, ApiError> {
    let first = admin.message().await;
    let room = admin.room();
    let hub = Arc::clone(&admin.hub);
    Ok(hub
        .serve(request, &room, None, move |_| async move { Ok(vec![first]) })
        .await)
}
