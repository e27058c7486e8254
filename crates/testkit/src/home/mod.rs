//! A deployment of a test's own: every port, on the embedded engine or on servers.

mod again;
mod servers;

pub use again::again_on_servers;

use crate::wait::{PATIENCE, eventually};
use holon_base::{Clock, CursorSigner, IdGenerator, SystemClock};
use holon_embedded::{Engine, EngineOptions};
use holon_ports::{Consumer, Ports, Table, TopicSpec, log::Progress};
use holon_web::{Context, System};
use servers::{OnServers, Place};
use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet};

/// Every port, empty at the start and of nobody else: on the embedded engine in a directory that goes away with this,
/// or, in a process that [`again_on_servers`] started, on PostgreSQL with two shards, NATS, Redis and S3. It can be
/// restarted, and then finds what was durable.
pub struct TestHome {
    // Fields drop in this order: the consumers stop, the engines close, the directory goes.
    running: Vec<Running>,
    context: Context,
    engines: Engines,
    clock: Arc<dyn Clock>,
    directory: TempDir,
}

/// What a home is on, opened.
enum Engines {
    Embedded(Box<Engine>),
    Servers(Box<OnServers>),
}

impl TestHome {
    /// A new, empty home that lives by the machine's clock.
    pub async fn start() -> Self {
        Self::with_clock(SystemClock).await
    }

    /// A new, empty home that lives by a clock; keep a clone of a [`holon_base::ManualClock`] to drive it. On servers
    /// it decides what times rows and events have and when rows expire, while leases and the cache live by the clocks of
    /// their servers.
    pub async fn with_clock(clock: impl Clock) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(clock);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let engines = match Place::new().await {
            Some(place) => Engines::on_servers(place, &clock).await,
            None => Engines::embedded(directory.path(), &clock).await,
        };
        Self::on(engines, clock, directory)
    }

    fn on(engines: Engines, clock: Arc<dyn Clock>, directory: TempDir) -> Self {
        let (ports, ids, secret) = engines.parts();
        let context = Context {
            ports,
            ids,
            clock: Arc::clone(&clock),
            cursors: CursorSigner::new(secret),
        };
        Self {
            running: Vec::new(),
            context,
            engines,
            clock,
            directory,
        }
    }

    /// What a system is made with.
    pub fn context(&self) -> Context {
        self.context.clone()
    }

    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// The node's data directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes tables and topics.
    pub async fn create(&self, tables: &[Table], topics: &[TopicSpec]) {
        let ports = &self.context.ports;
        ports.store.create_tables(tables).await.expect("tables");
        ports.log.create_topics(topics).await.expect("topics");
    }

    /// Makes the tables and topics of a system.
    pub async fn create_for(&self, system: &dyn System) {
        self.create(&system.tables(), &system.topics()).await;
    }

    /// Runs consumers until the home is restarted or dropped.
    pub fn run(&mut self, consumers: Vec<Consumer>) {
        self.running.push(Running::start(&self.context, consumers));
    }

    /// Stops what [`Self::run`] started; each ends after the events in hand.
    pub async fn stop(&mut self) {
        for running in self.running.drain(..) {
            running.stop().await;
        }
    }

    /// Waits until everything that was committed is on the log, where tests may read it.
    pub async fn all_told(&self) {
        eventually("every event to be told", PATIENCE, || async {
            (!self.holds_events_back().await).then_some(())
        })
        .await;
    }

    async fn holds_events_back(&self) -> bool {
        match &self.engines {
            Engines::Embedded(_) => false,
            Engines::Servers(servers) => servers.holds_events_back().await,
        }
    }

    /// Waits until the groups of these consumers have handled every event, also those that their work told.
    pub async fn caught_up(&self, consumers: &[Consumer]) {
        self.caught_up_within(consumers, PATIENCE).await;
    }

    pub async fn caught_up_within(&self, consumers: &[Consumer], deadline: Duration) {
        let groups: BTreeSet<(&str, &str)> = consumers
            .iter()
            .map(|consumer| (consumer.group, consumer.topic))
            .collect();
        let groups = &groups;
        eventually("the consumers to catch up", deadline, || async move {
            // One group may have told another something after that one was looked at: if nothing was told from one
            // look to the next, they were all at rest between the two.
            let first = self.told_if_caught_up(groups).await?;
            let second = self.told_if_caught_up(groups).await?;
            (first == second).then_some(())
        })
        .await;
    }

    /// How many events were ever told to each group; `None` if one of them waits to be handled, or to be told.
    async fn told_if_caught_up(&self, groups: &BTreeSet<(&str, &str)>) -> Option<Vec<u64>> {
        if self.holds_events_back().await {
            return None;
        }
        let mut told = Vec::new();
        for (group, topic) in groups {
            let progress = self.context.ports.log.progress(group, topic).await;
            let progress = progress.expect("the progress of a group");
            let is_behind = |partition: &Progress| partition.committed < partition.next;
            if progress.iter().any(is_behind) {
                return None;
            }
            told.push(progress.iter().map(|partition| partition.next).sum());
        }
        Some(told)
    }

    /// Closes the engines in good order and opens them again on what they left. Consumers are stopped; systems must be
    /// made anew from [`Self::context`].
    #[must_use]
    pub async fn restart(mut self) -> Self {
        self.stop().await;
        let (engines, clock, directory) = (self.engines, self.clock, self.directory);
        drop(self.context);
        let engines = match engines {
            Engines::Embedded(engine) => {
                engine.close().await;
                drop(engine);
                Engines::embedded(directory.path(), &clock).await
            }
            Engines::Servers(servers) => Engines::on_servers(servers.close().await, &clock).await,
        };
        Self::on(engines, clock, directory)
    }
}

impl Engines {
    async fn embedded(directory: &Path, clock: &Arc<dyn Clock>) -> Self {
        let options = EngineOptions::new(directory).clock(Arc::clone(clock));
        let engine = Engine::open(options)
            .await
            .expect("an engine in a directory of its own");
        Self::Embedded(Box::new(engine))
    }

    async fn on_servers(place: Place, clock: &Arc<dyn Clock>) -> Self {
        Self::Servers(Box::new(OnServers::open(place, clock).await))
    }

    /// The ports, what makes ids, and the secret of cursors.
    fn parts(&self) -> (Ports, IdGenerator, [u8; 32]) {
        match self {
            Self::Embedded(engine) => {
                let secret = engine.secret("cursor").expect("a secret of the home");
                (engine.ports(), engine.ids(), secret)
            }
            Self::Servers(servers) => (servers.ports(), servers.ids(), servers::SECRET),
        }
    }
}

/// Consumers that run until this is stopped or dropped.
pub struct Running {
    stop: watch::Sender<bool>,
    members: JoinSet<()>,
}

impl Running {
    /// Runs every member of some consumers.
    pub fn start(context: &Context, consumers: Vec<Consumer>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut members = JoinSet::new();
        for consumer in consumers {
            for _ in 0..consumer.members {
                let (consumer, log) = (consumer.clone(), Arc::clone(&context.ports.log));
                let stopped = stopped.clone();
                members.spawn(async move { consumer.run(log, stopped).await });
            }
        }
        Self { stop, members }
    }

    /// Lets each member end after the events in hand.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.members.join_all().await;
    }
}
