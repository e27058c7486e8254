//! What is known of each route, found by its matched path and method.

use crate::routes::LIVE;
use axum::extract::{MatchedPath, Request};
use holon_telemetry::{Metrics, RouteMetrics};
use http::Method;
use std::{collections::HashMap, sync::Arc, time::Duration};
use utoipa::openapi::{OpenApi, RefOr, path::Operation};

/// How much longer a route may take that has a parameter `wait`, by which its caller asks to be kept waiting.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// One operation of the document.
pub(crate) struct RouteInfo {
    /// As declared: `/v1/feed/posts/{id}`.
    pub path: String,
    /// `GET /v1/feed/posts/{id}`.
    pub span_name: String,
    pub metrics: Arc<RouteMetrics>,
    /// Stays open and takes its credential from the query too.
    pub live: bool,
    /// Counts against its caller's allowance.
    pub limited: bool,
    /// POST, PUT, PATCH or DELETE.
    pub writes: bool,
    /// How long it may take.
    pub time: Option<Duration>,
}

#[derive(Default)]
struct Methods {
    get: Option<RouteInfo>,
    post: Option<RouteInfo>,
    put: Option<RouteInfo>,
    patch: Option<RouteInfo>,
    delete: Option<RouteInfo>,
}

/// All operations of the document.
#[derive(Default)]
pub(crate) struct RouteTable {
    paths: HashMap<String, Methods>,
}

impl RouteTable {
    /// Takes in the operations of a system's document.
    pub fn add(
        &mut self,
        system: &'static str,
        document: &OpenApi,
        metrics: &Metrics,
        time: Duration,
        limited: bool,
    ) {
        for (path, item) in &document.paths.paths {
            let methods = self.paths.entry(path.clone()).or_default();
            let info = |method: &Method, operation: &Option<Operation>| {
                operation.as_ref().map(|operation| {
                    let live = is_live(operation);
                    let longer = if takes_wait(operation) {
                        LONGEST_WAIT
                    } else {
                        Duration::ZERO
                    };
                    RouteInfo {
                        path: path.clone(),
                        span_name: format!("{method} {path}"),
                        metrics: metrics.route(system, method.as_str(), path),
                        live,
                        limited,
                        writes: *method != Method::GET,
                        time: (!live).then_some(time + longer),
                    }
                })
            };
            methods.get = info(&Method::GET, &item.get).or(methods.get.take());
            methods.post = info(&Method::POST, &item.post).or(methods.post.take());
            methods.put = info(&Method::PUT, &item.put).or(methods.put.take());
            methods.patch = info(&Method::PATCH, &item.patch).or(methods.patch.take());
            methods.delete = info(&Method::DELETE, &item.delete).or(methods.delete.take());
        }
    }

    /// The operation that a routed request is for; HEAD counts as GET.
    pub fn find(&self, request: &Request) -> Option<&RouteInfo> {
        let path = request.extensions().get::<MatchedPath>()?;
        let methods = self.paths.get(path.as_str())?;
        let info = match *request.method() {
            Method::GET | Method::HEAD => &methods.get,
            Method::POST => &methods.post,
            Method::PUT => &methods.put,
            Method::PATCH => &methods.patch,
            Method::DELETE => &methods.delete,
            _ => return None,
        };
        info.as_ref()
    }
}

fn is_live(operation: &Operation) -> bool {
    operation
        .extensions
        .as_ref()
        .is_some_and(|extensions| extensions.get(LIVE) == Some(&true.into()))
}

fn takes_wait(operation: &Operation) -> bool {
    operation
        .parameters
        .iter()
        .flatten()
        .any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.name == "wait"))
}
