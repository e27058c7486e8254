//! Live over server-sent events (WHATWG HTML, 9.2).

use crate::{frame::write_event, serve::Session};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use std::convert::Infallible;
use tokio::time::{Instant, Interval, MissedTickBehavior};

pub(crate) const HEARTBEAT: &[u8] = b"{\"type\":\"heartbeat\"}";
/// Messages that wait are written together up to this size.
const CHUNK_BYTES: usize = 64 << 10;

enum Stage {
    Backfill,
    Live(Interval),
    Over,
}

pub(crate) fn respond(session: Session) -> Response {
    let stream = futures::stream::unfold((session, Stage::Backfill), |(session, stage)| async {
        let (bytes, session, stage) = step(session, stage).await?;
        Some((Ok::<Bytes, Infallible>(bytes), (session, stage)))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Tells nginx, and what learnt from it, not to hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The next bytes to write; `None` at the end.
async fn step(mut session: Session, stage: Stage) -> Option<(Bytes, Session, Stage)> {
    let mut out = BytesMut::new();
    match stage {
        Stage::Backfill => {
            // Also makes the client's `onopen` fire at once.
            out.extend_from_slice(b"retry: 2000\n\n");
            while let Some(frame) = session.backfill.next() {
                if session.admit(&frame) {
                    frame.write_event(&mut out);
                }
            }
            let period = session.listener.hub().options.heartbeat;
            let mut heartbeat = tokio::time::interval_at(Instant::now() + period, period);
            heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            Some((out.freeze(), session, Stage::Live(heartbeat)))
        }
        Stage::Live(mut heartbeat) => {
            while out.is_empty() {
                tokio::select! {
                    next = session.listener.next() => match next {
                        Ok(frame) => {
                            let mut next = Some(frame);
                            while let Some(frame) = next.take() {
                                if session.admit(&frame) {
                                    frame.write_event(&mut out);
                                }
                                if out.len() < CHUNK_BYTES {
                                    next = session.listener.try_next();
                                }
                            }
                        }
                        Err(end) => {
                            let bye = session.listener.hub().bye(end, session.last.as_deref());
                            write_event(&mut out, "bye", "", &bye);
                            return Some((out.freeze(), session, Stage::Over));
                        }
                    },
                    _ = heartbeat.tick() => write_event(&mut out, "heartbeat", "", HEARTBEAT),
                }
            }
            Some((out.freeze(), session, Stage::Live(heartbeat)))
        }
        Stage::Over => None,
    }
}
