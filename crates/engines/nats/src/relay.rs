//! From the outboxes of a store to the log.
//!
//! Each source of an [`Outbox`] is relayed by one process at a time, which has its lease. It reads events in the order
//! of their numbers, tells them ([`crate::publish`] keeps their order per key), and has them forgotten once the
//! streams have them. Whatever goes wrong, it reads and tells again; three things keep an event from being told twice:
//!
//! 1. Servers know ids that they were told lately (`deduplication` of the options).
//! 2. For whatever was told longer ago, the relay looks before it tells. Each source has a subject of its own in each
//!    stream. An event cannot have arrived before it was committed; so the messages of the source that arrived since
//!    the oldest waiting event was committed, and before this relay began, are all that has to be looked at. This is
//!    done for events from before the beginning, or from before an attempt whose outcome is not known; what is new
//!    needs no look.
//! 3. A relay whose lease is near its end stops, by the monotonic clock, before each event that it sends.
//!
//! So an event is in the log exactly once, however long the outage, unless retention has dropped it in the meantime
//! and the relay had not been able to have it forgotten; or a process is stopped between the look at its lease and
//! the sending, for longer than servers remember ids. Consumers are idempotent for the rest.

use crate::{
    Shared, envelope,
    events::CLOCK_SKEW,
    names::source_part,
    publish::Outgoing,
    read::{Puller, Start},
    streams,
    topics::Topic,
};
use holon_base::{Id, Timestamp};
use holon_ports::{Event, Lease, LeaseError, LogError, Outbox, OutboxEvent, Position, StoreError};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Events that are read and told at once.
const BATCH: usize = 1_024;
/// How often an outbox is looked at that says nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked for new sources.
const SOURCES: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a source is doing, in the process that relays it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceLag {
    pub source: String,
    /// True while this process has the source's lease.
    pub is_here: bool,
    /// When the oldest event that waits was committed; `None` when none waits.
    pub oldest: Option<Timestamp>,
    /// Events that were told since the process started.
    pub told: u64,
    /// Events that were found to be in the log already.
    pub found: u64,
    /// What stands in the way.
    pub error: Option<String>,
}

