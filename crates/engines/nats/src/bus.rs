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
use holon_ports::bus::{Pattern, QueueOptions, Queued, WaitingMessages, check_message};
use holon_ports::{Bus, BusError, Message, Subscription};
use parking_lot::Mutex;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{task::JoinHandle, time::timeout};

/// Messages that the client holds for a subscription until they are in its queue; more are lost.
pub(crate) const CLIENT_MESSAGES: usize = 256 << 10;

pub(crate) struct NatsBus {
    client: Client,
    prefix: String,
    nobody: String,
    options: QueueOptions,
    deadline: Duration,
    listeners: Arc<Mutex<Vec<Weak<WaitingMessages>>>>,
}

impl NatsBus {
    pub async fn connect(options: &NatsOptions, servers: Vec<ServerAddr>) -> Result<Self, NatsError> {
        let listeners: Arc<Mutex<Vec<Weak<WaitingMessages>>>> = Arc::default();
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

#[async_trait]
impl Bus for NatsBus {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        check_message(subject, &payload)?;
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
        Pattern::parse(pattern)?;
        let subject = format!("{}{pattern}", self.prefix);
        let subscribed = timeout(self.deadline, self.client.subscribe(subject)).await;
        let mut subscriber = subscribed
            .map_err(|_| self.away("the subscription could not be sent in time"))?
            .map_err(|error| self.away(error))?;
        self.round_trip().await?;

        let queue = Arc::<WaitingMessages>::default();
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
        Ok(Box::new(Queued {
            queue,
            guard: Pump(pump),
        }))
    }
}

/// The task that takes messages from the client.
struct Pump(JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}
