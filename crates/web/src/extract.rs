//! What handlers take out of a request. Whatever is wrong with it becomes a 400 problem that names the field and
//! says what to send instead; nothing a client sends can become a 5xx here.

use crate::problem::ApiError;
use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Request,
        path::ErrorKind as PathErrorKind,
        rejection::{BytesRejection, FailedToBufferBody, PathRejection},
    },
    http::{HeaderMap, HeaderName, StatusCode, header, request::Parts},
};
use holon_base::{ErrorKind, Tenant};
use serde::de::DeserializeOwned;

/// The body as a JSON object; as an answer, any JSON.
///
/// Bodies are always objects: they can gain a field later, and a struct never takes an array by accident (which
/// serde would allow).
///
/// # Errors
/// 415 unless the body is declared as JSON, 413 above the limit, 400 with the field (a JSON pointer) for the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::new(
                ErrorKind::Invalid,
                "unsupported-media-type",
                "send the body as application/json",
            )
            .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let body = Bytes::from_request(request, state).await.map_err(body_error)?;
        parse_object(&body).map(Self)
    }
}

impl<T: serde::Serialize> axum::response::IntoResponse for Json<T> {
    fn into_response(self) -> axum::response::Response {
        axum::Json(self.0).into_response()
    }
}

/// Why a body could not be read, without hyper's words for it.
pub(crate) fn body_error(rejection: BytesRejection) -> ApiError {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => body_too_large(),
        _ => ApiError::new(
            ErrorKind::Invalid,
            "bad-body",
            "the body broke off; send it again",
        ),
    }
}

pub(crate) fn body_too_large() -> ApiError {
    ApiError::new(
        ErrorKind::TooLarge,
        "too-large",
        "the body is larger than this route takes",
    )
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    let Ok(text) = value.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return true;
    }
    let is_application = essence
        .get(..12)
        .is_some_and(|start| start.eq_ignore_ascii_case("application/"));
    let is_suffix = essence
        .len()
        .checked_sub(5)
        .and_then(|at| essence.get(at..))
        .is_some_and(|end| end.eq_ignore_ascii_case("+json"));
    is_application && is_suffix
}

fn parse_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        Some(b'{') => {}
        None => {
            return Err(ApiError::new(
                ErrorKind::Invalid,
                "invalid",
                "the body is empty; send a JSON object",
            ));
        }
        Some(_) => {
            return Err(ApiError::new(
                ErrorKind::Invalid,
                "invalid",
                "the body must be a JSON object",
            ));
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        json_error(&error.into_inner(), pointer)
    })?;
    deserializer
        .end()
        .map_err(|error| json_error(&error, String::new()))?;
    Ok(value)
}

fn json_error(error: &serde_json::Error, mut pointer: String) -> ApiError {
    let text = error.to_string();
    if error.classify() != serde_json::error::Category::Data {
        return ApiError::new(
            ErrorKind::Invalid,
            "bad-json",
            format!("the body is not JSON: {text}"),
        );
    }
    // The position helps nobody who sent the field by name.
    let reason = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(reason, _)| reason);
    if let Some(name) = named_field(reason) {
        pointer.push('/');
        pointer.push_str(&escape_pointer(name));
    }
    let problem = ApiError::new(ErrorKind::Invalid, "invalid", short(reason));
    if pointer.is_empty() {
        problem
    } else {
        problem.at(pointer)
    }
}

/// The field in serde's "missing field `x`", which its path does not hold.
fn named_field(reason: &str) -> Option<&str> {
    let name = reason
        .strip_prefix("missing field `")
        .or_else(|| reason.strip_prefix("duplicate field `"))?;
    name.split('`').next()
}

/// A path as an RFC 6901 pointer; empty for the whole document.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => escape_pointer(key),
            Segment::Enum { variant } => escape_pointer(variant),
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&part);
    }
    pointer
}

fn escape_pointer(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

/// Keeps a message that quotes its input from growing with it.
fn short(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The parts of the path.
///
/// # Errors
/// 400 with the name of the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => {
                let name = only_parameter(parts).await;
                Err(path_error(rejection, name))
            }
        }
    }
}

/// The name of the parameter, in paths that have one: serde does not tell it for a value that is no struct.
async fn only_parameter(parts: &mut Parts) -> String {
    let named = axum::extract::RawPathParams::from_request_parts(parts, &()).await;
    let mut names = named.iter().flatten().map(|(name, _)| name);
    match (names.next(), names.next()) {
        (Some(name), None) => name.to_owned(),
        _ => "path".into(),
    }
}

