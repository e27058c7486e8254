//! Dead letters: events that a group gave up on, kept until somebody takes them out.
//!
//! All are in one stream, each group and topic under a subject of its own; the number of a letter is its sequence
//! there, and so only grows. Taking one out deletes the message, which the server lets one of many do.

use crate::{
    Shared,
    envelope::{self, escape, unescape},
    error::{api_error, away, is_full},
    names::Names,
    read::{Puller, Start},
    streams::{self, Replicas},
};
use async_nats::{
    HeaderMap, HeaderName,
    jetstream::{
        Context,
        stream::{Config, DeleteMessageErrorKind, LastRawMessageErrorKind, StorageType},
    },
};
use bytes::Bytes;
use holon_base::Timestamp;
use holon_ports::{Event, LogError, Position, log::DeadLetter};

const PARTITION: HeaderName = HeaderName::from_static("holon-partition");
const OFFSET: HeaderName = HeaderName::from_static("holon-offset");
const REDELIVERED: HeaderName = HeaderName::from_static("holon-redelivered");
const ERROR: HeaderName = HeaderName::from_static("holon-error");
const ATTEMPTS: HeaderName = HeaderName::from_static("holon-attempts");
const AT: HeaderName = HeaderName::from_static("holon-at");

/// The longest error that is kept, in bytes; headers have little room.
const ERROR_BYTES: usize = 4 << 10;

pub(crate) async fn open(js: &Context, names: &Names, replicas: Replicas) -> Result<(), LogError> {
    let config = Config {
        name: names.dead_stream(),
        subjects: vec![names.dead("*", "*")],
        storage: StorageType::File,
        num_replicas: replicas.0,
        ..Config::default()
    };
    streams::ensure(js, config).await
}

pub(crate) fn encode(event: &Event, error: &str, attempts: u32, at: Timestamp) -> HeaderMap {
    let mut headers = envelope::attributes(event);
    let mut end = error.len().min(ERROR_BYTES);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    headers.insert(PARTITION, u64::from(event.position.partition).to_string());
    headers.insert(OFFSET, event.position.offset.to_string());
    headers.insert(REDELIVERED, event.redelivered.to_string());
    headers.insert(ERROR, escape(&error[..end]));
    headers.insert(ATTEMPTS, attempts.to_string());
    headers.insert(AT, at.to_string());
    headers
}

fn decode(number: u64, headers: &HeaderMap, data: Bytes) -> Result<DeadLetter, LogError> {
    let damaged = |why: String| LogError::Corrupt(format!("dead letter {number}: {why}"));
    let text = |name: HeaderName| {
        headers
            .get(name.clone())
            .map(|value| value.as_str())
            .ok_or_else(|| damaged(format!("header {name} is missing")))
    };
    let number_in = |name: HeaderName| {
        text(name.clone())?
            .parse::<u64>()
            .map_err(|error| damaged(format!("header {name}: {error}")))
    };
    let position = Position {
        partition: number_in(PARTITION)? as u16,
        offset: number_in(OFFSET)?,
    };
    let mut event = envelope::decode(headers, data, position).map_err(damaged)?;
    event.redelivered = number_in(REDELIVERED)? as u32;
    Ok(DeadLetter {
        number,
        event,
        error: unescape(text(ERROR)?).ok_or_else(|| damaged("header holon-error is malformed".into()))?,
        attempts: number_in(ATTEMPTS)? as u32,
        at: Timestamp::parse(text(AT)?).ok_or_else(|| damaged("header holon-at is no time".into()))?,
    })
}

impl Shared {
    pub async fn bury(
        &self,
        group: &str,
        topic: &str,
        event: &Event,
        error: &str,
        attempts: u32,
    ) -> Result<(), LogError> {
        let headers = encode(event, error, attempts, self.clock.now());
        let published = self
            .js
            .publish_with_headers(self.names.dead(topic, group), headers, event.data.clone())
            .await
            .map_err(|error| away("cannot bury an event", error))?;
        match published.await {
            Ok(_) => Ok(()),
            Err(error) => match api_error(&error) {
                Some(api) if is_full(api.error_code()) => Err(LogError::Full),
                _ => Err(away("cannot bury an event", error)),
            },
        }
    }

    pub async fn dead_letters(
        &self,
        group: &str,
        topic: &str,
        from: u64,
        max: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        let mut letters = Vec::new();
        if max == 0 {
            return Ok(letters);
        }
        let mut puller = Puller::open(
            &self.client,
            &self.js,
            &self.names.dead_stream(),
            Start::Sequence(from.max(1)),
            Some(&self.names.dead(topic, group)),
            false,
        )
        .await?;
        puller
            .drain(|message| {
                // A consumer never starts beyond the end of its stream.
                if message.sequence >= from {
                    letters.push(decode(
                        message.sequence,
                        &message.headers,
                        message.payload.clone(),
                    )?);
                }
                Ok(letters.len() < max)
            })
            .await?;
        Ok(letters)
    }

    pub async fn unbury(
        &self,
        group: &str,
        topic: &str,
        number: u64,
    ) -> Result<Option<DeadLetter>, LogError> {
        if number == 0 {
            return Ok(None);
        }
        let away = |error: &dyn std::fmt::Display| away("cannot take out a dead letter", error);
        let stream = self
            .js
            .get_stream_no_info(self.names.dead_stream())
            .await
            .map_err(|error| away(&error))?;
        let message = match stream.get_raw_message(number).await {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(error) => return Err(away(&error)),
        };
        if message.subject.as_str() != self.names.dead(topic, group) {
            return Ok(None);
        }
        let letter = decode(number, &message.headers, message.payload)?;
        match stream.delete_message(number).await {
            Ok(true) => Ok(Some(letter)),
            // Another was faster.
            Ok(false) => Ok(None),
            Err(error) if matches!(error.kind(), DeleteMessageErrorKind::JetStream(_)) => {
                match stream.get_raw_message(number).await {
                    Err(gone) if gone.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                    _ => Err(away(&error)),
                }
            }
            Err(error) => Err(away(&error)),
        }
    }
}
