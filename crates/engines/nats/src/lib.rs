//! Log and Bus on NATS JetStream.
//!
//! | file | idea |
//! |---|---|
//! | [`topics`] | a stream for each partition, so that offsets have no gaps and each is cut by itself |
//! | [`envelope`] | an event as a message: CloudEvents in binary mode |
//! | [`publish`] | telling events: pipelined, each once, in order per key |
//! | [`relay`] | from the outboxes of a store to the log |
//! | [`read`], [`events`] | many messages for one request; finding a time |
//! | [`state`] | compare and set: topics, groups, offsets |
//! | [`groups`] | who reads which partition, and how far: leases, fences, division |
//! | [`dead`] | events that a group gave up on |
//! | [`bus`] | publish and subscribe |
//!
//! # What is promised
//!
//! - An event is acknowledged once the stream has it: with three replicas, once two servers have it. A server writes
//!   to its disk without waiting for it (unless `sync_interval: always` is set, from 2.10 on), so with one replica a
//!   crash of the process loses nothing that was acknowledged, while a loss of power may.
//! - `append` of several events is not atomic: when it fails with [`holon_ports::LogError::Unavailable`], some may
//!   have been told. What must be told if and only if something is stored goes through an outbox.
//! - Each event of an outbox is told once, as [`relay`] says.
//! - Ids and times grow within a partition as long as one process appends to it; several, and relays, mix theirs.
//!   Whoever needs an order uses offsets.
//! - How often an event was handed out before is counted in the process that has the partition. When the partition
//!   moves, what the last commit knew of is counted as one.

mod bus;
mod copy;
mod dead;
mod envelope;
mod error;
mod events;
mod groups;
mod log;
mod names;
mod publish;
mod read;
pub mod relay;
mod state;
mod streams;
mod topics;

pub use error::NatsError;
pub use relay::{Relay, SourceLag};

use async_nats::{
    Client, ConnectOptions, ServerAddr,
    jetstream::{Context, context::ContextBuilder},
};
use holon_base::{Clock, IdGenerator, limits};
use holon_ports::{
    Bus, Leases, Log, Outbox,
    bus::{MESSAGE_BYTES, QueueOptions},
};
use names::Names;
use parking_lot::{Mutex, RwLock};
use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

/// How a deployment uses its NATS servers.
#[derive(Clone)]
pub struct NatsOptions {
    /// Such as `nats://10.0.0.1:4222`, with `user:password@` or `token@` before the host where the servers want it.
    /// Any one that answers is enough; the others are learned from it.
    pub servers: Vec<String>,
    /// What the names of all streams and subjects start with, so that several deployments can share servers: 1 to 32
    /// of `a-z`, `0-9` and `_`.
    pub prefix: String,
    /// How many servers keep each event: 1, or 3 in a cluster.
    pub replicas: usize,
    pub clock: Arc<dyn Clock>,
    /// Gives ids to events that are appended; those of an outbox have theirs.
    pub ids: IdGenerator,
    /// Who may read a partition for a group, and relay a source.
    pub leases: Arc<dyn Leases>,
    /// What this process's name as a holder of leases begins with, for people to know it by.
    pub holder: String,
    /// How long a process that died keeps its partitions from the others. Renewed at a third of it.
    pub lease_ttl: Duration,
    /// How long servers remember ids: at least twice the deadline, so that whatever is tried again is known. Each takes
    /// some 100 bytes of memory. A topic whose events are kept for less remembers ids for as long as events.
    pub deduplication: Duration,
    /// How long an operation tries again before it is [`holon_ports::LogError::Unavailable`].
    pub deadline: Duration,
    pub bus: QueueOptions,
}

impl NatsOptions {
    pub fn new(
        servers: Vec<String>,
        prefix: impl Into<String>,
        clock: Arc<dyn Clock>,
        ids: IdGenerator,
        leases: Arc<dyn Leases>,
    ) -> Self {
        Self {
            servers,
            prefix: prefix.into(),
            replicas: 1,
            clock,
            ids,
            leases,
            holder: "nats".into(),
            lease_ttl: Duration::from_secs(10),
            deduplication: Duration::from_secs(120),
            deadline: Duration::from_secs(10),
            bus: QueueOptions::default(),
        }
    }

    fn check(&self) -> Result<Vec<ServerAddr>, NatsError> {
        let invalid = |why: String| Err(NatsError::Invalid(why));
        if !names::is_prefix(&self.prefix) {
            return invalid(format!(
                "a prefix is 1 to 32 of a-z, 0-9 and '_'; got {:?}",
                self.prefix
            ));
        }
        if !(1..=5).contains(&self.replicas) {
            return invalid(format!("replicas are 1 to 5, not {}", self.replicas));
        }
        if self.lease_ttl < Duration::from_millis(100) {
            return invalid("leases of less than 100 ms cannot be kept".into());
        }
        if self.deadline < Duration::from_millis(100) {
            return invalid("nothing can be done in less than 100 ms".into());
        }
        if self.deduplication < self.deadline * 2 {
            return invalid(
                "ids are remembered for at least twice as long as an operation is tried again".into(),
            );
        }
        if self.servers.is_empty() {
            return invalid("no nats server is named".into());
        }
        let parsed = self.servers.iter().enumerate().map(|(number, server)| {
            // What is wrong with it may show a password, so only its place is told.
            let wrong =
                |_| NatsError::Invalid(format!("the address of nats server {} is no url", number + 1));
            server.parse::<ServerAddr>().map_err(wrong)
        });
        parsed.collect()
    }
}

