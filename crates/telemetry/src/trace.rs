//! Traces: spans that follow a request into the commit it makes, across the log, and into its consumers.
//!
//! The model and the ids are those of W3C Trace Context (2021) and OpenTelemetry: a trace is a tree of spans, each with
//! a name, a start, a duration and a few attributes. A span's context travels as `traceparent`, within the process
//! in a task-local ([`holon_base::trace`]), across it in headers and events.
//!
//! Whether a trace is recorded is decided at its root, at random with a stated share, and carried in the flags. A span
//! that failed or took long is recorded whatever the flag says, so that errors and slow requests can always be looked at.

use holon_base::Timestamp;
use parking_lot::Mutex;
use rand::RngExt as _;
use serde::Serialize;
use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::mpsc;

/// Where a span is: what `traceparent` carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanContext {
    pub trace_id: u128,
    pub span_id: u64,
    pub sampled: bool,
}

impl SpanContext {
    /// A new trace.
    pub fn root(sampled: bool) -> Self {
        let mut random = rand::rng();
        Self {
            trace_id: random.random_range(1..=u128::MAX),
            span_id: random.random_range(1..=u64::MAX),
            sampled,
        }
    }

    /// A span below this one.
    pub fn child(&self) -> Self {
        Self {
            span_id: rand::rng().random_range(1..=u64::MAX),
            ..*self
        }
    }

    /// Reads a `traceparent` header, version 00 or a later one that starts the same.
    pub fn parse(header: &str) -> Option<Self> {
        let bytes = header.as_bytes();
        let shape = bytes.len() >= 55 && bytes[2] == b'-' && bytes[35] == b'-' && bytes[52] == b'-';
        if !shape
            || &header.as_bytes()[..2] == b"ff"
            || (bytes.len() > 55 && (&bytes[..2] == b"00" || bytes[55] != b'-'))
        {
            return None;
        }
        let lower_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if ![&bytes[..2], &bytes[3..35], &bytes[36..52], &bytes[53..55]]
            .into_iter()
            .all(lower_hex)
        {
            return None;
        }
        let trace_id = u128::from_str_radix(header.get(3..35)?, 16).ok()?;
        let span_id = u64::from_str_radix(header.get(36..52)?, 16).ok()?;
        let flags = u8::from_str_radix(header.get(53..55)?, 16).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }

    /// The context of the running task, if it is part of a trace.
    pub fn current() -> Option<Self> {
        holon_base::trace::current().and_then(|header| Self::parse(&header))
    }

    pub fn traceparent(&self) -> String {
        format!(
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id,
            self.span_id,
            u8::from(self.sampled)
        )
    }
}

impl fmt::Debug for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent())
    }
}

/// What a span stands for, as OpenTelemetry names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SpanKind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SpanStatus {
    Ok,
    Error,
}

/// A span that ended.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanRecord {
    pub context: SpanContext,
    pub parent: Option<u64>,
    /// Spans of other traces that this one also works for: the events of a batch.
    pub links: Vec<SpanContext>,
    pub name: String,
    pub kind: SpanKind,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    pub duration: Duration,
    pub status: SpanStatus,
    pub attributes: Vec<(&'static str, String)>,
}

/// What is recorded.
#[derive(Debug, Clone)]
pub struct TracerOptions {
    /// Share of new traces that are recorded, 0 to 1.
    pub sample: f64,
    /// Spans at least this long are recorded in any case.
    pub slow: Duration,
    /// How many spans the ring for the console holds.
    pub keep: usize,
}

impl Default for TracerOptions {
    fn default() -> Self {
        Self {
            sample: 0.05,
            slow: Duration::from_millis(500),
            keep: 4_096,
        }
    }
}

/// Records spans. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    options: TracerOptions,
    ring: Mutex<VecDeque<Arc<SpanRecord>>>,
    export: Mutex<Option<mpsc::Sender<Arc<SpanRecord>>>>,
    dropped: AtomicU64,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tracer({:?})", self.0.options)
    }
}

impl Tracer {
    pub fn new(options: TracerOptions) -> Self {
        Self(Arc::new(Inner {
            ring: Mutex::new(VecDeque::with_capacity(options.keep.min(65_536))),
            options,
            export: Mutex::new(None),
            dropped: AtomicU64::new(0),
        }))
    }

    /// Also hands every recorded span to an exporter.
    pub fn export_to(&self, exporter: mpsc::Sender<Arc<SpanRecord>>) {
        *self.0.export.lock() = Some(exporter);
    }

    /// Spans that an exporter had no room for.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// Starts a span. Without a parent it is the root of a new trace, recorded or not by the tracer's share.
    pub fn start(&self, name: impl Into<String>, kind: SpanKind, parent: Option<SpanContext>) -> ActiveSpan {
        let context = match parent {
            Some(parent) => parent.child(),
            None => SpanContext::root(
                self.0.options.sample > 0.0 && rand::rng().random_bool(self.0.options.sample.min(1.0)),
            ),
        };
        ActiveSpan {
            tracer: self.clone(),
            context,
            parent: parent.map(|parent| parent.span_id),
            links: Vec::new(),
            name: name.into(),
            kind,
            started: Instant::now(),
            start: SystemTime::now(),
            status: SpanStatus::Ok,
            attributes: Vec::new(),
        }
    }

