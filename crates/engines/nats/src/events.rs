//! Reading and appending events of partitions.

use crate::{
    Shared, envelope,
    error::away,
    names::APPENDED,
    publish::Outgoing,
    read::{PULL_BYTES, Pulled, Puller, Start, Stored},
    topics::Topic,
};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use holon_base::{Timestamp, limits};
use holon_ports::{Event, LogError, NewEvent, Position, StoreError};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How far the clocks of those who tell events may be apart from those of the servers: nodes whose clocks are off by
/// more than a second do not join.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(2);

pub(crate) fn decode(topic: &Topic, partition: u16, message: Stored) -> Result<Event, LogError> {
    let offset = message.sequence - 1;
    envelope::decode(&message.headers, message.payload, Position { partition, offset }).map_err(|damaged| {
        LogError::Corrupt(format!("event {offset} of {} {partition}: {damaged}", topic.name))
    })
}

impl Shared {
    /// Reads what is there from an offset on.
    pub async fn read(
        &self,
        topic: &Topic,
        partition: u16,
        from: u64,
        max: usize,
    ) -> Result<Vec<Event>, LogError> {
        let bounds = self.bounds(topic, partition).await?;
        let from = from.max(bounds.first);
        let wanted = max.min(usize::try_from(bounds.next.saturating_sub(from)).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + self.deadline;
        loop {
            let why = match self.read_once(topic, partition, from, wanted).await {
                Ok(Ok(events)) => return Ok(events),
                Ok(Err(why)) => why,
                Err(error @ LogError::Unavailable(_)) => error.to_string(),
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(away("cannot read events", why));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The inner error says why another try may do.
    async fn read_once(
        &self,
        topic: &Topic,
        partition: u16,
        from: u64,
        wanted: usize,
    ) -> Result<Result<Vec<Event>, String>, LogError> {
        let state = topic.partition(partition)?;
        let kept = state.reader.lock().take();
        let mut puller = match kept {
            Some((next, puller)) if next == from => puller,
            _ => {
                let start = Start::Sequence(from + 1);
                Puller::open(&self.client, &self.js, &state.stream, start, None, false).await?
            }
        };
        let mut events: Vec<Event> = Vec::with_capacity(wanted.min(1_024));
        let mut bytes = 0;
        puller.request(wanted, Duration::from_secs(1)).await?;
        while events.len() < wanted && bytes < PULL_BYTES {
            match puller.next().await {
                Pulled::Message(message) => {
                    let event = decode(topic, partition, *message)?;
                    let expected = events.last().map_or(from, |last| last.position.offset + 1);
                    // The first may be a later one, if those before it were dropped meanwhile.
                    if event.position.offset != expected && !events.is_empty() {
                        return Ok(Err("events were dropped while they were read".into()));
                    }
                    bytes += event.data.len();
                    events.push(event);
                }
                Pulled::End if events.is_empty() => return Ok(Err("nothing came".into())),
                Pulled::End => break,
                Pulled::Broken(why) => return Ok(Err(why)),
            }
        }
        // Only when all that was asked for has come is nothing of it still under way.
        if events.len() == wanted {
            let next = events.last().map_or(from, |last| last.position.offset + 1);
            *state.reader.lock() = Some((next, puller));
        }
        Ok(Ok(events))
    }

    /// The first offset whose event was told at or after a time.
    ///
    /// Events of several writers do not come in the order of their times, but each arrives after it was told. So
    /// whatever arrived before that time, less the skew of clocks, was told before it, and the search is a look at
    /// what arrived since: the server finds its start, and it ends at the first that fits.
    pub async fn offset_at(&self, topic: &Topic, partition: u16, time: Timestamp) -> Result<u64, LogError> {
        let bounds = self.bounds(topic, partition).await?;
        let state = topic.partition(partition)?;
        let start = Start::Arrival(time.minus(CLOCK_SKEW));
        let mut puller = Puller::open(&self.client, &self.js, &state.stream, start, None, true).await?;
        let mut found = None;
        puller
            .drain(|message| {
                let told = envelope::time(&message.headers)
                    .map_err(|damaged| LogError::Corrupt(format!("stream {}: {damaged}", state.stream)))?;
                if told >= time {
                    found = Some(message.sequence - 1);
                }
                Ok(found.is_none())
            })
            .await?;
        Ok(found.unwrap_or(bounds.next))
    }

    /// The time of the newest event of a partition, looked up once.
    async fn look_up_last_time(&self, topic: &Topic, partition: u16) -> Result<(), LogError> {
        let state = topic.partition(partition)?;
        if state.last_time.lock().is_some() {
            return Ok(());
        }
        let stream = self
            .js
            .get_stream_no_info(&state.stream)
            .await
            .map_err(|error| away("cannot read an event", error))?;
        let all = self.names.events(topic.name, partition, ">");
        let newest = match stream.get_last_raw_message_by_subject(&all).await {
            Ok(message) => envelope::time(&message.headers)
                .map_err(|damaged| LogError::Corrupt(format!("stream {}: {damaged}", state.stream)))?,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                Timestamp::from_millis(i64::MIN)
            }
            Err(error) => return Err(away("cannot read an event", error)),
        };
        state.last_time.lock().get_or_insert(newest);
        Ok(())
    }

    pub async fn append(&self, events: Vec<NewEvent>) -> Result<Vec<Position>, LogError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + self.deadline;
        let bytes: usize = events.iter().map(NewEvent::size).sum();
        if bytes > limits::COMMIT_BYTES {
            return Err(LogError::TooLarge {
                what: "append",
                size: bytes,
                limit: limits::COMMIT_BYTES,
            });
        }
        let mut topics: Vec<Arc<Topic>> = Vec::with_capacity(events.len());
        for event in &events {
            event.check_limits().map_err(from_store)?;
            let topic = match topics.last() {
                Some(last) if last.name == event.topic => Arc::clone(last),
                _ => self.topic(event.topic).await?,
            };
            let partition = topic.partition_of(&event.tenant, &event.key);
            self.look_up_last_time(&topic, partition).await?;
            topics.push(topic);
        }
        self.connected(deadline).await?;

        // Ids and times are given in the order in which the events are sent, so that they grow in each partition.
        let in_order = self.sequencer.lock().await;
        let mut outgoing: Vec<Outgoing> = Vec::with_capacity(events.len());
        for (event, topic) in events.into_iter().zip(topics) {
            outgoing.push(self.number(event, topic)?);
        }
        let first = tokio::time::timeout_at(deadline, self.send(APPENDED, &outgoing, true, &|| true))
            .await
            .map_err(|_| LogError::Unavailable("events could not be sent in time".into()))?;
        drop(in_order);
        self.publish_from(Some(first), APPENDED, &mut outgoing, deadline, &|| true)
            .await?;
        let position = |sent: &Outgoing| Position {
            partition: sent.event.position.partition,
            offset: sent.offset.unwrap_or_default(),
        };
        Ok(outgoing.iter().map(position).collect())
    }

    fn number(&self, event: NewEvent, topic: Arc<Topic>) -> Result<Outgoing, LogError> {
        let partition = topic.partition_of(&event.tenant, &event.key);
        let mut last = topic.partition(partition)?.last_time.lock();
        let time = last.map_or(self.clock.now(), |last| last.max(self.clock.now()));
        *last = Some(time);
        drop(last);
        let event = Event {
            position: Position { partition, offset: 0 },
            id: self.ids.next(),
            time,
            tenant: event.tenant,
            key: event.key,
            kind: event.kind.to_owned(),
            subject: event.subject,
            data: event.data,
            traceparent: event.traceparent,
            redelivered: 0,
        };
        Ok(Outgoing {
            topic,
            event,
            offset: None,
        })
    }
}

fn from_store(error: StoreError) -> LogError {
    match error {
        StoreError::TooLarge { what, size, limit } => LogError::TooLarge { what, size, limit },
        error => LogError::Invalid(error.to_string()),
    }
}
