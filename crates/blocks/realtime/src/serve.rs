//! From a request to a live connection.

use crate::{
    Outgoing,
    frame::Frame,
    hub::{Hub, Listener, Transport},
    queue::Seen,
    sse, websocket,
};
use axum::{
    extract::{FromRequestParts, WebSocketUpgrade},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use holon_base::ErrorKind;
use holon_web::{ApiError, Caller, MaybeCaller};
use std::{future::Future, sync::Arc};

/// A request for a live connection: a WebSocket upgrade, or `Accept: text/event-stream`.
pub struct LiveRequest {
    transport: Wanted,
    /// What an `EventSource` says when it connects again by itself.
    last_event_id: Option<String>,
    caller: Option<Caller>,
}

enum Wanted {
    WebSocket(WebSocketUpgrade),
    Events,
}

impl LiveRequest {
    pub fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LiveRequest {
    type Rejection = ApiError;

    /// # Errors
    /// 400 for a broken upgrade, 406 for a request that wants neither transport, 401 for a bad credential.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let MaybeCaller(caller) = MaybeCaller::from_request_parts(parts, state).await?;
        let transport = if parts.headers.contains_key(header::UPGRADE) {
            let upgrade = WebSocketUpgrade::from_request_parts(parts, state)
                .await
                .map_err(|rejection| {
                    ApiError::new(ErrorKind::Invalid, "bad-upgrade", rejection.body_text())
                })?;
            Wanted::WebSocket(upgrade)
        } else if accepts_events(&parts.headers) {
            Wanted::Events
        } else {
            return Err(ApiError::new(
                ErrorKind::Invalid,
                "not-acceptable",
                "connect with a WebSocket, or send Accept: text/event-stream",
            )
            .with_status(StatusCode::NOT_ACCEPTABLE));
        };
        let last_event_id = parts
            .headers
            .get("last-event-id")
            .and_then(|value| value.to_str().ok())
            .filter(|id| !id.is_empty())
            .map(str::to_owned);
        Ok(Self {
            transport,
            last_event_id,
            caller,
        })
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|accept| accept.to_ascii_lowercase().contains("text/event-stream"))
    })
}

/// A connection on its way out: what comes first, and what has been sent.
pub(crate) struct Session {
    pub listener: Listener,
    pub backfill: std::vec::IntoIter<Frame>,
    pub seen: Seen,
    /// The cursor of the last message handed to the socket.
    pub last: Option<Arc<str>>,
}

impl Session {
    /// Whether a message is to be sent; if so it counts as sent.
    pub fn admit(&mut self, frame: &Frame) -> bool {
        if !self.seen.is_new(frame) {
            return false;
        }
        if let Some(id) = frame.shared_id() {
            self.last = Some(id);
        }
        true
    }
}

impl Hub {
    /// Serves a live connection in a room from `since` on. Whether the caller may be in the room has been decided
    /// before; what is wrong up to and with the backfill is answered as a problem instead of an upgrade.
    ///
    /// `backfill` is asked once, with the cursor to go on from (SSE's `Last-Event-ID` goes before `since`), and
    /// answers what came after it, oldest first; nothing if there is no cursor. Since messages may be published in
    /// another order than their cursors have, it should reach back a little; what the connection got already is left
    /// out here.
    pub async fn serve<F>(
        self: &Arc<Self>,
        request: LiveRequest,
        room: &str,
        since: Option<String>,
        backfill: impl FnOnce(Option<String>) -> F + Send,
    ) -> Response
    where
        F: Future<Output = Result<Vec<Outgoing>, ApiError>> + Send,
    {
        let transport = match &request.transport {
            Wanted::WebSocket(_) => Transport::WebSocket,
            Wanted::Events => Transport::Events,
        };
        let since = request.last_event_id.or(since);
        let session = match self
            .open(room, transport, request.caller.as_ref(), since, backfill)
            .await
        {
            Ok(session) => session,
            Err(error) => return error.into_response(),
        };
        match request.transport {
            Wanted::WebSocket(upgrade) => websocket::respond(upgrade, session),
            Wanted::Events => sse::respond(session),
        }
    }

    async fn open<F>(
        self: &Arc<Self>,
        room: &str,
        transport: Transport,
        caller: Option<&Caller>,
        since: Option<String>,
        backfill: impl FnOnce(Option<String>) -> F + Send,
    ) -> Result<Session, ApiError>
    where
        F: Future<Output = Result<Vec<Outgoing>, ApiError>> + Send,
    {
        let listener = self.join(room, transport, caller)?;
        self.ready().await;
        let last = since.as_deref().map(Arc::from);
        let backfill = backfill(since)
            .await?
            .iter()
            .map(Frame::from_outgoing)
            .collect::<Result<Vec<_>, _>>()
            .map_err(ApiError::internal)?;
        Ok(Session {
            listener,
            seen: Seen::new(backfill.len() + 2 * self.options.queue_length),
            backfill: backfill.into_iter(),
            last,
        })
    }
}
