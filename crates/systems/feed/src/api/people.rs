//! People: following, blocking, muting, profiles and lists.

use super::{
    State, Who,
    types::{
        Blocking, Following, Muting, PersonCounts, PersonItem, PersonPage, PostPage, Profile, ViewerRelation,
    },
};
use crate::{Feed, error::FeedError, graph::Viewer, lists::People};
use holon_base::Id;
use holon_contracts::identity::AccountSummary;
use holon_web::{
    ApiError, Caller, Json, ListQuery, MaybeCaller, Path, Query, TenantName, respond::JsonBytes,
};
use serde::Deserialize;

pub(super) fn items(viewer: Option<&Viewer>, people: Vec<AccountSummary>) -> Vec<PersonItem> {
    people
        .into_iter()
        .map(|account| PersonItem {
            following: viewer.map(|viewer| viewer.follows(account.id)),
            id: account.id,
            handle: account.handle,
            name: account.name,
        })
        .collect()
}

/// Somebody else than the caller.
async fn other(feed: &Feed, caller: &Caller, handle: &str, doing: &str) -> Result<Id, FeedError> {
    let account = feed.account(&caller.tenant, handle).await?;
    if account.id == caller.account {
        return Err(FeedError::invalid(
            "handle",
            format!("you cannot {doing} yourself"),
        ));
    }
    Ok(account.id)
}

/// Follow somebody
#[utoipa::path(put, path = "/v1/feed/follows/{handle}", operation_id = "followUser", tag = "feed",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$")),
    responses((status = 200, description = "You follow them.", body = Following)))]
pub async fn follow(
    feed: State,
    caller: Caller,
    Path(handle): Path<String>,
) -> Result<Json<Following>, ApiError> {
    let followee = other(&feed, &caller, &handle, "follow").await?;
    feed.follow(&caller.tenant, caller.account, followee).await?;
    Ok(Json(Following { following: true }))
}

/// Follow somebody no more
///
/// Their posts are gone from your home on the next read.
#[utoipa::path(delete, path = "/v1/feed/follows/{handle}", operation_id = "unfollowUser", tag = "feed",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$")),
    responses((status = 200, description = "You do not follow them.", body = Following)))]
pub async fn unfollow(
    feed: State,
    caller: Caller,
    Path(handle): Path<String>,
) -> Result<Json<Following>, ApiError> {
    let followee = other(&feed, &caller, &handle, "unfollow").await?;
    feed.unfollow(&caller.tenant, caller.account, followee).await?;
    Ok(Json(Following { following: false }))
}

/// Block somebody
///
/// Neither of you sees the other's posts any more, and neither follows the other.
#[utoipa::path(put, path = "/v1/feed/blocks/{handle}", operation_id = "blockUser", tag = "feed",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$")),
    responses((status = 200, description = "They are blocked.", body = Blocking)))]
pub async fn block(
    feed: State,
    caller: Caller,
    Path(handle): Path<String>,
) -> Result<Json<Blocking>, ApiError> {
    let blocked = other(&feed, &caller, &handle, "block").await?;
    feed.set_block(&caller.tenant, caller.account, blocked, true)
        .await?;
    Ok(Json(Blocking { blocking: true }))
}

/// Block somebody no more
#[utoipa::path(delete, path = "/v1/feed/blocks/{handle}", operation_id = "unblockUser", tag = "feed",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$")),
    responses((status = 200, description = "They are not blocked.", body = Blocking)))]
pub async fn unblock(
    feed: State,
    caller: Caller,
    Path(handle): Path<String>,
) -> Result<Json<Blocking>, ApiError> {
    let blocked = other(&feed, &caller, &handle, "unblock").await?;
    feed.set_block(&caller.tenant, caller.account, blocked, false)
        .await?;
    Ok(Json(Blocking { blocking: false }))
}

/// Mute somebody
///
/// Their posts stay out of your home; they are not told.
#[utoipa::path(put, path = "/v1/feed/mutes/{handle}", operation_id = "muteUser", tag = "feed",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$")),
    responses((status = 200, description = "They are muted.", body = Muting)))]
pub async fn mute(feed: State, caller: Caller, Path(handle): Path<String>) -> Result<Json<Muting>, ApiError> {
    let muted = other(&feed, &caller, &handle, "mute").await?;
    feed.set_mute(&caller.tenant, caller.account, muted, true).await?;
    Ok(Json(Muting { muting: true }))
}

/// Mute somebody no more
#[utoipa::path(delete, path = "/v1/feed/mutes/{handle}", operation_id = "unmuteUser", tag = "feed",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$")),
    responses((status = 200, description = "They are not muted.", body = Muting)))]
pub async fn unmute(
    feed: State,
    caller: Caller,
    Path(handle): Path<String>,
) -> Result<Json<Muting>, ApiError> {
    let muted = other(&feed, &caller, &handle, "unmute").await?;
    feed.set_mute(&caller.tenant, caller.account, muted, false)
        .await?;
    Ok(Json(Muting { muting: false }))
}

async fn page(
    feed: &Feed,
    who: &Who,
    of: People,
    name: &str,
    query: &ListQuery,
) -> Result<Json<PersonPage>, ApiError> {
    let after = feed.list_position(query, &who.tenant, name)?;
    let (people, next) = feed.people(&who.tenant, of, after, query.limit()?).await?;
    let viewer = feed.maybe_viewer(&who.tenant, who.viewer).await?;
    Ok(Json(PersonPage {
        items: items(viewer.as_deref(), people),
        next: feed.list_next(next, &who.tenant, name),
    }))
}

