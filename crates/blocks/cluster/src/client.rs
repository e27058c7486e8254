//! Calls other nodes, over one connection to each.

use crate::{
    call::{CallError, MESSAGE_BYTES, Request as Asked},
    cluster::Core,
    wire::{Head, PATH, Plain, error_of},
};
use bytes::Bytes;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use std::{collections::HashMap, net::SocketAddr, time::Duration};
use tokio::time::Instant;
use tonic::{
    Request,
    client::Grpc,
    transport::{Channel, Endpoint},
};

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a connection may be silent, while a call waits, before it is tried, and how long that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The longest that a call can take.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// A process of a node: its number, its generation, and where it is.
type Peer = (u16, u64, SocketAddr);

/// The connections of this node, each made when it is first needed.
#[derive(Default)]
pub(crate) struct Channels(Mutex<HashMap<Peer, Channel>>);

impl Channels {
    fn channel(&self, peer: Peer) -> Result<Channel, CallError> {
        let mut channels = self.0.lock();
        if let Some(channel) = channels.get(&peer) {
            return Ok(channel.clone());
        }
        let (node, _, address) = peer;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| CallError::Invalid(error.to_string()))?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let channel = endpoint.connect_lazy();
        // The processes before this one under its number are no more.
        channels.retain(|(other, _, _), _| *other != node);
        channels.insert(peer, channel.clone());
        Ok(channel)
    }
}

/// Asks another node. Its deadline is the request's.
pub(crate) async fn ask(core: &Core, peer: Peer, asked: &Asked) -> Result<Bytes, CallError> {
    let (node, ..) = peer;
    let timeout = asked
        .deadline
        .saturating_duration_since(Instant::now())
        .min(LONGEST);
    if timeout.is_zero() {
        return Err(CallError::Deadline { node });
    }
    if asked.body.len() > MESSAGE_BYTES {
        return Err(CallError::Invalid(format!(
            "a request of {} bytes is above the limit of {MESSAGE_BYTES}",
            asked.body.len()
        )));
    }
    let head = Head {
        service: asked.service.clone(),
        shard: asked.shard,
        method: asked.method.clone(),
        is_read: asked.is_read,
        from: core.node,
        to: node,
        sent: core.clock.now(),
        timeout,
        traceparent: holon_base::trace::current().map(|trace| trace.to_string()),
    };
    let mut request = Request::new(asked.body.clone());
    head.write(&core.key, &asked.body, request.metadata_mut())?;
    let mut grpc = Grpc::new(core.channels.channel(peer)?)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let asking = async {
        grpc.ready().await.map_err(|error| CallError::Unavailable {
            node,
            detail: error.to_string(),
        })?;
        let answer = grpc.unary(request, PathAndQuery::from_static(PATH), Plain).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| error_of(node, &status))
    };
    tokio::time::timeout(timeout, asking)
        .await
        .unwrap_or(Err(CallError::Deadline { node }))
}
