//! Posts and what is done to them.

use super::{
    State, Who, json, post_id, to_its_end,
    types::{
        Bookmarked, Liked, NewPost, PersonPage, Post, PostEdit, PostHistory, PostPage, PostThread, Reposted,
        TrendList,
    },
    write_array, write_next,
};
use crate::{cards::Shown, error::FeedError, posts::Draft, text, trends::Window};
use axum::http::StatusCode;
use holon_base::Id;
use holon_web::{
    ApiError, Caller, Created, IdempotencyKey, IfMatch, Json, ListQuery, MaybeCaller, Path, Query,
    TenantName, respond::JsonBytes,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// One post as JSON, and the version of its row.
async fn one(feed: &crate::Feed, who: &Who, shown: Shown) -> Result<(u64, Arc<[u8]>), FeedError> {
    let version = shown.card.version;
    let written = feed.write_posts(&who.tenant, who.viewer, &[shown]).await?;
    let bytes = written.into_iter().next().ok_or(FeedError::NotFound("post"))?;
    Ok((version, bytes))
}

/// Write a post, a reply or a quote
///
/// Followers see it as soon as its fan-out is done; you see it at once. With an `Idempotency-Key`, sending it again
/// answers the first post, for a day.
#[utoipa::path(post, path = "/v1/feed/posts", operation_id = "createPost", tag = "feed",
    request_body = NewPost,
    responses((status = 201, description = "The post is there.", body = Post,
        headers(("Location" = String), ("ETag" = String)))))]
pub async fn create_post(
    feed: State,
    caller: Caller,
    key: IdempotencyKey,
    Json(new): Json<NewPost>,
) -> Result<Created<Box<RawValue>>, ApiError> {
    let draft = Draft {
        text: new.text,
        reply_to: new.reply_to,
        quote_of: new.quote_of,
    };
    let (inner, by) = (feed.0.clone(), caller.clone());
    let write = async move { inner.create_post(&by, &draft, key.0.as_deref()).await };
    let (made, version) = to_its_end(write).await?;
    let viewer = feed.viewer(&caller.tenant, caller.account).await?;
    let shown = feed.show(&caller.tenant, Some(&viewer), made.id).await?;
    let (_, bytes) = one(&feed, &Who::caller(&caller), shown).await?;
    let body = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
    Ok(Created {
        location: format!("/v1/feed/posts/{}", made.id),
        version,
        body,
    })
}

/// See a post
#[utoipa::path(get, path = "/v1/feed/posts/{id}", operation_id = "getPost", tag = "feed",
    params(("id" = Id, Path),
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    responses((status = 200, description = "The post.", body = Post, headers(("ETag" = String)))))]
pub async fn get_post(
    feed: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    Path(id): Path<String>,
) -> Result<JsonBytes, ApiError> {
    let who = Who::of(caller.as_ref(), named);
    let viewer = feed.maybe_viewer(&who.tenant, who.viewer).await?;
    let shown = feed.show(&who.tenant, viewer.as_deref(), post_id(&id)?).await?;
    let (version, bytes) = one(&feed, &who, shown).await?;
    Ok(json(Some(version), bytes.to_vec()))
}

/// Change the text of a post
///
/// Its author can, for five minutes. What it said before stays in its history.
#[utoipa::path(patch, path = "/v1/feed/posts/{id}", operation_id = "editPost", tag = "feed",
    params(("id" = Id, Path), ("If-Match" = Option<String>, Header)),
    request_body = PostEdit,
    responses(
        (status = 200, description = "The post as it is now.", body = Post, headers(("ETag" = String))),
        (status = 409, description = "A repost has no text."),
    ))]
pub async fn edit_post(
    feed: State,
    caller: Caller,
    seen: IfMatch,
    Path(id): Path<String>,
    Json(edit): Json<PostEdit>,
) -> Result<JsonBytes, ApiError> {
    let id = post_id(&id)?;
    let (inner, by) = (feed.0.clone(), caller.clone());
    to_its_end(async move { inner.edit_post(&by, id, &edit.text, seen.0).await }).await?;
    let viewer = feed.viewer(&caller.tenant, caller.account).await?;
    let shown = feed.show(&caller.tenant, Some(&viewer), id).await?;
    let (version, bytes) = one(&feed, &Who::caller(&caller), shown).await?;
    Ok(json(Some(version), bytes.to_vec()))
}

/// Take a post back
#[utoipa::path(delete, path = "/v1/feed/posts/{id}", operation_id = "deletePost", tag = "feed",
    params(("id" = Id, Path)),
    responses((status = 204, description = "It is gone.")))]
