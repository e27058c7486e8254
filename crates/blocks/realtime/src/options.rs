//! What can be set, with defaults that suit a browser.

use std::{ops::Range, time::Duration};

/// Limits and times of a [`crate::Hub`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// A sign of life goes out this often; proxies close what is silent for 30 to 60 s.
    pub heartbeat: Duration,
    /// Messages that wait for one connection before it counts as slow.
    pub queue_length: usize,
    /// How long one message may take to be written before the connection is given up.
    pub write_timeout: Duration,
    /// Connections of one account, long polls included.
    pub connections_per_caller: usize,
    /// Connections of this node.
    pub connections: usize,
    /// The largest message that a WebSocket client may send, in bytes.
    pub client_message_bytes: usize,
    /// Where `bye` draws its `retryAfterMs` from.
    pub retry_after: Range<Duration>,
    /// How long [`crate::Hub::drain`] waits for connections to leave.
    pub drain_timeout: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            queue_length: 256,
            write_timeout: Duration::from_secs(10),
            connections_per_caller: 32,
            connections: 100_000,
            client_message_bytes: 4 << 10,
            retry_after: Duration::from_millis(500)..Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
        }
    }
}
