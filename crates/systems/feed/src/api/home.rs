//! The home and what comes into it.

use super::{
    State, Who, json,
    types::{Explanation, FeatureShare, HomePage, NotificationPage, ReadUpTo, Unread},
    write_next,
};
use crate::{
    Feed,
    cards::Shown,
    home::{HomeItem, Reader},
    live::{self, SeenUpTo},
    model::NotificationKind,
    ranked::OrderPosition,
    ranking::Scored,
};
use axum::response::{IntoResponse, Response};
use holon_base::{Id, Timestamp};
use holon_realtime::LiveRequest;
use holon_web::{ApiError, Caller, Json, ListQuery, Query, respond::JsonBytes};
use serde::{Deserialize, Serialize};
use std::{sync::atomic::Ordering, time::Duration};

/// In which order a home is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HomeOrder {
    #[default]
    Latest,
    Ranked,
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HomeQuery {
    /// By time, newest first, or by what you likely want to see.
    #[serde(default)]
    #[param(inline, default = "latest")]
    order: HomeOrder,
    /// How many items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// Where to go on: `next` of the page before, in the same order.
    #[param(max_length = 2048)]
    cursor: Option<String>,
    /// Say of each post why it stands there.
    #[serde(default)]
    explain: bool,
    /// Only what came after this; `since` of an earlier answer. Not together with `cursor`.
    #[param(max_length = 2048)]
    since: Option<String>,
    /// With `since`: how many seconds to wait until there is something.
    #[param(minimum = 0, maximum = 30, default = 0)]
    wait: Option<u64>,
}

/// Read your home
///
/// The posts of those you follow and your own. With `since`, only what is new; with `wait` as well, the answer waits
/// until something is.
#[utoipa::path(get, path = "/v1/feed/home", operation_id = "getHome", tag = "feed",
    params(HomeQuery),
    responses((status = 200, description = "A page of posts.", body = HomePage)))]
pub async fn get_home(
    feed: State,
    caller: Caller,
    Query(query): Query<HomeQuery>,
) -> Result<JsonBytes, ApiError> {
    let paging = ListQuery {
        limit: query.limit,
        cursor: query.cursor.clone(),
    };
    let limit = paging.limit()?;
    if query.wait.is_some_and(|wait| wait > 30) {
        return Err(ApiError::invalid("wait", "wait is 0 to 30 seconds"));
    }
    if let Some(since) = &query.since {
        if query.cursor.is_some() {
            return Err(ApiError::invalid("since", "send either since or cursor"));
        }
        let wait = Duration::from_secs(query.wait.unwrap_or(0));
        return newer(&feed, &caller, since, wait).await;
    }
    feed.stats.home_pages.fetch_add(1, Ordering::Relaxed);
    let (tenant, viewer) = (&caller.tenant, caller.account);
    match query.order {
        HomeOrder::Latest => {
            let list = format!("home.{viewer}");
            let before = feed.list_position(&paging, tenant, &list)?;
            let reader = feed.reader(tenant, viewer).await?;
            feed.touch(&reader);
            let page = feed.home_page(&reader, before, limit).await?;
            let next = feed.list_next(page.next, tenant, &list);
            let newest: Vec<Id> = page.items.iter().map(|item| item.at.id).collect();
            let since = since_of(&feed, &newest);
            let scored = page.items.iter().map(|item| (item, None));
            Ok(write_page(scored, query.explain, next.as_deref(), &since))
        }
        HomeOrder::Ranked => {
            let scope = format!("feed.ranked.{viewer}:{tenant}");
            let from = match paging.position(&feed.cursors, &scope)? {
                Some(position) => Some(OrderPosition::decode(&position).ok_or_else(|| {
                    ApiError::invalid(
                        "cursor",
                        "the cursor is not one of this list; start again without it",
                    )
                })?),
                None => None,
            };
            let reader = feed.reader(tenant, viewer).await?;
            feed.touch(&reader);
            let page = feed.ranked_page(&reader, from, limit).await?;
            let next = page.next.map(|next| feed.cursors.seal(&scope, &next.encode()));
            let since = since_of(&feed, &page.newest);
            let scored = page.items.iter().map(|(item, scored)| (item, Some(scored)));
            Ok(write_page(scored, query.explain, next.as_deref(), &since))
        }
    }
}

fn since_of(feed: &Feed, newest: &[Id]) -> String {
    feed.seal_since(&SeenUpTo::of(newest, Id::first_at(feed.clock.now())))
}

async fn newer(feed: &Feed, caller: &Caller, since: &str, wait: Duration) -> Result<JsonBytes, ApiError> {
    let seen = feed.open_since(since)?;
    let (tenant, viewer) = (&caller.tenant, caller.account);
    let room = live::room(tenant, viewer);
    let seen = &seen;
    let load = || async move {
        let reader = feed.reader(tenant, viewer).await?;
        let items = feed.home_since(&reader, seen.floor, &seen.seen, 200).await?;
        Ok((!items.is_empty()).then_some(items))
    };
    let found = feed.hub.long_poll(&room, Some(caller), wait, load).await?;
    let Some(items) = found else {
        return Ok(write_page(std::iter::empty(), false, None, since));
    };
    // What was seen before stays seen.
    let mut ids: Vec<Id> = items
        .iter()
        .map(|item| item.at.id)
        .chain(seen.seen.iter().copied())
        .collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let mut now_seen = SeenUpTo::of(&ids, Id::MIN);
    now_seen.floor = now_seen.floor.max(seen.floor);
    let since = feed.seal_since(&now_seen);
    Ok(write_page(
        items.iter().map(|item| (item, None)),
        false,
        None,
        &since,
    ))
}

