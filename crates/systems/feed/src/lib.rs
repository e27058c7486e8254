//! Feed: a microblog and newsfeed. People write short posts, follow each other, and read what those they follow wrote.
//!
//! # How it works
//!
//! ```text
//!  POST /posts ─► one commit: post · outbox · event ─► feed.fanout ─► timelines of followers ─┐
//!  PUT /follows ─► one commit: follow · event ───────►     │     ─► followers, tiers, floor   ├─► merge ─► filter ─► cards ─► bytes
//!                                                         └────► live rooms                  │
//!                                  outboxes of those who are not pushed, one's own posts ────┘
//! ```
//!
//! - [`model`] says which rows there are and where they lie; [`text`] what a text may be.
//! - `posts`, `reactions`, `graph`: the commands. Each is one commit to the partition of whoever acts.
//! - [`fanout`]: events become timelines, by tiers; [`home`]: timelines and outboxes become one home, by [`merge`];
//!   [`cards`]: posts are served as bytes made once.
//! - [`ranking`]: the order that is not by time, and why; [`trends`]: tags; [`live`]: while it is open;
//!   `notifications`: what happened to me.
//! - `check` compares every home with the plain definition; `rebuild` makes timelines anew while they are served.
//!
//! # What it promises
//!
//! The home of F, newest first, is: the posts of those whom F follows and F's own, by id descending, without what is
//! deleted, without authors (also of what is reposted) between whom and F a block stands, and without those whom F
//! mutes. What F changes (post, delete, unfollow, block, mute) is so on the next read; a new post or follow of
//! others is there when its fan-out is done, milliseconds later.

mod api;
pub mod cards;
mod check;
mod error;
pub mod fanout;
mod flights;
pub mod graph;
mod heads;
pub mod home;
mod inspect;
mod lists;
pub mod live;
pub mod merge;
pub mod model;
mod notifications;
mod options;
pub mod pack;
mod posts;
mod privacy;
mod ranked;
pub mod ranking;
mod reactions;
mod rebuild;
pub mod text;
mod timeline;
pub mod trends;

pub use check::Oracle;
pub use error::FeedError;
pub use options::FeedOptions;

use crate::{
    cards::{Cards, Count},
    fanout::Fanout,
    flights::Flights,
    graph::Viewer,
    heads::Heads,
    home::Tiers,
    model::ACTIONS_TOPIC,
    notifications::{NotifyOfPosts, SettleActions},
    ranked::{Order, OrderKey},
    reactions::Marks,
    trends::{CountTags, KeptTrends, Window},
};
use async_trait::async_trait;
use axum::Router;
use holon_base::{Clock, CursorSigner, Id, IdGenerator, Tenant};
use holon_contracts::{feed::POSTS_TOPIC, identity::Accounts, person::PersonalData};
use holon_counter::{CounterOptions, UniqueCounters};
use holon_ports::{Consumer, NewEvent, Ports, Table, TopicSpec};
use holon_realtime::Hub;
use holon_web::{Context, Job, Projection, System};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use utoipa::openapi::OpenApi;

/// How long events of the feed are kept.
const EVENTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// The bus's subject of posts whose cards are to be dropped.
const CHANGED_SUBJECT: &str = "feed.changed";

type PersonKey = (Tenant, Id);

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub posts_handled: AtomicU64,
    pub entries_written: AtomicU64,
    pub card_hits: AtomicU64,
    pub card_misses: AtomicU64,
    pub home_pages: AtomicU64,
}

/// The system. See the crate.
pub struct Feed {
    ports: Ports,
    ids: IdGenerator,
    clock: Arc<dyn Clock>,
    cursors: CursorSigner,
    accounts: Arc<dyn Accounts>,
    hub: Arc<Hub>,
    counters: UniqueCounters,
    options: FeedOptions,
    started: holon_base::Timestamp,
    cards: Cards,
    heads: Heads,
    viewers: Cache<PersonKey, Arc<Viewer>, ByWeight>,
    marks: Cache<PersonKey, Arc<Marks>, ByWeight>,
    authors_of_posts: Cache<PersonKey, Id>,
    author_flights: Flights<PersonKey, Id>,
    /// Roughly how many entries a timeline has.
    timeline_sizes: Cache<PersonKey, Arc<std::sync::atomic::AtomicU32>>,
    orders: Cache<OrderKey, Arc<Order>>,
    tiers: Mutex<HashMap<Tenant, Arc<Tiers>>>,
    touching: Mutex<HashSet<PersonKey>>,
    kept_trends: Mutex<HashMap<(Tenant, Window), KeptTrends>>,
    /// How many have followers, by tenant, and when that was counted.
    followed: tokio::sync::Mutex<Option<(std::time::Instant, HashMap<Tenant, u64>)>>,
    stats: Stats,
}

