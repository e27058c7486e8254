//! One application out of all systems, and how it is served.

use crate::{
    Authenticator, Health, RateLimiter, System,
    document::{self, Part},
    edge::{Edge, EdgeLayer, LONGEST_WAIT, Origins, RouteTable, unmatched},
    idempotency::Idempotency,
    problem::ApiError,
    root::{self, Root},
};
use axum::{Router, handler::HandlerWithoutStateExt as _, http::StatusCode};
use bytes::Bytes;
use futures::future::BoxFuture;
use holon_base::{Clock, ErrorKind, limits};
use holon_ports::Store;
use holon_telemetry::{Metrics, Tracer, TracerOptions};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use utoipa::openapi::OpenApi;

/// Limits and times of an application.
#[derive(Debug, Clone)]
pub struct AppOptions {
    /// Whose scripts may call from other origins.
    pub origins: Origins,
    /// The largest request body, in bytes.
    pub body_bytes: usize,
    /// How long a request may take. Routes with a parameter `wait` get 30 s more; live routes have no limit.
    pub request_time: Duration,
    /// Proxies in front that append to `X-Forwarded-For`; 0 to ignore that header.
    pub forwarded_hops: usize,
    /// Requests at least this slow are logged as warnings.
    pub slow: Duration,
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// How long a client may take to send the head of a request.
    pub head_time: Duration,
    /// How long `/readyz` answers 503 before the listener closes, so that a load balancer can notice.
    pub drain_notice: Duration,
    /// How long requests under way may take once draining has begun.
    pub drain_time: Duration,
}

impl Default for AppOptions {
    fn default() -> Self {
        Self {
            origins: Origins::None,
            body_bytes: limits::BODY_BYTES,
            request_time: Duration::from_secs(limits::REQUEST_SECONDS),
            forwarded_hops: 0,
            slow: Duration::from_secs(5),
            connections: 100_000,
            head_time: Duration::from_secs(15),
            drain_notice: Duration::ZERO,
            drain_time: Duration::from_secs(20),
        }
    }
}

type HealthCheck = Arc<dyn Fn() -> BoxFuture<'static, Health> + Send + Sync>;
type DrainHook = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Puts routes, their documents and the edge together.
pub struct AppBuilder {
    options: AppOptions,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    title: String,
    version: String,
    routers: Vec<Router>,
    /// Each with whether its routes count against allowances.
    parts: Vec<(Part, bool)>,
    checks: Vec<(&'static str, HealthCheck)>,
    drains: Vec<DrainHook>,
    authenticator: Option<Arc<dyn Authenticator>>,
    limiter: Option<Arc<dyn RateLimiter>>,
    idempotency: Option<Idempotency>,
    fallback: Option<Router>,
}

impl AppBuilder {
    pub fn new(options: AppOptions) -> Self {
        Self {
            options,
            metrics: Metrics::new(),
            tracer: Tracer::new(TracerOptions::default()),
            title: "Holon".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            routers: Vec::new(),
            parts: Vec::new(),
            checks: Vec::new(),
            drains: Vec::new(),
            authenticator: None,
            limiter: None,
            idempotency: None,
            fallback: None,
        }
    }

    /// Where requests are counted and traced; without it, in nobody's sight.
    #[must_use]
    pub fn telemetry(mut self, metrics: Arc<Metrics>, tracer: Tracer) -> Self {
        self.metrics = metrics;
        self.tracer = tracer;
        self
    }

    /// A system: its routes, its part of the document, its health.
    #[must_use]
    pub fn system(self, system: Arc<dyn System>) -> Self {
        let (name, summary) = (system.name(), system.summary());
        let routes = Arc::clone(&system).routes();
        self.routes(name, summary, routes).check(name, move || {
            let system = Arc::clone(&system);
            async move { system.health().await }
        })
    }

    /// Routes that belong to no system, with their own tag in the document.
    #[must_use]
    pub fn routes(self, name: &'static str, summary: &str, routes: (Router, OpenApi)) -> Self {
        self.add(name, summary, routes, true)
    }

    fn add(
        mut self,
        name: &'static str,
        summary: &str,
        (router, document): (Router, OpenApi),
        limited: bool,
    ) -> Self {
        self.routers.push(router);
        let part = Part {
            name,
            summary: summary.to_owned(),
            document,
        };
        self.parts.push((part, limited));
        self
    }

    /// Who says whose a credential is. Without it everybody is nobody.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticator = Some(authenticator);
        self
    }

    /// Who says how often somebody may call. Without it, as often as they like.
    #[must_use]
    pub fn limiter(mut self, limiter: Arc<dyn RateLimiter>) -> Self {
        self.limiter = Some(limiter);
        self
    }

