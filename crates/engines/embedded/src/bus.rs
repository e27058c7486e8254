//! Bus in one process: a map from subjects to the queues of those who listen.
//!
//! A publisher looks up its subject, and each of its prefixes that ends in a dot, in two hash maps: the cost grows
//! with the depth of the subject and the number of listeners that match, not with how many listen in all. Publishing
//! never waits: a listener has a bounded queue, and when it is full the oldest message goes and is counted, as the
//! port says. Since a publisher puts its message into all queues before it returns, order holds per publisher.

use async_trait::async_trait;
use bytes::Bytes;
use holon_ports::bus::{Pattern, QueueOptions, Queued, WaitingMessages, check_message};
use holon_ports::{Bus, BusError, Message, Subscription};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

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
    options: QueueOptions,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    listeners: RwLock<Listeners>,
    published: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
}

type ByKey = HashMap<String, Vec<Arc<WaitingMessages>>>;

#[derive(Default)]
struct Listeners {
    closed: bool,
    exact: ByKey,
    /// By what comes before the `>`: empty, or ending in a dot.
    below: ByKey,
}

impl Listeners {
    fn matching<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = &'a Arc<WaitingMessages>> {
        let prefixes = subject.match_indices('.').map(|(dot, _)| &subject[..=dot]);
        let below = std::iter::once("")
            .chain(prefixes)
            .filter_map(|prefix| self.below.get(prefix));
        self.exact.get(subject).into_iter().chain(below).flatten()
    }

    /// The map that a pattern belongs into, and its key there.
    fn of<'a>(&mut self, pattern: Pattern<'a>) -> (&mut ByKey, &'a str) {
        match pattern {
            Pattern::Exactly(subject) => (&mut self.exact, subject),
            Pattern::Below(prefix) => (&mut self.below, prefix),
        }
    }
}

impl Default for EmbeddedBus {
    fn default() -> Self {
        Self::new(QueueOptions::default())
    }
}

impl EmbeddedBus {
    pub fn new(options: QueueOptions) -> Self {
        Self {
            options,
            shared: Arc::default(),
        }
    }

    pub fn stats(&self) -> BusStats {
        let listeners = self.shared.listeners.read();
        let count = |map: &ByKey| map.values().map(Vec::len).sum::<usize>();
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
            queue.close();
        }
    }
}

impl Drop for EmbeddedBus {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Bus for EmbeddedBus {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        check_message(subject, &payload)?;
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
        let pattern = Pattern::parse(pattern)?;
        let queue = Arc::<WaitingMessages>::default();
        let mut listeners = self.shared.listeners.write();
        if listeners.closed {
            return Err(BusError::Closed);
        }
        let (map, key) = listeners.of(pattern);
        map.entry(key.to_owned()).or_default().push(Arc::clone(&queue));
        let guard = Listener {
            key: key.to_owned(),
            is_below: matches!(pattern, Pattern::Below(_)),
            queue: Arc::clone(&queue),
            shared: Arc::downgrade(&self.shared),
        };
        Ok(Box::new(Queued { queue, guard }))
    }
}

/// Takes its queue out of the map when the subscription goes.
struct Listener {
    key: String,
    is_below: bool,
    queue: Arc<WaitingMessages>,
    shared: Weak<Shared>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut listeners = shared.listeners.write();
        let (map, key) = listeners.of(match self.is_below {
            true => Pattern::Below(&self.key),
            false => Pattern::Exactly(&self.key),
        });
        if let Some(queues) = map.get_mut(key) {
            queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
            if queues.is_empty() {
                map.remove(key);
            }
        }
    }
}