#[derive(Clone)]
struct ByWeight;

impl quick_cache::Weighter<PersonKey, Arc<Viewer>> for ByWeight {
    fn weight(&self, _: &PersonKey, viewer: &Arc<Viewer>) -> u64 {
        viewer.weight()
    }
}

impl quick_cache::Weighter<PersonKey, Arc<Marks>> for ByWeight {
    fn weight(&self, _: &PersonKey, marks: &Arc<Marks>) -> u64 {
        marks.weight()
    }
}

impl Feed {
    /// The feed of one node. Must be called within a tokio runtime.
    pub fn new(
        context: Context,
        accounts: Arc<dyn Accounts>,
        hub: Arc<Hub>,
        options: FeedOptions,
    ) -> Arc<Self> {
        let Context {
            ports,
            ids,
            clock,
            cursors,
            ..
        } = context;
        let counters = UniqueCounters::new(ports.store.clone(), clock.clone(), CounterOptions::default());
        let half = options.reader_bytes / 2;
        let feed = Arc::new(Self {
            counters,
            ids,
            cursors,
            accounts,
            hub,
            started: clock.now(),
            cards: Cards::new(options.card_bytes),
            heads: Heads::new(options.head_bytes),
            viewers: Cache::with_weighter((half / 1_024) as usize, half, ByWeight),
            marks: Cache::with_weighter((half / 1_024) as usize, half, ByWeight),
            authors_of_posts: Cache::new(50_000),
            author_flights: Flights::default(),
            timeline_sizes: Cache::new(100_000),
            orders: Cache::new(500),
            tiers: Mutex::default(),
            touching: Mutex::default(),
            kept_trends: Mutex::default(),
            followed: tokio::sync::Mutex::default(),
            stats: Stats::default(),
            ports,
            clock,
            options,
        });
        if !feed.options.single_node {
            tokio::spawn(forget_what_changed(Arc::downgrade(&feed)));
        }
        feed
    }

    /// Drops what is cached of a post, before its change is acknowledged.
    async fn post_changed(&self, tenant: &Tenant, id: Id) {
        self.cards.forget(tenant, id);
        if !self.options.single_node {
            let payload = format!("{tenant} {id}");
            if let Err(error) = self.ports.bus.publish(CHANGED_SUBJECT, payload.into()).await {
                tracing::warn!(%error, "other nodes keep a card until it is too old");
            }
        }
    }

    async fn counts(&self, tenant: &Tenant, posts: &[Id]) -> Result<Vec<[i64; 4]>, FeedError> {
        let names: Vec<String> = posts
            .iter()
            .flat_map(|post| Count::ALL.map(|count| count.counter(*post)))
            .collect();
        let sums = self.counters.counts(tenant, &names).await?;
        Ok(sums
            .chunks_exact(4)
            .map(|counts| [counts[0], counts[1], counts[2], counts[3]])
            .collect())
    }

    async fn count_exact(&self, tenant: &Tenant, post: Id, count: Count) -> Result<u64, FeedError> {
        let sum = self.counters.count_exact(tenant, &count.counter(post)).await?;
        Ok(u64::try_from(sum).unwrap_or(0))
    }

    async fn counts_member(
        &self,
        tenant: &Tenant,
        post: Id,
        count: Count,
        member: Id,
    ) -> Result<bool, FeedError> {
        let counter = count.counter(post);
        Ok(self
            .counters
            .contains(tenant, &counter, &member.to_string())
            .await?)
    }

    /// Counts a member at a post, or not any more, once; the card shows it before this returns.
    async fn change_count(
        &self,
        tenant: &Tenant,
        post: Id,
        count: Count,
        member: Id,
        on: bool,
        events: Vec<NewEvent>,
    ) -> Result<(), FeedError> {
        let (counter, member) = (count.counter(post), member.to_string());
        let change = if on {
            self.counters.add(tenant, &counter, &member, events).await?
        } else {
            self.counters.remove(tenant, &counter, &member, events).await?
        };
        if change.changed {
            self.cards.adjust(tenant, post, count, if on { 1 } else { -1 });
            if !self.options.single_node {
                let payload = format!("{tenant} {post}");
                if let Err(error) = self.ports.bus.publish(CHANGED_SUBJECT, payload.into()).await {
                    tracing::warn!(%error, "other nodes show an old count for a while");
                }
            }
        }
        Ok(())
    }