/// List whom you block
#[utoipa::path(get, path = "/v1/feed/blocks", operation_id = "listBlocks", tag = "feed",
    params(ListQuery),
    responses((status = 200, description = "A page of people.", body = PersonPage)))]
pub async fn list_blocks(
    feed: State,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<PersonPage>, ApiError> {
    let (who, id) = (Who::caller(&caller), caller.account);
    page(&feed, &who, People::Blocked(id), &format!("blocks.{id}"), &query).await
}

/// List whom you mute
#[utoipa::path(get, path = "/v1/feed/mutes", operation_id = "listMutes", tag = "feed",
    params(ListQuery),
    responses((status = 200, description = "A page of people.", body = PersonPage)))]
pub async fn list_mutes(
    feed: State,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<PersonPage>, ApiError> {
    let (who, id) = (Who::caller(&caller), caller.account);
    page(&feed, &who, People::Muted(id), &format!("mutes.{id}"), &query).await
}

/// See somebody's profile
#[utoipa::path(get, path = "/v1/feed/users/{handle}", operation_id = "getProfile", tag = "feed",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$"),
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    responses((status = 200, description = "The profile.", body = Profile)))]
pub async fn get_profile(
    feed: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    Path(handle): Path<String>,
) -> Result<Json<Profile>, ApiError> {
    let who = Who::of(caller.as_ref(), named);
    let account = feed.account(&who.tenant, &handle).await?;
    let counts = feed.profile_counts(&who.tenant, account.id).await?;
    let relation = match feed.maybe_viewer(&who.tenant, who.viewer).await? {
        Some(viewer) => Some(feed.relation(&who.tenant, &viewer, account.id).await?),
        None => None,
    };
    Ok(Json(Profile {
        id: account.id,
        handle: account.handle,
        name: account.name,
        bio: account.bio,
        created: account.created,
        counts: PersonCounts {
            posts: counts.posts,
            followers: counts.followers,
            following: counts.following,
        },
        viewer: relation.map(|relation| ViewerRelation {
            following: relation.following,
            followed_by: relation.followed_by,
            blocking: relation.blocking,
            blocked_by: relation.blocked_by,
            muting: relation.muting,
        }),
    }))
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UserPostsQuery {
    /// Also their replies.
    #[serde(default)]
    replies: bool,
    /// How many items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// Where to go on: `next` of the page before.
    #[param(max_length = 2048)]
    cursor: Option<String>,
}

/// List somebody's posts
///
/// Newest first. Nothing if a block stands between you.
#[utoipa::path(get, path = "/v1/feed/users/{handle}/posts", operation_id = "listUserPosts", tag = "feed",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$"), UserPostsQuery,
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    responses((status = 200, description = "A page of posts.", body = PostPage)))]
pub async fn list_user_posts(
    feed: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    Path(handle): Path<String>,
    Query(query): Query<UserPostsQuery>,
) -> Result<JsonBytes, ApiError> {
    let who = Who::of(caller.as_ref(), named);
    let paging = ListQuery {
        limit: query.limit,
        cursor: query.cursor,
    };
    let author = feed.account(&who.tenant, &handle).await?.id;
    let list = format!("posts.{author}");
    let (before, limit) = (feed.list_position(&paging, &who.tenant, &list)?, paging.limit()?);
    let viewer = feed.maybe_viewer(&who.tenant, who.viewer).await?;
    let (posts, next) = feed
        .user_posts(
            &who.tenant,
            viewer.as_deref(),
            author,
            query.replies,
            before,
            limit,
        )
        .await?;
    let next = feed.list_next(next, &who.tenant, &list);
    Ok(feed.post_page(&who, &posts, next).await?)
}

/// List who follows somebody
#[utoipa::path(get, path = "/v1/feed/users/{handle}/followers", operation_id = "listFollowers", tag = "feed",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$"), ListQuery,
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    responses((status = 200, description = "A page of people.", body = PersonPage)))]
pub async fn list_followers(
    feed: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    Path(handle): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<PersonPage>, ApiError> {
    let who = Who::of(caller.as_ref(), named);
    let id = feed.account(&who.tenant, &handle).await?.id;
    page(
        &feed,
        &who,
        People::Followers(id),
        &format!("followers.{id}"),
        &query,
    )
    .await
}

/// List whom somebody follows
#[utoipa::path(get, path = "/v1/feed/users/{handle}/following", operation_id = "listFollowing", tag = "feed",
    params(("handle" = String, Path, pattern = "^[A-Za-z0-9_]{1,32}$"), ListQuery,
        ("X-Tenant" = Option<String>, Header, pattern = "^[a-z][a-z0-9-]{0,31}$")),
    responses((status = 200, description = "A page of people.", body = PersonPage)))]
pub async fn list_following(
    feed: State,
    MaybeCaller(caller): MaybeCaller,
    TenantName(named): TenantName,
    Path(handle): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<PersonPage>, ApiError> {
    let who = Who::of(caller.as_ref(), named);
    let id = feed.account(&who.tenant, &handle).await?.id;
    page(
        &feed,
        &who,
        People::Following(id),
        &format!("following.{id}"),
        &query,
    )
    .await
}
