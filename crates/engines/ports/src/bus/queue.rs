//! What waits for one listener: bounded, and what is too much for it is counted.

use super::{BusError, Message, Subscription};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::Notify;

/// How much a slow listener may have waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueOptions {
    /// Messages that wait for one listener, at least 1.
    pub messages: usize,
    /// Bytes of payload that wait for one listener; one message is always kept.
    pub bytes: usize,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            messages: 1_024,
            bytes: 4 << 20,
        }
    }
}

/// The messages that wait for one listener. Putting one in never waits: when it is full, the oldest goes, and the
/// listener is told how many went.
#[derive(Debug, Default)]
pub struct WaitingMessages {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
    lost: u64,
    closed: bool,
}

impl WaitingMessages {
    /// Answers how many older messages had to go.
    pub fn push(&self, message: Message, options: &QueueOptions) -> u64 {
        let mut waiting = self.waiting.lock();
        let mut lost = 0;
        let size = message.payload.len();
        while waiting.messages.len() >= options.messages.max(1) || waiting.bytes + size > options.bytes {
            let Some(oldest) = waiting.messages.pop_front() else {
                break;
            };
            waiting.bytes -= oldest.payload.len();
            lost += 1;
        }
        waiting.lost += lost;
        waiting.bytes += size;
        waiting.messages.push_back(message);
        drop(waiting);
        self.arrived.notify_one();
        lost
    }

    /// Tells the listener that one was lost on the way here, or may have been.
    pub fn lose_one(&self) {
        self.waiting.lock().lost += 1;
        self.arrived.notify_one();
    }

    /// Nothing will come any more; what waits can still be read.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_one();
    }

    fn pop(&self) -> Option<Result<Message, BusError>> {
        let mut waiting = self.waiting.lock();
        if waiting.lost > 0 {
            return Some(Err(BusError::Lagged(std::mem::take(&mut waiting.lost))));
        }
        if let Some(message) = waiting.messages.pop_front() {
            waiting.bytes -= message.payload.len();
            return Some(Ok(message));
        }
        waiting.closed.then_some(Err(BusError::Closed))
    }
}

/// A subscription that reads what waits; with it goes what the engine keeps for it.
pub struct Queued<G> {
    pub queue: Arc<WaitingMessages>,
    /// Stops listening when it is dropped.
    pub guard: G,
}

#[async_trait]
impl<G: Send + Sync> Subscription for Queued<G> {
    /// Safe to drop while it waits: no message is lost by it.
    async fn next(&mut self) -> Result<Message, BusError> {
        loop {
            // A message that arrives between the look and the wait leaves a permit, so the wait ends at once.
            if let Some(answer) = self.queue.pop() {
                return answer;
            }
            self.queue.arrived.notified().await;
        }
    }
}
