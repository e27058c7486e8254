//! What handlers answer with, besides JSON and problems.
//!
//! An ETag here is `"<version>-<hash of the body>"`. `If-Match` looks at the version alone: it protects what the
//! caller would overwrite. `If-None-Match` looks at all of it, since an answer also changes when something beside the
//! row does (a count, what the viewer did), and a 304 must then not be given.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use std::hash::Hasher;

/// 200 with an `ETag`. The edge turns it into 304 where the caller has it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tagged<T> {
    /// Of the row behind it: [`holon_ports::Row::version`].
    pub version: u64,
    pub body: T,
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        json_with_tag(StatusCode::OK, self.version, &self.body)
    }
}

/// 201 with `Location` and `ETag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created<T> {
    /// The path of the new resource, such as `/v1/feed/posts/42`.
    pub location: String,
    pub version: u64,
    pub body: T,
}

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let Ok(location) = HeaderValue::try_from(self.location) else {
            return crate::ApiError::internal("a location is no header value").into_response();
        };
        let mut response = json_with_tag(StatusCode::CREATED, self.version, &self.body);
        response.headers_mut().insert(header::LOCATION, location);
        response
    }
}

/// A JSON document that is bytes already, as the store keeps it: passed on without parsing. Give `version` for an
/// `ETag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonBytes {
    pub version: Option<u64>,
    pub body: Bytes,
}

impl IntoResponse for JsonBytes {
    fn into_response(self) -> Response {
        let tag = self.version.map(|version| entity_tag(version, &self.body));
        json_response(StatusCode::OK, tag, self.body)
    }
}

fn json_with_tag<T: Serialize>(status: StatusCode, version: u64, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let tag = entity_tag(version, &bytes);
            json_response(status, Some(tag), bytes.into())
        }
        Err(error) => crate::ApiError::internal(error).into_response(),
    }
}

fn json_response(status: StatusCode, tag: Option<HeaderValue>, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(tag) = tag {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// SipHash of the body: fast, and a changed body keeps its tag once in 2^64.
fn entity_tag(version: u64, body: &[u8]) -> HeaderValue {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(body);
    let text = format!("\"{version}-{:x}\"", hasher.finish());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The version in the inside of a tag: its digits up to the first `-`.
pub(crate) fn version_of_tag(inner: &str) -> Option<u64> {
    let version = inner.split('-').next().unwrap_or(inner);
    let is_plain = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { version.parse().ok() } else { None }
}