pub async fn delete_post(
    feed: State,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id = post_id(&id)?;
    to_its_end(async move { feed.delete_post(&caller, id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// See what a post said before
#[utoipa::path(get, path = "/v1/feed/posts/{id}/history", operation_id = "getPostHistory", tag = "feed",
    params(("id" = Id, Path),
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    responses((status = 200, description = "Its texts, newest first.", body = PostHistory)))]
pub async fn get_post_history(
    feed: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    Path(id): Path<String>,
) -> Result<Json<PostHistory>, ApiError> {
    let who = Who::of(caller.as_ref(), named);
    let viewer = feed.maybe_viewer(&who.tenant, who.viewer).await?;
    let items = feed
        .post_history(&who.tenant, viewer.as_deref(), post_id(&id)?)
        .await?;
    Ok(Json(PostHistory { items }))
}

/// See a post in its conversation
#[utoipa::path(get, path = "/v1/feed/posts/{id}/thread", operation_id = "getThread", tag = "feed",
    params(("id" = Id, Path), ListQuery,
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    responses((status = 200, description = "What it replies to, and a page of the replies to it.", body = PostThread)))]
pub async fn get_thread(
    feed: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    Path(id): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<JsonBytes, ApiError> {
    let who = Who::of(caller.as_ref(), named);
    let id = post_id(&id)?;
    let list = format!("thread.{id}");
    let (after, limit) = (feed.list_position(&query, &who.tenant, &list)?, query.limit()?);
    let viewer = feed.maybe_viewer(&who.tenant, who.viewer).await?;
    let thread = feed
        .thread(&who.tenant, viewer.as_deref(), id, after, limit)
        .await?;
    let (above, below) = (thread.ancestors.len(), thread.replies.len());
    let all: Vec<Shown> = thread
        .ancestors
        .into_iter()
        .chain([thread.post])
        .chain(thread.replies)
        .collect();
    let written = feed.write_posts(&who.tenant, who.viewer, &all).await?;
    let (ancestors, rest) = written.split_at(above);
    let (post, replies) = rest.split_at(rest.len() - below);
    let mut out = b"{\"ancestors\":".to_vec();
    write_array(&mut out, ancestors);
    out.extend_from_slice(b",\"post\":");
    out.extend(post.iter().flat_map(|post| post.iter()));
    out.extend_from_slice(b",\"replies\":");
    write_array(&mut out, replies);
    write_next(
        &mut out,
        feed.list_next(thread.next, &who.tenant, &list).as_deref(),
    );
    out.push(b'}');
    Ok(json(None, out))
}

/// Like a post
#[utoipa::path(put, path = "/v1/feed/posts/{id}/like", operation_id = "likePost", tag = "feed",
    params(("id" = Id, Path)),
    responses((status = 200, description = "You like it.", body = Liked)))]
pub async fn like_post(feed: State, caller: Caller, Path(id): Path<String>) -> Result<Json<Liked>, ApiError> {
    let id = post_id(&id)?;
    let likes = to_its_end(async move { feed.set_like(&caller, id, true).await }).await?;
    Ok(Json(Liked { liked: true, likes }))
}

/// Take a like back
#[utoipa::path(delete, path = "/v1/feed/posts/{id}/like", operation_id = "unlikePost", tag = "feed",
    params(("id" = Id, Path)),
    responses((status = 200, description = "You do not like it.", body = Liked)))]
pub async fn unlike_post(
    feed: State,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Liked>, ApiError> {
    let id = post_id(&id)?;
    let likes = to_its_end(async move { feed.set_like(&caller, id, false).await }).await?;
    Ok(Json(Liked { liked: false, likes }))
}

/// Show a post to those who follow you
#[utoipa::path(put, path = "/v1/feed/posts/{id}/repost", operation_id = "repostPost", tag = "feed",
    params(("id" = Id, Path)),
    responses((status = 200, description = "You reposted it.", body = Reposted)))]
pub async fn repost_post(
    feed: State,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Reposted>, ApiError> {
    let id = post_id(&id)?;
    let reposts = to_its_end(async move { feed.set_repost(&caller, id, true).await }).await?;
    Ok(Json(Reposted {
        reposted: true,
        reposts,
    }))
}

/// Take a repost back
#[utoipa::path(delete, path = "/v1/feed/posts/{id}/repost", operation_id = "unrepostPost", tag = "feed",
    params(("id" = Id, Path)),
    responses((status = 200, description = "You did not repost it.", body = Reposted)))]
pub async fn unrepost_post(
    feed: State,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Reposted>, ApiError> {
    let id = post_id(&id)?;
    let reposts = to_its_end(async move { feed.set_repost(&caller, id, false).await }).await?;
    Ok(Json(Reposted {
        reposted: false,
        reposts,
    }))
}

/// Keep a post
#[utoipa::path(put, path = "/v1/feed/posts/{id}/bookmark", operation_id = "bookmarkPost", tag = "feed",
    params(("id" = Id, Path)),
    responses((status = 200, description = "It is among your bookmarks.", body = Bookmarked)))]
