//! Bus in one process: a map from subjects to the queues of those who listen.
//!
//! A publisher looks up its subject, and each of its prefixes that ends in a dot, in two hash maps: the cost grows
//! with the depth of the subject and the number of listeners that match, not with how many listen in all. Publishing
//! never waits: a listener has a bounded queue, and when it is full the oldest message goes and is counted, as the
//! port says. Since a publisher puts its message into all queues before it returns, order holds per publisher.

use async_trait::async_trait;
use bytes::Bytes;
use holon_ports::bus::{MESSAGE_BYTES, SUBJECT_BYTES};
use holon_ports::{Bus, BusError, Message, Subscription};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::Notify;

/// How much a slow listener may have waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusOptions {
    /// Messages that wait for one listener, at least 1.
    pub queue_messages: usize,
    /// Bytes of payload that wait for one listener; one message is always kept.
    pub queue_bytes: usize,
}

impl Default for BusOptions {
    fn default() -> Self {
        Self {
            queue_messages: 1_024,
            queue_bytes: 4 << 20,
        }
    }
}

/// What the bus has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BusStats {
    pub listeners: u64,
    pub published: u64,
    pub delivered: u64,
    /// Messages that slow listeners lost.
    pub lost: u64,
}

/// The bus of one process. Dropping it ends its subscriptions once they have read what waits for them.
pub struct EmbeddedBus {
    options: BusOptions,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    listeners: RwLock<Listeners>,
    published: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
}

#[derive(Default)]
struct Listeners {
    closed: bool,
    exact: HashMap<String, Vec<Arc<Queue>>>,
    /// By what comes before the `>`: empty, or ending in a dot.
    below: HashMap<String, Vec<Arc<Queue>>>,
}

impl Listeners {
    fn matching<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = &'a Arc<Queue>> {
        let prefixes = subject.match_indices('.').map(|(dot, _)| &subject[..=dot]);
        let below = std::iter::once("")
            .chain(prefixes)
            .filter_map(|prefix| self.below.get(prefix));
        self.exact.get(subject).into_iter().chain(below).flatten()
    }
}

struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
    lost: u64,
    closed: bool,
}

impl Queue {
    /// Answers how many older messages had to go.
    fn push(&self, message: Message, options: &BusOptions) -> u64 {
        let mut waiting = self.waiting.lock();
        let mut lost = 0;
        let size = message.payload.len();
        while waiting.messages.len() >= options.queue_messages.max(1)
            || waiting.bytes + size > options.queue_bytes
        {
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

impl Default for EmbeddedBus {
    fn default() -> Self {
        Self::new(BusOptions::default())
    }
}

impl EmbeddedBus {
    pub fn new(options: BusOptions) -> Self {
        Self {
            options,
            shared: Arc::default(),
        }
    }

    pub fn stats(&self) -> BusStats {
        let listeners = self.shared.listeners.read();
        let count = |map: &HashMap<String, Vec<Arc<Queue>>>| map.values().map(Vec::len).sum::<usize>();
        BusStats {
            listeners: (count(&listeners.exact) + count(&listeners.below)) as u64,
            published: self.shared.published.load(Ordering::Relaxed),
            delivered: self.shared.delivered.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
        }
    }

    /// Refuses what is published from now on, and ends each subscription once it has read what waits for it.
    pub fn close(&self) {
        let mut listeners = self.shared.listeners.write();
        listeners.closed = true;
        let exact = std::mem::take(&mut listeners.exact);
        let below = std::mem::take(&mut listeners.below);
        for queue in exact.into_values().chain(below.into_values()).flatten() {
            queue.waiting.lock().closed = true;
            queue.arrived.notify_one();
        }
    }
}

impl Drop for EmbeddedBus {
    fn drop(&mut self) {
        self.close();
    }
}

fn check_subject(subject: &str) -> Result<(), BusError> {
    let invalid = |why: &str| {
        Err(BusError::Invalid(format!(
            "{:?} {why}",
            subject.chars().take(64).collect::<String>()
        )))
    };
    if subject.len() > SUBJECT_BYTES {
        return invalid("is too long");
    }
    if subject.split('.').any(str::is_empty) {
        return invalid("has an empty part");
    }
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
    if subject.contains(forbidden) {
        return invalid("holds a character that no subject may hold");
    }
    Ok(())
}

#[async_trait]
impl Bus for EmbeddedBus {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        check_subject(subject)?;
        if payload.len() > MESSAGE_BYTES {
            return Err(BusError::TooLarge {
                size: payload.len(),
                limit: MESSAGE_BYTES,
            });
        }
        let listeners = self.shared.listeners.read();
        if listeners.closed {
            return Err(BusError::Closed);
        }
        let (mut delivered, mut lost) = (0, 0);
        for queue in listeners.matching(subject) {
            let message = Message {
                subject: subject.to_owned(),
                payload: payload.clone(),
            };
            lost += queue.push(message, &self.options);
            delivered += 1;
        }
        drop(listeners);
        self.shared.published.fetch_add(1, Ordering::Relaxed);
        self.shared.delivered.fetch_add(delivered, Ordering::Relaxed);
        if lost > 0 {
            self.shared.lost.fetch_add(lost, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn subscribe(&self, pattern: &str) -> Result<Box<dyn Subscription>, BusError> {
        let below = match pattern.strip_suffix('>') {
            Some("") => true,
            Some(prefix) => {
                let Some(parent) = prefix.strip_suffix('.') else {
                    return Err(BusError::Invalid("'>' stands alone or after a dot".into()));
                };
                check_subject(parent)?;
                true
            }
            None => {
                check_subject(pattern)?;
                false
            }
        };
        let key = pattern.strip_suffix('>').unwrap_or(pattern).to_owned();
        let queue = Arc::new(Queue {
            waiting: Mutex::default(),
            arrived: Notify::new(),
        });
        let mut listeners = self.shared.listeners.write();
        if listeners.closed {
            return Err(BusError::Closed);
        }
        let map = if below {
            &mut listeners.below
        } else {
            &mut listeners.exact
        };
        map.entry(key.clone()).or_default().push(Arc::clone(&queue));
        Ok(Box::new(EmbeddedSubscription {
            key,
            below,
            queue,
            shared: Arc::downgrade(&self.shared),
        }))
    }
}

struct EmbeddedSubscription {
    key: String,
    below: bool,
    queue: Arc<Queue>,
    shared: Weak<Shared>,
}

#[async_trait]
impl Subscription for EmbeddedSubscription {
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

impl Drop for EmbeddedSubscription {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut listeners = shared.listeners.write();
        let map = if self.below {
            &mut listeners.below
        } else {
            &mut listeners.exact
        };
        if let Some(queues) = map.get_mut(&self.key) {
            queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
            if queues.is_empty() {
                map.remove(&self.key);
            }
        }
    }
}
