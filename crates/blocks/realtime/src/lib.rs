//! Rooms: whoever is in one sees what is published to it, within moments, over WebSocket, server-sent events or long
//! polling.
//!
//! # How it works
//!
//! A [`Hub`] per node holds the connections of that node by room. A publication goes over the bus to all nodes; each
//! hands it to the connections that it has in those rooms. The bus may lose messages and a hub keeps none, so the
//! truth is elsewhere: in rows. Every publication carries an `id`, the *cursor* of its place in those rows, and a
//! client that was away says the last one it saw (`since`, or SSE's `Last-Event-ID`). Then
//!
//! 1. the hub puts the connection into its room, so that from here on nothing is missed,
//! 2. the caller's *backfill* reads from the rows what came after the cursor,
//! 3. the backfill is sent, then what the room got meanwhile, without what the backfill had already.
//!
//! # Slow readers
//!
//! A connection has a queue of bounded length. When it is full the queue is thrown away and the connection ends with
//! a `bye` that holds the last cursor handed to it: the client resumes from there and misses nothing. A publisher
//! never waits for a reader. The same `bye` ends connections when the bus itself lost messages, when the session behind
//! a connection ends, and when the node drains; it says after how many milliseconds to come back, spread at random so
//! that not all come at once.
//!
//! # On the wire
//!
//! A message is one JSON object: the published object with `type` and `since` in front (`since` only if it has a
//! cursor). Over WebSocket it is a text message; over SSE it is the data of an event named like its type, whose id is
//! the cursor. `heartbeat` and `bye` come from the hub itself. What a WebSocket client sends is ignored.

mod frame;
mod hub;
mod options;
mod poll;
mod queue;
mod serve;
mod sse;
mod websocket;

pub use frame::{Frame, Outgoing};
pub use hub::{Connection, Hub, HubStats, Listener, Transport};
pub use options::HubOptions;
pub use queue::End;
pub use serve::LiveRequest;

/// Why something was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RealtimeError {
    #[error("invalid publication: {0}")]
    Invalid(&'static str),
    #[error(transparent)]
    Bus(#[from] holon_ports::BusError),
}
