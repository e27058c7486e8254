//! Copying: events and dead letters as they were elsewhere.
//!
//! Events keep their ids, times and offsets. Each is sent on the condition that the one before it is the last of its
//! stream (`Nats-Expected-Last-Sequence`), so that whatever is lost on the way, there is no gap and no event twice. (The
//! first is sent alone, since a server does not count the end of a stream that was set as its last message.)
//! This is for topics that nobody writes to yet. When events arrived is the time of the copy: retention by age counts
//! from then.

use crate::{
    Nats, dead, envelope,
    error::{api_error, away, is_full},
    streams,
    topics::Topic,
};
use async_nats::{header::NATS_EXPECTED_LAST_SEQUENCE, jetstream::context::PublishAckFuture};
use holon_ports::{Event, LogError, Position, log::DeadLetter};
use serde::Deserialize;
use serde_json::json;

/// The writer of copied events.
const COPIED: &str = "copy";

#[derive(Deserialize)]
struct Purged {
    #[expect(dead_code, reason = "says that the answer is one")]
    success: bool,
}

impl Nats {
    /// Lets the offsets of an empty partition begin here. One that has begun is left as it is.
    ///
    /// # Errors
    /// If the servers are away, or do not do it.
    pub async fn import_first(&self, topic: &str, partition: u16, first: u64) -> Result<(), LogError> {
        let topic = self.shared.topic(topic).await?;
        let stream = &topic.partition(partition)?.stream;
        let bounds = self.shared.bounds(&topic, partition).await?;
        if first == 0 || bounds.next > 0 {
            return Ok(());
        }
        if self.shared.replicas.0 > 1 {
            return Err(LogError::Invalid(format!(
                "the first events of {} were dropped where it is copied from, and a stream can begin later only \
                 while one server keeps it; copy with engines.nats_replicas=1, and start the nodes with {}",
                topic.name, self.shared.replicas.0
            )));
        }
        // To purge an empty stream up to a sequence moves its end there.
        let request = json!({ "seq": first + 1 });
        let response: async_nats::jetstream::response::Response<Purged> = self
            .shared
            .js
            .request(format!("STREAM.PURGE.{stream}"), &request)
            .await
            .map_err(|error| away(&format!("cannot set where {stream} begins"), error))?;
        if let async_nats::jetstream::response::Response::Err { error } = response {
            return Err(away(&format!("cannot set where {stream} begins"), error));
        }
        let next = self.shared.bounds(&topic, partition).await?.next;
        if next != first {
            return Err(LogError::Unavailable(format!(
                "stream {stream} begins at {next} where it was told to begin at {first}"
            )));
        }
        Ok(())
    }

    /// Tells events of one partition, which go on where those before them ended; durable on return. What is there
    /// already is skipped, so that it may be tried again after an error.
    ///
    /// # Errors
    /// [`LogError::Invalid`] if there is a gap; otherwise if not all were acknowledged.
    pub async fn import_events(&self, topic: &str, events: &[Event]) -> Result<(), LogError> {
        let Some(first) = events.first() else {
            return Ok(());
        };
        let partition = first.position.partition;
        let topic = self.shared.topic(topic).await?;
        let stream = &topic.partition(partition)?.stream;
        let there = streams::bounds(&self.shared.js, stream)
            .await?
            .unwrap_or_default();
        let subject = self.shared.names.events(topic.name, partition, COPIED);
        let misplaced = |offset: u64| {
            LogError::Invalid(format!(
                "event {offset} of {}/{partition} does not go on where those before it end",
                topic.name
            ))
        };
        if first.position.offset > there.next {
            return Err(misplaced(first.position.offset));
        }
        let mut acknowledgements = Vec::with_capacity(events.len());
        for (event, offset) in events.iter().zip(first.position.offset..) {
            if event.position != (Position { partition, offset }) {
                return Err(misplaced(event.position.offset));
            }
            if offset < there.next {
                continue;
            }
            let is_first = there.first == offset;
            let mut headers = envelope::encode(event);
            if !is_first {
                headers.insert(NATS_EXPECTED_LAST_SEQUENCE, offset.to_string());
            }
            let sent = self
                .shared
                .publisher
                .publish_with_headers(subject.clone(), headers, event.data.clone())
                .await
                .map_err(|error| away("cannot send an event", error))?;
            match is_first {
                true => acknowledged(&topic, offset, sent).await?,
                false => acknowledgements.push((offset, sent)),
            }
        }
        for (offset, sent) in acknowledgements {
            acknowledged(&topic, offset, sent).await?;
        }
        Ok(())
    }

    /// Keeps a dead letter as it was, but for its number.
    ///
    /// # Errors
    /// If it was not acknowledged.
    pub async fn import_dead_letter(
        &self,
        group: &str,
        topic: &str,
        letter: &DeadLetter,
    ) -> Result<(), LogError> {
        let headers = dead::encode(&letter.event, &letter.error, letter.attempts, letter.at);
        let subject = self.shared.names.dead(topic, group);
        let published = self
            .shared
            .js
            .publish_with_headers(subject, headers, letter.event.data.clone())
            .await
            .map_err(|error| away("cannot keep a dead letter", error))?;
        published
            .await
            .map_err(|error| away("cannot keep a dead letter", error))?;
        Ok(())
    }

    /// The groups that have dead letters, with the topics that those are of.
    ///
    /// # Errors
    /// If the servers are away.
    pub async fn dead_letter_groups(&self) -> Result<Vec<(String, String)>, LogError> {
        let mut found = Vec::new();
        for (group, topic) in self.log().groups().await? {
            if !self.log().dead_letters(&group, &topic, 0, 1).await?.is_empty() {
                found.push((group, topic));
            }
        }
        Ok(found)
    }
}

/// Waits until an event is kept, and makes sure that it has its offset.
async fn acknowledged(topic: &Topic, offset: u64, sent: PublishAckFuture) -> Result<(), LogError> {
    let kept = sent.await.map_err(|error| match api_error(&error) {
        Some(api) if is_full(api.error_code()) => LogError::Full,
        _ => away(&format!("event {offset} was not stored"), error),
    })?;
    if kept.sequence != offset + 1 {
        return Err(LogError::Invalid(format!(
            "event {offset} of {} is there already, as event {}",
            topic.name,
            kept.sequence.saturating_sub(1)
        )));
    }
    Ok(())
}
