//! A deployment in a temporary directory.

use crate::wait::{PATIENCE, eventually};
use holon_base::{Clock, CursorSigner, SystemClock};
use holon_embedded::{Engine, EngineOptions};
use holon_ports::log::Progress;
use holon_ports::{Consumer, Table, TopicSpec};
use holon_web::{Context, System};
use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet};

/// Every port, on the embedded engine, in a directory that goes away with this. It can be restarted, and then finds
/// what was durable.
pub struct TestHome {
    // Fields drop in this order: the consumers stop, the engine closes, the directory goes.
    running: Vec<Running>,
    context: Context,
    engine: Engine,
    clock: Arc<dyn Clock>,
    directory: TempDir,
}

impl TestHome {
    /// A new, empty home that lives by the machine's clock.
    pub async fn start() -> Self {
        Self::with_clock(SystemClock).await
    }

    /// A new, empty home that lives by a clock; keep a clone of a [`holon_base::ManualClock`] to drive it.
    pub async fn with_clock(clock: impl Clock) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock: Arc<dyn Clock> = Arc::new(clock);
        let (engine, context) = open(directory.path(), &clock).await;
        Self {
            running: Vec::new(),
            context,
            engine,
            clock,
            directory,
        }
    }

    /// What a system is made with.
    pub fn context(&self) -> Context {
        self.context.clone()
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Where everything is kept.
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

    /// How many events were ever told to each group; `None` if one of them waits to be handled.
    async fn told_if_caught_up(&self, groups: &BTreeSet<(&str, &str)>) -> Option<Vec<u64>> {
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

    /// Closes the engine in good order and opens it again on the same directory. Consumers are stopped; systems
    /// must be made anew from [`Self::context`].
    #[must_use]
    pub async fn restart(mut self) -> Self {
        self.stop().await;
        self.engine.close().await;
        let (directory, clock) = (self.directory, self.clock);
        drop((self.context, self.engine));
        let (engine, context) = open(directory.path(), &clock).await;
        Self {
            running: Vec::new(),
            context,
            engine,
            clock,
            directory,
        }
    }
}

async fn open(directory: &Path, clock: &Arc<dyn Clock>) -> (Engine, Context) {
    let options = EngineOptions::new(directory).clock(Arc::clone(clock));
    let engine = Engine::open(options)
        .await
        .expect("an engine in a directory of its own");
    let context = Context {
        ports: engine.ports(),
        ids: engine.ids(),
        clock: Arc::clone(clock),
        cursors: CursorSigner::new(engine.secret("cursor").expect("a secret of the home")),
    };
    (engine, context)
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
