//! The bounded queue of one connection.

use crate::frame::Frame;
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::Notify;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It did not read as fast as its room spoke.
    Slow,
    /// Messages were lost on the way here; who resumes from the rows misses nothing.
    Resync,
    /// The node is going away.
    Draining,
    /// The session behind it ended, or it may no longer be here.
    SignedOut,
}

impl End {
    /// The reason in a `bye`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Resync => "resync",
            Self::Draining => "draining",
            Self::SignedOut => "signed-out",
        }
    }

    /// Whether to come back.
    pub fn may_return(self) -> bool {
        self != Self::SignedOut
    }
}

#[derive(Debug)]
struct State {
    frames: VecDeque<Arc<Frame>>,
    end: Option<End>,
}

/// Many push, one takes.
#[derive(Debug)]
pub(crate) struct Queue {
    capacity: usize,
    state: Mutex<State>,
    changed: Notify,
}

impl Queue {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            state: Mutex::new(State {
                frames: VecDeque::new(),
                end: None,
            }),
            changed: Notify::new(),
        }
    }

    /// Never waits. True if the queue overflowed just now: it is empty then, and ends.
    pub fn push(&self, frame: &Arc<Frame>) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return false;
        }
        let is_full = state.frames.len() >= self.capacity;
        if is_full {
            state.frames = VecDeque::new();
            state.end = Some(End::Slow);
        } else {
            state.frames.push_back(Arc::clone(frame));
        }
        drop(state);
        self.changed.notify_one();
        is_full
    }

    /// Ends it: after what waits, or at once for somebody who may no longer listen. The first end counts.
    pub fn end(&self, end: End) {
        let mut state = self.state.lock();
        if end == End::SignedOut {
            state.frames.clear();
            state.end = Some(end);
        }
        state.end.get_or_insert(end);
        drop(state);
        self.changed.notify_one();
    }

    /// The next message that waits already.
    pub fn try_next(&self) -> Option<Arc<Frame>> {
        self.state.lock().frames.pop_front()
    }

    /// Waits for the next message. Cancel-safe.
    pub async fn next(&self) -> Result<Arc<Frame>, End> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(frame) = state.frames.pop_front() {
                    return Ok(frame);
                }
                if let Some(end) = state.end {
                    return Err(end);
                }
            }
            self.changed.notified().await;
        }
    }
}

/// Remembers which messages a connection got, to send none twice: those of the backfill, and the last few.
#[derive(Debug)]
pub(crate) struct Seen {
    capacity: usize,
    order: VecDeque<u64>,
    known: std::collections::HashSet<u64>,
}

impl Seen {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            order: VecDeque::new(),
            known: std::collections::HashSet::new(),
        }
    }

    /// True the first time. Messages without a cursor are always new.
    pub fn is_new(&mut self, frame: &Frame) -> bool {
        let Some(fingerprint) = frame.fingerprint() else {
            return true;
        };
        if !self.known.insert(fingerprint) {
            return false;
        }
        self.order.push_back(fingerprint);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: &str) -> Arc<Frame> {
        Arc::new(Frame::new("post", id, b"{}").unwrap())
    }

    #[tokio::test]
    async fn a_full_queue_is_thrown_away_and_ends() {
        let queue = Queue::new(2);
        assert!(!queue.push(&frame("1")));
        assert!(!queue.push(&frame("2")));
        assert!(queue.push(&frame("3")), "the third overflows");
        assert!(!queue.push(&frame("4")), "overflow is told once");
        assert_eq!(queue.next().await, Err(End::Slow));
    }

    #[tokio::test]
    async fn draining_lets_out_what_waits_and_signing_out_does_not() {
        let queue = Queue::new(8);
        queue.push(&frame("1"));
        queue.end(End::Draining);
        queue.push(&frame("2"));
        assert_eq!(queue.next().await.unwrap().id(), "1");
        assert_eq!(queue.next().await, Err(End::Draining));

        let queue = Queue::new(8);
        queue.push(&frame("1"));
        queue.end(End::Draining);
        queue.end(End::SignedOut);
        assert_eq!(queue.next().await, Err(End::SignedOut));
    }

    #[test]
    fn a_message_is_new_once_while_it_is_remembered() {
        let mut seen = Seen::new(2);
        assert!(seen.is_new(&frame("1")));
        assert!(!seen.is_new(&frame("1")));
        assert!(seen.is_new(&frame("")) && seen.is_new(&frame("")));
        assert!(seen.is_new(&frame("2")) && seen.is_new(&frame("3")));
        assert!(seen.is_new(&frame("1")), "forgotten by now");
    }
}
