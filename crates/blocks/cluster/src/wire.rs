//! Calls on the wire: one unary gRPC method, whose message is the body as it is and whose metadata says the rest.
//!
//! | metadata | what |
//! |---|---|
//! | `holon-service`, `holon-shard`, `holon-method`, `holon-read` | what is asked; no shard if the node is asked |
//! | `holon-from`, `holon-to` | node numbers |
//! | `holon-sent` | when it was sent, in milliseconds since 1970 |
//! | `grpc-timeout` | how long the caller waits, from then |
//! | `traceparent` | the trace it belongs to |
//! | `holon-code` | the authentication code of all of it and of the body, under the deployment's secret |
//!
//! An error is a gRPC status whose details are a [`CallError`] as JSON. There is no schema to generate code from, so no
//! `protoc` is needed to build: bodies belong to services, which write them as they like.

use crate::{
    call::CallError,
    secret::{Key, is_same},
};
use bytes::{Buf as _, BufMut as _, Bytes};
use holon_base::{ErrorKind, Timestamp};
use std::time::Duration;
use tonic::{
    Code, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
};

/// The only method.
pub(crate) const PATH: &str = "/holon.cluster.v1.Node/Call";

/// Bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Everything of a call but its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub service: String,
    pub shard: Option<u32>,
    pub method: String,
    pub is_read: bool,
    pub from: u16,
    pub to: u16,
    pub sent: Timestamp,
    pub timeout: Duration,
    pub traceparent: Option<String>,
}

impl Head {
    fn code(&self, key: &Key, body: &[u8]) -> String {
        let shard = self.shard.map(|shard| shard.to_string()).unwrap_or_default();
        let numbers = format!(
            "{} {} {} {} {}",
            self.from,
            self.to,
            self.sent.millis(),
            self.timeout.as_micros(),
            self.is_read
        );
        let trace = self.traceparent.as_deref().unwrap_or_default();
        let parts = [
            self.service.as_bytes(),
            shard.as_bytes(),
            self.method.as_bytes(),
            numbers.as_bytes(),
            trace.as_bytes(),
            body,
        ];
        key.code("call", &parts)
    }

    /// Writes it down, under the code for this body.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for a name that is no visible ASCII.
    pub fn write(&self, key: &Key, body: &[u8], into: &mut MetadataMap) -> Result<(), CallError> {
        let code = self.code(key, body);
        let mut put = |name: &'static str, text: String| match text.parse() {
            Ok(value) => {
                into.insert(name, value);
                Ok(())
            }
            Err(_) => Err(CallError::Invalid(format!("{name} is {text:?}; expected ASCII"))),
        };
        put("holon-service", self.service.clone())?;
        if let Some(shard) = self.shard {
            put("holon-shard", shard.to_string())?;
        }
        put("holon-method", self.method.clone())?;
        put("holon-read", self.is_read.to_string())?;
        put("holon-from", self.from.to_string())?;
        put("holon-to", self.to.to_string())?;
        put("holon-sent", self.sent.millis().to_string())?;
        put("grpc-timeout", format!("{}u", self.timeout.as_micros()))?;
        if let Some(traceparent) = &self.traceparent {
            put("traceparent", traceparent.clone())?;
        }
        put("holon-code", code)
    }

    /// Reads it, and whether its code is good.
    pub fn read(key: &Key, body: &[u8], from: &MetadataMap) -> Result<Self, Status> {
        let text = |name: &str| from.get(name).and_then(|value| value.to_str().ok());
        let bad = |name: &str| Status::invalid_argument(format!("{name} is missing or cannot be read"));
        let timeout = text("grpc-timeout").and_then(|text| text.strip_suffix('u')?.parse().ok());
        let sent = text("holon-sent").and_then(|text| text.parse().ok());
        let shard = text("holon-shard").map(|text| text.parse().map_err(|_| bad("holon-shard")));
        let head = Self {
            service: text("holon-service").ok_or_else(|| bad("holon-service"))?.into(),
            shard: shard.transpose()?,
            method: text("holon-method").ok_or_else(|| bad("holon-method"))?.into(),
            is_read: text("holon-read") == Some("true"),
            from: number(text("holon-from")).ok_or_else(|| bad("holon-from"))?,
            to: number(text("holon-to")).ok_or_else(|| bad("holon-to"))?,
            sent: Timestamp::from_millis(sent.ok_or_else(|| bad("holon-sent"))?),
            timeout: Duration::from_micros(timeout.ok_or_else(|| bad("grpc-timeout"))?),
            traceparent: text("traceparent").map(str::to_owned),
        };
        let code = text("holon-code").unwrap_or_default();
        match is_same(&head.code(key, body), code) {
            true => Ok(head),
            false => Err(Status::unauthenticated(
                "the call does not carry the deployment's secret",
            )),
        }
    }
}

