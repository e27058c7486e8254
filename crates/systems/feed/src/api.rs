//! The routes: thin. What a request says is taken apart here, what it means is in the other files.

mod glass;
mod home;
mod people;
mod posts;
pub mod types;

use crate::{Feed, cards::Shown, error::FeedError};
use axum::Router;
use bytes::Bytes;
use holon_base::{Id, Tenant};
use holon_web::{Access, ApiError, Caller, ListQuery, Routes, respond::JsonBytes};
use std::sync::Arc;
use tracing::Instrument;
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

type State = axum::extract::State<Arc<Feed>>;

pub(crate) fn routes(feed: Arc<Feed>) -> (Router, OpenApi) {
    Routes::new()
        .signed_in(routes!(posts::create_post))
        .public(routes!(posts::get_post))
        .signed_in(routes!(posts::edit_post))
        .signed_in(routes!(posts::delete_post))
        .public(routes!(posts::get_post_history))
        .public(routes!(posts::get_thread))
        .signed_in(routes!(posts::like_post))
        .signed_in(routes!(posts::unlike_post))
        .signed_in(routes!(posts::repost_post))
        .signed_in(routes!(posts::unrepost_post))
        .signed_in(routes!(posts::bookmark_post))
        .signed_in(routes!(posts::unbookmark_post))
        .signed_in(routes!(posts::list_bookmarks))
        .public(routes!(posts::list_likes))
        .public(routes!(posts::list_tag_posts))
        .public(routes!(posts::list_trends))
        .signed_in(routes!(people::follow))
        .signed_in(routes!(people::unfollow))
        .signed_in(routes!(people::block))
        .signed_in(routes!(people::unblock))
        .signed_in(routes!(people::mute))
        .signed_in(routes!(people::unmute))
        .signed_in(routes!(people::list_blocks))
        .signed_in(routes!(people::list_mutes))
        .public(routes!(people::get_profile))
        .public(routes!(people::list_user_posts))
        .public(routes!(people::list_followers))
        .public(routes!(people::list_following))
        .signed_in(routes!(home::get_home))
        .live(Access::SignedIn, routes!(home::live_home))
        .signed_in(routes!(home::list_notifications))
        .signed_in(routes!(home::read_notifications))
        .permitted("admin.inspect", routes!(glass::inspect_feed))
        .permitted("admin.inspect", routes!(glass::inspect_post))
        .permitted("admin.inspect", routes!(glass::inspect_home))
        .finish(feed)
}

/// Does a write to its end even if the client goes away, so that what it must drop from caches is dropped.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, FeedError>> + Send + 'static,
) -> Result<T, ApiError> {
    let work = work.in_current_span();
    let done = match holon_base::trace::current() {
        Some(trace) => tokio::spawn(holon_base::trace::scope(trace, work)),
        None => tokio::spawn(work),
    };
    Ok(done.await.map_err(ApiError::internal)??)
}

/// In whose app a request is, and who asks.
struct Who {
    tenant: Tenant,
    viewer: Option<Id>,
}

impl Who {
    fn of(caller: Option<&Caller>, named: Tenant) -> Self {
        Self {
            tenant: caller.map_or(named, |caller| caller.tenant.clone()),
            viewer: caller.map(|caller| caller.account),
        }
    }

    fn caller(caller: &Caller) -> Self {
        Self {
            tenant: caller.tenant.clone(),
            viewer: Some(caller.account),
        }
    }
}

/// A path's id. What is no id names nothing.
fn post_id(text: &str) -> Result<Id, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("post"))
}

impl Feed {
    /// The id that a list goes on after.
    fn list_position(&self, query: &ListQuery, tenant: &Tenant, list: &str) -> Result<Option<Id>, ApiError> {
        let scope = format!("feed.{list}:{tenant}");
        let Some(position) = query.position(&self.cursors, &scope)? else {
            return Ok(None);
        };
        let id = crate::model::id_of(&position);
        id.map(Some).map_err(|_| {
            ApiError::invalid(
                "cursor",
                "the cursor is not one of this list; start again without it",
            )
        })
    }

    fn list_next(&self, next: Option<Id>, tenant: &Tenant, list: &str) -> Option<String> {
        let scope = format!("feed.{list}:{tenant}");
        next.map(|id| self.cursors.seal(&scope, &id.as_u64().to_be_bytes()))
    }

    /// A page of posts as JSON.
    async fn post_page(
        &self,
        who: &Who,
        posts: &[Shown],
        next: Option<String>,
    ) -> Result<JsonBytes, FeedError> {
        let items = self.write_posts(&who.tenant, who.viewer, posts).await?;
        let mut out = Vec::with_capacity(64 + items.iter().map(|item| item.len() + 1).sum::<usize>());
        out.extend_from_slice(b"{\"items\":");
        write_array(&mut out, &items);
        write_next(&mut out, next.as_deref());
        out.push(b'}');
        Ok(json(None, out))
    }
}

fn json(version: Option<u64>, body: Vec<u8>) -> JsonBytes {
    JsonBytes {
        version,
        body: Bytes::from(body),
    }
}

fn write_array(out: &mut Vec<u8>, items: &[Arc<[u8]>]) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.push(b']');
}

/// Cursors are base64: nothing in them needs escaping.
fn write_next(out: &mut Vec<u8>, next: Option<&str>) {
    if let Some(next) = next {
        out.extend_from_slice(b",\"next\":\"");
        out.extend_from_slice(next.as_bytes());
        out.push(b'"');
    }
}
