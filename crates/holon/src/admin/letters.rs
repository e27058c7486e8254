//! Dead letters: events that a consumer gave up on, to look at and to hand in again.

use super::Admin;
use axum::extract::State;
use holon_base::{ErrorKind, Id, Timestamp};
use holon_web::{ApiError, Json, ListQuery, Page, Query};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const CURSOR: &str = "admin.dead-letters";

/// An event that a consumer gave up on.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    pub group: String,
    pub topic: String,
    /// Names it within its group and topic.
    pub number: u64,
    pub event: Id,
    /// The event's type, such as `feed.post.created.v1`.
    pub kind: String,
    pub subject: String,
    /// When the event was told.
    pub time: Timestamp,
    /// Why it was not handled, in the consumer's own words.
    pub error: String,
    pub attempts: u32,
    /// When the consumer gave up.
    pub buried: Timestamp,
}

/// Which dead letters.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeadLettersOf {
    /// Only of this consumer group.
    #[param(max_length = 64)]
    pub group: Option<String>,
    /// Only of this topic.
    #[param(max_length = 64)]
    pub topic: Option<String>,
    /// How many items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<usize>,
    /// Where to go on: `next` of the page before.
    #[param(max_length = 2048)]
    pub cursor: Option<String>,
}

/// Where a page ended: a group, a topic, and the next number there.
#[derive(Serialize, Deserialize)]
struct Place {
    group: String,
    topic: String,
    from: u64,
}

/// The events that consumers gave up on, oldest first in each group and topic.
#[utoipa::path(
    get,
    path = "/v1/admin/dead-letters",
    operation_id = "listDeadLetters",
    tag = "admin",
    params(DeadLettersOf),
    responses((status = 200, description = "A page of them", body = Page<DeadLetter>))
)]
pub async fn list_dead_letters(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<DeadLettersOf>,
) -> Result<Json<Page<DeadLetter>>, ApiError> {
    let list = ListQuery {
        limit: query.limit,
        cursor: query.cursor,
    };
    let limit = list.limit()?;
    let place: Option<Place> = match list.position(&admin.cursors, CURSOR)? {
        Some(bytes) => Some(serde_json::from_slice(&bytes).map_err(ApiError::internal)?),
        None => None,
    };
    let mut groups: Vec<(&str, &str)> = admin
        .consumers
        .iter()
        .map(|consumer| (consumer.group, consumer.topic))
        .filter(|(group, _)| query.group.as_deref().is_none_or(|wanted| wanted == *group))
        .filter(|(_, topic)| query.topic.as_deref().is_none_or(|wanted| wanted == *topic))
        .collect();
    groups.sort_unstable();
    groups.dedup();

    let mut items = Vec::new();
    for (group, topic) in groups {
        let from = match &place {
            Some(place) if (group, topic) < (place.group.as_str(), place.topic.as_str()) => continue,
            Some(place) if (group, topic) == (place.group.as_str(), place.topic.as_str()) => place.from,
            _ => 0,
        };
        let wanted = limit + 1 - items.len();
        let letters = admin.ports.log.dead_letters(group, topic, from, wanted).await?;
        items.extend(letters.into_iter().map(|letter| DeadLetter {
            group: group.to_owned(),
            topic: topic.to_owned(),
            number: letter.number,
            event: letter.event.id,
            kind: letter.event.kind,
            subject: letter.event.subject,
            time: letter.event.time,
            error: letter.error,
            attempts: letter.attempts,
            buried: letter.at,
        }));
        if items.len() > limit {
            break;
        }
    }
    let mut next = None;
    if items.len() > limit {
        items.truncate(limit);
        if let Some(last) = items.last() {
            let place = Place {
                group: last.group.clone(),
                topic: last.topic.clone(),
                from: last.number + 1,
            };
            let position = serde_json::to_vec(&place).map_err(ApiError::internal)?;
            next = Some(admin.cursors.seal(CURSOR, &position).to_string());
        }
    }
    Ok(Json(Page { items, next }))
}

/// Names a dead letter.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub struct ReplayRequest {
    #[schema(max_length = 64)]
    pub group: String,
    #[schema(max_length = 64)]
    pub topic: String,
    pub number: u64,
}

/// What came of handing an event in again.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct ReplayAnswer {
    /// Always true: an event that fails again is a problem, and stays.
    pub handled: bool,
}

/// Hands a dead letter to its consumer again; it is forgotten once that has handled it.
#[utoipa::path(
    post,
    path = "/v1/admin/dead-letters/replay",
    operation_id = "replayDeadLetter",
    tag = "admin",
    request_body = ReplayRequest,
    responses((status = 200, description = "It was handled", body = ReplayAnswer))
)]
pub async fn replay_dead_letter(
    State(admin): State<Arc<Admin>>,
    Json(request): Json<ReplayRequest>,
) -> Result<Json<ReplayAnswer>, ApiError> {
    let consumer = admin
        .consumers
        .iter()
        .find(|consumer| consumer.group == request.group && consumer.topic == request.topic)
        .ok_or_else(|| ApiError::not_found("consumer"))?;
    let (group, topic, log) = (consumer.group, consumer.topic, &admin.ports.log);
    let letters = log.dead_letters(group, topic, request.number, 1).await?;
    let letter = letters
        .into_iter()
        .find(|letter| letter.number == request.number)
        .ok_or_else(|| ApiError::not_found("dead letter"))?;
    // Handled first and taken out after, so that it is not lost in between; consumers are idempotent.
    if let Err(error) = consumer.handler.handle(std::slice::from_ref(&letter.event)).await {
        tracing::warn!(group, topic, number = request.number, %error, "dead letter failed again");
        return Err(ApiError::new(
            ErrorKind::Conflict,
            "failed-again",
            "the consumer could not handle it this time either; it stays, and the log says why",
        ));
    }
    log.unbury(group, topic, request.number).await?;
    Ok(Json(ReplayAnswer { handled: true }))
}