    /// Starts a span below the running task's, if that is part of a recorded trace.
    pub fn start_below_current(&self, name: &'static str, kind: SpanKind) -> Option<ActiveSpan> {
        let parent = SpanContext::current().filter(|context| context.sampled)?;
        Some(self.start(name, kind, Some(parent)))
    }

    fn record(&self, span: SpanRecord) {
        let wanted =
            span.context.sampled || span.status == SpanStatus::Error || span.duration >= self.0.options.slow;
        if !wanted || self.0.options.keep == 0 {
            return;
        }
        let span = Arc::new(span);
        let refused = self
            .0
            .export
            .lock()
            .as_ref()
            .is_some_and(|export| export.try_send(Arc::clone(&span)).is_err());
        if refused {
            self.0.dropped.fetch_add(1, Relaxed);
        }
        let mut ring = self.0.ring.lock();
        if ring.len() >= self.0.options.keep {
            ring.pop_front();
        }
        ring.push_back(span);
    }

    /// The spans that the ring still holds, oldest first.
    pub fn recent(&self) -> Vec<Arc<SpanRecord>> {
        self.0.ring.lock().iter().cloned().collect()
    }

    /// The spans of one trace, by start.
    pub fn trace(&self, trace_id: u128) -> Vec<Arc<SpanRecord>> {
        let linked = |span: &SpanRecord| span.links.iter().any(|link| link.trace_id == trace_id);
        let mut spans: Vec<_> = self
            .0
            .ring
            .lock()
            .iter()
            .filter(|span| span.context.trace_id == trace_id || linked(span))
            .cloned()
            .collect();
        spans.sort_by_key(|span| span.start_ns);
        spans
    }
}

/// A span that runs. It is recorded when it is dropped.
#[derive(Debug)]
pub struct ActiveSpan {
    tracer: Tracer,
    context: SpanContext,
    parent: Option<u64>,
    links: Vec<SpanContext>,
    name: String,
    kind: SpanKind,
    started: Instant,
    start: SystemTime,
    status: SpanStatus,
    attributes: Vec<(&'static str, String)>,
}

impl ActiveSpan {
    pub fn context(&self) -> SpanContext {
        self.context
    }

    pub fn attribute(&mut self, name: &'static str, value: impl Into<String>) {
        self.attributes.push((name, value.into()));
    }

    /// Also works for a span of another trace.
    pub fn link(&mut self, to: SpanContext) {
        self.links.push(to);
    }

    pub fn fail(&mut self) {
        self.status = SpanStatus::Error;
    }

    /// Runs a future inside this span: what it starts and tells is below it.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        holon_base::trace::scope(self.context.traceparent(), future).await
    }

    /// When the span started.
    pub fn start(&self) -> Timestamp {
        let ms = self
            .start
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        Timestamp::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
    }
}

impl Drop for ActiveSpan {
    fn drop(&mut self) {
        let start_ns = self
            .start
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let record = SpanRecord {
            context: self.context,
            parent: self.parent,
            links: std::mem::take(&mut self.links),
            name: std::mem::take(&mut self.name),
            kind: self.kind,
            start_ns: u64::try_from(start_ns).unwrap_or(u64::MAX),
            duration: self.started.elapsed(),
            status: self.status,
            attributes: std::mem::take(&mut self.attributes),
        };
        self.tracer.record(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_goes_both_ways_and_rubbish_is_refused() {
        let context = SpanContext::root(true);
        assert_eq!(SpanContext::parse(&context.traceparent()), Some(context));
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        assert_eq!(
            SpanContext::parse(good).map(|context| context.sampled),
            Some(false)
        );
        assert!(SpanContext::parse(&format!("01{}-more", &good[2..])).is_some());
        for bad in [
            "",
            &good[..54],
            &format!("{good}-more"),
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-äf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(SpanContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn errors_and_sampled_spans_are_kept_and_the_ring_is_bounded() {
        let tracer = Tracer::new(TracerOptions {
            sample: 0.0,
            slow: Duration::from_secs(60),
            keep: 3,
        });
        drop(tracer.start("quiet", SpanKind::Server, None));
        assert!(tracer.recent().is_empty());
        for number in 0..5 {
            let mut span = tracer.start(format!("failed {number}"), SpanKind::Server, None);
            span.fail();
        }
        let names: Vec<_> = tracer.recent().iter().map(|span| span.name.clone()).collect();
        assert_eq!(names, ["failed 2", "failed 3", "failed 4"]);
        let root = SpanContext::root(true);
        drop(tracer.start("child", SpanKind::Internal, Some(root)));
        let kept = tracer.trace(root.trace_id);
        assert_eq!((kept.len(), kept[0].parent), (1, Some(root.span_id)));
    }

    #[tokio::test]
    async fn what_runs_inside_a_span_is_below_it() {
        let tracer = Tracer::new(TracerOptions {
            sample: 1.0,
            ..TracerOptions::default()
        });
        assert!(
            tracer
                .start_below_current("nowhere", SpanKind::Internal)
                .is_none()
        );
        let outer = tracer.start("outer", SpanKind::Server, None);
        let inner = outer
            .run(async {
                tracer
                    .start_below_current("inner", SpanKind::Internal)
                    .map(|span| span.context())
            })
            .await;
        assert_eq!(
            inner.map(|context| context.trace_id),
            Some(outer.context().trace_id)
        );
    }
}