fn number(text: Option<&str>) -> Option<u16> {
    text.and_then(|text| text.parse().ok())
}

pub(crate) fn status_of(error: &CallError) -> Status {
    let code = match error {
        CallError::Unavailable { .. } | CallError::NoOwner { .. } => Code::Unavailable,
        CallError::Deadline { .. } => Code::DeadlineExceeded,
        CallError::NotOwner { .. } => Code::FailedPrecondition,
        CallError::NoSuchNode { .. } => Code::NotFound,
        CallError::Invalid(_) => Code::InvalidArgument,
        CallError::Refused { .. } => Code::Unauthenticated,
        CallError::Failed { kind, .. } => match kind {
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Forbidden => Code::PermissionDenied,
            ErrorKind::Conflict | ErrorKind::PreconditionFailed => Code::Aborted,
            ErrorKind::RateLimited | ErrorKind::TooLarge => Code::ResourceExhausted,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::Timeout => Code::DeadlineExceeded,
            ErrorKind::Internal => Code::Internal,
            _ => Code::InvalidArgument,
        },
    };
    let details = serde_json::to_vec(error).unwrap_or_default();
    Status::with_details(code, error.to_string(), details.into())
}

/// What a status of a call to a node means.
pub(crate) fn error_of(node: u16, status: &Status) -> CallError {
    if let Ok(error) = serde_json::from_slice(status.details()) {
        return error;
    }
    let detail = status.message().to_owned();
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => CallError::Deadline { node },
        Code::Unauthenticated => CallError::Refused { node, detail },
        Code::InvalidArgument | Code::OutOfRange => CallError::Invalid(detail),
        _ => CallError::Unavailable { node, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            service: "maps".into(),
            shard: Some(7),
            method: "route".into(),
            is_read: true,
            from: 1,
            to: 2,
            sent: Timestamp::from_millis(1_795_303_174_120),
            timeout: Duration::from_millis(1_500),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        }
    }

    #[test]
    fn a_call_arrives_as_it_was_sent_or_not_at_all() {
        let (key, body) = (Key::new([7; 32]), b"from here to there");
        let written = |head: &Head| {
            let mut metadata = MetadataMap::new();
            head.write(&key, body, &mut metadata).unwrap();
            metadata
        };
        let sent = written(&head());
        assert_eq!(Head::read(&key, body, &sent).unwrap(), head());
        let of_node = Head {
            shard: None,
            traceparent: None,
            is_read: false,
            ..head()
        };
        assert_eq!(Head::read(&key, body, &written(&of_node)).unwrap(), of_node);

        // Another secret, another body, another word anywhere, or nothing.
        let refused =
            |key: &Key, body: &[u8], metadata: &MetadataMap| Head::read(key, body, metadata).is_err();
        assert!(refused(&Key::new([8; 32]), body, &sent));
        assert!(refused(&key, b"from there to here", &sent));
        for (name, other) in [
            ("holon-service", "mapss"),
            ("holon-shard", "8"),
            ("holon-method", "erase"),
            ("holon-read", "false"),
            ("holon-from", "3"),
            ("holon-to", "3"),
            ("holon-sent", "1795303174121"),
            ("grpc-timeout", "1500001u"),
            (
                "traceparent",
                "00-00000000000000000000000000000001-b7ad6b7169203331-01",
            ),
            ("holon-code", "00"),
        ] {
            let mut changed = sent.clone();
            changed.insert(name, other.parse().unwrap());
            assert!(refused(&key, body, &changed), "{name}");
            changed.remove(name);
            // Whether it is a read is false unless it is said.
            assert!(refused(&key, body, &changed), "without {name}");
        }
        assert!(refused(&key, body, &MetadataMap::new()));
    }

    #[test]
    fn an_error_comes_back_as_it_was() {
        for error in [
            CallError::NotOwner {
                node: 1,
                service: "maps".into(),
                shard: 3,
                owner: Some(2),
            },
            CallError::Deadline { node: 3 },
            CallError::failed(ErrorKind::PreconditionFailed, "it has changed"),
        ] {
            assert_eq!(error_of(9, &status_of(&error)), error);
        }
        let lost = error_of(9, &Status::unavailable("connection refused"));
        assert!(matches!(lost, CallError::Unavailable { node: 9, .. }), "{lost:?}");
    }
}
