//! The listener: accepting connections, and leaving without dropping anybody's request.
//!
//! Draining goes: `/readyz` turns 503; after the notice the listener closes; live connections are told to go
//! ([`crate::serve::AppBuilder::on_drain`]) while each other connection ends after the request that it is in; what is
//! left when the time is over is cut off.

use crate::serve::App;
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{convert::Infallible, future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tower::Service as _;

/// Headers of a request beyond this are refused with 431.
const MOST_HEADERS: usize = 100;
/// The head of a request and what is read ahead of its body.
const HEAD_BYTES: usize = 64 << 10;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 256;

impl App {
    /// Serves until `shutdown`, then drains. Answers how many connections had to be cut off.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> usize {
        let mut shutdown = pin!(shutdown);
        let connections = Arc::new(Semaphore::new(self.options.connections));
        let (leave, leaving) = watch::channel(false);
        let (cut, cutting) = watch::channel(false);
        // Each connection holds a receiver; when none is left, all have ended.
        let open = watch::Sender::new(());
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.head_time)
            .max_headers(MOST_HEADERS)
            .max_buf_size(HEAD_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_BYTES as u32)
            .keep_alive_interval(Some(Duration::from_secs(30)));
        let builder = Arc::new(builder);

        let mut notice = pin!(async {
            shutdown.as_mut().await;
            self.begin_draining();
            tokio::time::sleep(self.options.drain_notice).await;
        });
        loop {
            let (stream, peer, permit) = tokio::select! {
                accepted = accept(&listener, &connections) => accepted,
                () = &mut notice => break,
            };
            let connection = Connection {
                builder: Arc::clone(&builder),
                router: self.router.clone(),
                peer,
                leaving: leaving.clone(),
                cutting: cutting.clone(),
            };
            let held = (permit, open.subscribe());
            tokio::spawn(async move {
                connection.run(stream).await;
                drop(held);
            });
        }
        drop(listener);
        leave.send_replace(true);
        let drained = async {
            tokio::join!(self.run_drain_hooks(), open.closed());
        };
        if tokio::time::timeout(self.options.drain_time, drained)
            .await
            .is_ok()
        {
            return 0;
        }
        let left = open.receiver_count();
        tracing::warn!(connections = left, "draining took too long; cutting off");
        cut.send_replace(true);
        left
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<tokio::sync::OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let permit = Arc::clone(connections).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            Err(error) => {
                // Out of descriptors, mostly; the others will close some.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Connection {
    builder: Arc<auto::Builder<TokioExecutor>>,
    router: Router,
    peer: SocketAddr,
    leaving: watch::Receiver<bool>,
    cutting: watch::Receiver<bool>,
}

impl Connection {
    async fn run(mut self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (router, peer) = (self.router, self.peer);
        let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let mut router = router.clone();
            async move { Ok::<_, Infallible>(router.call(request).await.unwrap_or_else(|never| match never {})) }
        });
        let mut serving = pin!(
            self.builder
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = told(&mut self.leaving) => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = serving.as_mut() => ended,
                    () = told(&mut self.cutting) => return,
                }
            }
        };
        if let Err(error) = ended {
            // Clients that go away, and what is no HTTP.
            tracing::debug!(%error, %peer, "a connection ended badly");
        }
    }
}

/// Waits until it is true, or nobody is left who could say so.
async fn told(receiver: &mut watch::Receiver<bool>) {
    let _ = receiver.wait_for(|told| *told).await;
}
