//! Live over WebSocket (RFC 6455).

use crate::{End, serve::Session};
use axum::{
    extract::{
        WebSocketUpgrade,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket},
    },
    response::Response,
};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Silence of this many heartbeats means that the client is gone: it has answered no ping.
const SILENT_HEARTBEATS: u32 = 3;

pub(crate) fn respond(upgrade: WebSocketUpgrade, session: Session) -> Response {
    let most = session.listener.hub().options.client_message_bytes;
    upgrade
        .max_message_size(most)
        .max_frame_size(most)
        .on_upgrade(|socket| run(socket, session))
}

/// Until the client leaves, or is to leave.
async fn run(mut socket: WebSocket, mut session: Session) {
    let hub = session.listener.hub().clone();
    let patience = hub.options.write_timeout;
    while let Some(frame) = session.backfill.next() {
        if session.admit(&frame) && send_text(&mut socket, frame.json(), patience).await.is_err() {
            return;
        }
    }
    let period = hub.options.heartbeat;
    let mut heartbeat = tokio::time::interval_at(Instant::now() + period, period);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_heard = Instant::now();
    loop {
        // What the client sends is looked at first, so that after a pause of the process its answer to a ping counts
        // before its silence does.
        let sent = tokio::select! {
            biased;
            received = socket.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {
                    last_heard = Instant::now();
                    Ok(())
                }
            },
            next = session.listener.next() => match next {
                Ok(frame) if session.admit(&frame) => {
                    send_text(&mut socket, frame.json(), patience).await
                }
                Ok(_) => Ok(()),
                Err(end) => {
                    let bye = hub.bye(end, session.last.as_deref());
                    let _ = send_text(&mut socket, &bye, patience).await;
                    let _ = send(&mut socket, Message::Close(Some(close_frame(end))), patience).await;
                    // The client answers with its own close, which lets both ends know that nothing is under way.
                    let _ = tokio::time::timeout(patience, until_closed(&mut socket)).await;
                    return;
                }
            },
            _ = heartbeat.tick() => {
                if last_heard.elapsed() > period * SILENT_HEARTBEATS {
                    return;
                }
                beat(&mut socket, patience).await
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The socket takes nothing any more.
struct Gone;

async fn send(socket: &mut WebSocket, message: Message, patience: Duration) -> Result<(), Gone> {
    match tokio::time::timeout(patience, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Gone),
    }
}

async fn send_text(socket: &mut WebSocket, json: &Bytes, patience: Duration) -> Result<(), Gone> {
    let text = Utf8Bytes::try_from(json.clone()).map_err(|_| Gone)?;
    send(socket, Message::Text(text), patience).await
}

/// One sign of life for scripts, which see no pings, and one that makes the other side answer.
async fn beat(socket: &mut WebSocket, patience: Duration) -> Result<(), Gone> {
    send_text(socket, &Bytes::from_static(crate::sse::HEARTBEAT), patience).await?;
    send(socket, Message::Ping(Bytes::new()), patience).await
}

async fn until_closed(socket: &mut WebSocket) {
    while let Some(Ok(_)) = socket.recv().await {}
}

fn close_frame(end: End) -> CloseFrame {
    // 1012 and 1013 are "service restart" and "try again later" in IANA's registry; 4000 up are an application's own.
    let code = match end {
        End::Draining | End::Resync => 1012,
        End::Slow => 1013,
        End::SignedOut => 4401,
    };
    CloseFrame {
        code,
        reason: end.reason().into(),
    }
}
