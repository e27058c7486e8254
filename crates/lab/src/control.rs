//! Chaos by HTTP: what nodes pass on for the console's panel, and what `holon-lab` itself asks.
//!
//! It listens on the loopback interface alone. Since a page in a browser of this machine can send requests there, too,
//! every path begins with a secret of this run.
//!
//! | | |
//! |---|---|
//! | `GET /SECRET/parts` | everything that runs, how it is and what it can be told |
//! | `POST /SECRET/parts/NAME/ACTION` | 202 when it will be done; how it went is in the list |
//!
//! What was asked for is done a moment after it was answered, so that a node can pass on its own death.

use crate::{
    cluster::{Cluster, random_hex},
    error::LabError,
    report::{Action, PartReport},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// How long an answer may take to get where it belongs before what it promised is done.
const HEADSTART: Duration = Duration::from_millis(300);

/// All parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Parts {
    pub parts: Vec<PartReport>,
}

/// Why something is not done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    pub error: String,
}

/// What is being done to parts, and what became of it.
#[derive(Default)]
pub(crate) struct Deeds {
    deeds: Mutex<BTreeMap<String, Deed>>,
}

#[derive(Clone)]
pub(crate) struct Deed {
    pub action: Action,
    /// `None` while it is being done.
    pub outcome: Option<Result<(), String>>,
}

impl Deeds {
    pub fn of(&self, part: &str) -> Option<Deed> {
        self.deeds.lock().get(part).cloned()
    }

    /// Whether it may be begun: not while something else is being done to the same part.
    fn begin(&self, part: &str, action: Action) -> bool {
        let mut deeds = self.deeds.lock();
        if deeds.get(part).is_some_and(|deed| deed.outcome.is_none()) {
            return false;
        }
        let deed = Deed {
            action,
            outcome: None,
        };
        deeds.insert(part.to_owned(), deed);
        true
    }

    fn end(&self, part: &str, outcome: Result<(), LabError>) {
        if let Some(deed) = self.deeds.lock().get_mut(part) {
            deed.outcome = Some(outcome.map_err(|error| error.to_string()));
        }
    }
}

/// The server, which ends with this.
pub(crate) struct Control {
    address: SocketAddr,
    secret: String,
    listener: Mutex<Option<TcpListener>>,
    serving: Mutex<Option<AbortOnDropHandle<()>>>,
    pub deeds: Arc<Deeds>,
}

impl Control {
    pub async fn open() -> Result<Self, LabError> {
        let at = |error| LabError::Network {
            what: "cannot listen for chaos".into(),
            error,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(at)?;
        Ok(Self {
            address: listener.local_addr().map_err(at)?,
            secret: random_hex(),
            listener: Mutex::new(Some(listener)),
            serving: Mutex::default(),
            deeds: Arc::default(),
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}/{}", self.address, self.secret)
    }

    /// Serves a cluster until this is dropped.
    pub fn serve(&self, cluster: &Arc<Cluster>) {
        let Some(listener) = self.listener.lock().take() else {
            return;
        };
        let routes = Router::new()
            .route("/parts", get(list))
            .route("/parts/{part}/{action}", post(act))
            .with_state(Arc::downgrade(cluster));
        let router = Router::new().nest(&format!("/{}", self.secret), routes);
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        *self.serving.lock() = Some(AbortOnDropHandle::new(serving));
    }
}

async fn list(State(cluster): State<Weak<Cluster>>) -> Response {
    match cluster.upgrade() {
        Some(cluster) => Json(Parts {
            parts: cluster.report().await,
        })
        .into_response(),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "the cluster ends".into()),
    }
}

async fn act(State(cluster): State<Weak<Cluster>>, Path((part, action)): Path<(String, String)>) -> Response {
    let Some(cluster) = cluster.upgrade() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the cluster ends".into());
    };
    let report = match cluster.report_of(&part).await {
        Ok(report) => report,
        Err(error) => return refuse(StatusCode::NOT_FOUND, error.to_string()),
    };
    let known = report.actions.iter().find(|known| known.name() == action);
    let Some(action) = known.copied() else {
        let known: Vec<&str> = report.actions.iter().map(|action| action.name()).collect();
        let error = LabError::NoAction {
            action,
            name: part,
            known: known.join(", "),
        };
        return refuse(StatusCode::CONFLICT, error.to_string());
    };
    if !cluster.deeds().begin(&part, action) {
        return refuse(
            StatusCode::CONFLICT,
            format!("something else is being done to {part}; ask again when that is done"),
        );
    }
    let report = cluster.report_of(&part).await.unwrap_or(report);
    tokio::spawn(async move {
        tokio::time::sleep(HEADSTART).await;
        let outcome = cluster.perform(&part, action).await;
        cluster.deeds().end(&part, outcome);
    });
    (StatusCode::ACCEPTED, Json(report)).into_response()
}

fn refuse(status: StatusCode, error: String) -> Response {
    (status, Json(Refusal { error })).into_response()
}
