//! A client of HTTP that reports what happened to each attempt, and never tries again by itself.

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use std::time::Duration;

/// What is sent, but where.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
    pub idempotency_key: Option<String>,
}

impl Request {
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            body: None,
            idempotency_key: None,
        }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The document, or `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The last part of a problem's type, such as `still-running`; empty if it is no problem document.
    pub fn problem(&self) -> String {
        let document = self.json();
        let kind = document["type"].as_str().unwrap_or_default();
        kind.rsplit('/').next().unwrap_or_default().to_owned()
    }

    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
        Some(Duration::from_secs(seconds.parse().ok()?))
    }

    /// Whether the same request may well be taken later.
    pub fn is_passing(&self) -> bool {
        let is_still_running = self.status == 409 && self.problem() == "still-running";
        is_still_running || matches!(self.status, 408 | 429 | 500..)
    }
}

/// Clones share connections.
#[derive(Clone)]
pub struct Http {
    pool: Client<HttpConnector, Full<Bytes>>,
}

impl Default for Http {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        Self {
            pool: Client::builder(TokioExecutor::new()).build(connector),
        }
    }
}

impl Http {
    /// Sends a request once.
    ///
    /// # Errors
    /// Why there is no answer; the request may have been done all the same.
    pub async fn send(
        &self,
        server: &str,
        token: &str,
        request: &Request,
        patience: Duration,
    ) -> Result<Answer, String> {
        let mut head = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{server}{}", request.path));
        if !token.is_empty() {
            head = head.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(key) = &request.idempotency_key {
            head = head.header("idempotency-key", key);
        }
        let body = match &request.body {
            Some(body) => {
                head = head.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let whole = head.body(Full::new(body)).map_err(|error| error.to_string())?;
        let exchange = async {
            let response = self
                .pool
                .request(whole)
                .await
                .map_err(|error| innermost(&error))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| innermost(&error))?;
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
        }
    }
}

/// The innermost cause says what happened; the outer ones only where.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
