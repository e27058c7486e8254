//! Writes that are done once, however often they are sent (draft-ietf-httpapi-idempotency-key-header).
//!
//! A key belongs to one caller. The first request with it puts a *mark* into `web.idempotency` and then does its work;
//! when that is done the answer takes the place of the mark, for 24 hours. A later request with the same key finds
//!
//! - an answer to the same request: it is replayed, with `Idempotency-Replayed: true`;
//! - an answer or a mark of another request (method, path, query or body differ): 422;
//! - a mark: 409, with `Retry-After`.
//!
//! A mark expires, so that a crash blocks its key for a minute and not for ever; where no other process has the store, a
//! mark of an earlier process is known to be nobody's and counts for nothing. The work goes on when its client
//! goes away, since that is when clients send again. Answers above 499 are not kept: the same request may do better
//! later. Between the work's commit and the keeping of its answer the process may die; what must then still happen
//! once takes the key into its own commit ([`crate::IdempotencyKey`]).
//!
//! Answers marked `Cache-Control: no-store` hold secrets and answers that are too large do not fit in a row; of these
//! only that they happened is kept, and a repetition is a 409 that says so.

use crate::{
    caller::Caller,
    extract::{IdempotencyKey, body_error},
    problem::{ApiError, REQUEST_ID},
};
use async_trait::async_trait;
use axum::{
    body::Body,
    extract::{FromRequest as _, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use bytes::Bytes;
use holon_base::{Clock, ErrorKind, Id, Tenant, limits};
use holon_contracts::person::{Person, PersonalData, PersonalDataError};
use holon_ports::{
    Batch, Condition, Consistency, Op, Partition, Row, RowKey, Scan, Store, StoreError, Table, Value,
};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    future::Future,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

/// Rows: one partition per caller, sorted by key.
pub const TABLE: Table = Table("web.idempotency");
/// How much longer than its request a mark lives: room for keeping the answer.
const MARK_OUTLIVES: Duration = Duration::from_secs(15);
/// Kept answers read at once, each a mebibyte at most.
const ERASED_AT_ONCE: usize = 16;
/// The largest answer that is kept.
const ANSWER_BYTES: usize = limits::ROW_BYTES - (64 << 10);
/// The headers of an answer that are kept.
const KEPT_HEADERS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_DISPOSITION,
    header::CACHE_CONTROL,
    header::ETAG,
    header::LOCATION,
    header::RETRY_AFTER,
];

/// What a row starts with, as one line of JSON; the body of the answer follows as it is.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    /// SHA-256 of the request, in hexadecimal.
    request: String,
    state: State,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum State {
    /// By this process.
    Running { process: u64 },
    Answered {
        status: u16,
        headers: Vec<(String, String)>,
    },
    /// It was done, and the answer is not kept.
    Done,
}

/// Keeps the answers.
#[derive(Clone)]
pub(crate) struct Idempotency {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// How long a mark blocks its key if its process dies: longer than any request may take.
    mark: Duration,
    /// A random number of this process.
    process: u64,
    /// No other process has the store.
    alone: bool,
}

/// Where one key's record is, and what request it is for.
#[derive(Clone)]
struct Slot {
    partition: Partition,
    sort: Bytes,
    request: String,
}

impl Idempotency {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            mark: Duration::from_secs(limits::REQUEST_SECONDS) + MARK_OUTLIVES,
            process: RandomState::new().hash_one(0),
            alone: false,
        }
    }

    /// States how long a request may take at most.
    pub fn longest(mut self, request: Duration) -> Self {
        self.mark = request + MARK_OUTLIVES;
        self
    }

    /// Takes over at once what an earlier process was at when it died.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Does `work` for the request unless its key says that it is done or being done.
    ///
    /// # Errors
    /// 400 for a key that is none, 409 and 422 as the module says, and what the store cannot do.
    pub async fn once<W, F>(
        &self,
        caller: &Caller,
        request: Request,
        body_bytes: usize,
        work: W,
    ) -> Result<Response, ApiError>
    where
        W: FnOnce(Request) -> F,
        F: Future<Output = Response> + Send + 'static,
    {
        let Some(key) = IdempotencyKey::from_headers(request.headers())?.0 else {
            return Ok(work(request).await);
        };
        let (parts, body) = request.into_parts();
        let limited = Body::new(http_body_util::Limited::new(body, body_bytes));
        let body = Bytes::from_request(Request::new(limited), &())
            .await
            .map_err(body_error)?;
        let slot = Slot {
            partition: of_caller(&caller.tenant, caller.account),
            sort: Bytes::from(key),
            request: fingerprint(&parts, &body),
        };
        let mark = match self.begin(&slot).await? {
            Begun::Replay(response) => return Ok(response),
            Begun::Mark(version) => version,
        };
        let work = work(Request::from_parts(parts, Body::from(body)));
        let this = self.clone();
        let finished = async move {
            let response = work.await;
            this.finish(&slot, mark, response).await
        };
        // A task of its own, so that it ends also when the client has gone; in the same trace, under the same id.
        let request_id = REQUEST_ID.try_with(Arc::clone).unwrap_or_default();
        let traceparent = holon_base::trace::current().unwrap_or_default();
        let scoped = REQUEST_ID.scope(request_id, holon_base::trace::scope(traceparent, finished));
        tokio::spawn(scoped).await.map_err(ApiError::internal)
    }

    /// Puts the mark, or finds what is there.
    async fn begin(&self, slot: &Slot) -> Result<Begun, ApiError> {
        let record = Record {
            request: slot.request.clone(),
            state: State::Running {
                process: self.process,
            },
        };
        // The second round is for a record that expires between the two looks at it.
        for _ in 0..2 {
            match self.put(slot, &record, &[], Condition::Absent, self.mark).await {
                Ok(version) => return Ok(Begun::Mark(version)),
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
            let key = RowKey::new(TABLE, slot.partition.clone(), slot.sort.clone());
            let Some(row) = self.store.get(&key, Consistency::Strong).await? else {
                continue;
            };
            let there = read(&row)?;
            if !self.is_orphaned(&there.state) {
                return found(slot, there, &row).map(Begun::Replay);
            }
            let taken_over = self
                .put(slot, &record, &[], Condition::Version(row.version), self.mark)
                .await;
            match taken_over {
                Ok(version) => return Ok(Begun::Mark(version)),
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(still_running())
    }

    /// Whether a state is the mark of a process that is gone.
    fn is_orphaned(&self, state: &State) -> bool {
        self.alone && matches!(state, State::Running { process } if *process != self.process)
    }

    /// Puts the answer in the mark's place and gives it back. If that fails the answer stands all the same.
    async fn finish(&self, slot: &Slot, mark: u64, response: Response) -> Response {
        let status = response.status();
        let is_final = (status.is_success() || status.is_client_error()) && !is_for_later(status);
        if !is_final {
            return self.forget(slot, mark, response).await;
        }
        let is_small = response
            .body()
            .size_hint()
            .exact()
            .is_some_and(|size| size <= ANSWER_BYTES as u64);
        let is_secret = status.is_success()
            && response
                .headers()
                .get(header::CACHE_CONTROL)
                .is_some_and(|value| value.as_bytes().starts_with(b"no-store"));
        let (head, body) = response.into_parts();
        let (state, kept, body) = if is_small && !is_secret {
            match body.collect().await {
                Ok(collected) => {
                    let bytes = collected.to_bytes();
                    let headers = kept_headers(&head.headers);
                    let status = status.as_u16();
                    (
                        State::Answered { status, headers },
                        bytes.clone(),
                        Body::from(bytes),
                    )
                }
                Err(error) => {
                    tracing::warn!(%error, "an answer broke off");
                    (State::Done, Bytes::new(), Body::empty())
                }
            }
        } else {
            (State::Done, Bytes::new(), body)
        };
        let record = Record {
            request: slot.request.clone(),
            state,
        };
        let keep = Duration::from_secs(limits::IDEMPOTENCY_SECONDS);
        if let Err(error) = self
            .put(slot, &record, &kept, Condition::Version(mark), keep)
            .await
        {
            tracing::warn!(%error, "the answer to an idempotency key was not kept");
        }
        Response::from_parts(head, body)
    }

    async fn forget(&self, slot: &Slot, mark: u64, response: Response) -> Response {
        let batch = Batch::new().delete_if(TABLE, slot.sort.clone(), Condition::Version(mark));
        if let Err(error) = self.store.commit(&slot.partition, batch).await {
            tracing::warn!(%error, "the mark of an idempotency key stays until it expires");
        }
        response
    }

    async fn put(
        &self,
        slot: &Slot,
        record: &Record,
        body: &[u8],
        condition: Condition,
        keep: Duration,
    ) -> Result<u64, StoreError> {
        let mut value = serde_json::to_vec(record).map_err(|error| StoreError::Invalid(error.to_string()))?;
        value.push(b'\n');
        value.extend_from_slice(body);
        let batch = Batch::new().op(Op::Put {
            table: TABLE,
            sort: slot.sort.clone(),
            value: Value::Binary(value.into()),
            condition,
            expires: Some(self.clock.now().plus(keep)),
        });
        let committed = self.store.commit(&slot.partition, batch).await?;
        Ok(committed.version)
    }
}

/// What the kept answers hold of a person: whatever they were answered within the last 24 hours.
pub struct KeptAnswers(pub Arc<dyn Store>);

fn of_caller(tenant: &Tenant, account: Id) -> Partition {
    Partition::new(tenant, format!("caller:{account}"))
}

#[async_trait]
impl PersonalData for KeptAnswers {
    fn system(&self) -> &'static str {
        "idempotency"
    }

    /// The keys alone: the answers are parts of what the systems export.
    async fn export(&self, person: &Person) -> Result<serde_json::Value, PersonalDataError> {
        let mut keys = Vec::new();
        let mut scan = Scan::all(TABLE, of_caller(&person.tenant, person.id), ERASED_AT_ONCE);
        loop {
            let page = self.0.scan(&scan).await.map_err(unanswered)?;
            keys.extend(
                page.rows
                    .iter()
                    .map(|row| String::from_utf8_lossy(&row.sort).into_owned()),
            );
            let Some(last) = page.rows.last().filter(|_| page.more) else {
                return Ok(serde_json::json!({ "keys": keys }));
            };
            scan = scan.after(last.sort.clone());
        }
    }

    async fn erase(&self, person: &Person) -> Result<(), PersonalDataError> {
        let partition = of_caller(&person.tenant, person.id);
        loop {
            let scan = Scan::all(TABLE, partition.clone(), ERASED_AT_ONCE);
            let page = self.0.scan(&scan).await.map_err(unanswered)?;
            if page.rows.is_empty() {
                return Ok(());
            }
            let batch = page
                .rows
                .into_iter()
                .fold(Batch::new(), |batch, row| batch.delete(TABLE, row.sort));
            self.0.commit(&partition, batch).await.map_err(unanswered)?;
        }
    }
}

fn unanswered(error: StoreError) -> PersonalDataError {
    PersonalDataError {
        system: "idempotency",
        message: error.to_string(),
    }
}

enum Begun {
    /// The version of the mark.
    Mark(u64),
    Replay(Response),
}

/// Where a row's first line ends.
fn head_end(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|&byte| byte == b'\n')
        .unwrap_or(bytes.len())
}

