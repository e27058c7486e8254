//! What happens to every request, in this order:
//!
//! 1. it gets an id (`X-Request-Id`, the caller's if that is sane) and a place in a trace (`traceparent`);
//! 2. a CORS preflight is answered;
//! 3. its credential, if it has one, is turned into a [`Caller`] or a refusal that the route may look at;
//! 4. it is counted against its caller's, or its address's, allowance;
//! 5. its body is held to a size;
//! 6. a write with an `Idempotency-Key` is done once ([`crate::idempotency`]);
//! 7. the route checks who may use it ([`crate::Routes`]) and handles it, within a time, a panic becoming a 500;
//! 8. the answer becomes a 304 if the caller has it already, is compressed, and gets its headers;
//! 9. it is counted and logged.
//!
//! All of it is one service around the router, not a stack of them: a layer costs an allocation or two and a few
//! copies of the request's head each, and the order of the steps is plain to read here.

mod address;
mod conditional;
mod cors;
mod credential;
mod encoding;
mod headers;
mod table;

pub use address::ClientAddress;
pub use cors::Origins;
pub(crate) use table::{LONGEST_WAIT, RouteInfo, RouteTable};

use crate::{
    Authenticator, RateLimiter,
    caller::{Authentication, Caller},
    extract::{IDEMPOTENCY_KEY, body_too_large},
    idempotency::Idempotency,
    limit::{Decision, Subject},
    problem::{ApiError, REQUEST_ID},
};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use futures::FutureExt as _;
use holon_base::ErrorKind;
use holon_telemetry::{Metrics, RouteMetrics, SpanContext, SpanKind, Tracer};
use http_body::Body as _;
use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tower::{Layer, Service};

/// What the edge needs to know; shared by all requests.
pub(crate) struct Edge {
    pub routes: RouteTable,
    /// For what no route matches.
    pub unmatched: RouteInfo,
    pub authenticator: Option<Arc<dyn Authenticator>>,
    pub limiter: Option<Arc<dyn RateLimiter>>,
    pub idempotency: Option<Idempotency>,
    pub origins: Origins,
    pub body_bytes: usize,
    pub forwarded_hops: usize,
    pub tracer: Tracer,
    /// Requests at least this slow are logged as warnings.
    pub slow: Duration,
}

/// Puts the edge around the routes of a router.
#[derive(Clone)]
pub(crate) struct EdgeLayer(pub Arc<Edge>);

impl<S> Layer<S> for EdgeLayer {
    type Service = EdgeService<S>;

    fn layer(&self, inner: S) -> EdgeService<S> {
        EdgeService {
            edge: Arc::clone(&self.0),
            inner,
        }
    }
}

#[derive(Clone)]
pub(crate) struct EdgeService<S> {
    edge: Arc<Edge>,
    inner: S,
}

impl<S> Service<Request> for EdgeService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        let edge = Arc::clone(&self.edge);
        Box::pin(async move { Ok(serve(&edge, inner, request).await) })
    }
}

/// Counts a request even if its client goes away before the answer.
struct Counted<'a> {
    metrics: &'a RouteMetrics,
    started: Instant,
    ended: bool,
}

impl<'a> Counted<'a> {
    fn begin(metrics: &'a RouteMetrics) -> Self {
        metrics.begin();
        Self {
            metrics,
            started: Instant::now(),
            ended: false,
        }
    }

    fn end(mut self, status: u16) -> Duration {
        self.ended = true;
        let duration = self.started.elapsed();
        self.metrics.end(status, duration);
        duration
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // nginx's "client closed request".
            self.metrics.end(499, self.started.elapsed());
        }
    }
}

async fn serve<S>(edge: &Arc<Edge>, inner: S, request: Request) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    let route = edge.routes.find(&request).unwrap_or(&edge.unmatched);
    let counted = Counted::begin(&route.metrics);
    let request_id = headers::request_id(request.headers());
    let parent = headers::parent(request.headers());
    let mut span = edge
        .tracer
        .start(route.span_name.as_str(), SpanKind::Server, parent);
    let traceparent = span.context().traceparent();
    let about = About::of(&request, edge);

    let answered = REQUEST_ID.scope(
        Arc::clone(&request_id),
        holon_base::trace::scope(traceparent.as_str(), answer(edge, route, inner, request, &about)),
    );
    let mut response = answered.await;

    headers::finish(response.headers_mut(), &request_id, &traceparent);
    let status = response.status();
    if status.is_server_error() {
        span.fail();
    }
    if span.context().sampled || status.is_server_error() {
        span.attribute("http.route", route.path.as_str());
        span.attribute("http.response.status_code", status.as_str());
        span.attribute("holon.request_id", &*request_id);
    }
    let duration = counted.end(status.as_u16());
    log(
        edge,
        route,
        &about,
        status.as_u16(),
        duration,
        &request_id,
        span.context(),
    );
    response
}

/// What is left of a request's head when the route has taken it.
struct About {
    method: Method,
    path: String,
    address: std::net::IpAddr,
    conditional: Option<HeaderValue>,
    takes_gzip: bool,
    origin: Option<HeaderValue>,
}

impl About {
    fn of(request: &Request, edge: &Edge) -> Self {
        let headers = request.headers();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            address: address::of(request, edge.forwarded_hops),
            conditional: if reads {
                headers.get(header::IF_NONE_MATCH).cloned()
            } else {
                None
            },
            takes_gzip: encoding::takes_gzip(headers),
            origin: headers.get(header::ORIGIN).cloned(),
        }
    }
}

