//! A node: its engines opened, and the systems on it. What `serve`, `check` and `openapi` have in common.

use crate::{cluster::Joined, engines::Engines, settings::Settings};
use holon_base::{Clock, CursorSigner, SystemClock};
use holon_contracts::identity::Accounts;
use holon_feed::{Feed, FeedOptions};
use holon_identity::{Identity, IdentityOptions};
use holon_realtime::{Hub, HubOptions};
use holon_telemetry::{TracedStore, Tracer};
use holon_web::{Context, System, idempotency::KeptAnswers};
use std::{net::SocketAddr, sync::Arc};

/// What runs in this process.
pub struct Node {
    pub engines: Arc<Engines>,
    pub context: Context,
    pub hub: Arc<Hub>,
    pub identity: Arc<Identity>,
    /// Its place among the others: what systems whose state is divided over nodes are made with.
    pub joined: Joined,
    /// In the order of the settings, identity first.
    pub systems: Vec<Arc<dyn System>>,
}

/// Why a node was not made; the text says what to do.
pub type NodeError = Box<dyn std::error::Error + Send + Sync>;

impl Node {
    /// Opens the engines and makes the systems that the settings name. Nothing runs yet but what systems need
    /// to be asked: no consumers, no jobs. With a tracer, every commit is a span. With an address at which it will serve,
    /// it joins the other nodes before anything else; without one, they do not know of it.
    pub async fn open(
        settings: &Settings,
        tracer: Option<&Tracer>,
        http: Option<SocketAddr>,
    ) -> Result<Self, NodeError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let engines = Engines::open(settings, &clock).await?;
        let mut ports = engines.ports();
        if let Some(tracer) = tracer {
            ports.store = Arc::new(TracedStore::new(ports.store, tracer.clone()));
        }
        let context = Context {
            ports,
            ids: engines.ids(),
            clock,
            cursors: CursorSigner::new(engines.secret("cursor")?),
        };
        let joined = match http {
            None => Ok(Joined::alone(settings, &engines, &context, None)),
            Some(http) => Joined::join(settings, &engines, &context, http).await,
        };
        let joined = match joined {
            Ok(joined) => joined,
            Err(error) => {
                // The next try need not wait for what this one holds.
                engines.close().await;
                return Err(error);
            }
        };
        let hub = Hub::start(Arc::clone(&context.ports.bus), HubOptions::default());
        let identity = Identity::new(context.clone(), IdentityOptions::new(engines.secret("jwt-seal")?))?;

        let mut systems: Vec<Arc<dyn System>> = vec![Arc::clone(&identity) as _];
        if settings.systems.iter().any(|name| name == "feed") {
            let accounts: Arc<dyn Accounts> = Arc::clone(&identity) as _;
            let feed = Feed::new(
                context.clone(),
                accounts,
                Arc::clone(&hub),
                feed_options(settings, &engines),
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
            engines: Arc::new(engines),
            context,
            hub,
            identity,
            joined,
            systems,
        })
    }
}

fn feed_options(settings: &Settings, engines: &Engines) -> FeedOptions {
    FeedOptions {
        push_below: settings.feed_push_below,
        active_below: settings.feed_active_below,
        active_for: settings.feed_active_within,
        timeline_entries: settings.feed_timeline_entries,
        edit_window: settings.feed_edit_window,
        single_node: engines.is_alone(),
        ..FeedOptions::default()
    }
}
