//! Servers that nodes share: PostgreSQL for store, leases and outboxes, NATS for log and bus, Redis for the cache, and
//! S3 (or a directory) for blobs.
//!
//! What nodes must have in common is checked at the start, since each would do harm quietly: the number of a node is
//! taken by a lease, so that no two make the same ids; the deployment's secret is compared with the first node's; the
//! clock is compared with the database's, because ids of all nodes are ordered by time.

use super::{
    Figures, Number,
    carried::{self, Carried},
    counted::{Counted, Counts},
    number::{compare_clocks, keep_number, take_number},
};
use crate::{node::NodeError, settings::Settings};
use hmac::{Hmac, KeyInit as _, Mac as _};
use holon_base::{Clock, IdGenerator, Tenant};
use holon_nats::{Nats, NatsOptions, Relay};
use holon_objects::{ObjectBlobs, S3Options};
use holon_ports::{Batch, Consistency, Lease, Outbox, Partition, Ports, RowKey, Store, StoreError, Table};
use holon_postgres::{Postgres, PostgresOptions, ShardOptions};
use holon_redis::{RedisCache, RedisOptions, RedisStats};
use holon_telemetry::{Metrics, metrics::ConsumerFigures};
use holon_web::Health;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// A node has two numbers: the one of its settings, and this much more for the ids of events that are committed with
/// rows, which are made elsewhere. The log knows events by their ids, so no two may ever be the same.
pub const EVENT_NODES: u16 = (holon_base::id::MAX_NODE >> 1) + 1;

/// What the deployment is: its secret's fingerprint, the settings that its nodes share, and which nodes there are.
pub const FACTS: Table = Table("deployment.facts");
const SECRET_ROW: &[u8] = b"secret";

/// How long a database may take to say that it is there; less than who asks for the node's health waits.
const HEALTH: Duration = Duration::from_millis(1_500);
/// Events that wait are counted up to here.
const WAITING_COUNTED: usize = 1_000;

/// What tells one deployment's secret from another's, and tells nothing else about it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SecretRecord {
    fingerprint: [u8; 32],
}

