//! How requests travel to S3: hyper's pooled client, which the rest of Holon uses too, instead of a second one.

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::client::{
    HttpClient, HttpConnector as Connect, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use std::error::Error;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) timeout: Duration,
}

impl Connect for Connector {
    fn connect(&self, _: &object_store::ClientOptions) -> object_store::Result<HttpClient> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(HttpClient::new(Service {
            client,
            timeout: self.timeout,
        }))
    }
}

#[derive(Debug)]
struct Service {
    client: Client<HttpConnector, HttpRequestBody>,
    timeout: Duration,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let end = tokio::time::Instant::now() + self.timeout;
        let answer = tokio::time::timeout_at(end, self.client.request(request))
            .await
            .map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?;
        let (head, body) = answer
            .map_err(|error| {
                let kind = if error.is_connect() {
                    HttpErrorKind::Connect
                } else {
                    kind_of(&error)
                };
                HttpError::new(kind, error)
            })?
            .into_parts();
        // An object is a chunk, so it fits in memory, and the time limit holds for all of it.
        let bytes = tokio::time::timeout_at(end, body.collect())
            .await
            .map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?
            .map_err(|error| HttpError::new(kind_of(&error), error))?
            .to_bytes();
        Ok(HttpResponse::from_parts(head, HttpResponseBody::from(bytes)))
    }
}

/// Whether a request may be made again is told by what broke it.
fn kind_of(error: &(dyn Error + 'static)) -> HttpErrorKind {
    let mut cause = Some(error);
    while let Some(link) = cause {
        if let Some(error) = link.downcast_ref::<hyper::Error>()
            && (error.is_closed() || error.is_incomplete_message() || error.is_body_write_aborted())
        {
            return HttpErrorKind::Request;
        }
        if link.is::<std::io::Error>() {
            return HttpErrorKind::Interrupted;
        }
        cause = link.source();
    }
    HttpErrorKind::Unknown
}
