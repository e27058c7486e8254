//! The Bus port: core NATS, with a bounded queue for each listener.
//!
//! A server drops a client that does not read, and the client drops the newest messages of a subscription that is not
//! read: both are not what the port says. So a task takes every message from the client as it comes and puts it into
//! the listener's own queue, which drops the oldest and counts. What may have been lost without being counted, when
//! the connection broke or the client was overrun, each listener is told of as one message lost: who keeps something
//! up to date by the bus must look anew then.

use crate::{NatsError, NatsOptions, connect, names::Names};
use async_nats::{Client, Event, ServerAddr, client::RequestErrorKind, connection::State};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use holon_ports::bus::{MESSAGE_BYTES, SUBJECT_BYTES};
use holon_ports::{Bus, BusError, Message, Subscription};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

/// Messages that the client holds for a subscription until they are in its queue; more are lost.
pub(crate) const CLIENT_MESSAGES: usize = 256 << 10;

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

pub(crate) struct NatsBus {
    client: Client,
    prefix: String,
    nobody: String,
    options: BusOptions,
    deadline: Duration,
    listeners: Arc<Mutex<Vec<Weak<Queue>>>>,
}

#[derive(Default)]
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
    fn push(&self, message: Message, options: &BusOptions) {
        let mut waiting = self.waiting.lock();
        let size = message.payload.len();
        while waiting.messages.len() >= options.queue_messages.max(1)
            || waiting.bytes + size > options.queue_bytes
        {
            let Some(oldest) = waiting.messages.pop_front() else {
                break;
            };
            waiting.bytes -= oldest.payload.len();
            waiting.lost += 1;
        }
        waiting.bytes += size;
        waiting.messages.push_back(message);
        drop(waiting);
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

    fn lose_one(&self) {
        self.waiting.lock().lost += 1;
        self.arrived.notify_one();
    }

    fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_one();
    }
}

impl NatsBus {
    pub async fn connect(options: &NatsOptions, servers: Vec<ServerAddr>) -> Result<Self, NatsError> {
        let listeners: Arc<Mutex<Vec<Weak<Queue>>>> = Arc::default();
        let told = Arc::clone(&listeners);
        let on_event = move |event| {
            if matches!(event, Event::Connected | Event::SlowConsumer(_)) {
                for queue in told.lock().iter().filter_map(Weak::upgrade) {
                    queue.lose_one();
                }
            }
        };
        let client = connect(options, servers, Some(Arc::new(on_event))).await?;
        let names = Names::new(&options.prefix);
        Ok(Self {
            client,
            prefix: names.bus(),
            nobody: names.nobody(),
            options: options.bus,
            deadline: options.deadline,
            listeners,
        })
    }

    fn away(&self, error: impl std::fmt::Display) -> BusError {
        BusError::Unavailable(error.to_string())
    }

    /// Returns when the server has seen everything that was sent before: it answers at once that nobody listens.
    async fn round_trip(&self) -> Result<(), BusError> {
        let asked = self.client.request(self.nobody.clone(), Bytes::new());
        match timeout(self.deadline, asked).await {
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.away(error)),
            Err(_) => Err(self.away("the server did not answer in time")),
        }
    }
}

fn check_subject(subject: &str) -> Result<(), BusError> {
    let invalid = |why: &str| {
        let start: String = subject.chars().take(64).collect();
        Err(BusError::Invalid(format!("{start:?} {why}")))
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

fn check_pattern(pattern: &str) -> Result<(), BusError> {
    match pattern.strip_suffix('>') {
        Some("") => Ok(()),
        Some(prefix) => match prefix.strip_suffix('.') {
            Some(parent) => check_subject(parent),
            None => Err(BusError::Invalid("'>' stands alone or after a dot".into())),
        },
        None => check_subject(pattern),
    }
}

#[async_trait]
impl Bus for NatsBus {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        check_subject(subject)?;
        if payload.len() > MESSAGE_BYTES {
            return Err(BusError::TooLarge {
                size: payload.len(),
                limit: MESSAGE_BYTES,
            });
        }
        if self.client.connection_state() != State::Connected {
            return Err(self.away("there is no connection to a nats server"));
        }
        let published = self.client.publish(format!("{}{subject}", self.prefix), payload);
        match timeout(self.deadline, published).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.away(error)),
            Err(_) => Err(self.away("the message could not be sent in time")),
        }
    }

    async fn subscribe(&self, pattern: &str) -> Result<Box<dyn Subscription>, BusError> {
        check_pattern(pattern)?;
        let subject = format!("{}{pattern}", self.prefix);
        let subscribed = timeout(self.deadline, self.client.subscribe(subject)).await;
        let mut subscriber = subscribed
            .map_err(|_| self.away("the subscription could not be sent in time"))?
            .map_err(|error| self.away(error))?;
        self.round_trip().await?;

        let queue = Arc::new(Queue::default());
        {
            let mut listeners = self.listeners.lock();
            listeners.retain(|listener| listener.strong_count() > 0);
            listeners.push(Arc::downgrade(&queue));
        }
        let (options, prefix, to) = (self.options, self.prefix.len(), Arc::clone(&queue));
        let pump = tokio::spawn(async move {
            while let Some(message) = subscriber.next().await {
                let Some(subject) = message.subject.get(prefix..) else {
                    continue;
                };
                let message = Message {
                    subject: subject.to_owned(),
                    payload: message.payload,
                };
                to.push(message, &options);
            }
            to.close();
        });
        Ok(Box::new(NatsSubscription { queue, pump }))
    }
}

struct NatsSubscription {
    queue: Arc<Queue>,
    pump: JoinHandle<()>,
}

#[async_trait]
impl Subscription for NatsSubscription {
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

impl Drop for NatsSubscription {
    fn drop(&mut self) {
        self.pump.abort();
    }
}
