//! A home on servers: PostgreSQL with two shards, NATS, Redis and S3, wired as a node wires them.
//!
//! All homes of a process share the servers, and each has databases and prefixes of its own.

use crate::{S3Server, postgres};
use holon_base::{Clock, IdGenerator};
use holon_nats::{Nats, NatsOptions};
use holon_objects::{ObjectBlobs, S3Options};
use holon_ports::{Outbox, Ports};
use holon_postgres::{Postgres, PostgresOptions, ShardOptions};
use holon_redis::{RedisCache, RedisOptions};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// Where the servers are that [`super::again_on_servers`] started for this process.
pub(super) const ADDRESSES: &str = "HOLON_TEST_SERVERS";
pub(super) const SECRET: [u8; 32] = [42; 32];
/// The node's second number, for the ids of events that are committed with rows.
const EVENTS: u16 = (holon_base::id::MAX_NODE >> 1) + 1;
/// Servers that are slow because the machine is busy with other tests are not away.
const DEADLINE: Duration = Duration::from_secs(30);

/// What is a home's own on the servers; it stays when the home is restarted.
pub(super) struct Place {
    shards: [String; 2],
    nats: String,
    redis: String,
    s3: String,
    prefix: String,
    /// How often a home was opened here.
    starts: u16,
}

impl Place {
    /// A place where nothing is yet; `None` in a process that has no servers.
    pub async fn new() -> Option<Self> {
        static HOMES: AtomicU32 = AtomicU32::new(0);
        let addresses = std::env::var(ADDRESSES).ok()?;
        let addresses: Vec<&str> = addresses.split(' ').collect();
        let [postgres, nats, redis, s3] = addresses[..] else {
            panic!("{ADDRESSES} is for the test kit alone, which writes four addresses into it");
        };
        let prefix = format!("home{}", HOMES.fetch_add(1, Ordering::Relaxed));
        let names = ["a", "b"].map(|shard| format!("{prefix}_{shard}"));
        let [a, b] = postgres::create_databases(postgres, &names).await;
        Some(Self {
            shards: [a, b],
            nats: nats.to_owned(),
            redis: redis.to_owned(),
            s3: s3.to_owned(),
            prefix,
            starts: 0,
        })
    }
}

pub(super) struct OnServers {
    postgres: Postgres,
    outbox: Arc<dyn Outbox>,
    ports: Ports,
    ids: IdGenerator,
    stop: watch::Sender<bool>,
    relay: JoinHandle<()>,
    place: Place,
}

impl OnServers {
    pub async fn open(mut place: Place, clock: &Arc<dyn Clock>) -> Self {
        // Each start is another node: under a clock that stands still, one that began anew would make its ids again.
        let node = place.starts;
        place.starts += 1;
        let [a, b] = &place.shards;
        let shards = vec![ShardOptions::new("a", a), ShardOptions::new("b", b)];
        let mut options = PostgresOptions::new(shards)
            .node(node + EVENTS)
            .clock(Arc::clone(clock));
        options.patience = DEADLINE;
        options.statement_timeout = DEADLINE;
        let postgres = Postgres::connect(options).await.expect("databases of its own");
        let (store, leases, outbox) = (postgres.store(), postgres.leases(), postgres.outbox());
        store
            .create_tables(&holon_objects::TABLES)
            .await
            .expect("tables of blobs");

        let ids = IdGenerator::new(node, Arc::clone(clock));
        let mut options = NatsOptions::new(
            vec![place.nats.clone()],
            &place.prefix,
            Arc::clone(clock),
            ids.clone(),
            Arc::clone(&leases),
        );
        options.deadline = DEADLINE;
        let nats = Nats::connect(options).await.expect("a nats server");

        let mut options = RedisOptions::new([&place.redis], nats.bus());
        options.prefix = format!("{}:", place.prefix);
        options.timeout = DEADLINE;
        let redis = RedisCache::connect(options).await.expect("a redis server");

        let mut options = S3Options::new(
            &place.s3,
            S3Server::BUCKET,
            "us-east-1",
            S3Server::ACCESS_KEY_ID,
            S3Server::SECRET_ACCESS_KEY,
        );
        options.prefix.clone_from(&place.prefix);
        let blobs =
            ObjectBlobs::s3(&options, Arc::clone(&store), SECRET, Arc::clone(clock)).expect("an s3 server");

        let (stop, stopped) = watch::channel(false);
        let relay = nats.relay(Arc::clone(&outbox));
        let relay = tokio::spawn(async move { relay.run(stopped).await });
        let ports = Ports {
            store,
            log: nats.log(),
            cache: redis.cache(),
            bus: nats.bus(),
            blobs: Arc::new(blobs),
            leases,
        };
        Self {
            postgres,
            outbox,
            ports,
            ids,
            stop,
            relay,
            place,
        }
    }

    pub fn ports(&self) -> Ports {
        self.ports.clone()
    }

    pub fn ids(&self) -> IdGenerator {
        self.ids.clone()
    }

    /// True while something was committed that is not on the log yet.
    pub async fn holds_events_back(&self) -> bool {
        for source in self.outbox.sources().await.expect("the outboxes") {
            let waiting = self.outbox.read(&source, 1).await.expect("an outbox");
            if !waiting.is_empty() {
                return true;
            }
        }
        false
    }

    /// Stops in good order.
    pub async fn close(self) -> Place {
        self.stop.send_replace(true);
        self.relay.await.expect("the relay ends in good order");
        self.postgres.close().await;
        self.place
    }
}