pub struct Servers {
    postgres: Postgres,
    ports: Ports,
    ids: IdGenerator,
    clock: Arc<dyn Clock>,
    secret: Vec<u8>,
    carried: Carried,
    outbox: Arc<dyn Outbox>,
    relay: Relay,
    redis: RedisCache,
    counts: Arc<Counts>,
    place: String,
    number: Number,
    stop: watch::Sender<bool>,
    lost: watch::Receiver<Option<String>>,
    keeper: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl Servers {
    pub async fn open(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Self, NodeError> {
        std::fs::create_dir_all(&settings.data)
            .map_err(|error| format!("cannot make {}: {error}", settings.data.display()))?;
        let mut options = PostgresOptions::new(shards(settings)?)
            .node(settings.node + EVENT_NODES)
            .clock(Arc::clone(clock));
        options.move_bytes_per_second = settings.move_bytes_per_second;
        let postgres = Postgres::connect(options).await?;
        let leases = postgres.leases();
        let lease = match take_number(&*leases, settings.node).await {
            Ok(lease) => lease,
            Err(error) => {
                postgres.close().await;
                return Err(error);
            }
        };
        let parts = match Parts::open(settings, clock, &postgres, &lease).await {
            Ok(parts) => parts,
            Err(error) => {
                // The next try need not wait for the lease to end.
                let _ = leases.release(&lease).await;
                postgres.close().await;
                return Err(error);
            }
        };
        let number = Number {
            holder: lease.holder.clone(),
            generation: lease.fence.0,
        };
        let (stop, stopped) = watch::channel(false);
        let (losing, lost) = watch::channel(None);
        let keeper = tokio::spawn(keep_number(leases, lease, losing, stopped));
        let place = format!(
            "PostgreSQL ({}), NATS, Redis{}",
            match settings.postgres.expose().len() {
                1 => "1 shard".to_owned(),
                count => format!("{count} shards"),
            },
            if settings.s3_endpoint.is_some() {
                ", S3"
            } else {
                ""
            }
        );
        Ok(Self {
            ports: parts.ports,
            ids: parts.ids,
            clock: Arc::clone(clock),
            secret: parts.secret,
            carried: parts.carried,
            outbox: postgres.outbox(),
            relay: parts.relay,
            redis: parts.redis,
            counts: parts.counts,
            place,
            number,
            stop,
            lost,
            keeper: parking_lot::Mutex::new(Some(keeper)),
            postgres,
        })
    }

    pub fn ports(&self) -> Ports {
        self.ports.clone()
    }

    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    pub fn ids(&self) -> IdGenerator {
        self.ids.clone()
    }

    pub fn secret(&self, name: &str) -> [u8; 32] {
        let carried = self.carried.secrets.get(name).copied();
        carried.unwrap_or_else(|| derive(&self.secret, name))
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    pub fn number(&self) -> &Number {
        &self.number
    }

    /// The leases under which outboxes are relayed.
    pub async fn relay_leases(&self) -> Result<Vec<String>, StoreError> {
        let sources = self.outbox.sources().await?;
        Ok(sources
            .iter()
            .map(|source| self.relay.lease_name(source))
            .collect())
    }

    /// Whether requests can be served, by the databases: what the other servers hold, requests do without. While some
    /// shards answer the node stays, since it serves what lies there and any other node could do no more. The text
    /// says nothing about where the databases are.
    pub async fn health(&self) -> Health {
        let not_ready = |detail| Health { ready: false, detail };
        if let Some(lost) = &*self.lost.borrow() {
            return not_ready(lost.clone());
        }
        let shards = match self.outbox.sources().await {
            Ok(shards) => shards,
            Err(_) => return not_ready("the database is closed".into()),
        };
        let looks = shards.iter().map(|shard| self.look(shard));
        let away: Vec<&str> = futures::future::join_all(looks)
            .await
            .into_iter()
            .flatten()
            .collect();
        if away.is_empty() {
            return Health::ready();
        }
        if away.len() == shards.len() {
            return not_ready("the database does not answer".into());
        }
        Health {
            ready: true,
            detail: format!(
                "of {} shards these do not answer: {}",
                shards.len(),
                away.join(", ")
            ),
        }
    }

    /// The name of a shard that does not answer.
    async fn look<'a>(&self, shard: &'a str) -> Option<&'a str> {
        match tokio::time::timeout(HEALTH, self.outbox.read(shard, 1)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => {
                tracing::warn!(shard, %error, "a database does not answer");
                Some(shard)
            }
            Err(_) => Some(shard),
        }
    }

    pub fn show_cache(&self, metrics: &Metrics) {
        type Figure = (&'static str, &'static str, fn(&RedisStats) -> f64);
        let figures: [Figure; 4] = [
            (
                "cache_breakers_open",
                "Circuit breakers before Redis that are not closed.",
                |stats| stats.breakers_open as f64,
            ),
            (
                "cache_refused",
                "Calls since start that an open breaker failed at once.",
                |stats| stats.refused as f64,
            ),
            (
                "cache_timeouts",
                "Calls of Redis since start that took too long.",
                |stats| stats.timeouts as f64,
            ),
            (
                "cache_failures",
                "Calls of Redis since start that failed.",
                |stats| stats.failures as f64,
            ),
        ];
        for (name, help, figure) in figures {
            let redis = self.redis.clone();
            metrics.gauge(name, help, move || figure(&redis.stats()));
        }
    }

    pub fn figures(&self) -> Figures {
        Figures {
            failure: self.lost.borrow().clone(),
            commits_per_second: self.counts.commits_per_second(),
            commits: self.counts.commits(),
            events: self.counts.events(),
            ..Figures::default()
        }
    }

    pub async fn relay(&self, stop: watch::Receiver<bool>) {
        self.relay.run(stop).await;
    }

    pub async fn measure_relay(&self, metrics: &Metrics) {
        let sources = match self.outbox.sources().await {
            Ok(sources) => sources,
            Err(error) => return tracing::warn!(%error, "cannot find the outboxes"),
        };
        for source in sources {
            match self.outbox.read(&source, WAITING_COUNTED).await {
                Ok(waiting) => {
                    let oldest = waiting.iter().map(|event| event.time).min();
                    let age = |oldest| self.clock.now().since(oldest).as_secs_f64();
                    let figures = ConsumerFigures {
                        lag: waiting.len() as u64,
                        oldest_seconds: oldest.map_or(0.0, age),
                        dead_letters: 0,
                    };
                    metrics.set_consumer("relay", &source, figures);
                }
                Err(error) => tracing::warn!(source, %error, "cannot read how many events wait"),
            }
        }
    }

    pub async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        let text = match lost.wait_for(Option::is_some).await {
            Ok(lost) => lost.clone(),
            // The keeper ended in good order.
            Err(_) => None,
        };
        match text {
            Some(text) => text,
            None => std::future::pending().await,
        }
    }

