//! The peer of Holon's feed: the classic fan-out on write, as small as it can honestly be.
//!
//! A home timeline is a sorted set of post ids in Redis, a post is a string of JSON. To post is to store the post and
//! to add its id to the sorted set of every follower; to read a home page is `ZREVRANGE` and `MGET`. Accounts, tokens
//! and the graph are in this process's memory, where they cost nothing.

use anyhow::{Context as _, Result};
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::Parser;
use holon_bench::graph::Graph;
use redis::{Client, aio::MultiplexedConnection};
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// Entries that a timeline keeps.
const KEPT: isize = 800;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    redis: String,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Multiplexed connections to Redis, used in turn.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long)]
    edges: PathBuf,
    #[arg(long)]
    posts: PathBuf,
    /// Fill Redis with the posts first.
    #[arg(long)]
    load: bool,
}

struct Service {
    graph: Graph,
    tokens: HashMap<String, usize>,
    connections: Vec<MultiplexedConnection>,
    turn: AtomicUsize,
    /// Grows with each post; also the score in sorted sets.
    last_id: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let graph = Graph::read(&arguments.edges, &arguments.posts)?;
    let tokens = (0..graph.accounts())
        .map(|account| (format!("classic-token-of-u{account}"), account))
        .collect();
    let client = Client::open(arguments.redis.as_str())?;
    // A busy Redis is waited for; the library would give up after half a second.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connections = Vec::new();
    for _ in 0..arguments.connections.max(1) {
        connections.push(
            client
                .get_multiplexed_async_connection_with_config(&patient)
                .await?,
        );
    }
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let service = Arc::new(Service {
        graph,
        tokens,
        connections,
        turn: AtomicUsize::new(0),
        // Below 2^53, so that a score holds it exactly; above what another process on this Redis used before.
        last_id: AtomicU64::new(started.as_millis() as u64 * 1_000),
    });
    if arguments.load {
        for (number, text) in service.graph.texts.iter().enumerate() {
            service.publish(service.graph.author(number), text).await?;
        }
    }
    let routes = Router::new()
        .route("/home", get(home))
        .route("/posts", post(publish))
        .with_state(service);
    let listener = tokio::net::TcpListener::bind(&arguments.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, routes).await.context("cannot serve")
}

impl Service {
    fn connection(&self) -> MultiplexedConnection {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.connections[turn % self.connections.len()].clone()
    }

    fn account(&self, headers: &HeaderMap) -> Option<usize> {
        let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        self.tokens.get(header.strip_prefix("Bearer ")?).copied()
    }

    /// Stores a post and pushes it to all followers and its author.
    async fn publish(&self, author: usize, text: &str) -> Result<u64> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let document = json!({
            "id": id.to_string(),
            "author": {"id": author.to_string(), "handle": format!("u{author}"), "name": format!("Person {author}")},
            "text": text,
            "created": "2026-01-01T00:00:00.000Z",
            "kind": "post",
            "hashtags": [],
            "mentions": [],
            "counts": {"likes": 0, "reposts": 0, "replies": 0, "quotes": 0},
            "viewer": {"liked": false, "reposted": false, "bookmarked": false},
        });
        let mut connection = self.connection();
        redis::cmd("SET")
            .arg(format!("post:{id}"))
            .arg(document.to_string())
            .exec_async(&mut connection)
            .await?;
        let followers = &self.graph.followers[author];
        let mut pipeline = redis::Pipeline::with_capacity(2 * followers.len() + 2);
        for reader in followers.iter().chain([&author]) {
            let timeline = format!("timeline:{reader}");
            pipeline.cmd("ZADD").arg(&timeline).arg(id).arg(id).ignore();
            pipeline
                .cmd("ZREMRANGEBYRANK")
                .arg(&timeline)
                .arg(0)
                .arg(-KEPT - 1)
                .ignore();
        }
        pipeline.exec_async(&mut connection).await?;
        Ok(id)
    }

    async fn home(&self, account: usize, limit: usize) -> Result<Vec<u8>> {
        let mut connection = self.connection();
        let ids: Vec<Vec<u8>> = redis::cmd("ZREVRANGE")
            .arg(format!("timeline:{account}"))
            .arg(0)
            .arg(limit as isize - 1)
            .query_async(&mut connection)
            .await?;
        let mut page = b"{\"items\":[".to_vec();
        if !ids.is_empty() {
            let mut get = redis::cmd("MGET");
            for id in ids {
                get.arg([b"post:".as_slice(), &id].concat());
            }
            let posts: Vec<Option<Vec<u8>>> = get.query_async(&mut connection).await?;
            page.reserve(posts.iter().flatten().map(|post| post.len() + 1).sum());
            for post in posts.into_iter().flatten() {
                if page.last() == Some(&b'}') {
                    page.push(b',');
                }
                page.extend_from_slice(&post);
            }
        }
        page.extend_from_slice(b"]}");
        Ok(page)
    }
}

#[derive(Deserialize)]
struct HomeQuery {
    limit: usize,
}

async fn home(State(service): State<Arc<Service>>, headers: HeaderMap, query: Query<HomeQuery>) -> Response {
    let Some(account) = service.account(&headers) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    match service.home(account, query.limit.clamp(1, 200)).await {
        Ok(page) => ([(header::CONTENT_TYPE, "application/json")], page).into_response(),
        Err(error) => failed(&error),
    }
}

#[derive(Deserialize)]
struct NewPost {
    text: String,
}

async fn publish(State(service): State<Arc<Service>>, headers: HeaderMap, body: Json<NewPost>) -> Response {
    let Some(account) = service.account(&headers) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    match service.publish(account, &body.text).await {
        Ok(id) => (StatusCode::CREATED, Json(json!({"id": id.to_string()}))).into_response(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}
