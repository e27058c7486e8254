//! The loop that every consumer runs: poll, handle, commit; retry with back-off; bury what is poison.

use crate::log::{Event, Log, LogError};
use async_trait::async_trait;
use holon_base::ErrorKind;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// What a consumer does with its events. It is handed each event at least once, so its effect must be idempotent.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles events of one partition, in order. On an error all of them are handed in again; after the second
    /// error of a batch they come one by one, so that a poison event is found and the others go through. An error that
    /// [passes](HandlerError::passing) holds up the events of its partition until it has passed, and buries none.
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError>;
}

/// Why events were not handled. The text goes to the log and to the dead letter, never to a client.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct HandlerError {
    text: String,
    is_passing: bool,
}

impl HandlerError {
    /// The event itself may be at fault: it is buried when it has failed often enough.
    pub fn new(error: impl std::fmt::Display) -> Self {
        Self {
            text: error.to_string(),
            is_passing: false,
        }
    }

    /// What the event needs is away, full or busy. That says nothing against the event, which is handed in again for as
    /// long as it takes.
    pub fn passing(error: impl std::fmt::Display) -> Self {
        Self {
            text: error.to_string(),
            is_passing: true,
        }
    }

    /// By the kind of an error.
    pub fn of_kind(kind: ErrorKind, error: impl std::fmt::Display) -> Self {
        match kind.is_transient() {
            true => Self::passing(error),
            false => Self::new(error),
        }
    }
}

impl From<crate::StoreError> for HandlerError {
    fn from(error: crate::StoreError) -> Self {
        Self::of_kind(error.kind(), error)
    }
}

impl From<LogError> for HandlerError {
    fn from(error: LogError) -> Self {
        Self::of_kind(error.kind(), error)
    }
}

/// A consumer: a group on a topic and what it does.
#[derive(Clone)]
pub struct Consumer {
    /// `system.purpose`, such as `feed.fanout`.
    pub group: &'static str,
    pub topic: &'static str,
    /// How many members to run in this process; never more than the topic has partitions.
    pub members: usize,
    /// The most events handed in at once.
    pub max_batch: usize,
    /// Tries of an event, the first included, before it is buried. Those that met an error that passes do not count.
    pub attempts: u32,
    /// The wait before the first retry; doubles with each, up to 30 s.
    pub backoff: Duration,
    pub handler: Arc<dyn Handler>,
}

impl Consumer {
    pub fn new(group: &'static str, topic: &'static str, handler: Arc<dyn Handler>) -> Self {
        Self {
            group,
            topic,
            members: 1,
            max_batch: 64,
            attempts: 5,
            backoff: Duration::from_millis(100),
            handler,
        }
    }

    #[must_use]
    pub fn members(mut self, members: usize) -> Self {
        self.members = members.max(1);
        self
    }

    #[must_use]
    pub fn max_batch(mut self, events: usize) -> Self {
        self.max_batch = events.max(1);
        self
    }

    /// Runs one member until `stop` turns true; ends after the batch in hand.
    pub async fn run(&self, log: Arc<dyn Log>, mut stop: watch::Receiver<bool>) {
        let mut failures = 0_u32;
        while !*stop.borrow() {
            let mut member = match log.join(self.group, self.topic).await {
                Ok(member) => member,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(group = self.group, topic = self.topic, %error, "cannot join, will try again");
                    if wait(self.delay(failures), &mut stop).await {
                        return;
                    }
                    continue;
                }
            };
            failures = 0;
            loop {
                let polled = tokio::select! {
                    polled = member.poll(self.max_batch) => polled,
                    _ = stop.wait_for(|stop| *stop) => return,
                };
                let events = match polled {
                    Ok(events) => events,
                    Err(error) => {
                        tracing::warn!(group = self.group, topic = self.topic, %error, "cannot read events");
                        if wait(self.backoff, &mut stop).await {
                            return;
                        }
                        break;
                    }
                };
                let Some(last) = events.last().map(|event| event.position) else {
                    continue;
                };
                if !self.handle_all(&*log, &events, &mut stop).await {
                    return;
                }
                match member.commit(last.partition, last.offset + 1).await {
                    Ok(()) | Err(LogError::Fenced) => {}
                    Err(error) => {
                        tracing::warn!(group = self.group, topic = self.topic, %error, "cannot commit an offset");
                        break;
                    }
                }
            }
        }
    }

    /// True when every event was handled or buried; false when stopped before.
    async fn handle_all(&self, log: &dyn Log, events: &[Event], stop: &mut watch::Receiver<bool>) -> bool {
        if events.len() > 1 {
            for attempt in 1..=2 {
                match self.handle_once(events).await {
                    Ok(()) => return true,
                    Err(error) => {
                        tracing::warn!(group = self.group, events = events.len(), attempt, %error, "batch failed");
                        if wait(self.delay(attempt), stop).await {
                            return false;
                        }
                    }
                }
            }
        }
        for event in events {
            if !self.handle_one(log, event, stop).await {
                return false;
            }
        }
        true
    }

    async fn handle_one(&self, log: &dyn Log, event: &Event, stop: &mut watch::Receiver<bool>) -> bool {
        let (mut failures, mut attempt) = (0, 0);
        let poison = loop {
            let error = match self.handle_once(std::slice::from_ref(event)).await {
                Ok(()) => return true,
                Err(error) => error,
            };
            failures += 1;
            attempt += u32::from(!error.is_passing);
            if attempt >= self.attempts && !error.is_passing {
                break error;
            }
            tracing::warn!(group = self.group, id = %event.id, failures, %error, "event failed, will retry");
            if wait(self.delay(failures), stop).await {
                return false;
            }
        };
        tracing::error!(group = self.group, id = %event.id, kind = event.kind, error = %poison, "event buried");
        let mut buried = 0;
        while let Err(error) = log
            .bury(self.group, self.topic, event, &poison.text, attempt)
            .await
        {
            buried += 1;
            tracing::error!(group = self.group, id = %event.id, %error, "cannot bury an event, will try again");
            if wait(self.delay(buried), stop).await {
                return false;
            }
        }
        true
    }

    async fn handle_once(&self, events: &[Event]) -> Result<(), HandlerError> {
        // A batch belongs to several traces; what it causes is told in that of its first event.
        match events.first().and_then(|event| event.traceparent.clone()) {
            Some(traceparent) => holon_base::trace::scope(traceparent, self.handler.handle(events)).await,
            None => self.handler.handle(events).await,
        }
    }

    /// `backoff * 2^n`, n from 0, so that the first retry waits `backoff`.
    fn delay(&self, failures: u32) -> Duration {
        let factor = 1_u32 << failures.saturating_sub(1).min(16);
        self.backoff.saturating_mul(factor).min(Duration::from_secs(30))
    }
}

/// Waits; true when told to stop.
async fn wait(time: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::time::timeout(time, stop.wait_for(|stop| *stop))
        .await
        .is_ok()
}