    pub async fn close(&self) {
        self.stop.send_replace(true);
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper
            && let Err(error) = keeper.await
        {
            tracing::error!(%error, "the keeper of the node's number did not end in good order");
        }
        self.postgres.close().await;
    }
}

/// What is made once the node has its number.
struct Parts {
    ports: Ports,
    ids: IdGenerator,
    secret: Vec<u8>,
    carried: Carried,
    relay: Relay,
    redis: RedisCache,
    counts: Arc<Counts>,
}

impl Parts {
    async fn open(
        settings: &Settings,
        clock: &Arc<dyn Clock>,
        postgres: &Postgres,
        lease: &Lease,
    ) -> Result<Self, NodeError> {
        compare_clocks(&*postgres.leases(), lease, &**clock).await?;
        let secret = settings.secret.as_ref().ok_or("engines.secret is not set")?;
        let secret = secret.expose().as_bytes().to_vec();
        let counts = Arc::<Counts>::default();
        let store: Arc<dyn Store> = Arc::new(Counted {
            store: postgres.store(),
            counts: Arc::clone(&counts),
        });
        let tables: Vec<Table> = holon_objects::TABLES.into_iter().chain([FACTS]).collect();
        store.create_tables(&tables).await?;
        compare_secret(&*store, &secret).await?;
        carried::check(&*store, &*postgres.leases()).await?;
        let carried = Carried::read(&*store, &secret).await?;

        let ids = IdGenerator::new(settings.node, Arc::clone(clock));
        if let Some(last) = carried.last_id {
            ids.advance_past(last);
        }
        let mut options = NatsOptions::new(
            settings.nats.expose().to_vec(),
            &settings.prefix,
            Arc::clone(clock),
            ids.clone(),
            postgres.leases(),
        );
        options.replicas = settings.nats_replicas;
        options.holder = format!("node-{}", settings.node);
        let nats = Nats::connect(options).await?;

        let mut options = RedisOptions::new(settings.redis.expose(), nats.bus());
        options.cluster = settings.redis_cluster;
        options.prefix = format!("{}:", settings.prefix);
        let redis = RedisCache::connect(options).await?;

        let blob_secret = carried.secrets.get("blob").copied();
        let blob_secret = blob_secret.unwrap_or_else(|| derive(&secret, "blob"));
        let blobs = blobs(settings, &store, blob_secret, clock).await?;
        Ok(Self {
            relay: nats.relay(postgres.outbox()),
            ports: Ports {
                store,
                log: nats.log(),
                cache: redis.cache(),
                bus: nats.bus(),
                blobs: Arc::new(blobs),
                leases: postgres.leases(),
            },
            redis,
            ids,
            secret,
            carried,
            counts,
        })
    }
}

