//! Cross-origin requests (the Fetch standard). Credentials travel in headers that scripts set, never in cookies, so
//! `Access-Control-Allow-Credentials` is never needed.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
};

/// Which origins' scripts may call. A browser lets the own origin call in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origins {
    #[default]
    None,
    /// Such as `https://app.example.com`: scheme, host and port exactly.
    Some(Vec<String>),
    Any,
}

impl Origins {
    fn allow(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::Some(origins) => origins.iter().any(|known| known.as_bytes() == origin.as_bytes()),
        }
    }
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, traceparent, x-api-key, \
     x-request-id, x-tenant",
);
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, idempotency-replayed, location, ratelimit, ratelimit-policy, retry-after, traceparent, x-ratelimit-limit, \
     x-ratelimit-remaining, x-ratelimit-reset, x-request-id",
);
/// Two hours: the most that Chromium keeps.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The answer to a preflight; `None` if it is none.
pub(super) fn preflight(origins: &Origins, request: &Request) -> Option<Response> {
    let headers = request.headers();
    if request.method() != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let origin = headers.get(header::ORIGIN)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let out = response.headers_mut();
    if origins.allow(origin) {
        out.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        out.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        out.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        out.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    }
    out.append(header::VARY, HeaderValue::from_static("origin"));
    Some(response)
}

pub(super) fn finish(origins: &Origins, origin: &HeaderValue, headers: &mut HeaderMap) {
    if *origins == Origins::None {
        return;
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if origins.allow(origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}