/// Steps 2 to 8.
async fn answer<S>(
    edge: &Arc<Edge>,
    route: &RouteInfo,
    inner: S,
    mut request: Request,
    about: &About,
) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    if let Some(preflight) = cors::preflight(&edge.origins, &request) {
        return preflight;
    }
    request.extensions_mut().insert(ClientAddress(about.address));
    let mut decision = None;
    let admitted = admit(edge, route, &mut request, about, &mut decision).await;
    let mut response = match admitted {
        Ok(caller) => handle(edge, route, inner, request, caller).await,
        Err(error) => error.into_response(),
    };
    if let Some(decision) = decision {
        headers::rate_limit(response.headers_mut(), &decision);
    }
    if let Some(origin) = &about.origin {
        cors::finish(&edge.origins, origin, response.headers_mut());
    }
    if let Some(wanted) = &about.conditional {
        response = conditional::apply(wanted, response);
    }
    encoding::compress(about.takes_gzip, response).await
}

/// Steps 3 to 5: who is it, may they call now, and is the body small enough.
async fn admit(
    edge: &Edge,
    route: &RouteInfo,
    request: &mut Request,
    about: &About,
    decision: &mut Option<Decision>,
) -> Result<Option<Caller>, ApiError> {
    if about.path.contains("%00") {
        return Err(ApiError::invalid("path", "a path has no zero bytes"));
    }
    let caller = authenticate(edge, route, request).await;
    if let Some(limiter) = edge.limiter.as_ref().filter(|_| route.limited) {
        let subject = match &caller {
            Some(caller) => Subject::Account {
                tenant: caller.tenant.clone(),
                account: caller.account,
            },
            None => Subject::address(about.address),
        };
        let taken = limiter.take(&subject, 1).await;
        *decision = Some(taken);
        if !taken.allowed {
            return Err(ApiError::new(
                ErrorKind::RateLimited,
                "rate-limited",
                "too many requests; wait for as long as Retry-After says",
            )
            .retry_after(taken.retry_after));
        }
    }
    let size = request.body().size_hint();
    if size.lower() > edge.body_bytes as u64 {
        return Err(body_too_large());
    }
    // A body of stated length cannot grow; one without is cut off where it passes the limit.
    if size.exact().is_none() {
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(http_body_util::Limited::new(body, edge.body_bytes));
    }
    Ok(caller)
}

/// Leaves an [`Authentication`] for the route, if there is a credential.
async fn authenticate(edge: &Edge, route: &RouteInfo, request: &mut Request) -> Option<Caller> {
    let authenticator = edge.authenticator.as_ref()?;
    let found = credential::find(request, route.live)?;
    let authenticated = match found {
        Ok(credential) => authenticator.authenticate(&credential).await,
        Err(error) => Err(error),
    };
    let caller = authenticated.as_ref().ok().cloned();
    request
        .extensions_mut()
        .insert(Authentication(authenticated.map(Some)));
    caller
}

/// Steps 6 and 7.
async fn handle<S>(
    edge: &Arc<Edge>,
    route: &RouteInfo,
    inner: S,
    request: Request,
    caller: Option<Caller>,
) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    let time = route.time;
    let keyed = caller
        .filter(|_| route.writes && request.headers().contains_key(&IDEMPOTENCY_KEY))
        .zip(edge.idempotency.as_ref());
    match keyed {
        None => guarded(inner, request, time).await,
        Some((caller, idempotency)) => {
            let work = move |request| guarded(inner, request, time);
            idempotency
                .once(&caller, request, edge.body_bytes, work)
                .await
                .unwrap_or_else(IntoResponse::into_response)
        }
    }
}

/// Calls the route; a panic and a passed deadline become problems.
async fn guarded<S>(mut inner: S, request: Request, time: Option<Duration>) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let call = AssertUnwindSafe(inner.call(request)).catch_unwind();
    let called = match time {
        None => call.await,
        Some(time) => match tokio::time::timeout(time, call).await {
            Ok(called) => called,
            Err(_) => {
                return ApiError::new(
                    ErrorKind::Timeout,
                    "timeout",
                    "this took too long and was given up; try again",
                )
                .into_response();
            }
        },
    };
    match called {
        Ok(Ok(response)) => response,
        Ok(Err(infallible)) => match infallible {},
        // The panic hook has logged where it was.
        Err(_) => ApiError::internal("a handler panicked").into_response(),
    }
}

fn log(
    edge: &Edge,
    route: &RouteInfo,
    about: &About,
    status: u16,
    duration: Duration,
    request_id: &str,
    trace: SpanContext,
) {
    let is_bad = status >= 500 || (duration >= edge.slow && !route.live);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "access",
                method = about.method.as_str(),
                path = about.path,
                route = route.path,
                status,
                ms = duration.as_micros() as f64 / 1e3,
                address = %about.address,
                request_id,
                trace = format_args!("{:032x}", trace.trace_id),
            )
        };
    }
    if is_bad {
        line!(warn);
    } else {
        line!(info);
    }
}

/// What a request without a route is counted as.
pub(crate) fn unmatched(metrics: &Metrics, time: Duration) -> RouteInfo {
    RouteInfo {
        path: "unmatched".into(),
        span_name: "unmatched".into(),
        metrics: metrics.route("web", "ANY", "unmatched"),
        live: false,
        limited: false,
        writes: false,
        time: Some(time),
    }
}
