//! What every system tells the binary that runs it.

use async_trait::async_trait;
use axum::Router;
use futures::future::BoxFuture;
use holon_base::{Clock, CursorSigner, IdGenerator};
use holon_contracts::person::PersonalData;
use holon_ports::{Consumer, Ports, Table, TopicSpec};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use utoipa::openapi::OpenApi;

/// What every system is made with. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub ports: Ports,
    pub ids: IdGenerator,
    pub clock: Arc<dyn Clock>,
    pub cursors: CursorSigner,
}

/// How well a system is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// False takes the node out of `/readyz`.
    pub ready: bool,
    /// What is wrong, or a word on how it is.
    pub detail: String,
}

impl Health {
    pub fn ready() -> Self {
        Self {
            ready: true,
            detail: "ready".into(),
        }
    }
}

type Work = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Work that is done again and again by one node at a time.
#[derive(Clone)]
pub struct Job {
    /// `system.purpose`.
    pub name: &'static str,
    pub every: Duration,
    pub run: Work,
}

/// A read model that can be thrown away and made anew: `holon rebuild <name>`.
#[derive(Clone)]
pub struct Projection {
    /// `system.what`, such as `feed.home`.
    pub name: &'static str,
    pub rebuild: Work,
}

/// One system: what it is made of and what it answers for.
#[async_trait]
pub trait System: Send + Sync + 'static {
    /// Lower case, one word; the part after `/v1/` of its routes.
    fn name(&self) -> &'static str;

    /// One sentence.
    fn summary(&self) -> &'static str;

    fn tables(&self) -> Vec<Table>;

    fn topics(&self) -> Vec<TopicSpec>;

    /// Its routes, each with its access, and their OpenAPI document.
    fn routes(self: Arc<Self>) -> (Router, OpenApi);

    fn consumers(self: Arc<Self>) -> Vec<Consumer>;

    fn jobs(self: Arc<Self>) -> Vec<Job> {
        Vec::new()
    }

    fn projections(self: Arc<Self>) -> Vec<Projection> {
        Vec::new()
    }

    /// What it keeps of a person.
    fn personal_data(self: Arc<Self>) -> Arc<dyn PersonalData>;

    async fn health(&self) -> Health {
        Health::ready()
    }

    /// Looks for references to what is not there and for projections that differ from their rows; a line each.
    async fn check(&self) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}
