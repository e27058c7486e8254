//! A deployment with identity alone, a clock that tests drive, and a small client.

use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Router, body::Body};
use holon_base::{ManualClock, Timestamp};
use holon_identity::{Identity, IdentityOptions, PasswordCost};
use holon_ports::{Consumer, Store};
use holon_testkit::TestHome;
use holon_web::{AppBuilder, AppOptions, Context, System, idempotency};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tower::ServiceExt as _;

pub const PASSWORD: &str = "correct horse battery";

pub struct World {
    pub home: TestHome,
    pub clock: ManualClock,
    pub node: Node,
    /// The administrator's API key.
    pub admin: String,
}

/// One process of the deployment.
pub struct Node {
    pub identity: Arc<Identity>,
    pub router: Router,
    pub document: Value,
}

pub fn options() -> IdentityOptions {
    let mut options = IdentityOptions::new([7; 32]);
    options.password_cost = PasswordCost::CHEAPEST;
    options.passwords_at_once = 2;
    options
}

impl Node {
    pub fn new(context: Context) -> Self {
        Self::with_options(context, options())
    }

    pub fn with_options(context: Context, options: IdentityOptions) -> Self {
        let identity = Identity::new(context.clone(), options).expect("identity");
        let app = AppBuilder::new(AppOptions {
            forwarded_hops: 1,
            ..AppOptions::default()
        })
        .system(identity.clone())
        .authenticator(identity.clone())
        .idempotency(context.ports.store.clone(), context.clock.clone())
        .build()
        .expect("an application");
        Self {
            identity,
            router: app.router(),
            document: app.document().clone(),
        }
    }

    pub fn get(&self, path: &str) -> Call<'_> {
        self.call("GET", path)
    }

    pub fn post(&self, path: &str) -> Call<'_> {
        self.call("POST", path)
    }

    pub fn put(&self, path: &str) -> Call<'_> {
        self.call("PUT", path)
    }

    pub fn patch(&self, path: &str) -> Call<'_> {
        self.call("PATCH", path)
    }

    pub fn delete(&self, path: &str) -> Call<'_> {
        self.call("DELETE", path)
    }

    pub fn call(&self, method: &str, path: &str) -> Call<'_> {
        let path = if path.starts_with("/.") {
            path.to_owned()
        } else {
            format!("/v1/identity{path}")
        };
        let request = Request::builder().method(method).uri(path);
        Call {
            node: self,
            request,
            body: Body::empty(),
        }
    }

    pub async fn sign_up(&self, handle: &str) -> Value {
        let new = json!({"handle": handle, "password": PASSWORD});
        self.post("/accounts").json(new).send().await.expect(201)
    }

    pub async fn login(&self, handle: &str) -> Answer {
        let login = json!({"handle": handle, "password": PASSWORD});
        let answer = self.post("/login").json(login).send().await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    /// Signs up and in; answers the access token.
    pub async fn member(&self, handle: &str) -> String {
        self.sign_up(handle).await;
        self.login(handle).await.text("accessToken")
    }
}

pub struct Call<'a> {
    node: &'a Node,
    request: axum::http::request::Builder,
    body: Body,
}

impl Call<'_> {
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn from(self, address: &str) -> Self {
        self.header("x-forwarded-for", address)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn json(mut self, body: Value) -> Self {
        self.request = self.request.header("content-type", "application/json");
        self.body = Body::from(body.to_string());
        self
    }

    pub async fn send(self) -> Answer {
        let request = self.request.body(self.body).expect("a request");
        let response = self
            .node
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 10 << 20).await.expect("a body");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    pub fn text(&self, field: &str) -> String {
        self.body[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field} in {}", self.body))
            .to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("a text header"))
    }

    pub fn problem(&self) -> &str {
        self.body["type"]
            .as_str()
            .unwrap_or_default()
            .trim_start_matches("/problems/")
    }
}

impl World {
    pub async fn start() -> Self {
        let clock = ManualClock::new(Timestamp::parse("2026-03-10T12:00:00Z").expect("a time"));
        let home = TestHome::with_clock(clock.clone()).await;
        let node = Node::new(home.context());
        home.create_for(&*node.identity).await;
        home.create(&[idempotency::TABLE], &[]).await;
        let admin = node
            .identity
            .ensure_administrator()
            .await
            .expect("an administrator");
        let admin = admin.expect("a token").token;
        node.identity
            .administrator_token_delivered()
            .await
            .expect("noted");
        Self {
            home,
            clock,
            node,
            admin,
        }
    }

    /// Runs the consumers and waits until they have nothing left to do.
    pub async fn settle(&mut self) {
        self.home.run(self.consumers());
        self.home.caught_up(&self.consumers()).await;
        self.home.stop().await;
    }

    pub fn consumers(&self) -> Vec<Consumer> {
        self.node.identity.clone().consumers()
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Another process of the same deployment, on a store of the caller's making.
    pub fn other_node(&self, store: Option<Arc<dyn Store>>) -> Node {
        let mut context = self.home.context();
        if let Some(store) = store {
            context.ports.store = store;
        }
        Node::new(context)
    }

    /// Gives an account a role that permits these things.
    pub async fn permit(&self, handle: &str, permissions: &[&str]) {
        let role = format!("r{}", self.home.context().ids.next());
        let define = self.node.put(&format!("/roles/{role}")).token(&self.admin);
        define
            .json(json!({"permissions": permissions}))
            .send()
            .await
            .expect(200);
        let assign = self
            .node
            .put(&format!("/accounts/{handle}/roles"))
            .token(&self.admin);
        assign.json(json!({"roles": [role]})).send().await.expect(200);
    }
}
