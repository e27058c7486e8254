//! Telling other nodes what changed, over the bus.
//!
//! A message is the number of the node that sent it, then changes: a byte for what happened, two for the length of
//! the key, the key. Changes that wait go out together. The bus may lose messages: a listener that is told so forgets
//! everything, and one that is not told is wrong for no longer than an entry is used without asking Redis.

use crate::local::Local;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use holon_ports::{Bus, BusError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Changes that wait to be told; beyond, nodes are told to forget everything.
const QUEUE: usize = 8_192;
/// A message is sent once it is this large, far below what a bus takes.
const MESSAGE_BYTES: usize = 32 << 10;
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Written,
    Loaded,
    Everything,
}

#[derive(Debug, PartialEq, Eq)]
struct Change {
    what: What,
    key: String,
}

/// Counts since start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// Both directions; stops when dropped.
pub(crate) struct Invalidation {
    changes: mpsc::Sender<Change>,
    counts: Arc<Counts>,
    tasks: [AbortHandle; 2],
}

impl Invalidation {
    /// Listens on return, unless the bus is away.
    pub(crate) async fn start(bus: Arc<dyn Bus>, subject: String, local: Arc<Local>) -> Self {
        let node: u64 = rand::random();
        let counts = Arc::new(Counts::default());
        let (changes, waiting) = mpsc::channel(QUEUE);
        let telling = tell(
            Arc::clone(&bus),
            subject.clone(),
            node,
            waiting,
            Arc::clone(&counts),
        );
        let shared = Arc::clone(&counts);
        let first = bus.subscribe(&subject).await;
        let listening = async move {
            let mut subscribed = Some(first);
            loop {
                let subscription = match subscribed.take() {
                    Some(subscription) => subscription,
                    None => bus.subscribe(&subject).await,
                };
                match subscription {
                    Ok(subscription) => listen(subscription, node, &local, &counts).await,
                    Err(error) => tracing::debug!(%error, "cannot listen to what other nodes change"),
                }
                // Nothing is known of what changed meanwhile.
                local.clear();
                tokio::time::sleep(RETRY).await;
            }
        };
        let tasks = [
            tokio::spawn(telling).abort_handle(),
            tokio::spawn(listening).abort_handle(),
        ];
        Self {
            changes,
            counts: shared,
            tasks,
        }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A key was written or deleted, or may have been.
    pub(crate) fn written(&self, key: &str) {
        self.tell(What::Written, key);
    }

    /// A load of a key ended, well or not.
    pub(crate) fn loaded(&self, key: &str) {
        self.tell(What::Loaded, key);
    }

    fn tell(&self, what: What, key: &str) {
        let key = key.to_owned();
        if self.changes.try_send(Change { what, key }).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Invalidation {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn tell(
    bus: Arc<dyn Bus>,
    subject: String,
    node: u64,
    mut waiting: mpsc::Receiver<Change>,
    counts: Arc<Counts>,
) {
    let mut told_lost = 0;
    while let Some(first) = waiting.recv().await {
        let mut message = BytesMut::new();
        message.put_u64(node);
        let mut next = Some(first);
        while let Some(change) = next {
            write(&mut message, &change);
            next = if message.len() < MESSAGE_BYTES {
                waiting.try_recv().ok()
            } else {
                None
            };
        }
        let lost = counts.lost.load(Ordering::Relaxed);
        if lost != told_lost {
            told_lost = lost;
            let everything = Change {
                what: What::Everything,
                key: String::new(),
            };
            write(&mut message, &everything);
        }
        match bus.publish(&subject, message.freeze()).await {
            Ok(()) => counts.sent.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(%error, "cannot tell other nodes what changed");
                counts.lost.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

fn write(message: &mut BytesMut, change: &Change) {
    message.put_u8(match change.what {
        What::Written => b'w',
        What::Loaded => b'l',
        What::Everything => b'*',
    });
    message.put_u16(change.key.len() as u16);
    message.put_slice(change.key.as_bytes());
}

/// The changes of a message from another node; `None` if it is not one of ours.
fn read(mut message: Bytes, node: u64) -> Option<Vec<Change>> {
    let sender = message.try_get_u64().ok()?;
    let mut changes = Vec::new();
    if sender == node {
        return Some(changes);
    }
    while message.has_remaining() {
        let what = match message.get_u8() {
            b'w' => What::Written,
            b'l' => What::Loaded,
            b'*' => What::Everything,
            _ => return None,
        };
        let length = usize::from(message.try_get_u16().ok()?);
        if message.remaining() < length {
            return None;
        }
        let key = String::from_utf8(message.split_to(length).to_vec()).ok()?;
        changes.push(Change { what, key });
    }
    Some(changes)
}

/// Hears what other nodes change until the subscription ends.
async fn listen(
    mut subscription: Box<dyn holon_ports::Subscription>,
    node: u64,
    local: &Local,
    counts: &Counts,
) {
    loop {
        let message = match subscription.next().await {
            Ok(message) => message,
            Err(BusError::Lagged(_)) => {
                local.clear();
                continue;
            }
            Err(_) => return,
        };
        counts.received.fetch_add(1, Ordering::Relaxed);
        let Some(changes) = read(message.payload, node) else {
            tracing::warn!("a message of another kind on the subject of cache changes");
            local.clear();
            continue;
        };
        for Change { what, key } in changes {
            match what {
                What::Written => {
                    local.written(&key);
                }
                What::Loaded => local.loaded_elsewhere(&key),
                What::Everything => local.clear(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_others() {
        let changes = || {
            [(What::Written, "a"), (What::Loaded, ""), (What::Everything, "ä")].map(|(what, key)| Change {
                what,
                key: key.to_owned(),
            })
        };
        let mut message = BytesMut::new();
        message.put_u64(7);
        for change in changes() {
            write(&mut message, &change);
        }
        let message = message.freeze();
        assert_eq!(read(message.clone(), 8), Some(changes().into()));
        assert_eq!(read(message.clone(), 7), Some(Vec::new()));
        for end in 0..message.len() {
            // Cut anywhere, it is an error or fewer changes, never a panic.
            let _ = read(message.slice(..end), 8);
        }
    }
}
