//! A small HTTP client for Holon's own API: what the import and the commands that talk to a running server use.
//!
//! It speaks plain HTTP/1.1 over a pool of kept-alive connections. [`Client::call`] sees a request through: it waits
//! as an overloaded server asks it to, and backs off while the server is away, until nobody's request has been
//! answered for the client's patience. So it is for requests that may be sent twice; [`Client::once`] is for others.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long one request may take, long polls excepted.
const REQUEST_TIME: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What is sent, besides where.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sending<'a> {
    pub token: Option<&'a str>,
    pub idempotency_key: Option<&'a str>,
    pub body: Option<&'a serde_json::Value>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The document in the answer.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| ClientError::Answer(error.to_string()))
    }

    /// The last part of a problem's type, such as `handle-taken`; empty if it is no problem document.
    pub fn problem(&self) -> String {
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let kind = document["type"].as_str().unwrap_or_default();
        kind.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// What a problem document says, or the start of whatever came.
    pub fn detail(&self) -> String {
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        match document["detail"].as_str() {
            Some(detail) => detail.to_owned(),
            None => String::from_utf8_lossy(&self.body).chars().take(200).collect(),
        }
    }

    /// The answer if it is a success.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with what the server said.
    pub fn ok(self, what: &str) -> Result<Self, ClientError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(ClientError::Refused {
            what: what.to_owned(),
            status: self.status,
            detail: self.detail(),
        })
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self
            .headers
            .get(header::RETRY_AFTER)?
            .to_str()
            .ok()?
            .parse()
            .ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// True where the same request may succeed later without a change.
    pub fn is_transient(&self) -> bool {
        let still_running = self.status == StatusCode::CONFLICT && self.problem() == "still-running";
        still_running || matches!(self.status.as_u16(), 429 | 502 | 503 | 504)
    }
}

/// Why there is no answer, or not the one that was needed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    #[error("{0:?} is no server's address; expected one such as http://127.0.0.1:8080")]
    Address(String),
    #[error("https is not spoken here; use the server's own address, such as http://127.0.0.1:8080")]
    Https,
    #[error("no answer: {0}")]
    Transport(String),
    #[error("{server} has not answered for {} s ({error})", patience.as_secs())]
    Away {
        server: String,
        patience: Duration,
        error: String,
    },
    #[error("{what}: the server answered {status}: {detail}")]
    Refused {
        what: String,
        status: StatusCode,
        detail: String,
    },
    #[error("the server's answer is not as expected: {0}")]
    Answer(String),
}

/// A client of one server. Clones share connections and patience.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    /// `http://host:port`.
    server: Arc<str>,
    patience: Duration,
    last_answer: Arc<Mutex<Instant>>,
}

