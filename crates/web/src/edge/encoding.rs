//! gzip for answers that are text, whole and large enough to gain by it. Streams are never held back to be compressed.

use super::conditional::GZIP_SUFFIX;
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use std::io::Write as _;

/// Below this a packet is a packet either way.
const FROM_BYTES: u64 = 1 << 10;
const TO_BYTES: u64 = 16 << 20;
/// Above this, compressing takes long enough (about a millisecond) to be done beside the runtime.
const INLINE_BYTES: usize = 128 << 10;

pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|choice| {
            let (coding, parameters) = choice.split_once(';').unwrap_or((choice, ""));
            let refused = matches!(parameters.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
            matches!(coding.trim(), "gzip" | "*") && !refused
        })
}

fn is_text(headers: &HeaderMap) -> bool {
    let Some(kind) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = kind.split(';').next().unwrap_or_default();
    if essence == "text/event-stream" {
        return false;
    }
    essence.starts_with("text/")
        || essence.ends_with("json")
        || essence.ends_with("xml")
        || essence == "application/javascript"
        || essence.starts_with("application/openmetrics")
}

pub(super) async fn compress(wanted: bool, mut response: Response) -> Response {
    let size = response.body().size_hint().exact().unwrap_or(0);
    let worth_it = (FROM_BYTES..=TO_BYTES).contains(&size)
        && !response.headers().contains_key(header::CONTENT_ENCODING)
        && !response.headers().contains_key(header::CONTENT_RANGE)
        && is_text(response.headers());
    if !worth_it {
        return response;
    }
    response
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("accept-encoding"));
    if !wanted {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // The body is whole already: its size is known and small.
    let Ok(collected) = body.collect().await else {
        return crate::ApiError::internal("an answer broke off").into_response();
    };
    let plain = collected.to_bytes();
    let compressed = if plain.len() <= INLINE_BYTES {
        gzip(&plain)
    } else {
        let plain = plain.clone();
        tokio::task::spawn_blocking(move || gzip(&plain))
            .await
            .unwrap_or(None)
    };
    let Some(compressed) = compressed else {
        return Response::from_parts(head, Body::from(plain));
    };
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers
        .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    if let Some(tag) = head.headers.get(header::ETAG).and_then(suffixed) {
        head.headers.insert(header::ETAG, tag);
    }
    Response::from_parts(head, Body::from(compressed))
}

fn gzip(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 3), Compression::fast());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

fn suffixed(tag: &HeaderValue) -> Option<HeaderValue> {
    let inner = tag.to_str().ok()?.strip_suffix('"')?;
    HeaderValue::try_from(format!("{inner}{GZIP_SUFFIX}\"")).ok()
}
