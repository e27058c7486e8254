//! Export of traces by OTLP over HTTP in its JSON encoding (OpenTelemetry Protocol 1.x), to a collector on a plain
//! `http://` endpoint.
//!
//! Spans go in batches of up to 512, at least every two seconds. When the collector is away a batch is tried three times
//! and then dropped, with a count; the queue before it holds 8,192 spans. The protocol is a POST of one JSON document,
//! for which the HTTP client that is in the tree already is enough; the SDK would double the cold build of this crate.

use crate::trace::{SpanContext, SpanKind, SpanRecord, SpanStatus, Tracer};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::mpsc;

const QUEUE: usize = 8_192;
const BATCH: usize = 512;
const FLUSH_EVERY: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(10);

/// A running exporter. Dropping it stops it after what is in hand.
#[derive(Debug)]
pub struct OtlpExporter {
    task: tokio::task::JoinHandle<()>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    failed: AtomicU64,
}

/// An endpoint that spans cannot be sent to.
#[derive(Debug, thiserror::Error)]
#[error("OTLP endpoint {0:?} must be an http:// address such as http://127.0.0.1:4318")]
pub struct EndpointError(String);

impl OtlpExporter {
    /// Starts sending the tracer's spans to `endpoint` + `/v1/traces`, as `service` (`service.name`).
    ///
    /// # Errors
    /// When the endpoint is not a plain HTTP address.
    pub fn start(tracer: &Tracer, endpoint: &str, service: &str) -> Result<Self, EndpointError> {
        let uri: http::Uri = format!("{}/v1/traces", endpoint.trim_end_matches('/'))
            .parse()
            .map_err(|_| EndpointError(endpoint.to_owned()))?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            return Err(EndpointError(endpoint.to_owned()));
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        tracer.export_to(sender);
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(run(receiver, uri, service.to_owned(), Arc::clone(&counts)));
        Ok(Self { task, counts })
    }

    /// Spans that a collector took.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Relaxed)
    }

    /// Spans that were given up on.
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Relaxed)
    }

    /// Sends what is left and ends; the tracer must have been dropped or given another exporter.
    pub async fn finish(self) {
        let _ = tokio::time::timeout(TIMEOUT, self.task).await;
    }
}

async fn run(
    mut spans: mpsc::Receiver<Arc<SpanRecord>>,
    uri: http::Uri,
    service: String,
    counts: Arc<Counts>,
) {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    loop {
        let Some(first) = spans.recv().await else { return };
        let mut batch = vec![first];
        let deadline = tokio::time::sleep(FLUSH_EVERY);
        tokio::pin!(deadline);
        while batch.len() < BATCH {
            tokio::select! {
                span = spans.recv() => match span {
                    Some(span) => batch.push(span),
                    None => break,
                },
                () = &mut deadline => break,
            }
        }
        let body = Bytes::from(document(&batch, &service).to_string());
        let sent = send(&client, &uri, body).await;
        let counter = if sent { &counts.sent } else { &counts.failed };
        counter.fetch_add(batch.len() as u64, Relaxed);
    }
}

async fn send(client: &Client<HttpConnector, Full<Bytes>>, uri: &http::Uri, body: Bytes) -> bool {
    for attempt in 1..=ATTEMPTS {
        let request = http::Request::post(uri.clone())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()));
        let Ok(request) = request else { return false };
        match tokio::time::timeout(TIMEOUT, client.request(request)).await {
            Ok(Ok(answer)) => {
                let status = answer.status();
                let _ = answer.into_body().collect().await;
                if status.is_success() {
                    return true;
                }
                // The protocol names these as the ones to try again.
                if !matches!(status.as_u16(), 429 | 502 | 503 | 504) {
                    tracing::warn!(%status, "collector refused spans");
                    return false;
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, attempt, "collector is away"),
            Err(_) => tracing::debug!(attempt, "collector does not answer"),
        }
        if attempt < ATTEMPTS {
            tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
        }
    }
    tracing::warn!("spans were dropped: the collector is away");
    false
}

