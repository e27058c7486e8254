//! `/v1/admin`: a node as its administrator sees it.
//!
//! Figures come from what the running process counts; nothing here is stored. All of it needs the permission
//! `admin.inspect`; what changes something needs `admin.rebuild`, and a backup,
//! which has all secrets in it, `admin.backup`.

mod backup;
mod cluster;
mod letters;
mod overview;
mod rebuild;
mod shards;
mod traces;

pub use overview::publish_overview;

use crate::{engines::Engines, jobs::Holder};
use axum::Router;
use holon_base::{CursorSigner, Timestamp};
use holon_cluster::Cluster;
use holon_ports::{Consumer, Ports};
use holon_realtime::Hub;
use holon_telemetry::{Metrics, Tracer};
use holon_web::{Access, Projection, Routes, System};
use std::{collections::BTreeMap, sync::Arc, time::Instant};
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

/// Sees inside.
pub const INSPECT: &str = "admin.inspect";
/// Makes projections anew, replays dead letters, and moves slots.
pub const REBUILD: &str = "admin.rebuild";

/// Takes everything away in a file, secrets too.
pub const BACKUP: &str = "admin.backup";

/// What the admin routes know of the node.
pub struct Admin {
    pub node: u16,
    pub started: Timestamp,
    pub since: Instant,
    pub systems: Vec<Arc<dyn System>>,
    pub consumers: Vec<Consumer>,
    pub projections: Vec<Projection>,
    pub ports: Ports,
    pub engines: Arc<Engines>,
    pub cursors: CursorSigner,
    pub hub: Arc<Hub>,
    pub metrics: Arc<Metrics>,
    pub tracer: Tracer,
    pub holder: Holder,
    pub cluster: Arc<Cluster>,
    /// The jobs of all systems.
    pub jobs: Vec<&'static str>,
    rebuilds: parking_lot::Mutex<BTreeMap<&'static str, rebuild::RebuildState>>,
}

/// What an [`Admin`] is made of.
pub struct Parts {
    pub node: u16,
    pub started: Timestamp,
    pub systems: Vec<Arc<dyn System>>,
    pub consumers: Vec<Consumer>,
    pub ports: Ports,
    pub engines: Arc<Engines>,
    pub cursors: CursorSigner,
    pub hub: Arc<Hub>,
    pub metrics: Arc<Metrics>,
    pub tracer: Tracer,
    pub holder: Holder,
    pub cluster: Arc<Cluster>,
    pub jobs: Vec<&'static str>,
}

impl Admin {
    pub fn new(parts: Parts) -> Arc<Self> {
        let projections = parts
            .systems
            .iter()
            .flat_map(|system| Arc::clone(system).projections())
            .collect();
        Arc::new(Self {
            node: parts.node,
            started: parts.started,
            since: Instant::now(),
            systems: parts.systems,
            consumers: parts.consumers,
            projections,
            ports: parts.ports,
            engines: parts.engines,
            cursors: parts.cursors,
            hub: parts.hub,
            metrics: parts.metrics,
            tracer: parts.tracer,
            holder: parts.holder,
            cluster: parts.cluster,
            jobs: parts.jobs,
            rebuilds: parking_lot::Mutex::default(),
        })
    }

    pub fn routes(self: &Arc<Self>) -> (Router, OpenApi) {
        Routes::new()
            .permitted(INSPECT, routes!(cluster::get_cluster))
            .permitted(INSPECT, routes!(overview::get_overview))
            .live(Access::Permission(INSPECT), routes!(overview::watch_overview))
            .permitted(INSPECT, routes!(rebuild::list_rebuilds))
            .permitted(INSPECT, routes!(rebuild::get_rebuild))
            .permitted(REBUILD, routes!(rebuild::start_rebuild))
            .permitted(INSPECT, routes!(letters::list_dead_letters))
            .permitted(REBUILD, routes!(letters::replay_dead_letter))
            .permitted(INSPECT, routes!(shards::list_shards))
            .permitted(REBUILD, routes!(shards::add_shard))
            .permitted(REBUILD, routes!(shards::move_slots))
            .permitted(REBUILD, routes!(shards::drain_shard))
            .permitted(REBUILD, routes!(shards::pin_partitions))
            .permitted(INSPECT, routes!(traces::list_traces))
            .permitted(INSPECT, routes!(traces::get_trace))
            .live(Access::Permission(BACKUP), routes!(backup::get_backup))
            .finish(Arc::clone(self))
    }
}
