//! Where a request comes from.

use crate::problem::ApiError;
use axum::{
    extract::{ConnectInfo, FromRequestParts, Request},
    http::{HeaderMap, request::Parts},
};
use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// The address of the client, as far as it can be known: the connection's other end, or what a trusted proxy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().copied();
        Ok(known.unwrap_or(Self(IpAddr::V4(Ipv4Addr::LOCALHOST))))
    }
}

impl From<Infallible> for ApiError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The client's address. With `hops` proxies in front, each of which appends the address that it sees to
/// `X-Forwarded-For`, the client is the entry that many from the right; what stands left of it anybody may have written.
pub(super) fn of(request: &Request, hops: usize) -> IpAddr {
    let forwarded = hops
        .checked_sub(1)
        .and_then(|skip| forwarded_for(request.headers(), skip));
    forwarded.unwrap_or_else(|| {
        request
            .extensions()
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |info| info.0.ip())
    })
}

fn forwarded_for(headers: &HeaderMap, skip: usize) -> Option<IpAddr> {
    let entries: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    entries.iter().rev().nth(skip)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_trusted_proxies_appended_counts() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6, 1.2.3.4".parse().unwrap());
        headers.append("x-forwarded-for", "10.0.0.1".parse().unwrap());
        assert_eq!(forwarded_for(&headers, 0), "10.0.0.1".parse().ok());
        assert_eq!(forwarded_for(&headers, 1), "1.2.3.4".parse().ok());
        assert_eq!(forwarded_for(&headers, 7), None);
    }
}
