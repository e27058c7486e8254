//! Recent traces, from the ring that the tracer keeps.

use super::Admin;
use axum::extract::State;
use holon_base::Timestamp;
use holon_telemetry::{SpanKind, SpanRecord, SpanStatus};
use holon_web::{ApiError, Json, Path, Query};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// A trace in a line.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceSummary {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// What started it.
    pub name: String,
    pub start: Timestamp,
    /// From its first start to its last end.
    pub duration_ms: f64,
    pub status: TraceStatus,
    pub spans: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum TraceStatus {
    Ok,
    /// At least one of its spans failed.
    Error,
}

/// The traces that are remembered.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Traces {
    pub items: Vec<TraceSummary>,
}

/// A trace, span by span.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    pub trace_id: String,
    /// By their start.
    pub spans: Vec<Span>,
}

/// One span.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// 16 hexadecimal digits.
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    pub name: String,
    /// `server`, `client`, `producer`, `consumer` or `internal`.
    pub kind: String,
    pub start: Timestamp,
    /// After the start of the trace.
    pub offset_ms: f64,
    pub duration_ms: f64,
    pub status: TraceStatus,
    pub attributes: BTreeMap<String, String>,
}

/// How many traces.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TracesQuery {
    /// How many at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<usize>,
}

fn status_of<'a>(mut spans: impl Iterator<Item = &'a Arc<SpanRecord>>) -> TraceStatus {
    match spans.any(|span| span.status == SpanStatus::Error) {
        true => TraceStatus::Error,
        false => TraceStatus::Ok,
    }
}

fn summary(trace_id: u128, spans: &[Arc<SpanRecord>]) -> Option<TraceSummary> {
    let first = spans
        .iter()
        .min_by_key(|span| (span.parent.is_some(), span.start_ns))?;
    let start = spans.iter().map(|span| span.start_ns).min()?;
    let end = spans
        .iter()
        .map(|span| span.start_ns + span.duration.as_nanos() as u64)
        .max()?;
    Some(TraceSummary {
        trace_id: format!("{trace_id:032x}"),
        name: first.name.clone(),
        start: time(start),
        duration_ms: (end - start) as f64 / 1e6,
        status: status_of(spans.iter()),
        spans: spans.len() as u64,
    })
}

fn time(ns: u64) -> Timestamp {
    Timestamp::from_millis((ns / 1_000_000) as i64)
}

fn kind_name(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Internal => "internal",
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
    }
}

/// Traces that are remembered, latest first. A share of all is recorded, and whatever failed or was slow.
#[utoipa::path(
    get,
    path = "/v1/admin/traces",
    operation_id = "listTraces",
    tag = "admin",
    params(TracesQuery),
    responses((status = 200, description = "Recent traces", body = Traces))
)]
pub async fn list_traces(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<TracesQuery>,
) -> Result<Json<Traces>, ApiError> {
    let list = holon_web::ListQuery {
        limit: query.limit,
        cursor: None,
    };
    let limit = list.limit()?;
    let mut by_trace: HashMap<u128, Vec<Arc<SpanRecord>>> = HashMap::new();
    for span in admin.tracer.recent() {
        by_trace.entry(span.context.trace_id).or_default().push(span);
    }
    let mut items: Vec<TraceSummary> = by_trace
        .iter()
        .filter_map(|(trace_id, spans)| summary(*trace_id, spans))
        .collect();
    items.sort_by(|a, b| b.start.cmp(&a.start).then_with(|| a.trace_id.cmp(&b.trace_id)));
    items.truncate(limit);
    Ok(Json(Traces { items }))
}

/// One trace, span by span: the request, its commits, and the consumers of what it told.
#[utoipa::path(
    get,
    path = "/v1/admin/traces/{traceId}",
    operation_id = "getTrace",
    tag = "admin",
    params(("traceId" = String, Path, description = "32 hexadecimal digits", pattern = "^[0-9a-f]{32}$")),
    responses((status = 200, description = "Its spans", body = Trace))
)]
pub async fn get_trace(
    State(admin): State<Arc<Admin>>,
    Path(trace_id): Path<String>,
) -> Result<Json<Trace>, ApiError> {
    let hexadecimal = trace_id.len() == 32 && trace_id.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u128::from_str_radix(&trace_id, 16).ok().filter(|_| hexadecimal);
    let spans = number
        .map(|number| admin.tracer.trace(number))
        .unwrap_or_default();
    let Some(start) = spans.iter().map(|span| span.start_ns).min() else {
        return Err(ApiError::not_found("trace among those remembered"));
    };
    let spans = spans.iter().map(|span| Span {
        id: format!("{:016x}", span.context.span_id),
        parent: span.parent.map(|parent| format!("{parent:016x}")),
        name: span.name.clone(),
        kind: kind_name(span.kind).to_owned(),
        start: time(span.start_ns),
        offset_ms: (span.start_ns - start) as f64 / 1e6,
        duration_ms: span.duration.as_secs_f64() * 1e3,
        status: status_of(std::iter::once(span)),
        attributes: span
            .attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
    });
    Ok(Json(Trace {
        trace_id,
        spans: spans.collect(),
    }))
}
