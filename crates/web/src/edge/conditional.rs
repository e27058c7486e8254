//! `If-None-Match` (RFC 9110, 13.1.2): an answer that the caller has already becomes a 304.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};

/// What the compressed form of an answer carries at the end of its tag, since it differs byte by byte.
pub(super) const GZIP_SUFFIX: &str = "-gzip";

pub(super) fn apply(wanted: &HeaderValue, mut response: Response) -> Response {
    if response.status() != StatusCode::OK {
        return response;
    }
    let Some(tag) = response.headers().get(header::ETAG) else {
        return response;
    };
    let (Ok(wanted), Ok(tag)) = (wanted.to_str(), tag.to_str()) else {
        return response;
    };
    if !matches(wanted, tag) {
        return response;
    }
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.body_mut() = Body::empty();
    response.headers_mut().remove(header::CONTENT_TYPE);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response
}

/// Weak comparison with each tag of a list. Our tags hold no commas.
fn matches(wanted: &str, tag: &str) -> bool {
    let tag = opaque(tag);
    wanted
        .split(',')
        .map(str::trim)
        .any(|candidate| candidate == "*" || opaque(candidate) == tag)
}

fn opaque(tag: &str) -> &str {
    let inner = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
    inner.strip_suffix(GZIP_SUFFIX).unwrap_or(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_match_weakly_in_lists_and_whatever_their_encoding() {
        for wanted in ["\"7-a\"", "W/\"7-a\"", "\"1\", \"7-a-gzip\"", "*"] {
            assert!(matches(wanted, "\"7-a\""), "{wanted}");
        }
        for wanted in ["", "\"7\"", "\"7-b\", \"8-a\""] {
            assert!(!matches(wanted, "\"7-a\""), "{wanted}");
        }
    }
}