fn read(row: &Row) -> Result<Record, ApiError> {
    let bytes = row.bytes();
    serde_json::from_slice(&bytes[..head_end(&bytes)]).map_err(ApiError::internal)
}

/// What a record means for a request with its key.
fn found(slot: &Slot, record: Record, row: &Row) -> Result<Response, ApiError> {
    let bytes = row.bytes();
    let end = head_end(&bytes);
    if record.request != slot.request {
        return Err(ApiError::new(
            ErrorKind::Unprocessable,
            "idempotency-key-reused",
            "this key was used for another request; use a new one",
        )
        .at("Idempotency-Key"));
    }
    let (status, headers) = match record.state {
        State::Running { .. } => return Err(still_running()),
        State::Done => {
            return Err(ApiError::conflict(
                "answer-not-kept",
                "this was done already; its answer was not kept and cannot be given again",
            )
            .at("Idempotency-Key"));
        }
        State::Answered { status, headers } => (status, headers),
    };
    let mut response = Response::new(Body::from(bytes.slice((end + 1).min(bytes.len())..)));
    *response.status_mut() = StatusCode::from_u16(status).map_err(ApiError::internal)?;
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
        .headers_mut()
        .insert("idempotency-replayed", HeaderValue::from_static("true"));
    Ok(response)
}

fn still_running() -> ApiError {
    ApiError::conflict(
        "still-running",
        "a request with this key is being done; ask again shortly",
    )
    .at("Idempotency-Key")
    .retry_after(Duration::from_secs(1))
}

/// Client errors that say nothing of the request itself.
fn is_for_later(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS
    )
}

fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    KEPT_HEADERS
        .iter()
        .filter_map(|name| {
            let value = headers.get(name)?.to_str().ok()?;
            Some((name.to_string(), value.to_owned()))
        })
        .collect()
}

/// Method, path, query and body, each ended by its length, so that no two requests look the same.
fn fingerprint(parts: &Parts, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    let path = parts
        .uri
        .path_and_query()
        .map_or_else(|| parts.uri.path(), |path| path.as_str());
    for part in [parts.method.as_str().as_bytes(), path.as_bytes(), body] {
        hash.update(part);
        hash.update((part.len() as u64).to_be_bytes());
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
