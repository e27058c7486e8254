//! Making projections anew, while the systems serve.

use super::Admin;
use axum::{extract::State, http::StatusCode};
use holon_ports::LeaseError;
use holon_web::{ApiError, Json, Path, Projection};
use serde::Serialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const LEASE_TIME: Duration = Duration::from_secs(30);

/// How a rebuild stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum RebuildStatus {
    /// None was started since this node started.
    Idle,
    Running,
    Done,
    Failed,
}

#[derive(Debug, Clone)]
pub struct RebuildState {
    status: RebuildStatus,
    detail: String,
}

/// A projection and how its last rebuild on this node went.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Rebuild {
    pub name: String,
    pub state: RebuildStatus,
    pub detail: String,
}

/// Every projection.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Rebuilds {
    pub items: Vec<Rebuild>,
}

impl Admin {
    fn projection(&self, name: &str) -> Result<&Projection, ApiError> {
        self.projections
            .iter()
            .find(|projection| projection.name == name)
            .ok_or_else(|| {
                let known: Vec<&str> = self
                    .projections
                    .iter()
                    .map(|projection| projection.name)
                    .collect();
                let mut error = ApiError::not_found("projection");
                error.detail = format!("there is no such projection; there are {}", known.join(", "));
                error
            })
    }

    fn rebuild_of(&self, projection: &Projection) -> Rebuild {
        let rebuilds = self.rebuilds.lock();
        let state = rebuilds.get(projection.name);
        Rebuild {
            name: projection.name.to_owned(),
            state: state.map_or(RebuildStatus::Idle, |state| state.status),
            detail: state.map(|state| state.detail.clone()).unwrap_or_default(),
        }
    }

    fn set_rebuild(&self, name: &'static str, status: RebuildStatus, detail: String) {
        self.rebuilds.lock().insert(name, RebuildState { status, detail });
    }

    async fn rebuild(&self, projection: &Projection) {
        let began = Instant::now();
        let lease = format!("rebuild.{}", projection.name);
        let outcome = self
            .holder
            .hold(&lease, LEASE_TIME, async { (projection.rebuild)().await })
            .await;
        let (status, detail) = match outcome {
            Ok((built, lease)) => {
                let _ = self.holder.leases.release(&lease).await;
                match built {
                    Ok(()) => (
                        RebuildStatus::Done,
                        format!("took {:.1} s", began.elapsed().as_secs_f64()),
                    ),
                    Err(error) => {
                        tracing::error!(projection = projection.name, %error, "rebuild failed");
                        (RebuildStatus::Failed, "it failed; the log says why".to_owned())
                    }
                }
            }
            Err(LeaseError::Held { .. }) => (RebuildStatus::Failed, "another node is at it".to_owned()),
            Err(error) => {
                tracing::error!(projection = projection.name, %error, "rebuild lost its lease");
                (
                    RebuildStatus::Failed,
                    "it lost its lease; start it again".to_owned(),
                )
            }
        };
        self.set_rebuild(projection.name, status, detail);
    }
}

/// Every projection and how its last rebuild on this node went.
#[utoipa::path(
    get,
    path = "/v1/admin/rebuild",
    operation_id = "listRebuilds",
    tag = "admin",
    responses((status = 200, description = "Every projection", body = Rebuilds))
)]
pub async fn list_rebuilds(State(admin): State<Arc<Admin>>) -> Json<Rebuilds> {
    let items = admin
        .projections
        .iter()
        .map(|projection| admin.rebuild_of(projection));
    Json(Rebuilds {
        items: items.collect(),
    })
}

/// How the last rebuild of a projection on this node went.
#[utoipa::path(
    get,
    path = "/v1/admin/rebuild/{projection}",
    operation_id = "getRebuild",
    tag = "admin",
    params(("projection" = String, Path, description = "Such as feed.home")),
    responses((status = 200, description = "How it stands", body = Rebuild))
)]
pub async fn get_rebuild(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<Rebuild>, ApiError> {
    Ok(Json(admin.rebuild_of(admin.projection(&name)?)))
}

/// Throws a projection away and makes it anew, while the system serves. Starting it while it runs changes nothing.
#[utoipa::path(
    post,
    path = "/v1/admin/rebuild/{projection}",
    operation_id = "startRebuild",
    tag = "admin",
    params(("projection" = String, Path, description = "Such as feed.home")),
    responses((status = 202, description = "It runs", body = Rebuild))
)]
pub async fn start_rebuild(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Rebuild>), ApiError> {
    let projection = admin.projection(&name)?.clone();
    let began = {
        let mut rebuilds = admin.rebuilds.lock();
        let running = rebuilds
            .get(projection.name)
            .is_some_and(|state| state.status == RebuildStatus::Running);
        if !running {
            let state = RebuildState {
                status: RebuildStatus::Running,
                detail: String::new(),
            };
            rebuilds.insert(projection.name, state);
        }
        !running
    };
    if began {
        let (admin, projection) = (Arc::clone(&admin), projection.clone());
        tokio::spawn(async move { admin.rebuild(&projection).await });
    }
    Ok((StatusCode::ACCEPTED, Json(admin.rebuild_of(&projection))))
}