impl fmt::Debug for NatsOptions {
    /// Without the addresses, which may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions")
            .field("servers", &self.servers.len())
            .field("prefix", &self.prefix)
            .field("replicas", &self.replicas)
            .field("lease_ttl", &self.lease_ttl)
            .field("deduplication", &self.deduplication)
            .field("deadline", &self.deadline)
            .field("bus", &self.bus)
            .finish_non_exhaustive()
    }
}

/// What every part of the engine needs.
pub(crate) struct Shared {
    pub client: Client,
    pub js: Context,
    /// The same, for events alone: what waits for acknowledgements here does not keep others waiting.
    pub publisher: Context,
    pub names: Names,
    pub replicas: streams::Replicas,
    pub clock: Arc<dyn Clock>,
    pub ids: IdGenerator,
    pub leases: Arc<dyn Leases>,
    pub lease_ttl: Duration,
    pub deduplication: Duration,
    pub deadline: Duration,
    /// Who this process is, to the other holders of leases. New with each start.
    pub host: String,
    pub state: state::State,
    pub topics: RwLock<HashMap<String, Arc<topics::Topic>>>,
    pub groups: Mutex<HashMap<(String, String), Arc<groups::Group>>>,
    /// Held while ids are given and events are sent.
    pub sequencer: tokio::sync::Mutex<()>,
}

/// A connection to the NATS servers of a deployment. Cheap to clone.
#[derive(Clone)]
pub struct Nats {
    shared: Arc<Shared>,
    bus: Arc<bus::NatsBus>,
}

/// Events that wait for acknowledgements at once, of all callers.
const ACKS_IN_FLIGHT: usize = 16 << 10;

impl Nats {
    /// Connects, and checks that the servers can keep what the ports promise.
    pub async fn connect(options: NatsOptions) -> Result<Self, NatsError> {
        let servers = options.check()?;
        // Events and messages have a connection each, so that a page of a million events holds up no message.
        let client = connect(&options, servers.clone(), None).await?;
        check_server(&client, options.replicas)?;
        let bus = bus::NatsBus::connect(&options, servers).await?;
        let js = ContextBuilder::new()
            .timeout(options.deadline.min(Duration::from_secs(5)))
            .build(client.clone());
        let publisher = ContextBuilder::new()
            .timeout(options.deadline)
            .max_ack_inflight(ACKS_IN_FLIGHT)
            .build(client.clone());
        let names = Names::new(&options.prefix);
        let replicas = streams::Replicas(options.replicas);
        let state = state::State::open(&client, &js, &names, replicas).await?;
        dead::open(&js, &names, replicas).await?;
        // An inbox is a random name that no other has.
        let host = client
            .new_inbox()
            .replace("_INBOX.", &format!("{}:", options.holder));
        let shared = Shared {
            client,
            js,
            publisher,
            names,
            replicas,
            clock: options.clock,
            ids: options.ids,
            leases: options.leases,
            lease_ttl: options.lease_ttl,
            deduplication: options.deduplication,
            deadline: options.deadline,
            host,
            state,
            topics: RwLock::default(),
            groups: Mutex::default(),
            sequencer: tokio::sync::Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            bus: Arc::new(bus),
        })
    }

    pub fn log(&self) -> Arc<dyn Log> {
        Arc::new(log::NatsLog(Arc::clone(&self.shared)))
    }

    pub fn bus(&self) -> Arc<dyn Bus> {
        Arc::clone(&self.bus) as Arc<dyn Bus>
    }

    /// What takes the events of a store to the log. Its topics must be there.
    pub fn relay(&self, outbox: Arc<dyn Outbox>) -> Relay {
        Relay::new(Arc::clone(&self.shared), outbox)
    }
}

type OnEvent = Arc<dyn Fn(async_nats::Event) + Send + Sync>;

async fn connect(
    options: &NatsOptions,
    servers: Vec<ServerAddr>,
    on_event: Option<OnEvent>,
) -> Result<Client, NatsError> {
    ConnectOptions::new()
        .name(format!("holon {}", options.prefix))
        .connection_timeout(Duration::from_secs(2))
        // Two that are not answered end a connection: a server that hangs is left within some seconds.
        .ping_interval(Duration::from_secs(3))
        .request_timeout(Some(options.deadline))
        .subscription_capacity(bus::CLIENT_MESSAGES)
        .reconnect_delay_callback(|attempts| {
            let doubled = Duration::from_millis(25) * (1 << attempts.min(6));
            doubled.min(Duration::from_secs(1))
        })
        .event_callback(move |event| {
            match &event {
                async_nats::Event::Connected => tracing::info!("connected to a nats server"),
                async_nats::Event::Disconnected => tracing::warn!("lost the connection to a nats server"),
                // Errors name subjects at most; the client does not put addresses into them.
                event => tracing::warn!(%event, "nats connection"),
            }
            if let Some(on_event) = &on_event {
                on_event(event);
            }
            async {}
        })
        .connect(servers)
        .await
        // Only the kind: the source may name an address with its password.
        .map_err(|error| NatsError::Unreachable(error.kind().to_string()))
}

fn check_server(client: &Client, replicas: usize) -> Result<(), NatsError> {
    let incapable = |why: String| Err(NatsError::Incapable(why));
    let info = client.server_info();
    let needed = limits::ROW_BYTES.max(MESSAGE_BYTES) + envelope::ENVELOPE_BYTES;
    if info.max_payload < needed {
        return incapable(format!(
            "max_payload is {} and must be at least {needed}; set `max_payload: 2MB`",
            info.max_payload
        ));
    }
    if !info.headers {
        return incapable("headers are turned off".into());
    }
    if !info.jetstream {
        return incapable("jetstream is not enabled".into());
    }
    if replicas > 1 && info.cluster.is_none() {
        return incapable(format!(
            "{replicas} replicas need a cluster, and this server is in none"
        ));
    }
    Ok(())
}