    async fn count_one(
        &self,
        tenant: &Tenant,
        post: Id,
        count: Count,
        member: Id,
        on: bool,
    ) -> Result<(), FeedError> {
        self.change_count(tenant, post, count, member, on, Vec::new())
            .await
    }

    /// One of the counts since the start.
    fn stat(&self, of: impl Fn(&Stats) -> &AtomicU64) -> u64 {
        of(&self.stats).load(Ordering::Relaxed)
    }
}

/// Drops cards that other nodes changed, for as long as the feed lives.
async fn forget_what_changed(feed: std::sync::Weak<Feed>) {
    loop {
        let Some(bus) = feed.upgrade().map(|feed| feed.ports.bus.clone()) else {
            return;
        };
        if let Ok(mut changes) = bus.subscribe(CHANGED_SUBJECT).await {
            loop {
                let change = changes.next().await;
                let Some(feed) = feed.upgrade() else { return };
                match change {
                    Ok(message) => {
                        let text = String::from_utf8_lossy(&message.payload);
                        if let Some((tenant, id)) = text.split_once(' ')
                            && let (Ok(tenant), Ok(id)) = (Tenant::new(tenant), id.parse())
                        {
                            feed.cards.forget(&tenant, id);
                        }
                    }
                    // What was lost is dropped by age.
                    Err(holon_ports::BusError::Lagged(_)) => {}
                    Err(_) => break,
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[async_trait]
impl System for Feed {
    fn name(&self) -> &'static str {
        "feed"
    }

    fn summary(&self) -> &'static str {
        "A microblog and newsfeed: posts, follows, home timelines by hybrid fan-out, ranking, trends."
    }

    fn tables(&self) -> Vec<Table> {
        let mut tables = model::ALL_TABLES.to_vec();
        tables.extend(holon_counter::tables());
        tables
    }

    fn topics(&self) -> Vec<TopicSpec> {
        [POSTS_TOPIC, ACTIONS_TOPIC]
            .map(|name| TopicSpec {
                name,
                partitions: self.options.post_partitions,
                max_age: Some(EVENTS_KEPT),
                max_bytes: Some(1 << 30),
            })
            .to_vec()
    }

    fn routes(self: Arc<Self>) -> (Router, OpenApi) {
        api::routes(self)
    }

    fn consumers(self: Arc<Self>) -> Vec<Consumer> {
        let members = self.options.consumers;
        vec![
            Consumer::new("feed.fanout", POSTS_TOPIC, Arc::new(Fanout(self.clone())))
                .members(members)
                .max_batch(256),
            Consumer::new("feed.notify", POSTS_TOPIC, Arc::new(NotifyOfPosts(self.clone()))).max_batch(128),
            Consumer::new("feed.trends", POSTS_TOPIC, Arc::new(CountTags(self.clone()))).max_batch(256),
            Consumer::new("feed.settle", ACTIONS_TOPIC, Arc::new(SettleActions(self))).max_batch(128),
        ]
    }

    fn jobs(self: Arc<Self>) -> Vec<Job> {
        let feed = self;
        vec![Job {
            name: "feed.trim",
            every: Duration::from_secs(3_600),
            run: Arc::new(move || {
                let feed = feed.clone();
                Box::pin(async move { feed.trim_all().await.map_err(|error| error.to_string()) })
            }),
        }]
    }

    fn projections(self: Arc<Self>) -> Vec<Projection> {
        let feed = self;
        vec![Projection {
            name: "feed.home",
            rebuild: Arc::new(move || {
                let feed = feed.clone();
                Box::pin(async move { feed.rebuild_homes().await.map_err(|error| error.to_string()) })
            }),
        }]
    }

    fn personal_data(self: Arc<Self>) -> Arc<dyn PersonalData> {
        self
    }

    async fn check(&self) -> Result<Vec<String>, String> {
        self.check_all().await.map_err(|error| error.to_string())
    }
}
