//! Headers that every request may bring and every answer has.

use crate::limit::Decision;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use holon_telemetry::SpanContext;
use std::{
    fmt::Write as _,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");
static RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// For pages: everything from here, pictures also from scripts (maps draw theirs), workers also from blobs, no frame
/// around it. Component libraries set styles inline; scripts never are.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; \
     child-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

/// The caller's request id if it is 1 to 64 letters, digits, `-`, `_` or `.`; a new one otherwise.
pub(super) fn request_id(headers: &HeaderMap) -> Arc<str> {
    let sane = headers
        .get(&X_REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| {
            (1..=64).contains(&id.len())
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        });
    sane.map_or_else(new_request_id, Arc::from)
}

/// 16 hexadecimal digits: a count, scrambled with the process's random key so that ids of several nodes and runs
/// do not meet.
fn new_request_id() -> Arc<str> {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = KEY.build_hasher();
    hasher.write_u64(COUNT.fetch_add(1, Relaxed));
    let mut text = String::with_capacity(16);
    let _ = write!(text, "{:016x}", hasher.finish());
    text.into()
}

/// The span that the request comes from.
pub(super) fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    headers
        .get(&TRACEPARENT)
        .and_then(|value| value.to_str().ok())
        .and_then(SpanContext::parse)
}

/// What every answer has.
pub(super) fn finish(headers: &mut HeaderMap, request_id: &str, traceparent: &str) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(X_REQUEST_ID.clone(), id);
    }
    if let Ok(trace) = HeaderValue::from_str(traceparent) {
        headers.insert(TRACEPARENT.clone(), trace);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        REFERRER_POLICY.clone(),
        HeaderValue::from_static("strict-origin-when-cross-origin"),
    );
    let is_page = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page && !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    }
}

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10), and the older `X-RateLimit-*` with the
/// reset in seconds from now.
pub(super) fn rate_limit(headers: &mut HeaderMap, decision: &Decision) {
    let reset = seconds(decision.reset);
    let policy = format!(
        "\"{}\";q={};w={}",
        decision.policy,
        decision.limit,
        seconds(decision.window)
    );
    let state = format!("\"{}\";r={};t={reset}", decision.policy, decision.remaining);
    if let (Ok(policy), Ok(state)) = (HeaderValue::try_from(policy), HeaderValue::try_from(state)) {
        headers.insert(RATELIMIT_POLICY.clone(), policy);
        headers.insert(RATELIMIT.clone(), state);
    }
    headers.insert(X_RATELIMIT_LIMIT.clone(), decision.limit.into());
    headers.insert(X_RATELIMIT_REMAINING.clone(), decision.remaining.into());
    headers.insert(X_RATELIMIT_RESET.clone(), reset.into());
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("abc-1.2_Z"));
        assert_eq!(&*request_id(&headers), "abc-1.2_Z");
        for bad in ["", "a b", "a\"b", &"x".repeat(65)] {
            headers.insert("x-request-id", HeaderValue::from_str(bad).unwrap());
            let made = request_id(&headers);
            assert!(made.len() == 16 && *made != *bad, "{bad}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