fn path_error(rejection: PathRejection, name: String) -> ApiError {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
        return ApiError::internal("a handler takes path parameters that its route does not have");
    };
    match failed.into_kind() {
        PathErrorKind::ParseErrorAtKey {
            key, expected_type, ..
        } => ApiError::invalid(key, format!("this must be a {expected_type}")),
        PathErrorKind::ParseError { expected_type, .. }
        | PathErrorKind::ParseErrorAtIndex { expected_type, .. } => {
            ApiError::invalid(name, format!("this part of the path must be a {expected_type}"))
        }
        PathErrorKind::InvalidUtf8InPathParam { key } => ApiError::invalid(key, "this must be UTF-8"),
        PathErrorKind::DeserializeError { key, message, .. } => ApiError::invalid(key, short(&message)),
        PathErrorKind::Message(message) => ApiError::invalid(name, short(&message)),
        other => ApiError::internal(other),
    }
}

/// The parameters after the `?`.
///
/// # Errors
/// 400 with the name of the parameter: unknown values, wrong types and repeated parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(pairs)
            .map(Self)
            .map_err(|error| {
                let path = error.path().to_string();
                let reason = error.into_inner().to_string();
                let field = named_field(&reason).map_or(path, str::to_owned);
                let problem = ApiError::new(ErrorKind::Invalid, "invalid", short(&reason));
                if field.is_empty() || field == "." {
                    problem
                } else {
                    problem.at(field)
                }
            })
    }
}

/// The version that the caller last saw, from `If-Match`; `None` where the header is missing or `*`.
///
/// A well-formed tag that no resource here can have becomes a version that no resource has, so that it fails as a
/// precondition (412) and not as a mistake (400).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IfMatch(pub Option<u64>);

impl IfMatch {
    /// # Errors
    /// 412 if the caller named another version than the current one.
    pub fn check(self, current: u64) -> Result<(), ApiError> {
        match self.0 {
            Some(seen) if seen != current => Err(ApiError::new(
                ErrorKind::PreconditionFailed,
                "changed-meanwhile",
                "it was changed since you read it; read it again",
            )
            .at("If-Match")),
            _ => Ok(()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(text) = single_header(&parts.headers, &header::IF_MATCH)? else {
            return Ok(Self(None));
        };
        let text = text.trim();
        if text == "*" {
            return Ok(Self(None));
        }
        let tag = text.strip_prefix("W/").unwrap_or(text);
        let inner = tag
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .filter(|inner| !inner.contains('"'))
            .ok_or_else(|| {
                ApiError::invalid("If-Match", "send one ETag in double quotes, as it was given")
            })?;
        Ok(Self(Some(
            crate::respond::version_of_tag(inner).unwrap_or(u64::MAX),
        )))
    }
}

/// The `Idempotency-Key` of a write, if it has one: 1 to 255 visible ASCII characters.
///
/// The edge replays stored answers by itself. A service takes the key too where it can put it into its own commit,
/// which makes the write happen exactly once even if the process dies between commit and answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

/// The longest idempotency key, in characters.
pub const IDEMPOTENCY_KEY_CHARS: usize = 255;

pub(crate) static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl IdempotencyKey {
    /// # Errors
    /// 400 if the header is there and no key.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(text) = single_header(headers, &IDEMPOTENCY_KEY)? else {
            return Ok(Self(None));
        };
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > IDEMPOTENCY_KEY_CHARS || !is_plain {
            return Err(ApiError::invalid(
                "Idempotency-Key",
                format!("a key is 1 to {IDEMPOTENCY_KEY_CHARS} visible ASCII characters, such as a UUID"),
            ));
        }
        Ok(Self(Some(text.to_owned())))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::from_headers(&parts.headers)
    }
}

/// The tenant that somebody who is not signed in means: `X-Tenant`, or the default one. Whoever is signed in belongs
/// to the tenant of [`crate::Caller`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantName(pub Tenant);

impl<S: Send + Sync> FromRequestParts<S> for TenantName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let name = single_header(&parts.headers, &HeaderName::from_static("x-tenant"))?;
        match name {
            None => Ok(Self(Tenant::default())),
            Some(name) => Tenant::new(name)
                .map(Self)
                .map_err(|error| ApiError::invalid("X-Tenant", error.to_string())),
        }
    }
}

/// A header that may stand at most once, as text.
fn single_header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ApiError::invalid(name.as_str(), "send this header once"));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| ApiError::invalid(name.as_str(), "this header must be visible ASCII"))
}
