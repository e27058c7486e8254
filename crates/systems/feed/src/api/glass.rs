//! The glass box.

use super::{State, post_id};
use crate::inspect::{FeedInspection, HomeInspection, PostInspection};
use holon_base::Id;
use holon_web::{ApiError, Caller, Json, ListQuery, Path, Query};
use serde::Deserialize;

/// See the inside of the feed
#[utoipa::path(get, path = "/v1/feed/inspect", operation_id = "inspectFeed", tag = "feed",
    responses((status = 200, description = "Queues, tiers, caches.", body = FeedInspection)))]
pub async fn inspect_feed(feed: State, caller: Caller) -> Result<Json<FeedInspection>, ApiError> {
    Ok(Json(feed.inspect(&caller.tenant).await?))
}

/// See where a post went
#[utoipa::path(get, path = "/v1/feed/inspect/posts/{id}", operation_id = "inspectPost", tag = "feed",
    params(("id" = Id, Path)),
    responses((status = 200, description = "Its fan-out.", body = PostInspection)))]
pub async fn inspect_post(
    feed: State,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<PostInspection>, ApiError> {
    Ok(Json(feed.inspect_post(&caller.tenant, post_id(&id)?).await?))
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct InspectQuery {
    /// How many entries at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
}

/// See where each entry of a home comes from
#[utoipa::path(get, path = "/v1/feed/inspect/users/{handle}/home", operation_id = "inspectHome", tag = "feed",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$"), InspectQuery),
    responses((status = 200, description = "Its entries, also those that are not shown.", body = HomeInspection)))]
pub async fn inspect_home(
    feed: State,
    caller: Caller,
    Path(handle): Path<String>,
    Query(query): Query<InspectQuery>,
) -> Result<Json<HomeInspection>, ApiError> {
    let limit = ListQuery {
        limit: query.limit,
        cursor: None,
    }
    .limit()?;
    let account = feed.account(&caller.tenant, &handle).await?;
    Ok(Json(feed.inspect_home(&caller.tenant, account.id, limit).await?))
}