/// The shards, each with the name that was given to it.
pub(super) fn shards(settings: &Settings) -> Result<Vec<ShardOptions>, NodeError> {
    let urls = settings.postgres.expose();
    let mut shards = Vec::with_capacity(urls.len());
    for (number, url) in urls.iter().enumerate() {
        let (scheme, _) = url.split_once("://").unwrap_or_default();
        let shard = match scheme.split_once('=') {
            Some((name, _)) => ShardOptions::new(name, &url[name.len() + 1..]),
            None if urls.len() == 1 => ShardOptions::new("main", url),
            None => {
                return Err(format!(
                    "engines.postgres: address {} has no name; of several, each is name=postgres://..., under the name \
                     that it keeps for good",
                    number + 1
                )
                .into());
            }
        };
        let scheme = scheme.rsplit('=').next().unwrap_or_default();
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err(format!(
                "engines.postgres: address {} does not begin with postgres://",
                number + 1
            )
            .into());
        }
        shards.push(shard);
    }
    for (number, url) in settings.postgres_replicas.expose().iter().enumerate() {
        let (scheme, _) = url.split_once("://").unwrap_or_default();
        let (name, url) = match scheme.split_once('=') {
            Some((name, _)) => (name, &url[name.len() + 1..]),
            None => ("main", url.as_str()),
        };
        let Some(shard) = shards.iter_mut().find(|shard| shard.name == name) else {
            return Err(format!(
                "engines.postgres_replicas: address {} is of shard {name}, which engines.postgres does not name; a \
                 replica of a shard that was added later is told with `holon shards add`",
                number + 1
            )
            .into());
        };
        shard.replicas.push(url.to_owned());
    }
    Ok(shards)
}

pub(super) async fn blobs(
    settings: &Settings,
    store: &Arc<dyn Store>,
    secret: [u8; 32],
    clock: &Arc<dyn Clock>,
) -> Result<ObjectBlobs, NodeError> {
    let (store, clock) = (Arc::clone(store), Arc::clone(clock));
    let (Some(endpoint), Some(bucket), Some(key), Some(secret_key)) = (
        &settings.s3_endpoint,
        &settings.s3_bucket,
        &settings.s3_access_key,
        &settings.s3_secret_key,
    ) else {
        return Ok(ObjectBlobs::directory(
            settings.data.join("blobs"),
            store,
            secret,
            clock,
        )?);
    };
    let mut options = S3Options::new(endpoint, bucket, &settings.s3_region, key, secret_key.expose());
    options.prefix.clone_from(&settings.prefix);
    let blobs = ObjectBlobs::s3(&options, store, secret, clock)?;
    let checked = blobs.check().await;
    checked.map_err(|error| format!("bucket {bucket} at {endpoint} cannot be used: {error}"))?;
    Ok(blobs)
}

/// A key of its own for each use, from the one secret that operators keep (HMAC as a key derivation function: RFC 5869).
pub(super) fn derive(secret: &[u8], name: &str) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length will do");
    mac.update(b"holon deployment\0");
    mac.update(name.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Where [`FACTS`] are.
pub fn facts() -> Partition {
    Partition::new(&Tenant::default(), "deployment")
}

/// Refuses a secret that is not the one of the nodes before.
pub(super) async fn compare_secret(store: &dyn Store, secret: &[u8]) -> Result<(), NodeError> {
    let own = SecretRecord {
        fingerprint: derive(secret, "fingerprint"),
    };
    let first = Batch::new().put_if_absent(FACTS, SECRET_ROW, &own);
    match store.commit(&facts(), first).await {
        Ok(_) => return Ok(()),
        Err(StoreError::ConditionFailed { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let key = RowKey::new(FACTS, facts(), SECRET_ROW);
    let row = store.get(&key, Consistency::Strong).await?;
    let known: Option<SecretRecord> = row.map(|row| row.json()).transpose()?;
    if known.is_some_and(|known| known != own) {
        return Err(
            "engines.secret is not the one that this deployment was begun with; all nodes have the same"
                .into(),
        );
    }
    Ok(())
}
