//! Problem documents (RFC 9457): every error that a client sees.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use holon_base::ErrorKind;
use holon_ports::{BlobError, BusError, CacheError, LeaseError, LogError, StoreError};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The body of an error, as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// A stable name for this kind of error, such as `/problems/handle-taken`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened here and what to do about it.
    pub detail: String,
    /// The field or parameter at fault, as a JSON pointer (`/text`) or a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Names this request in the logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// An error on its way to a client. Internal text never gets in: see [`ApiError::internal`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct ApiError {
    pub kind: ErrorKind,
    /// The last part of the problem's type, in kebab case.
    pub code: &'static str,
    pub detail: String,
    pub field: Option<String>,
    pub retry_after: Option<Duration>,
    /// The status, where it is not the kind's: those that only HTTP knows, such as 405 and 415.
    pub status: Option<StatusCode>,
}

impl ApiError {
    pub fn new(kind: ErrorKind, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            detail: detail.into(),
            field: None,
            retry_after: None,
            status: None,
        }
    }

    /// 400 for one field; `detail` says what to send instead.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, "invalid", detail).at(field)
    }

    /// 404; `what` is such as `post` or `account`.
    pub fn not_found(what: &str) -> Self {
        Self::new(
            ErrorKind::NotFound,
            "not-found",
            format!("there is no such {what}"),
        )
    }

    pub fn forbidden(permission: &str) -> Self {
        Self::new(
            ErrorKind::Forbidden,
            "forbidden",
            format!("this needs the permission {permission}"),
        )
    }

    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, code, detail)
    }

    /// 500: the error goes to the log, a plain sentence to the client.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "request failed");
        Self::new(
            ErrorKind::Internal,
            "internal",
            "something went wrong here; it has been logged",
        )
    }

    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// Answers with another status than the kind's.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The body, for a request with this id.
    pub fn problem(&self, request_id: Option<String>) -> Problem {
        Problem {
            kind: format!("/problems/{}", self.code),
            title: self.code.replace('-', " "),
            status: self.status.map_or(self.kind.status(), |status| status.as_u16()),
            detail: self.detail.clone(),
            field: self.field.clone(),
            request_id,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = self.problem(crate::problem::current_request_id());
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

tokio::task_local! {
    /// The id of the request that the current task serves; set by the request-id middleware.
    pub static REQUEST_ID: std::sync::Arc<str>;
}

/// The id of the request that is being served, if any.
pub fn current_request_id() -> Option<String> {
    REQUEST_ID.try_with(|id| id.to_string()).ok()
}

/// An engine's error becomes a problem without its text: what a client can act on is its kind.
fn from_engine(kind: ErrorKind, error: &dyn std::fmt::Display) -> ApiError {
    match kind {
        ErrorKind::Internal => ApiError::internal(error),
        ErrorKind::Conflict => ApiError::conflict(
            "changed-meanwhile",
            "it was changed at the same time; read it and try again",
        ),
        ErrorKind::TooLarge => ApiError::new(kind, "too-large", error.to_string()),
        ErrorKind::Invalid => ApiError::new(kind, "invalid", error.to_string()),
        _ => {
            tracing::warn!(%error, "engine is away");
            ApiError::new(
                ErrorKind::Unavailable,
                "unavailable",
                "this cannot be done right now; try again shortly",
            )
            .retry_after(Duration::from_secs(1))
        }
    }
}

macro_rules! from_engine_error {
    ($($error:ty),*) => {
        $(impl From<$error> for ApiError {
            fn from(error: $error) -> Self {
                from_engine(error.kind(), &error)
            }
        })*
    };
}
from_engine_error!(StoreError, LogError, CacheError, BusError, BlobError, LeaseError);
