//! A feed with people in it, spoken to over its routes.
#![allow(dead_code, reason = "each test uses a part of it")]

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{Method, StatusCode, header},
    middleware::{self, Next},
    response::Response,
};
use holon_base::{Clock, Id, ManualClock, Tenant, Timestamp};
use holon_contracts::identity::{AccountSummary, Accounts, AccountsError};
use holon_feed::{Feed, FeedOptions};
use holon_ports::Store;
use holon_realtime::{Hub, HubOptions};
use holon_testkit::TestHome;
use holon_web::{Caller, CallerKind, System, caller::Authentication};
use http_body_util::BodyExt;
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc};
use tower::ServiceExt;

/// People `u0`, `u1`, …; `uN` has the id `N + 1`.
pub struct People(pub u64);

pub fn id_of(handle: &str) -> Option<Id> {
    let number: u64 = handle.strip_prefix('u')?.parse().ok()?;
    Some(Id::from_u64(number + 1))
}

pub fn handle_of(id: Id) -> String {
    format!("u{}", id.as_u64() - 1)
}

impl People {
    fn summary(&self, id: Id) -> Option<AccountSummary> {
        (1..=self.0).contains(&id.as_u64()).then(|| AccountSummary {
            id,
            handle: handle_of(id),
            name: format!("Person {id}"),
            bio: String::new(),
            created: Timestamp::EPOCH,
        })
    }
}

#[async_trait::async_trait]
impl Accounts for People {
    async fn by_handle(&self, _: &Tenant, handle: &str) -> Result<Option<AccountSummary>, AccountsError> {
        Ok(id_of(handle).and_then(|id| self.summary(id)))
    }

    async fn by_ids(&self, _: &Tenant, ids: &[Id]) -> Result<Vec<Option<AccountSummary>>, AccountsError> {
        Ok(ids.iter().map(|id| self.summary(*id)).collect())
    }
}

pub struct World {
    pub home: TestHome,
    pub clock: ManualClock,
    pub feed: Arc<Feed>,
    pub router: Router,
    pub people: u64,
    options: FeedOptions,
}

/// The time at which every world begins.
pub const BEGINNING: Timestamp = Timestamp::from_millis(1_800_000_000_000);

impl World {
    pub async fn new(people: u64, options: FeedOptions) -> Self {
        let clock = ManualClock::new(BEGINNING);
        let home = TestHome::with_clock(clock.clone()).await;
        Self::in_home(home, clock, people, options).await
    }

    async fn in_home(mut home: TestHome, clock: ManualClock, people: u64, options: FeedOptions) -> Self {
        let context = home.context();
        let hub = Hub::start(context.ports.bus.clone(), HubOptions::default());
        let feed = Feed::new(context, Arc::new(People(people)), hub, options.clone());
        home.create_for(&*feed).await;
        home.run(feed.clone().consumers());
        let (router, _) = feed.clone().routes();
        Self {
            router: router.layer(middleware::from_fn(sign_in)),
            home,
            clock,
            feed,
            people,
            options,
        }
    }

    /// The routes of another node, on a store of the caller's making.
    pub fn node_on(&self, store: Arc<dyn Store>) -> Router {
        let mut context = self.home.context();
        context.ports.store = store;
        let hub = Hub::start(context.ports.bus.clone(), HubOptions::default());
        let feed = Feed::new(context, Arc::new(People(self.people)), hub, self.options.clone());
        let (router, _) = feed.routes();
        router.layer(middleware::from_fn(sign_in))
    }

    /// The process ends and starts again.
    pub async fn restart(mut self) -> Self {
        self.home.stop().await;
        drop((self.feed, self.router));
        let home = self.home.restart().await;
        Self::in_home(home, self.clock, self.people, self.options).await
    }

    pub async fn caught_up(&self) {
        self.home.caught_up(&self.feed.clone().consumers()).await;
    }

    pub fn start_consumers(&mut self) {
        self.home.run(self.feed.clone().consumers());
    }

    pub async fn call(
        &self,
        user: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        call(&self.router, user, method, path, body, &[]).await
    }

    /// A call that must succeed.
    pub async fn ok(&self, user: &str, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(user, method, path, body).await;
        assert!(status.is_success(), "{user} {method} {path}: {status} {answer}");
        answer
    }

    pub async fn get(&self, user: &str, path: &str) -> Value {
        self.ok(user, "GET", path, None).await
    }

    pub async fn put(&self, user: &str, path: &str) -> Value {
        self.ok(user, "PUT", path, None).await
    }

    pub async fn delete(&self, user: &str, path: &str) -> Value {
        self.ok(user, "DELETE", path, None).await
    }

    /// Posts a text; answers the post's id.
    pub async fn post(&self, user: &str, text: &str) -> String {
        self.post_with(user, serde_json::json!({ "text": text })).await
    }

    pub async fn post_with(&self, user: &str, body: Value) -> String {
        let made = self.ok(user, "POST", "/v1/feed/posts", Some(body)).await;
        made["id"].as_str().unwrap().to_owned()
    }

    /// The ids of a whole home, page by page.
    pub async fn home_of(&self, user: &str, limit: usize) -> Vec<String> {
        pages(&self.router, user, &format!("/v1/feed/home?limit={limit}")).await
    }
}

/// The ids of a whole list.
pub async fn pages(router: &Router, user: &str, path: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let cursor = next.map(|next| format!("&cursor={next}")).unwrap_or_default();
        let (status, page) = call(router, user, "GET", &format!("{path}{cursor}"), None, &[]).await;
        assert_eq!(status, 200, "{path}: {page}");
        let items = page["items"].as_array().unwrap();
        ids.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(more) = page["next"].as_str() else {
            return ids;
        };
        assert!(!items.is_empty(), "a page that goes on has items");
        next = Some(more.to_owned());
    }
}

pub async fn call(
    router: &Router,
    user: &str,
    method: &str,
    path: &str,
    body: Option<Value>,
    headers: &[(&str, &str)],
) -> (StatusCode, Value) {
    let response = respond(router, user, method, path, body, headers).await;
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let answer = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{method} {path}: {bytes:?}"))
    };
    (status, answer)
}

pub async fn respond(
    router: &Router,
    user: &str,
    method: &str,
    path: &str,
    body: Option<Value>,
    headers: &[(&str, &str)],
) -> Response {
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(path)
        .header("x-test-user", user);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = match body {
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Body::from(body.to_string())
        }
        None => Body::empty(),
    };
    router.clone().oneshot(request.body(body).unwrap()).await.unwrap()
}

/// What identity does at the edge: `admin` may everything, `nobody` is not signed in.
async fn sign_in(mut request: Request, next: Next) -> Response {
    let user = request.headers()["x-test-user"].to_str().unwrap().to_owned();
    let permissions = if user == "admin" {
        BTreeSet::from(["*".to_owned()])
    } else {
        BTreeSet::new()
    };
    let caller = (user != "nobody").then(|| Caller {
        tenant: Tenant::default(),
        account: id_of(&user).unwrap_or(Id::from_u64(1_000_000)),
        handle: user.as_str().into(),
        kind: CallerKind::Session { session: Id::MIN },
        permissions: Arc::new(permissions),
    });
    request.extensions_mut().insert(Authentication(Ok(caller)));
    next.run(request).await
}

pub fn now(world: &World) -> Timestamp {
    world.clock.now()
}
