//! The routes at the root: how the node is, what it measures, what it can do.

use crate::{Health, Routes, extract::Json, problem::Problem, serve::Checks};
use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use holon_telemetry::Metrics;
use serde::Serialize;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

/// A health check that takes longer than this is a failed one.
const CHECK_TIME: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Root {
    pub metrics: Arc<Metrics>,
    pub checks: Checks,
    pub draining: Arc<AtomicBool>,
    pub document: Arc<OnceLock<Bytes>>,
}

pub(crate) fn routes(root: Root) -> (Router, OpenApi) {
    Routes::new()
        .public(routes!(live))
        .public(routes!(ready))
        .public(routes!(metrics))
        .public(routes!(document))
        .public(routes!(docs))
        .public(routes!(docs_file))
        .finish(root)
}

/// Whether the process runs.
#[utoipa::path(get, path = "/livez", operation_id = "isAlive",
    responses((status = 200, description = "It does.", body = String, content_type = "text/plain")))]
async fn live() -> &'static str {
    "alive\n"
}

/// Whether the node can take requests, and how each system is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Readiness {
    ready: bool,
    draining: bool,
    systems: Vec<SystemHealth>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct SystemHealth {
    name: &'static str,
    #[serde(flatten)]
    health: Health,
}

/// Whether the node takes requests.
#[utoipa::path(get, path = "/readyz", operation_id = "isReady",
    responses(
        (status = 200, description = "It does.", body = Readiness),
        (status = 503, description = "It does not, or no longer.", body = Readiness)))]
async fn ready(State(root): State<Root>) -> Response {
    let asked = root.checks.iter().map(|(name, check)| async {
        let health = tokio::time::timeout(CHECK_TIME, check())
            .await
            .unwrap_or_else(|_| Health {
                ready: false,
                detail: "did not answer in time".into(),
            });
        SystemHealth { name, health }
    });
    let systems = futures::future::join_all(asked).await;
    let draining = root.draining.load(Relaxed);
    let ready = !draining && systems.iter().all(|system| system.health.ready);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let readiness = Readiness {
        ready,
        draining,
        systems,
    };
    (
        status,
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        Json(readiness),
    )
        .into_response()
}

/// Everything that is measured, for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "readMetrics",
    responses((status = 200, description = "OpenMetrics text.", body = String,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8")))]
async fn metrics(State(root): State<Root>) -> Response {
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], root.metrics.render()).into_response()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "readApiDocument",
    responses((status = 200, description = "OpenAPI 3.1.", body = serde_json::Value)))]
async fn document(State(root): State<Root>) -> Response {
    let body = root.document.get().cloned().unwrap_or_default();
    crate::JsonBytes {
        version: Some(1),
        body,
    }
    .into_response()
}

/// The API to be read and tried in a browser.
#[utoipa::path(get, path = "/docs", operation_id = "browseApi",
    responses((status = 200, description = "A page.", body = String, content_type = "text/html; charset=utf-8")))]
async fn docs() -> Response {
    file("text/html; charset=utf-8", include_str!("docs/index.html"))
}

/// What that page is made of.
#[utoipa::path(get, path = "/docs/{file}", operation_id = "readDocsFile",
    params(("file" = String, Path, description = "`docs.js` or `docs.css`.")),
    responses(
        (status = 200, description = "The file.", content(
            (String = "text/javascript; charset=utf-8"),
            (String = "text/css; charset=utf-8"))),
        (status = 404, description = "There is no such file.", body = Problem, content_type = "application/problem+json")))]
async fn docs_file(crate::Path(name): crate::Path<String>) -> Response {
    match name.as_str() {
        "docs.js" => file("text/javascript; charset=utf-8", include_str!("docs/docs.js")),
        "docs.css" => file("text/css; charset=utf-8", include_str!("docs/docs.css")),
        _ => crate::ApiError::not_found("file").into_response(),
    }
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}
