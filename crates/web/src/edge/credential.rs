//! The credential in a request: `Authorization: Bearer` with a JWT or an API key, `X-Api-Key`, or, on live routes,
//! `?access_token=`.

use crate::{AuthError, Credential};
use axum::{extract::Request, http::header};

/// What API keys start with.
const API_KEY_PREFIX: &str = "hk_";
/// Longer than any credential here; what is longer is not looked at.
const LONGEST: usize = 8 << 10;

/// `None` if there is no credential; an error if there is something that cannot be one.
pub(super) fn find(request: &Request, is_live: bool) -> Option<Result<Credential, AuthError>> {
    let headers = request.headers();
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(bearer);
        return Some(token.ok_or(AuthError::Invalid).and_then(of_token));
    }
    if let Some(value) = headers.get("x-api-key") {
        let key = value.to_str().ok().filter(|key| is_token(key));
        return Some(
            key.map(|key| Credential::ApiKey(key.to_owned()))
                .ok_or(AuthError::Invalid),
        );
    }
    if is_live {
        let query = request.uri().query()?;
        let (_, token) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "access_token")?;
        return Some(of_token(&token));
    }
    None
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn of_token(token: &str) -> Result<Credential, AuthError> {
    if !is_token(token) {
        return Err(AuthError::Invalid);
    }
    if token.starts_with(API_KEY_PREFIX) {
        Ok(Credential::ApiKey(token.to_owned()))
    } else {
        Ok(Credential::Bearer(token.to_owned()))
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut builder = http::Request::get(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn a_credential_is_found_where_it_may_stand() {
        let bearer = |token: &str| Some(Ok(Credential::Bearer(token.into())));
        let key = |key: &str| Some(Ok(Credential::ApiKey(key.into())));
        assert_eq!(
            find(&request("/", &[("authorization", "bearer a.b.c")]), false),
            bearer("a.b.c")
        );
        assert_eq!(
            find(&request("/", &[("authorization", "Bearer hk_1")]), false),
            key("hk_1")
        );
        assert_eq!(find(&request("/", &[("x-api-key", "hk_2")]), false), key("hk_2"));
        assert_eq!(find(&request("/?access_token=a.b", &[]), true), bearer("a.b"));
        assert_eq!(find(&request("/?access_token=a.b", &[]), false), None);
        for bad in ["Basic YTpi", "Bearer", "Bearer ", "Bearer a b"] {
            let found = find(&request("/", &[("authorization", bad)]), true);
            assert_eq!(found, Some(Err(AuthError::Invalid)), "{bad}");
        }
    }
}
