//! What a node runs on: the embedded engine in its data directory, or servers that many nodes share.

pub mod carried;
mod counted;
mod number;
mod servers;
pub mod still;

pub use number::lease_name;
pub use servers::{EVENT_NODES, FACTS, facts};

use crate::{node::NodeError, settings::Settings};
use holon_base::{Clock, IdGenerator};
use holon_embedded::{Engine, EngineOptions};
use holon_ports::Ports;
use holon_postgres::Postgres;
use holon_telemetry::Metrics;
use holon_web::Health;
use servers::Servers;
use std::{future, sync::Arc};
use tokio::sync::watch;

/// The engines of this process, opened.
pub struct Engines(Kind);

enum Kind {
    Embedded(Box<Engine>),
    Servers(Box<Servers>),
}

/// How the store does, by what this process knows. On servers, what only they know is 0.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub failure: Option<String>,
    pub disk_bytes: u64,
    pub free_bytes: u64,
    pub commits_per_second: f64,
    pub commits: u64,
    pub events: u64,
    pub group_size: f64,
    pub group_micros: f64,
    pub queue_depth: u64,
    pub cache_bytes: u64,
    pub memtable_bytes: u64,
}

/// A process's hold on its node's number.
#[derive(Debug, Clone)]
pub struct Number {
    /// Names the process, as nothing before or after it is named.
    pub holder: String,
    /// Grows each time that a process takes the number.
    pub generation: u64,
}

impl Engines {
    /// Opens what the settings name: servers if they do, else the data directory.
    ///
    /// # Errors
    /// If it cannot be opened; the text says what to do and holds no password.
    pub async fn open(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Self, NodeError> {
        if !settings.postgres.is_empty() {
            let servers = Servers::open(settings, clock).await?;
            return Ok(Self(Kind::Servers(Box::new(servers))));
        }
        crate::copy::directory::is_whole(&settings.data)?;
        let options = EngineOptions::new(&settings.data)
            .node(settings.node)
            .clock(Arc::clone(clock));
        let engine = Engine::open(options).await?;
        Ok(Self(Kind::Embedded(Box::new(engine))))
    }

    pub fn ports(&self) -> Ports {
        match &self.0 {
            Kind::Embedded(engine) => engine.ports(),
            Kind::Servers(servers) => servers.ports(),
        }
    }

    pub fn ids(&self) -> IdGenerator {
        match &self.0 {
            Kind::Embedded(engine) => engine.ids(),
            Kind::Servers(servers) => servers.ids(),
        }
    }

    /// A secret of the deployment: the same on every node, and after every start.
    ///
    /// # Errors
    /// If it can be neither read nor made.
    pub fn secret(&self, name: &str) -> Result<[u8; 32], NodeError> {
        match &self.0 {
            Kind::Embedded(engine) => Ok(engine.secret(name)?),
            Kind::Servers(servers) => Ok(servers.secret(name)),
        }
    }

    /// This process's hold on its number; none where no other process can be.
    pub fn number(&self) -> Option<&Number> {
        match &self.0 {
            Kind::Embedded(_) => None,
            Kind::Servers(servers) => Some(servers.number()),
        }
    }

    /// The version of the schema that rows are in; none on the embedded engine.
    pub fn schema(&self) -> Option<i32> {
        match &self.0 {
            Kind::Embedded(_) => None,
            Kind::Servers(_) => Some(holon_postgres::schema::VERSION),
        }
    }

    /// The leases under which outboxes are relayed.
    ///
    /// # Errors
    /// If the outboxes cannot be found.
    pub async fn relay_leases(&self) -> Result<Vec<String>, holon_ports::StoreError> {
        match &self.0 {
            Kind::Embedded(_) => Ok(Vec::new()),
            Kind::Servers(servers) => servers.relay_leases().await,
        }
    }

    /// The data directory as it is now, to be copied; `None` on servers.
    pub fn directory(&self) -> Option<&Engine> {
        match &self.0 {
            Kind::Embedded(engine) => Some(engine),
            Kind::Servers(_) => None,
        }
    }

    /// True if no other process can have what this one has open.
    pub fn is_alone(&self) -> bool {
        matches!(self.0, Kind::Embedded(_))
    }

    /// The shards, if rows are there.
    pub fn postgres(&self) -> Option<&Postgres> {
        match &self.0 {
            Kind::Embedded(_) => None,
            Kind::Servers(servers) => Some(servers.postgres()),
        }
    }

    /// What is said at the start of where things are, besides the data directory.
    pub fn place(&self) -> Option<&str> {
        match &self.0 {
            Kind::Embedded(_) => None,
            Kind::Servers(servers) => Some(servers.place()),
        }
    }

    /// Whether requests can be served.
    pub async fn health(&self) -> Health {
        let failure = match &self.0 {
            Kind::Embedded(engine) => engine.failure(),
            Kind::Servers(servers) => return servers.health().await,
        };
        match failure {
            None => Health::ready(),
            Some(detail) => Health { ready: false, detail },
        }
    }

    /// Shows how the cache does, where it is a server that may be away.
    pub fn show_cache(&self, metrics: &Metrics) {
        if let Kind::Servers(servers) = &self.0 {
            servers.show_cache(metrics);
        }
    }

    pub fn figures(&self) -> Figures {
        match &self.0 {
            Kind::Servers(servers) => servers.figures(),
            Kind::Embedded(engine) => {
                let stats = engine.stats();
                Figures {
                    failure: stats.failure,
                    disk_bytes: stats.disk_bytes,
                    free_bytes: stats.free_bytes,
                    commits_per_second: stats.commits_per_second,
                    commits: stats.commits,
                    events: stats.events_written,
                    group_size: stats.group_size,
                    group_micros: stats.group_micros,
                    queue_depth: stats.queue_depth as u64,
                    cache_bytes: stats.cache_bytes,
                    memtable_bytes: stats.memtable_bytes,
                }
            }
        }
    }

    /// Takes events from the outboxes of the store to the log until `stop` turns true; ends at once where the store
    /// has the log in itself.
    pub async fn relay(&self, stop: watch::Receiver<bool>) {
        if let Kind::Servers(servers) = &self.0 {
            servers.relay(stop).await;
        }
    }

    /// Writes down how many events wait for the log, as the lag of a group `relay` on each shard.
    pub async fn measure_relay(&self, metrics: &Metrics) {
        if let Kind::Servers(servers) = &self.0 {
            servers.measure_relay(metrics).await;
        }
    }

    /// Returns when this process must end at once, with the reason; as a rule never.
    pub async fn lost(&self) -> String {
        match &self.0 {
            Kind::Embedded(_) => future::pending().await,
            Kind::Servers(servers) => servers.lost().await,
        }
    }

    pub async fn close(&self) {
        match &self.0 {
            Kind::Embedded(engine) => engine.close().await,
            Kind::Servers(servers) => servers.close().await,
        }
    }
}
