//! A toy system behind the whole edge, and what it takes to call it.
#![allow(dead_code, reason = "each test file uses its part")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Request, StatusCode},
    response::IntoResponse,
};
use holon_base::{Id, Tenant};
use holon_web::{
    Access, ApiError, AppBuilder, AppOptions, AuthError, Authenticator, Caller, CallerKind, Created,
    Credential, IfMatch, Json, ListQuery, MaybeCaller, Path, Query, Routes, Tagged,
    limit::{Decision, RateLimiter, Subject},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::Notify;
use tower::ServiceExt as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

/// What the toy did.
#[derive(Default)]
pub struct Toy {
    pub made: AtomicU64,
    /// Lets a request to `/v1/toy/gate` go on.
    pub gate: Notify,
    pub entered: Notify,
}

#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Thing {
    pub id: Id,
    pub name: String,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewThing {
    pub name: String,
    #[serde(default)]
    pub reply_to: Option<Id>,
    #[serde(default)]
    pub sizes: Vec<u8>,
}

#[utoipa::path(post, path = "/v1/toy/things", operation_id = "createThing",
    responses((status = 201, description = "Made.", body = Thing)))]
async fn create(
    State(toy): State<Arc<Toy>>,
    caller: Caller,
    Json(new): Json<NewThing>,
) -> Result<Created<Thing>, ApiError> {
    if new.name.is_empty() {
        return Err(ApiError::invalid("/name", "a name has at least one letter"));
    }
    let number = toy.made.fetch_add(1, SeqCst) + 1;
    if new.name == "defect" {
        return Err(ApiError::internal("secret text of an engine"));
    }
    Ok(Created {
        location: format!("/v1/toy/things/{number}"),
        version: 1,
        body: Thing {
            id: Id::from_u64(number),
            name: format!("{} by {}", new.name, caller.handle),
        },
    })
}

#[utoipa::path(get, path = "/v1/toy/things/{id}", operation_id = "getThing", params(("id" = Id, Path)),
    responses((status = 200, description = "The thing.", body = Thing)))]
async fn get_thing(Path(id): Path<Id>) -> Tagged<Thing> {
    let name = "x".repeat(2_000);
    Tagged {
        version: 7,
        body: Thing { id, name },
    }
}

#[utoipa::path(patch, path = "/v1/toy/things/{id}", operation_id = "updateThing", params(("id" = Id, Path)),
    responses((status = 200, description = "The thing.", body = Thing)))]
async fn update(
    Path(id): Path<Id>,
    if_match: IfMatch,
    Json(new): Json<NewThing>,
) -> Result<Tagged<Thing>, ApiError> {
    if_match.check(7)?;
    Ok(Tagged {
        version: 8,
        body: Thing { id, name: new.name },
    })
}

#[utoipa::path(get, path = "/v1/toy/things", operation_id = "listThings", params(ListQuery),
    responses((status = 200, description = "Things.")))]
async fn list(Query(query): Query<ListQuery>) -> Result<Json<usize>, ApiError> {
    Ok(Json(query.limit()?))
}

#[utoipa::path(get, path = "/v1/toy/panic", operation_id = "panicNow", responses((status = 200, description = "Never.")))]
async fn panics() -> &'static str {
    panic!("a secret that must not get out")
}

#[utoipa::path(post, path = "/v1/toy/gate", operation_id = "passGate", responses((status = 200, description = "Passed.")))]
async fn gate(State(toy): State<Arc<Toy>>) -> Json<u64> {
    toy.entered.notify_one();
    toy.gate.notified().await;
    Json(toy.made.fetch_add(1, SeqCst) + 1)
}

#[utoipa::path(get, path = "/v1/toy/gate", operation_id = "waitAtGate", responses((status = 200, description = "Passed.")))]
async fn wait_at_gate(State(toy): State<Arc<Toy>>) -> &'static str {
    toy.entered.notify_one();
    toy.gate.notified().await;
    "through"
}

#[utoipa::path(post, path = "/v1/toy/keys", operation_id = "createKey", responses((status = 200, description = "A secret.")))]
async fn create_key(State(toy): State<Arc<Toy>>, _: Caller) -> impl IntoResponse {
    toy.made.fetch_add(1, SeqCst);
    ([("cache-control", "no-store")], "hk_secret")
}