/// The `ExportTraceServiceRequest` of the protocol: ids in hexadecimal, 64-bit numbers as strings.
fn document(spans: &[Arc<SpanRecord>], service: &str) -> Value {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let spans: Vec<Value> = spans
        .iter()
        .map(|span| {
            let ids = |context: &SpanContext| {
                (
                    format!("{:032x}", context.trace_id),
                    format!("{:016x}", context.span_id),
                )
            };
            let (trace_id, span_id) = ids(&span.context);
            let kind = match span.kind {
                SpanKind::Internal => 1,
                SpanKind::Server => 2,
                SpanKind::Client => 3,
                SpanKind::Producer => 4,
                SpanKind::Consumer => 5,
            };
            let links: Vec<Value> = span
                .links
                .iter()
                .map(|link| {
                    let (trace_id, span_id) = ids(link);
                    json!({"traceId": trace_id, "spanId": span_id})
                })
                .collect();
            let end_ns = span.start_ns.saturating_add(span.duration.as_nanos() as u64);
            json!({
                "traceId": trace_id,
                "spanId": span_id,
                "parentSpanId": span.parent.map(|id| format!("{id:016x}")).unwrap_or_default(),
                "name": span.name,
                "kind": kind,
                "startTimeUnixNano": span.start_ns.to_string(),
                "endTimeUnixNano": end_ns.to_string(),
                "attributes": span.attributes.iter().map(|(key, value)| text(key, value)).collect::<Vec<_>>(),
                "links": links,
                "status": {"code": if span.status == SpanStatus::Error { 2 } else { 1 }},
            })
        })
        .collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": [text("service.name", service)]},
        "scopeSpans": [{"scope": {"name": "holon"}, "spans": spans}],
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TracerOptions;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// A collector that answers each request with the next status and hands on the bodies.
    async fn collector(statuses: &'static [u16]) -> (String, mpsc::Receiver<Value>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sender, bodies) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut statuses = statuses.iter().chain(std::iter::repeat(&200));
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                while let Ok(read) = stream.read_buf(&mut bytes).await {
                    let text = String::from_utf8_lossy(&bytes).to_string();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let length =
                            head.to_lowercase().split("content-length: ").nth(1).map(|rest| {
                                rest.split("\r\n").next().unwrap_or("0").parse::<usize>().unwrap()
                            });
                        if body.len() == length.unwrap_or(0) {
                            assert!(head.starts_with("POST /v1/traces "), "{head}");
                            sender.send(serde_json::from_str(body).unwrap()).await.unwrap();
                            let status = statuses.next().unwrap();
                            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}");
                            stream.write_all(answer.as_bytes()).await.unwrap();
                            bytes.clear();
                        }
                    }
                    if read == 0 {
                        break;
                    }
                }
            }
        });
        (address, bodies)
    }

    #[tokio::test]
    async fn spans_reach_a_collector_that_was_busy_at_first() {
        let (address, mut bodies) = collector(&[503]).await;
        let tracer = Tracer::new(TracerOptions {
            sample: 1.0,
            ..TracerOptions::default()
        });
        let exporter = OtlpExporter::start(&tracer, &address, "holon-test").unwrap();
        let mut span = tracer.start("GET /x", SpanKind::Server, None);
        span.attribute("http.route", "/x");
        let trace_id = format!("{:032x}", span.context().trace_id);
        drop(span);
        drop(tracer);
        let (refused, taken) = (bodies.recv().await.unwrap(), bodies.recv().await.unwrap());
        assert_eq!(refused, taken);
        let sent = &taken["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(sent["traceId"], trace_id.as_str());
        assert_eq!(sent["attributes"][0]["value"]["stringValue"], "/x");
        exporter.finish().await;
    }

    #[tokio::test]
    async fn spans_are_dropped_and_counted_while_the_collector_is_away() {
        // Bound and never accepting would hang; closed again, it refuses.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let tracer = Tracer::new(TracerOptions {
            sample: 1.0,
            ..TracerOptions::default()
        });
        let exporter = OtlpExporter::start(&tracer, &address, "holon-test").unwrap();
        let counts = Arc::clone(&exporter.counts);
        for _ in 0..3 {
            drop(tracer.start("GET /x", SpanKind::Server, None));
        }
        drop(tracer);
        exporter.finish().await;
        assert_eq!((counts.sent.load(Relaxed), counts.failed.load(Relaxed)), (0, 3));
    }

    #[tokio::test]
    async fn an_endpoint_that_cannot_be_reached_in_the_clear_is_refused() {
        let tracer = Tracer::new(TracerOptions::default());
        for bad in ["https://x", "x", "", "http://"] {
            assert!(OtlpExporter::start(&tracer, bad, "x").is_err(), "{bad}");
        }
    }
}
