//! The two hot paths, in process: home pages of 50 posts through the routes, and timeline entries of a fan-out.
//!
//! `cargo bench -p holon-feed`. Prints one line each; figures are per process, on as many threads as there are cores.

use axum::{Router, body::Body, extract::Request, middleware};
use holon_base::{CursorSigner, Id, SystemClock, Tenant, Timestamp};
use holon_contracts::identity::{AccountSummary, Accounts, AccountsError};
use holon_embedded::{Engine, EngineOptions};
use holon_feed::{Feed, FeedOptions};
use holon_ports::log::Progress;
use holon_realtime::{Hub, HubOptions};
use holon_web::{Caller, CallerKind, Context, System, caller::Authentication};
use http_body_util::BodyExt;
use std::{collections::BTreeSet, sync::Arc, time::Instant};
use tower::ServiceExt;

const PEOPLE: u64 = 2_000;
const FOLLOWS: u64 = 44;
const POSTS: u64 = 10_000;

struct People;

fn summary(id: Id) -> AccountSummary {
    AccountSummary {
        id,
        handle: format!("u{id}"),
        name: format!("Person {id}"),
        bio: String::new(),
        created: Timestamp::EPOCH,
    }
}

#[async_trait::async_trait]
impl Accounts for People {
    async fn by_handle(&self, _: &Tenant, handle: &str) -> Result<Option<AccountSummary>, AccountsError> {
        Ok(handle
            .strip_prefix('u')
            .and_then(|id| id.parse().ok())
            .map(summary))
    }

    async fn by_ids(&self, _: &Tenant, ids: &[Id]) -> Result<Vec<Option<AccountSummary>>, AccountsError> {
        Ok(ids.iter().copied().map(summary).map(Some).collect())
    }
}

async fn call(router: &Router, user: u64, method: &str, path: &str, body: Option<String>) -> usize {
    let permissions: BTreeSet<String> = BTreeSet::new();
    let caller = Caller {
        tenant: Tenant::default(),
        account: Id::from_u64(user),
        handle: "bench".into(),
        kind: CallerKind::Session { session: Id::MIN },
        permissions: Arc::new(permissions),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .extension(Authentication(Ok(Some(caller))))
        .body(body.map_or_else(Body::empty, Body::from))
        .expect("a request");
    let response = router.clone().oneshot(request).await.expect("an answer");
    assert!(
        response.status().is_success(),
        "{method} {path}: {}",
        response.status()
    );
    response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes()
        .len()
}

/// Does something for each number on several tasks; answers how long it took.
async fn timed<F, R>(tasks: u64, count: u64, work: F) -> f64
where
    F: Fn(u64) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send,
{
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let work = work.clone();
            tokio::spawn(async move {
                for n in (task..count).step_by(tasks as usize) {
                    work(n).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task that ends");
    }
    start.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(EngineOptions::new(directory.path()))
        .await
        .expect("an engine");
    let context = Context {
        ports: engine.ports(),
        ids: engine.ids(),
        clock: Arc::new(SystemClock),
        cursors: CursorSigner::new([7; 32]),
    };
    let ports = context.ports.clone();
    let hub = Hub::start(ports.bus.clone(), HubOptions::default());
    let feed = Feed::new(context, Arc::new(People), hub, FeedOptions::default());
    ports.store.create_tables(&feed.tables()).await.expect("tables");
    ports.log.create_topics(&feed.topics()).await.expect("topics");
    let (router, _) = feed.clone().routes();
    let router = router.layer(middleware::from_fn(
        |request: Request, next: middleware::Next| async move { next.run(request).await },
    ));

    let of = router.clone();
    let seconds = timed(64, PEOPLE * FOLLOWS, move |n| {
        let router = of.clone();
        async move {
            let (reader, step) = (n / FOLLOWS, n % FOLLOWS);
            let followee = (reader + 1 + step * 37) % PEOPLE;
            call(
                &router,
                reader + 1,
                "PUT",
                &format!("/v1/feed/follows/u{}", followee + 1),
                None,
            )
            .await;
        }
    })
    .await;
    println!(
        "follows acknowledged        {:>10.0} /s",
        (PEOPLE * FOLLOWS) as f64 / seconds
    );
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let consumers: Vec<_> = feed.clone().consumers();
    let mut running = Vec::new();
    for consumer in &consumers {
        for _ in 0..consumer.members {
            let (consumer, log, stop) = (consumer.clone(), ports.log.clone(), stopping.clone());
            running.push(tokio::spawn(async move { consumer.run(log, stop).await }));
        }
    }
    let caught_up = || async {
        loop {
            let mut lag = 0;
            for consumer in &consumers {
                let progress = ports
                    .log
                    .progress(consumer.group, consumer.topic)
                    .await
                    .expect("progress");
                lag += progress
                    .iter()
                    .map(|p: &Progress| p.next - p.committed)
                    .sum::<u64>();
            }
            if lag == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let start = Instant::now();
    caught_up().await;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "follows settled             {:>10.0} /s",
        (PEOPLE * FOLLOWS) as f64 / seconds
    );

    let of = router.clone();
    let start = Instant::now();
    let seconds = timed(64, POSTS, move |n| {
        let router = of.clone();
        async move {
            let body = format!("{{\"text\":\"Post {n}: the quick brown fox jumps over the lazy dog, and then some more #bench\"}}");
            call(&router, n * 7 % PEOPLE + 1, "POST", "/v1/feed/posts", Some(body)).await;
        }
    })
    .await;
    println!("posts acknowledged          {:>10.0} /s", POSTS as f64 / seconds);
    caught_up().await;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "fan-out entries, with posts {:>10.0} /s",
        (POSTS * FOLLOWS) as f64 / seconds
    );
    ports
        .log
        .rewind("feed.fanout", "feed.posts", holon_ports::log::Rewind::Start)
        .await
        .expect("a rewind");
    let start = Instant::now();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    caught_up().await;
    let seconds = start.elapsed().as_secs_f64();
    println!("everything fanned out again {seconds:>10.2} s");

    for (name, tasks) in [("one task", 1), ("16 tasks", 16)] {
        let of = router.clone();
        let pages = if tasks == 1 { 10_000 } else { 40_000 };
        let seconds = timed(tasks, pages, move |n| {
            let router = of.clone();
            async move {
                let bytes = call(
                    &router,
                    n * 13 % PEOPLE + 1,
                    "GET",
                    "/v1/feed/home?limit=50",
                    None,
                )
                .await;
                assert!(bytes > 10_000, "a page of 50 posts");
            }
        })
        .await;
        println!("home pages of 50, {name}  {:>10.0} /s", pages as f64 / seconds);
    }
    let _ = stop.send(true);
    for task in running {
        let _ = task.await;
    }
    engine.close().await;
}
