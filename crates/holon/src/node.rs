//! A node: a data directory opened, and the systems on it. What `serve`, `check` and `openapi` have in common.

use crate::settings::Settings;
use holon_base::{Clock, CursorSigner, SystemClock};
use holon_contracts::identity::Accounts;
use holon_embedded::{Engine, EngineOptions};
use holon_feed::{Feed, FeedOptions};
use holon_identity::{Identity, IdentityOptions};
use holon_realtime::{Hub, HubOptions};
use holon_telemetry::{TracedStore, Tracer};
use holon_web::{Context, System, idempotency::KeptAnswers};
use std::sync::Arc;

/// What runs in this process.
pub struct Node {
    pub engine: Arc<Engine>,
    pub context: Context,
    pub hub: Arc<Hub>,
    pub identity: Arc<Identity>,
    /// In the order of the settings, identity first.
    pub systems: Vec<Arc<dyn System>>,
}

/// Why a node was not made; the text says what to do.
pub type NodeError = Box<dyn std::error::Error + Send + Sync>;

impl Node {
    /// Opens the data directory and makes the systems that the settings name. Nothing runs yet but what systems need
    /// to be asked: no consumers, no jobs. With a tracer, every commit is a span.
    pub async fn open(settings: &Settings, tracer: Option<&Tracer>) -> Result<Self, NodeError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = EngineOptions::new(&settings.data)
            .node(settings.node)
            .clock(Arc::clone(&clock));
        let engine = Engine::open(options).await?;
        let mut ports = engine.ports();
        if let Some(tracer) = tracer {
            ports.store = Arc::new(TracedStore::new(ports.store, tracer.clone()));
        }
        let context = Context {
            ports,
            ids: engine.ids(),
            clock,
            cursors: CursorSigner::new(engine.secret("cursor")?),
        };
        let hub = Hub::start(Arc::clone(&context.ports.bus), HubOptions::default());
        let identity = Identity::new(context.clone(), IdentityOptions::new(engine.secret("jwt-seal")?))?;

        let mut systems: Vec<Arc<dyn System>> = vec![Arc::clone(&identity) as _];
        if settings.systems.iter().any(|name| name == "feed") {
            let accounts: Arc<dyn Accounts> = Arc::clone(&identity) as _;
            let feed = Feed::new(
                context.clone(),
                accounts,
                Arc::clone(&hub),
                feed_options(settings),
            );
            systems.push(feed as _);
        }
        context
            .ports
            .store
            .create_tables(&[holon_web::idempotency::TABLE])
            .await?;
        let answers = KeptAnswers(Arc::clone(&context.ports.store));
        identity.register_personal_data(Arc::new(answers));
        for system in &systems {
            identity.register_personal_data(Arc::clone(system).personal_data());
            context.ports.store.create_tables(&system.tables()).await?;
            context.ports.log.create_topics(&system.topics()).await?;
        }
        Ok(Self {
            engine: Arc::new(engine),
            context,
            hub,
            identity,
            systems,
        })
    }
}

fn feed_options(settings: &Settings) -> FeedOptions {
    FeedOptions {
        push_below: settings.feed_push_below,
        active_below: settings.feed_active_below,
        active_for: settings.feed_active_within,
        timeline_entries: settings.feed_timeline_entries,
        edit_window: settings.feed_edit_window,
        single_node: true,
        ..FeedOptions::default()
    }
}