impl Client {
    /// A client of the server at this address. Nothing is sent yet.
    pub fn new(server: &str, patience: Duration) -> Result<Self, ClientError> {
        let address = || ClientError::Address(server.to_owned());
        let uri: Uri = server.parse().map_err(|_| address())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(ClientError::Https),
            _ => return Err(address()),
        }
        let authority = uri.authority().ok_or_else(address)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        Ok(Self {
            pool: Pool::builder(TokioExecutor::new()).build(connector),
            server: format!("http://{authority}").into(),
            patience,
            last_answer: Arc::new(Mutex::new(Instant::now())),
        })
    }

    /// Sends a request once.
    ///
    /// # Errors
    /// [`ClientError::Transport`]: it may or may not have been done.
    pub async fn once(
        &self,
        method: Method,
        path: &str,
        sending: Sending<'_>,
    ) -> Result<Answer, ClientError> {
        let request = self.request(method, path, sending)?;
        let transport = |error: &dyn std::fmt::Display| ClientError::Transport(error.to_string());
        let exchange = async {
            let response = self
                .pool
                .request(request)
                .await
                .map_err(|error| transport(&root_cause(&error)))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| transport(&error))?;
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        let answer = tokio::time::timeout(REQUEST_TIME, exchange)
            .await
            .map_err(|_| transport(&"timed out"))??;
        *self.last_answer.lock() = Instant::now();
        Ok(answer)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        sending: Sending<'_>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(header::USER_AGENT, concat!("holon/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = sending.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(key) = sending.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let body = match sending.body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request
            .body(Full::new(body))
            .map_err(|error| ClientError::Answer(error.to_string()))
    }

    /// Sends a request once and writes the body of the answer as it comes. No time is set to the whole, only to silence.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with what the server said; [`ClientError::Transport`] if the body was broken off.
    pub async fn download(
        &self,
        method: Method,
        path: &str,
        sending: Sending<'_>,
        to: &mut impl std::io::Write,
    ) -> Result<u64, ClientError> {
        let transport = |error: &dyn std::fmt::Display| ClientError::Transport(error.to_string());
        let silent = |_| ClientError::Transport(format!("nothing came for {} s", REQUEST_TIME.as_secs()));
        let request = self.request(method, path, sending)?;
        let response = tokio::time::timeout(REQUEST_TIME, self.pool.request(request)).await;
        let response = response
            .map_err(silent)?
            .map_err(|error| transport(&root_cause(&error)))?;
        let (head, mut body) = response.into_parts();
        if !head.status.is_success() {
            let body = body.collect().await.map_err(|error| transport(&error))?;
            let answer = Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            };
            return answer.ok(path).map(|_| 0);
        }
        let mut written = 0;
        while let Some(frame) = tokio::time::timeout(REQUEST_TIME, body.frame())
            .await
            .map_err(silent)?
        {
            let frame = frame.map_err(|error| transport(&root_cause(&error)))?;
            if let Some(bytes) = frame.data_ref() {
                to.write_all(bytes).map_err(|error| transport(&error))?;
                written += bytes.len() as u64;
            }
        }
        Ok(written)
    }

    /// Sends a request until it is answered with something that waiting would not change.
    ///
    /// # Errors
    /// [`ClientError::Away`] when the server has answered nobody for the client's patience.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        sending: Sending<'_>,
    ) -> Result<Answer, ClientError> {
        let mut attempt = 0;
        loop {
            let outcome = self.once(method.clone(), path, sending).await;
            match outcome {
                Ok(answer) if !answer.is_transient() => return Ok(answer),
                outcome => self.pause(attempt, outcome).await?,
            }
            attempt += 1;
        }
    }

    /// Waits before another attempt (counted from 0) after this outcome: as long as the server asks, or longer each time.
    ///
    /// # Errors
    /// The outcome's own error if waiting cannot help; [`ClientError::Away`] when patience is over.
    pub async fn pause(&self, attempt: u32, outcome: Result<Answer, ClientError>) -> Result<(), ClientError> {
        let backed_off = FIRST_PAUSE
            .saturating_mul(1 << attempt.min(10))
            .min(LONGEST_PAUSE);
        let (asked, error) = match outcome {
            Ok(answer) => (answer.retry_after(), format!("it answers {}", answer.status)),
            Err(ClientError::Transport(error)) => (None, error),
            Err(other) => return Err(other),
        };
        if self.last_answer.lock().elapsed() > self.patience {
            return Err(ClientError::Away {
                server: self.server.to_string(),
                patience: self.patience,
                error,
            });
        }
        // Spread out, so that all who were sent away do not come back at once.
        let pause = asked.unwrap_or(backed_off).mul_f64(rand::random_range(0.7..1.3));
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// A `GET` that must succeed, as a document.
    pub async fn read<T: DeserializeOwned>(&self, path: &str, token: &str) -> Result<T, ClientError> {
        let sending = Sending {
            token: Some(token),
            ..Sending::default()
        };
        self.call(Method::GET, path, sending).await?.ok(path)?.json()
    }
}

/// The innermost cause says what happened ("connection refused"); the outer ones only where.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_addresses_are_taken() {
        let patience = Duration::from_secs(1);
        assert_eq!(
            Client::new("http://127.0.0.1:8080/", patience)
                .map(|client| client.server.to_string())
                .ok(),
            Some("http://127.0.0.1:8080".to_owned())
        );
        assert!(matches!(
            Client::new("https://a.example", patience),
            Err(ClientError::Https)
        ));
        for bad in ["", "127.0.0.1:8080", "ftp://a", "a b"] {
            assert!(
                matches!(Client::new(bad, patience), Err(ClientError::Address(_))),
                "{bad}"
            );
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_waited_for_and_then_given_up() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let client = Client::new(&format!("http://{unused}"), Duration::from_millis(300)).unwrap();
        let began = Instant::now();
        let error = client
            .call(Method::GET, "/livez", Sending::default())
            .await
            .unwrap_err();
        assert!(matches!(&error, ClientError::Away { .. }), "{error}");
        assert!(began.elapsed() >= Duration::from_millis(300));
    }
}