fn write_page<'a>(
    items: impl Iterator<Item = (&'a HomeItem, Option<&'a Scored>)> + Clone,
    explain: bool,
    next: Option<&str>,
    since: &str,
) -> JsonBytes {
    let bytes: usize = items.clone().map(|(item, _)| item.shown.size() + 1).sum();
    let mut out = Vec::with_capacity(bytes + 1_024);
    out.extend_from_slice(b"{\"items\":[");
    for (at, (item, scored)) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        if explain {
            item.shown.write_open(&mut out, Some(item.flags));
            out.extend_from_slice(b",\"explain\":");
            // Writing numbers and names into memory cannot fail.
            let _ = serde_json::to_writer(&mut out, &explanation(item, scored));
            out.push(b'}');
        } else {
            item.shown.write(&mut out, Some(item.flags));
        }
    }
    out.push(b']');
    write_next(&mut out, next);
    out.extend_from_slice(b",\"since\":\"");
    out.extend_from_slice(since.as_bytes());
    out.extend_from_slice(b"\"}");
    json(None, out)
}

fn explanation(item: &HomeItem, scored: Option<&Scored>) -> Explanation {
    let features = scored.into_iter().flat_map(Scored::features);
    Explanation {
        score: scored.map_or(0.0, |scored| scored.score),
        features: features
            .map(|feature| FeatureShare {
                name: feature.name.to_owned(),
                value: feature.value,
                weight: feature.weight,
                share: feature.share,
            })
            .collect(),
        source: item.at.source,
    }
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LiveQuery {
    /// What came after this is sent first; `since` of an earlier answer or message.
    #[param(max_length = 2048)]
    since: Option<String>,
}

/// Have your home told to you as it changes
///
/// A WebSocket, or server-sent events with `Accept: text/event-stream`. Messages are JSON with a `type`: `post`,
/// `deleted`, `notification`, `heartbeat`, `bye`.
#[utoipa::path(get, path = "/v1/feed/home/live", operation_id = "liveHome", tag = "feed",
    params(LiveQuery),
    responses(
        (status = 101, description = "The WebSocket is open."),
        (status = 200, description = "Events.", content_type = "text/event-stream", body = String),
        (status = 406, description = "Neither a WebSocket nor events were asked for."),
    ))]
pub async fn live_home(
    feed: State,
    caller: Caller,
    request: LiveRequest,
    Query(query): Query<LiveQuery>,
) -> Response {
    let room = live::room(&caller.tenant, caller.account);
    let inner = feed.0.clone();
    let backfill = move |since: Option<String>| async move {
        let Some(since) = since else { return Ok(Vec::new()) };
        let seen = inner.open_since(&since)?;
        let reader: Reader = inner.reader(&caller.tenant, caller.account).await?;
        inner.touch(&reader);
        Ok(inner.missed(&reader, &seen).await?)
    };
    feed.hub
        .serve(request, &room, query.since, backfill)
        .await
        .into_response()
}

#[derive(Serialize)]
struct NotificationJson<'a> {
    id: Id,
    kind: NotificationKind,
    time: Timestamp,
    actor: super::types::Author,
    #[serde(skip_serializing_if = "Option::is_none")]
    post: Option<&'a serde_json::value::RawValue>,
    read: bool,
}

/// List what happened to you
#[utoipa::path(get, path = "/v1/feed/notifications", operation_id = "listNotifications", tag = "feed",
    params(ListQuery),
    responses((status = 200, description = "A page of notifications, newest first.", body = NotificationPage)))]
pub async fn list_notifications(
    feed: State,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<JsonBytes, ApiError> {
    let who = Who::caller(&caller);
    let list = format!("notifications.{}", caller.account);
    let (before, limit) = (feed.list_position(&query, &who.tenant, &list)?, query.limit()?);
    let (items, next) = feed
        .notifications(&who.tenant, caller.account, before, limit)
        .await?;
    let unread = feed.unread(&who.tenant, caller.account).await?;
    let posts: Vec<Shown> = items.iter().filter_map(|item| item.post.clone()).collect();
    let mut written = feed
        .write_posts(&who.tenant, who.viewer, &posts)
        .await?
        .into_iter();
    let mut out = b"{\"items\":[".to_vec();
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let post = if item.post.is_some() { written.next() } else { None };
        let post = post
            .as_deref()
            .map(serde_json::from_slice::<&serde_json::value::RawValue>)
            .transpose()
            .map_err(ApiError::internal)?;
        let item = NotificationJson {
            id: item.id,
            kind: item.kind,
            time: item.time,
            actor: item.actor.into(),
            post,
            read: item.read,
        };
        serde_json::to_writer(&mut out, &item).map_err(ApiError::internal)?;
    }
    out.push(b']');
    write_next(&mut out, feed.list_next(next, &who.tenant, &list).as_deref());
    out.extend_from_slice(format!(",\"unread\":{unread}}}").as_bytes());
    Ok(json(None, out))
}

/// Mark notifications as read
#[utoipa::path(put, path = "/v1/feed/notifications/read", operation_id = "readNotifications", tag = "feed",
    request_body = ReadUpTo,
    responses((status = 200, description = "How many are left.", body = Unread)))]
pub async fn read_notifications(
    feed: State,
    caller: Caller,
    Json(body): Json<ReadUpTo>,
) -> Result<Json<Unread>, ApiError> {
    let unread = feed.mark_read(&caller.tenant, caller.account, body.up_to).await?;
    Ok(Json(Unread { unread }))
}
