//! Logs, metrics and traces.
//!
//! - [`logs`]: structured lines, pretty or JSON.
//! - [`metrics`]: rate, errors and duration of every route, lag of every consumer, in Prometheus text at `/metrics` and
//!   as figures for the admin page. Recording is a few atomic additions.
//! - [`trace`]: spans that follow a request into the commit it makes, across the log and into its consumers. Recent
//!   traces stay in a bounded ring for the console; [`otlp`] sends them to a collector when one is configured.
//!
//! Nothing here ever blocks a request: every queue is bounded, and what does not fit is dropped and counted.

pub mod consumers;
pub mod logs;
pub mod metrics;
pub mod otlp;
pub mod store;
pub mod trace;

pub use consumers::watch_consumers;
pub use logs::{LogFormat, LogOptions};
pub use metrics::{Metrics, RouteMetrics};
pub use otlp::OtlpExporter;
pub use store::TracedStore;
pub use trace::{ActiveSpan, SpanContext, SpanKind, SpanRecord, SpanStatus, Tracer, TracerOptions};