#[utoipa::path(get, path = "/v1/toy/admin", operation_id = "adminOnly", responses((status = 200, description = "Hello.")))]
async fn admin(caller: Caller) -> String {
    caller.handle.to_string()
}

#[utoipa::path(get, path = "/v1/toy/live", operation_id = "live", responses((status = 200, description = "Hello.")))]
async fn live(caller: Caller) -> String {
    caller.handle.to_string()
}

#[utoipa::path(get, path = "/v1/toy/who", operation_id = "who", responses((status = 200, description = "Hello.")))]
async fn who(MaybeCaller(caller): MaybeCaller) -> String {
    caller.map_or("nobody".into(), |caller| caller.handle.to_string())
}

pub fn toy_routes(toy: &Arc<Toy>) -> (Router, OpenApi) {
    Routes::new()
        .signed_in(routes!(create))
        .public(routes!(get_thing, update))
        .public(routes!(list))
        .public(routes!(panics))
        .signed_in(routes!(gate))
        .public(routes!(wait_at_gate))
        .signed_in(routes!(create_key))
        .permitted("toy.admin", routes!(admin))
        .live(Access::SignedIn, routes!(live))
        .public(routes!(who))
        .finish(Arc::clone(toy))
}

/// Everybody's token is their name; `old` has expired; `root` may do anything.
pub struct Names;

#[async_trait]
impl Authenticator for Names {
    async fn authenticate(&self, credential: &Credential) -> Result<Caller, AuthError> {
        let name = match credential {
            Credential::Bearer(name) => name.as_str(),
            Credential::ApiKey(key) => key.trim_start_matches("hk_"),
        };
        match name {
            "old" => Err(AuthError::Expired),
            "bad" => Err(AuthError::Invalid),
            _ => Ok(caller(name)),
        }
    }
}

pub fn caller(name: &str) -> Caller {
    let account = name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte));
    let permissions = if name == "root" {
        vec!["*".to_owned()]
    } else {
        vec![]
    };
    Caller {
        tenant: Tenant::default(),
        account: Id::from_u64(account),
        handle: name.into(),
        kind: CallerKind::System,
        permissions: Arc::new(permissions.into_iter().collect::<BTreeSet<_>>()),
    }
}

/// Lets each subject call so many times, ever.
pub struct Allowance(pub u64, pub Mutex<HashMap<Subject, u64>>);

#[async_trait]
impl RateLimiter for Allowance {
    async fn take(&self, subject: &Subject, cost: u32) -> Decision {
        let mut counts = self.1.lock().unwrap();
        let used = counts.entry(subject.clone()).or_default();
        let allowed = *used < self.0;
        *used += u64::from(cost);
        Decision {
            allowed,
            policy: "toy",
            limit: self.0,
            window: Duration::from_secs(60),
            remaining: self.0.saturating_sub(*used),
            reset: Duration::from_millis(59_100),
            retry_after: Duration::from_millis(1_500),
        }
    }
}

pub fn options() -> AppOptions {
    AppOptions {
        request_time: Duration::from_secs(20),
        ..AppOptions::default()
    }
}

/// The toy behind the edge, without what needs a store.
pub fn toy_app(toy: &Arc<Toy>) -> AppBuilder {
    AppBuilder::new(options())
        .routes("toy", "A system to test with.", toy_routes(toy))
        .authenticator(Arc::new(Names))
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?} of {}", self.body, self.status))
    }

    /// The problem document, checked for what every problem has.
    #[track_caller]
    pub fn problem(&self) -> serde_json::Value {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert!(problem["type"].as_str().unwrap().starts_with("/problems/"));
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        assert_eq!(problem["requestId"], self.header("x-request-id"));
        problem
    }
}

/// Calls a router.
pub async fn call(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: head.status,
        headers: head.headers,
        body,
    }
}

pub async fn get(router: &Router, path: &str, headers: &[(&str, &str)]) -> Answer {
    call(router, request("GET", path, headers, "")).await
}

pub async fn post(router: &Router, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    call(router, request("POST", path, headers, body)).await
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let has_type = headers.iter().any(|(name, _)| *name == "content-type");
    if !body.is_empty() && !has_type {
        builder = builder.header("content-type", "application/json");
    }
    builder.body(Body::from(body.to_owned())).unwrap()
}
