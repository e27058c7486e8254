//! What all processes of a deployment must agree on: topics, groups, and how far each group is.
//!
//! One stream keeps the last value of each subject. A value is written on the condition that the one that was read is
//! still the last (`Nats-Expected-Last-Subject-Sequence`): compare and set, which is all that fencing needs. Values
//! are read from the leader of the stream, never from a replica that may be behind.

use crate::{
    error::{api_error, away, corrupt, is_full},
    names::Names,
    read::{Puller, Start},
    streams::{self, Replicas},
};
use async_nats::{
    Client, HeaderMap,
    header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
    jetstream::{
        Context,
        context::PublishErrorKind,
        stream::{Config, DiscardPolicy, LastRawMessageErrorKind, StorageType},
    },
};
use bytes::Bytes;
use holon_ports::LogError;
use serde::{Serialize, de::DeserializeOwned};

/// A value and its revision: the number by which it is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versioned<T> {
    pub value: T,
    pub revision: u64,
}

/// Why a value was not written.
#[derive(Debug)]
pub(crate) enum PutError {
    /// Another was written in between.
    Conflict,
    Failed(LogError),
}

impl From<PutError> for LogError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Conflict => {
                Self::Unavailable("a record was changed by another at the same time".into())
            }
            PutError::Failed(error) => error,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct State {
    client: Client,
    js: Context,
    stream: String,
}

impl State {
    pub async fn open(
        client: &Client,
        js: &Context,
        names: &Names,
        replicas: Replicas,
    ) -> Result<Self, LogError> {
        let stream = names.state_stream();
        let config = Config {
            name: stream.clone(),
            subjects: vec![names.state(">")],
            storage: StorageType::File,
            num_replicas: replicas.0,
            max_messages_per_subject: 1,
            discard: DiscardPolicy::Old,
            ..Config::default()
        };
        streams::ensure(js, config).await?;
        Ok(Self {
            client: client.clone(),
            js: js.clone(),
            stream,
        })
    }

    pub async fn get<T: DeserializeOwned>(&self, subject: &str) -> Result<Option<Versioned<T>>, LogError> {
        let away = |error: &dyn std::fmt::Display| away("cannot read a record", error);
        let stream = self
            .js
            .get_stream_no_info(&self.stream)
            .await
            .map_err(|error| away(&error))?;
        let message = match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(error) => return Err(away(&error)),
        };
        Ok(Some(Versioned {
            value: parse(subject, &message.payload)?,
            revision: message.sequence,
        }))
    }

    /// Writes a value over the one with this revision; 0 for one that is not there yet. Answers the new revision.
    pub async fn put<T: Serialize>(&self, subject: &str, value: &T, revision: u64) -> Result<u64, PutError> {
        let failed = |error: &dyn std::fmt::Display| PutError::Failed(away("cannot write a record", error));
        let value = serde_json::to_vec(value).map_err(|error| failed(&error))?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string());
        let published = self
            .js
            .publish_with_headers(subject.to_owned(), headers, value.into())
            .await
            .map_err(|error| failed(&error))?;
        match published.await {
            Ok(ack) => Ok(ack.sequence),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Err(PutError::Conflict),
            Err(error) => match api_error(&error) {
                Some(api) if is_full(api.error_code()) => Err(PutError::Failed(LogError::Full)),
                _ => Err(failed(&error)),
            },
        }
    }

    /// The values of all subjects that match a pattern, with their subjects, in order of writing.
    pub async fn list<T: DeserializeOwned>(&self, pattern: &str) -> Result<Vec<(String, T)>, LogError> {
        let mut values = Vec::new();
        let mut puller = Puller::open(
            &self.client,
            &self.js,
            &self.stream,
            Start::LastOfEach,
            Some(pattern),
            false,
        )
        .await?;
        puller
            .drain(|message| {
                values.push((
                    message.subject.clone(),
                    parse(&message.subject, &message.payload)?,
                ));
                Ok(true)
            })
            .await?;
        Ok(values)
    }
}

fn parse<T: DeserializeOwned>(subject: &str, value: &Bytes) -> Result<T, LogError> {
    serde_json::from_slice(value).map_err(|error| corrupt(&format!("record {subject}"), error))
}