/// Takes events from an outbox to the log. Cheap to clone.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
    outbox: Arc<dyn Outbox>,
    lags: Arc<Mutex<BTreeMap<String, SourceLag>>>,
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("outbox: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("lease: {0}")]
    Lease(#[from] LeaseError),
}

impl Relay {
    pub(crate) fn new(shared: Arc<Shared>, outbox: Arc<dyn Outbox>) -> Self {
        Self {
            shared,
            outbox,
            lags: Arc::default(),
        }
    }

    /// How each source is doing, by name.
    pub fn lags(&self) -> Vec<SourceLag> {
        self.lags.lock().values().cloned().collect()
    }

    /// Relays every source whose lease can be had, until `stop` turns true; ends after the events in hand.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut running: HashSet<String> = HashSet::new();
        let mut tasks = JoinSet::new();
        while !*stop.borrow() {
            match self.outbox.sources().await {
                Ok(sources) => {
                    for source in sources {
                        if running.insert(source.clone()) {
                            let (relay, stop) = (self.clone(), stop.clone());
                            tasks.spawn(async move { relay.run_source(&source, stop).await });
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot find the sources of events"),
            }
            let pause = if running.is_empty() { PATIENCE } else { SOURCES };
            if wait(pause, &mut stop).await {
                break;
            }
        }
        tasks.join_all().await;
    }

    /// The lease that whoever relays a source has.
    pub fn lease_name(&self, source: &str) -> String {
        self.shared.names.relay_lease(source)
    }

    async fn run_source(&self, source: &str, mut stop: watch::Receiver<bool>) {
        let mut pause = FIRST_PAUSE;
        self.note(source, |_| {});
        while !*stop.borrow() {
            let name = self.shared.names.relay_lease(source);
            let (leases, ttl) = (&self.shared.leases, self.shared.lease_ttl);
            let asked = Instant::now();
            let lease = match leases.acquire(&name, &self.shared.host, ttl).await {
                Ok(lease) => lease,
                Err(LeaseError::Held { .. } | LeaseError::Lost) => {
                    wait(ttl / 3, &mut stop).await;
                    continue;
                }
                Err(error) => {
                    self.fail(source, &error.into());
                    wait(ttl / 3, &mut stop).await;
                    continue;
                }
            };
            self.note(source, |lag| lag.is_here = true);
            let session = Session {
                relay: self,
                source,
                writer: source_part(source),
                right: watch::Sender::new(Some(asked + ttl - ttl / 5)),
            };
            let mut stopped = stop.clone();
            let outcome = tokio::select! {
                outcome = session.relay(&mut stopped) => outcome,
                lost = session.keep(lease.clone()) => Err(lost.into()),
            };
            if let Err(error) = leases.release(&lease).await {
                tracing::warn!(source, %error, "cannot give up the lease of a relay");
            }
            self.note(source, |lag| lag.is_here = false);
            match outcome {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) => {
                    self.fail(source, &error);
                    wait(pause, &mut stop).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn note(&self, source: &str, change: impl FnOnce(&mut SourceLag)) {
        let mut lags = self.lags.lock();
        let lag = lags.entry(source.to_owned()).or_insert_with(|| SourceLag {
            source: source.to_owned(),
            ..SourceLag::default()
        });
        change(lag);
    }

    fn fail(&self, source: &str, error: &RelayError) {
        tracing::warn!(source, %error, "cannot relay events, will try again");
        self.note(source, |lag| lag.error = Some(error.to_string()));
    }
}

/// Waits; true when told to stop.
async fn wait(time: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    timeout(time, stop.wait_for(|stop| *stop)).await.is_ok()
}

/// What is known of the events that an earlier session, or an earlier attempt, told in one stream.
struct Told {
    /// Looked at from events of this time on.
    since: Timestamp,
    /// Up to this sequence: whatever comes later is of this session.
    until: u64,
    offsets: HashMap<Id, u64>,
}

/// Relaying a source under one lease.
struct Session<'a> {
    relay: &'a Relay,
    source: &'a str,
    writer: String,
    /// Until when events may be sent.
    right: watch::Sender<Option<Instant>>,
}

impl Session<'_> {
    fn may(&self) -> bool {
        self.right.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Renews the lease; returns when it is lost.
    async fn keep(&self, mut lease: Lease) -> LeaseError {
        let ttl = self.relay.shared.lease_ttl;
        loop {
            sleep(ttl / 3).await;
            let asked = Instant::now();
            match timeout(ttl / 3, self.relay.shared.leases.renew(&lease, ttl)).await {
                Ok(Ok(renewed)) => {
                    lease = renewed;
                    self.right.send_replace(Some(asked + ttl - ttl / 5));
                }
                Ok(Err(LeaseError::Unavailable(why))) => {
                    tracing::warn!(source = self.source, why, "cannot renew the lease of a relay");
                }
                Ok(Err(error)) => {
                    self.right.send_replace(None);
                    return error;
                }
                Err(_) => tracing::warn!(
                    source = self.source,
                    "the lease of a relay is not renewed in time"
                ),
            }
            if !self.may() {
                return LeaseError::Lost;
            }
        }
    }

    /// Relays until told to stop; an error when the lease is over or the outcome of an attempt is not known.
    async fn relay(&self, stop: &mut watch::Receiver<bool>) -> Result<(), RelayError> {
        let Relay { shared, outbox, .. } = self.relay;
        let began = shared.clock.now();
        let mut told: HashMap<String, Told> = HashMap::new();
        while !*stop.borrow() {
            let waiting = outbox.read(self.source, BATCH).await?;
            self.relay.note(self.source, |lag| {
                lag.oldest = waiting.iter().map(|event| event.time).min();
                if waiting.is_empty() {
                    lag.error = None;
                }
            });
            if waiting.is_empty() {
                tokio::select! {
                    () = outbox.wait(self.source, PATIENCE) => {}
                    _ = stop.wait_for(|stop| *stop) => return Ok(()),
                }
                continue;
            }
            let numbers: Vec<u64> = waiting.iter().map(|event| event.number).collect();
            let mut outgoing = self.outgoing(waiting).await?;
            let found = self.find(&mut outgoing, began, &mut told).await?;
            let deadline = Instant::now() + shared.deadline;
            let published = shared
                .publish(&self.writer, &mut outgoing, deadline, &|| self.may())
                .await;
            // What was told is forgotten also when the rest was not.
            let done: Vec<u64> = numbers
                .iter()
                .zip(&outgoing)
                .filter(|(_, sent)| sent.offset.is_some())
                .map(|(number, _)| *number)
                .collect();
            if !done.is_empty() {
                outbox.forget(self.source, &done).await?;
            }
            self.relay.note(self.source, |lag| {
                lag.told += done.len() as u64 - found;
                lag.found += found;
            });
            published?;
            self.relay.note(self.source, |lag| lag.error = None);
        }
        Ok(())
    }

    async fn outgoing(&self, waiting: Vec<OutboxEvent>) -> Result<Vec<Outgoing>, LogError> {
        let mut outgoing = Vec::with_capacity(waiting.len());
        let mut topics: HashMap<String, Arc<Topic>> = HashMap::new();
        for event in waiting {
            let topic = match topics.get(&event.topic) {
                Some(topic) => Arc::clone(topic),
                None => {
                    let topic = self.relay.shared.topic(&event.topic).await?;
                    topics.insert(event.topic.clone(), Arc::clone(&topic));
                    topic
                }
            };
            let partition = topic.partition_of(&event.tenant, &event.key);
            let event = Event {
                position: Position { partition, offset: 0 },
                id: event.id,
                time: event.time,
                tenant: event.tenant,
                key: event.key,
                kind: event.kind,
                subject: event.subject,
                data: event.data,
                traceparent: event.traceparent,
                redelivered: 0,
            };
            outgoing.push(Outgoing {
                topic,
                event,
                offset: None,
            });
        }
        Ok(outgoing)
    }

    /// Finds which events are in their streams already, and writes down their offsets. Answers how many.
    async fn find(
        &self,
        events: &mut [Outgoing],
        began: Timestamp,
        told: &mut HashMap<String, Told>,
    ) -> Result<u64, LogError> {
        let is_doubtful = |event: &Event| event.time <= began.plus(CLOCK_SKEW);
        let mut oldest: HashMap<(usize, u16), (Arc<Topic>, Timestamp)> = HashMap::new();
        for Outgoing { topic, event, .. } in events.iter().filter(|sent| is_doubtful(&sent.event)) {
            let key = (Arc::as_ptr(topic) as usize, event.position.partition);
            let entry = oldest
                .entry(key)
                .or_insert_with(|| (Arc::clone(topic), event.time));
            entry.1 = entry.1.min(event.time);
        }
        for ((_, partition), (topic, since)) in oldest {
            self.look(&topic, partition, since, told).await?;
        }
        let mut found = 0;
        for sent in events.iter_mut().filter(|sent| is_doubtful(&sent.event)) {
            let stream = &sent.topic.partition(sent.event.position.partition)?.stream;
            let offset = told.get(stream).and_then(|told| told.offsets.get(&sent.event.id));
            if let Some(offset) = offset {
                sent.offset = Some(*offset);
                found += 1;
            }
        }
        Ok(found)
    }

    /// Looks at what this source has told in a stream since a time.
    async fn look(
        &self,
        topic: &Topic,
        partition: u16,
        since: Timestamp,
        told: &mut HashMap<String, Told>,
    ) -> Result<(), LogError> {
        let shared = &self.relay.shared;
        let stream = &topic.partition(partition)?.stream;
        let until = match told.get(stream) {
            Some(told) if told.since <= since => return Ok(()),
            Some(told) => told.until,
            None => {
                streams::bounds(&shared.js, stream)
                    .await?
                    .unwrap_or_default()
                    .next
            }
        };
        let mut offsets = HashMap::new();
        if until > 0 {
            let subject = shared.names.events(topic.name, partition, &self.writer);
            let start = Start::Arrival(since.minus(CLOCK_SKEW));
            let mut puller =
                Puller::open(&shared.client, &shared.js, stream, start, Some(&subject), true).await?;
            puller
                .drain(|message| {
                    if message.sequence > until {
                        return Ok(false);
                    }
                    let id = envelope::id(&message.headers)
                        .map_err(|damaged| LogError::Corrupt(format!("stream {stream}: {damaged}")))?;
                    offsets.insert(id, message.sequence - 1);
                    Ok(true)
                })
                .await?;
        }
        told.insert(
            stream.clone(),
            Told {
                since,
                until,
                offsets,
            },
        );
        Ok(())
    }
}
