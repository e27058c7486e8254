//! Reading streams: many messages for one request.
//!
//! A [`Puller`] is an ephemeral pull consumer that acknowledges nothing (as ADR-17 of NATS has ordered consumers): it
//! is asked for a number of messages and sends them one after the other. It lives in the memory of one server; when
//! that server dies, whoever reads makes another from where it was. Since streams of events are only ever cut at
//! their start, sequences have no gaps, and one that is found says that the messages before it were dropped.

use crate::error::away;
use async_nats::{Client, HeaderMap, Message, Subscriber, jetstream::Context, jetstream::response::Response};
use bytes::Bytes;
use futures::StreamExt;
use holon_base::Timestamp;
use holon_ports::LogError;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

/// The most bytes that are sent for one request.
pub(crate) const PULL_BYTES: usize = 8 << 20;
/// Messages that a scan asks for at once.
const SCAN_MESSAGES: usize = 1_000;
/// A server says every so often that it is there while it has nothing to send.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long silence is borne.
const SILENCE: Duration = Duration::from_secs(5);
/// A server forgets a consumer that was not asked for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Where reading starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    Sequence(u64),
    /// The first message that arrived then or later.
    Arrival(Timestamp),
    /// The last message of each subject.
    LastOfEach,
}

/// A message of a stream.
#[derive(Debug)]
pub(crate) struct Stored {
    pub sequence: u64,
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
    /// How many more the consumer had at that moment.
    pub pending: u64,
}

/// What a puller was sent.
#[derive(Debug)]
pub(crate) enum Pulled {
    Message(Box<Stored>),
    /// Nothing more for the last request.
    End,
    /// The consumer or the server is gone: open another.
    Broken(String),
}

pub(crate) struct Puller {
    client: Client,
    stream: String,
    consumer: String,
    inbox: String,
    arrivals: Subscriber,
}

#[derive(Deserialize)]
struct Created {
    name: String,
}

impl Puller {
    pub async fn open(
        client: &Client,
        js: &Context,
        stream: &str,
        start: Start,
        filter: Option<&str>,
        headers_only: bool,
    ) -> Result<Self, LogError> {
        let mut config = json!({
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_deliver": 1,
            "max_waiting": 8,
            "mem_storage": true,
            "num_replicas": 1,
            "headers_only": headers_only,
            "inactive_threshold": FORGOTTEN_AFTER.as_nanos() as u64,
        });
        match start {
            Start::Sequence(sequence) => {
                config["deliver_policy"] = json!("by_start_sequence");
                config["opt_start_seq"] = json!(sequence);
            }
            Start::Arrival(time) => {
                config["deliver_policy"] = json!("by_start_time");
                config["opt_start_time"] = json!(time.to_string());
            }
            Start::LastOfEach => config["deliver_policy"] = json!("last_per_subject"),
        }
        if let Some(filter) = filter {
            config["filter_subject"] = json!(filter);
        }
        let request = json!({ "stream_name": stream, "config": config });
        let response: Response<Created> = js
            .request(format!("CONSUMER.CREATE.{stream}"), &request)
            .await
            .map_err(|error| away(&format!("cannot read stream {stream}"), error))?;
        let created = match response {
            Response::Ok(created) => created,
            Response::Err { error } => return Err(away(&format!("cannot read stream {stream}"), error)),
        };
        let inbox = client.new_inbox();
        let arrivals = client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| away("cannot listen for messages", error))?;
        Ok(Self {
            client: client.clone(),
            stream: stream.to_owned(),
            consumer: created.name,
            inbox,
            arrivals,
        })
    }

    async fn ask(&self, request: serde_json::Value) -> Result<(), LogError> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer);
        self.client
            .publish_with_reply(subject, self.inbox.clone(), request.to_string().into())
            .await
            .map_err(|error| away("cannot ask for messages", error))
    }

    /// Asks for messages, those that come within `patience` included.
    pub async fn request(&self, messages: usize, patience: Duration) -> Result<(), LogError> {
        let mut request = json!({
            "batch": messages,
            "max_bytes": PULL_BYTES,
            "expires": patience.as_nanos() as u64,
        });
        if patience > 2 * HEARTBEAT {
            request["idle_heartbeat"] = json!(HEARTBEAT.as_nanos() as u64);
        }
        self.ask(request).await
    }

    /// Waits for what comes next. May be given up and asked again.
    pub async fn next(&mut self) -> Pulled {
        loop {
            let message = match timeout(SILENCE, self.arrivals.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Pulled::Broken("the connection is closed".into()),
                Err(_) => return Pulled::Broken("the server is silent".into()),
            };
            match message.status.map(|status| status.as_u16()) {
                None => {
                    return match stored(message) {
                        Some(stored) => Pulled::Message(Box::new(stored)),
                        None => Pulled::Broken("a message has no place in the stream".into()),
                    };
                }
                Some(100) => {}
                Some(404 | 408) => return Pulled::End,
                Some(409) if message.description.as_deref().is_some_and(is_too_much) => return Pulled::End,
                Some(status) => {
                    let description = message.description.unwrap_or_default();
                    return Pulled::Broken(format!("status {status} {description}"));
                }
            }
        }
    }

    /// Hands over every message that is there now, until the answer is `false`.
    pub async fn drain(
        &mut self,
        mut each: impl FnMut(&Stored) -> Result<bool, LogError>,
    ) -> Result<(), LogError> {
        loop {
            self.ask(json!({ "batch": SCAN_MESSAGES, "no_wait": true, "max_bytes": PULL_BYTES }))
                .await?;
            let mut arrived = 0;
            loop {
                match self.next().await {
                    Pulled::Message(message) => {
                        arrived += 1;
                        if !each(&message)? || message.pending == 0 {
                            return Ok(());
                        }
                        if arrived == SCAN_MESSAGES {
                            break;
                        }
                    }
                    // With something behind it, this was only the end of what one request may take.
                    Pulled::End if arrived > 0 => break,
                    Pulled::End => return Ok(()),
                    Pulled::Broken(why) => return Err(away("reading was broken off", why)),
                }
            }
        }
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        // Only tidiness: the server forgets the consumer by itself.
        let subject = format!("$JS.API.CONSUMER.DELETE.{}.{}", self.stream, self.consumer);
        let client = self.client.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { client.publish(subject, Bytes::new()).await });
        }
    }
}

fn is_too_much(description: &str) -> bool {
    description.eq_ignore_ascii_case("message size exceeds maxbytes")
}

/// A message with its place, which is in the subject for acknowledgements (ADR-15 of NATS):
/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.…`, or the same with domain and account before the stream.
fn stored(message: Message) -> Option<Stored> {
    let reply = message.reply.as_ref()?;
    let parts: Vec<&str> = reply.split('.').collect();
    let from_stream = if parts.len() >= 11 { 4 } else { 2 };
    let number = |at: usize| parts.get(from_stream + at)?.parse::<u64>().ok();
    Some(Stored {
        sequence: number(3)?,
        pending: number(6)?,
        subject: message.subject.to_string(),
        headers: message.headers.unwrap_or_default(),
        payload: message.payload,
    })
}
