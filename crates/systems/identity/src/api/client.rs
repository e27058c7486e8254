//! Where a request comes from, and whether its device is known.

use crate::{lockout::DEVICE_LIFETIME, service::Client};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
};
use holon_web::{ApiError, ClientAddress};

/// Carries what a login gave, both ways, for clients without cookies.
pub const DEVICE_HEADER: HeaderName = HeaderName::from_static("x-device");
const DEVICE_COOKIE: &str = "holon_device";
const DEVICE_CHARS_MAX: usize = 256;

/// A [`Client`] out of a request.
pub struct From(pub Client);

impl<S: Send + Sync> FromRequestParts<S> for From {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let ClientAddress(address) = ClientAddress::from_request_parts(parts, state).await?;
        let agent = parts.headers.get(header::USER_AGENT);
        Ok(Self(Client {
            address: Some(address),
            user_agent: agent
                .and_then(|agent| agent.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            device: device(&parts.headers),
        }))
    }
}

fn device(headers: &HeaderMap) -> Option<String> {
    let sent = headers.get(DEVICE_HEADER).and_then(|value| value.to_str().ok());
    let kept = || {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(name, value)| (name == DEVICE_COOKIE).then_some(value))
    };
    let device = sent.or_else(kept)?;
    (device.len() <= DEVICE_CHARS_MAX).then(|| device.to_owned())
}

/// The headers that make a device known: a cookie for browsers, a header for the others.
pub fn known_device(token: &str, secure: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let secure = if secure { "; Secure" } else { "" };
    let age = DEVICE_LIFETIME.as_secs();
    let cookie = format!(
        "{DEVICE_COOKIE}={token}; Path=/v1/identity; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"
    );
    // Tokens are base64url, figures and dots.
    if let (Ok(cookie), Ok(token)) = (HeaderValue::try_from(cookie), HeaderValue::try_from(token)) {
        headers.insert(header::SET_COOKIE, cookie);
        headers.insert(DEVICE_HEADER, token);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}