    /// Keeps the answers to idempotency keys in [`crate::idempotency::TABLE`], which must have been created.
    #[must_use]
    pub fn idempotency(mut self, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        self.idempotency = Some(Idempotency::new(store, clock));
        self
    }

    /// As [`AppBuilder::idempotency`], where no other process has the store: what an earlier process was at when it died
    /// is taken over at once, and not after a minute.
    #[must_use]
    pub fn idempotency_alone(mut self, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        self.idempotency = Some(Idempotency::new(store, clock).alone());
        self
    }

    /// Something else that `/readyz` asks.
    #[must_use]
    pub fn check<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Health> + Send + 'static,
    {
        self.checks.push((name, Arc::new(move || Box::pin(check()))));
        self
    }

    /// What ends live connections when the application drains; runs beside the requests that finish.
    #[must_use]
    pub fn on_drain<F>(mut self, drain: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.drains.push(Arc::new(move || Box::pin(drain())));
        self
    }

    /// What answers where no route matches, such as the console's files. It must answer 404 by itself.
    #[must_use]
    pub fn fallback(mut self, fallback: Router) -> Self {
        self.fallback = Some(fallback);
        self
    }

    /// The application.
    ///
    /// # Errors
    /// If a system's document cannot be written as JSON: a defect of its types.
    pub fn build(self) -> Result<App, serde_json::Error> {
        let draining = Arc::new(AtomicBool::new(false));
        let (mut routers, mut parts) = (self.routers, self.parts);
        let document = Arc::new(std::sync::OnceLock::<Bytes>::new());
        let root = Root {
            metrics: Arc::clone(&self.metrics),
            checks: self.checks.into(),
            draining: Arc::clone(&draining),
            document: Arc::clone(&document),
        };
        let (router, root_document) = root::routes(root);
        routers.push(router);
        let part = Part {
            name: "holon",
            summary: "How the node is.".into(),
            document: root_document,
        };
        parts.push((part, false));

        let mut table = RouteTable::default();
        for (part, limited) in &parts {
            let time = self.options.request_time;
            table.add(part.name, &part.document, &self.metrics, time, *limited);
        }
        let parts: Vec<Part> = parts.into_iter().map(|(part, _)| part).collect();
        let whole = document::assemble(&self.title, &self.version, &parts)?;
        // The cell was made above and is filled here alone.
        let _ = document.set(serde_json::to_vec(&whole)?.into());

        let edge = Edge {
            routes: table,
            unmatched: unmatched(&self.metrics, self.options.request_time),
            authenticator: self.authenticator,
            limiter: self.limiter,
            idempotency: self
                .idempotency
                .map(|idempotency| idempotency.longest(self.options.request_time + LONGEST_WAIT)),
            origins: self.options.origins.clone(),
            body_bytes: self.options.body_bytes,
            forwarded_hops: self.options.forwarded_hops,
            tracer: self.tracer,
            slow: self.options.slow,
        };
        let merged = routers.into_iter().fold(Router::new(), Router::merge);
        let with_fallback = match self.fallback {
            Some(fallback) => merged.fallback_service(fallback),
            None => merged.fallback_service(not_found.into_service()),
        };
        let router = with_fallback
            .method_not_allowed_fallback(method_not_allowed)
            .layer(EdgeLayer(Arc::new(edge)))
            // The edge holds bodies to a size.
            .layer(axum::extract::DefaultBodyLimit::disable());
        Ok(App {
            router,
            document: whole,
            options: self.options,
            draining,
            drains: self.drains,
        })
    }
}

/// 404 for a path that nothing serves. For fallbacks too.
pub async fn not_found() -> ApiError {
    ApiError::not_found("path")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(
        ErrorKind::Invalid,
        "method-not-allowed",
        "this path does not take this method; see Allow",
    )
    .with_status(StatusCode::METHOD_NOT_ALLOWED)
}

/// Everything that is served.
pub struct App {
    pub(crate) router: Router,
    document: serde_json::Value,
    pub(crate) options: AppOptions,
    draining: Arc<AtomicBool>,
    drains: Vec<DrainHook>,
}

impl App {
    /// The service itself, edge included.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The OpenAPI document of everything.
    pub fn document(&self) -> &serde_json::Value {
        &self.document
    }

    /// `/readyz` answers 503 from now on.
    pub(crate) fn begin_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    pub(crate) async fn run_drain_hooks(&self) {
        futures::future::join_all(self.drains.iter().map(|drain| drain())).await;
    }
}

pub(crate) type Checks = Arc<[(&'static str, HealthCheck)]>;
