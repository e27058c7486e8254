//! Answers calls of other nodes.

use crate::{
    call::{CallError, MESSAGE_BYTES, Request as Asked},
    cluster::Core,
    wire::{Head, PATH, Plain, status_of},
};
use bytes::Bytes;
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::TcpListener, time::Instant};
use tonic::{Request, Response, Status, body::Body, server::Grpc, transport::server::TcpIncoming};
use tower::Service;

/// How far the clocks of two nodes may be apart before a call is taken for one that was overtaken by time.
const SKEW: Duration = Duration::from_secs(2);
/// Calls older than this are refused, whatever their code: somebody may have kept them.
const OLDEST: Duration = Duration::from_secs(90);
/// Calls of one connection that are answered at once; more are told to come later.
const AT_ONCE: usize = 512;
/// How long a connection may be silent before it is tried.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Serves until `stop` ends, and then finishes what is in hand.
pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = tonic::transport::Server::builder()
        .concurrency_limit_per_connection(AT_ONCE)
        .load_shed(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .serve_with_incoming_shutdown(Calls(core), incoming, stop)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "calls of other nodes are not answered any more");
    }
}

/// The service as a gRPC server takes it.
#[derive(Clone)]
struct Calls(Arc<Core>);

type Answering<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = Method(Arc::clone(&self.0));
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("there is no such method").into_http());
            }
            let mut grpc = Grpc::new(Plain)
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES);
            Ok(grpc.unary(method, request).await)
        })
    }
}

/// The one method.
struct Method(Arc<Core>);

impl tonic::server::UnaryService<Bytes> for Method {
    type Response = Bytes;
    type Future = Answering<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let core = Arc::clone(&self.0);
        Box::pin(async move {
            let arrived = Instant::now();
            let (metadata, _, body) = request.into_parts();
            let head = Head::read(&core.key, &body, &metadata)?;
            if head.to != core.node {
                let detail = format!("it was meant for node {}", head.to);
                return Err(status_of(&CallError::Refused {
                    node: core.node,
                    detail,
                }));
            }
            let deadline = deadline(&core, &head, arrived).map_err(|error| status_of(&error))?;
            let asked = Asked {
                service: head.service,
                shard: head.shard,
                method: head.method,
                body,
                deadline,
                is_read: head.is_read,
            };
            let answering = core.answer(asked);
            let answer = match head.traceparent {
                Some(trace) => holon_base::trace::scope(trace, answering).await,
                None => answering.await,
            };
            answer.map(Response::new).map_err(|error| status_of(&error))
        })
    }
}

/// When the caller stops waiting. A node that was frozen finds calls in its socket when it wakes whose callers have gone
/// long since: by the time at which they were sent, they are not begun.
fn deadline(core: &Core, head: &Head, arrived: Instant) -> Result<Instant, CallError> {
    let now = core.clock.now();
    let under_way = now.since(head.sent);
    let is_ahead = head.sent.since(now) > SKEW;
    if under_way > OLDEST || is_ahead {
        return Err(CallError::Refused {
            node: core.node,
            detail: "it was sent at another time; are the clocks right?".into(),
        });
    }
    let overdue = under_way.saturating_sub(SKEW);
    if overdue >= head.timeout {
        return Err(CallError::Deadline { node: core.node });
    }
    Ok(arrived + (head.timeout - overdue))
}