pub async fn bookmark_post(
    feed: State,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Bookmarked>, ApiError> {
    feed.set_bookmark(&caller, post_id(&id)?, true).await?;
    Ok(Json(Bookmarked { bookmarked: true }))
}

/// Do not keep a post any more
#[utoipa::path(delete, path = "/v1/feed/posts/{id}/bookmark", operation_id = "unbookmarkPost", tag = "feed",
    params(("id" = Id, Path)),
    responses((status = 200, description = "It is not among your bookmarks.", body = Bookmarked)))]
pub async fn unbookmark_post(
    feed: State,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Bookmarked>, ApiError> {
    feed.set_bookmark(&caller, post_id(&id)?, false).await?;
    Ok(Json(Bookmarked { bookmarked: false }))
}

/// List your bookmarks
///
/// Newest post first.
#[utoipa::path(get, path = "/v1/feed/bookmarks", operation_id = "listBookmarks", tag = "feed",
    params(ListQuery),
    responses((status = 200, description = "A page of posts.", body = PostPage)))]
pub async fn list_bookmarks(
    feed: State,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<JsonBytes, ApiError> {
    let who = Who::caller(&caller);
    let list = format!("bookmarks.{}", caller.account);
    let before = feed.list_position(&query, &who.tenant, &list)?;
    let viewer = feed.viewer(&who.tenant, caller.account).await?;
    let (posts, next) = feed
        .bookmarks(&who.tenant, &viewer, before, query.limit()?)
        .await?;
    let next = feed.list_next(next, &who.tenant, &list);
    Ok(feed.post_page(&who, &posts, next).await?)
}

/// List who likes a post
#[utoipa::path(get, path = "/v1/feed/posts/{id}/likes", operation_id = "listLikes", tag = "feed",
    params(("id" = Id, Path), ListQuery,
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    responses((status = 200, description = "A page of people.", body = PersonPage)))]
pub async fn list_likes(
    feed: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    Path(id): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<PersonPage>, ApiError> {
    let who = Who::of(caller.as_ref(), named);
    let id = post_id(&id)?;
    let scope = format!("feed.likes.{id}:{}", who.tenant);
    let after = query
        .position(&feed.cursors, &scope)?
        .and_then(|name| String::from_utf8(name).ok());
    let limit = query.limit()?;
    let viewer = feed.maybe_viewer(&who.tenant, who.viewer).await?;
    let (people, next) = feed
        .likers(&who.tenant, viewer.as_deref(), id, after.as_deref(), limit)
        .await?;
    Ok(Json(PersonPage {
        items: super::people::items(viewer.as_deref(), people),
        next: next.map(|name| feed.cursors.seal(&scope, name.as_bytes())),
    }))
}

/// List posts with a tag
#[utoipa::path(get, path = "/v1/feed/tags/{tag}/posts", operation_id = "listTagPosts", tag = "feed",
    params(("tag" = String, Path, min_length = 1, max_length = 65), ListQuery,
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    responses((status = 200, description = "A page of posts, newest first.", body = PostPage)))]
pub async fn list_tag_posts(
    feed: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    Path(tag): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<JsonBytes, ApiError> {
    let who = Who::of(caller.as_ref(), named);
    let tag = text::canonical_tag(&tag).ok_or_else(|| ApiError::not_found("tag"))?;
    let list = format!("tag.{tag}");
    let (before, limit) = (feed.list_position(&query, &who.tenant, &list)?, query.limit()?);
    let viewer = feed.maybe_viewer(&who.tenant, who.viewer).await?;
    let (posts, next) = feed
        .tag_posts(&who.tenant, viewer.as_deref(), &tag, before, limit)
        .await?;
    let next = feed.list_next(next, &who.tenant, &list);
    Ok(feed.post_page(&who, &posts, next).await?)
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TrendQuery {
    /// How far to look back; a day if it is not said.
    #[param(inline)]
    window: Option<Window>,
    /// How many at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
}

/// List the tags that are used most
#[utoipa::path(get, path = "/v1/feed/trends", operation_id = "listTrends", tag = "feed",
    params(TrendQuery,
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    responses((status = 200, description = "Tags, most used first; at most two seconds old.", body = TrendList)))]
pub async fn list_trends(
    feed: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    Query(query): Query<TrendQuery>,
) -> Result<Json<TrendList>, ApiError> {
    let who = Who::of(caller.as_ref(), named);
    let limit = ListQuery {
        limit: query.limit,
        cursor: None,
    }
    .limit()?;
    let (as_of, trends) = feed
        .trends(&who.tenant, query.window.unwrap_or(Window::Day))
        .await?;
    Ok(Json(TrendList {
        items: trends.iter().take(limit).cloned().collect(),
        as_of,
    }))
}
