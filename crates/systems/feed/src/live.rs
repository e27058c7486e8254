//! Live: what happens in a home while it is open.
//!
//! Everybody has a room in the realtime hub. The fan-out tells the rooms of an author's followers of a new post once it is
//! readable; a message can be lost, so it carries a cursor from which the home is read again.
//!
//! Posts do not appear in the order of their ids: one author's fan-out may be slower than another's. So a cursor is
//! not "the newest id" but an id some seconds older and the ids above it that were seen; going on from it answers what is
//! above the one and not among the others, and a post that was a few seconds late is not missed.

use crate::{
    Feed,
    error::FeedError,
    home::{HomeEntry, HomeItem, Reader, Source},
    model::{Entry, PostRef},
};
use bytes::Bytes;
use holon_base::{Id, Tenant};
use holon_realtime::Outgoing;
use std::time::Duration;

/// How late a post may appear without being missed by whoever reads on from a cursor.
pub const LATE: Duration = Duration::from_secs(10);
/// The most ids that a cursor names.
const SEEN: usize = 32;
/// What cursors of this kind are sealed for.
const SCOPE: &str = "feed.since";
const ROOM: &str = "feed.home:";

/// What somebody has seen of their home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenUpTo {
    /// All posts up to here count as seen.
    pub floor: Id,
    /// Of those above, these.
    pub seen: Vec<Id>,
}

impl SeenUpTo {
    /// What is seen by whoever sees these newest posts (newest first) of their home at `now`.
    pub fn of(newest: &[Id], now: Id) -> Self {
        let newest_id = newest.first().copied().unwrap_or(now);
        let window = Id::first_at(newest_id.time().minus(LATE));
        let floor = match newest.get(SEEN) {
            Some(first_left_out) => window.max(*first_left_out),
            None => window,
        };
        Self {
            floor,
            seen: newest
                .iter()
                .copied()
                .filter(|id| *id > floor)
                .take(SEEN)
                .collect(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let ids = std::iter::once(self.floor).chain(self.seen.iter().copied());
        ids.flat_map(|id| id.as_u64().to_be_bytes()).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut ids = bytes
            .chunks(8)
            .map(|chunk| crate::model::id_of(chunk).ok())
            .collect::<Option<Vec<Id>>>()?
            .into_iter();
        Some(Self {
            floor: ids.next()?,
            seen: ids.collect(),
        })
    }
}

/// The room of somebody's home.
pub(crate) fn room(tenant: &Tenant, id: Id) -> String {
    format!("{ROOM}{tenant}:{id}")
}

impl Feed {
    pub(crate) fn seal_since(&self, seen: &SeenUpTo) -> String {
        self.cursors.seal(SCOPE, &seen.encode())
    }

    /// # Errors
    /// 400 if it is no cursor of this deployment.
    pub(crate) fn open_since(&self, since: &str) -> Result<SeenUpTo, FeedError> {
        let bytes = self
            .cursors
            .open(SCOPE, since)
            .map_err(|error| FeedError::invalid("since", error.to_string()))?;
        SeenUpTo::decode(&bytes)
            .ok_or_else(|| FeedError::invalid("since", "the cursor is not one of this list"))
    }

    /// The cursor of a message that tells of one post.
    fn since_post(&self, id: Id) -> String {
        self.seal_since(&SeenUpTo::of(&[id], id))
    }

    /// Whether anybody listens at all. On several nodes it cannot be known here.
    pub(crate) fn is_watched(&self) -> bool {
        !self.options.single_node || self.hub.occupied_rooms() > 0
    }

    pub(crate) fn is_online(&self, tenant: &Tenant, id: Id) -> bool {
        !self.options.single_node || self.hub.is_occupied(&room(tenant, id))
    }

    /// Whoever has their home open on this node.
    pub(crate) fn online(&self, tenant: &Tenant) -> Vec<Id> {
        let prefix = format!("{ROOM}{tenant}:");
        self.hub
            .rooms()
            .iter()
            .filter_map(|room| room.strip_prefix(&prefix)?.parse().ok())
            .collect()
    }

    /// Tells those of `readers` who may see a post that it is there. Best effort: whoever misses it reads it from the
    /// rows.
    pub(crate) async fn tell_posted(&self, tenant: &Tenant, id: Id, entry: &Entry, readers: &[Id]) {
        if let Err(error) = self.try_tell_posted(tenant, id, entry, readers).await {
            tracing::debug!(%id, %error, "live readers were not told of a post");
        }
    }

    async fn try_tell_posted(
        &self,
        tenant: &Tenant,
        id: Id,
        entry: &Entry,
        readers: &[Id],
    ) -> Result<(), FeedError> {
        let mut rooms = Vec::new();
        for reader in readers.iter().filter(|reader| self.is_online(tenant, **reader)) {
            if self.viewer(tenant, *reader).await?.hidden(entry).is_none() {
                rooms.push(room(tenant, *reader));
            }
        }
        if rooms.is_empty() {
            return Ok(());
        }
        let post = PostRef {
            id,
            author: entry.author,
        };
        let shown = self.shown(tenant, &[(post, entry.original())], |_| false).await?;
        let Some(shown) = shown.into_iter().next().flatten() else {
            return Ok(());
        };
        let mut json = Vec::with_capacity(768);
        shown.write(&mut json, None);
        let names: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let message = self.posted(id, &json)?;
        if let Err(error) = self.hub.publish_many(&names, message).await {
            tracing::debug!(%id, %error, "live readers were not told of a post");
        }
        Ok(())
    }

    fn posted(&self, id: Id, json: &[u8]) -> Result<Outgoing, FeedError> {
        #[derive(serde::Deserialize)]
        struct WithAuthor<'a> {
            #[serde(borrow)]
            author: &'a serde_json::value::RawValue,
        }
        let author: WithAuthor<'_> = serde_json::from_slice(json)
            .map_err(|error| holon_ports::StoreError::Corrupt(error.to_string()))?;
        let mut data = format!("{{\"id\":\"{id}\",\"author\":{},\"post\":", author.author.get()).into_bytes();
        data.extend_from_slice(json);
        data.push(b'}');
        Ok(Outgoing {
            kind: "post",
            id: self.since_post(id),
            data: data.into(),
        })
    }

    /// Tells readers that a post is gone.
    pub(crate) async fn tell_deleted(&self, tenant: &Tenant, id: Id, readers: &[Id]) {
        let rooms: Vec<String> = readers
            .iter()
            .filter(|reader| self.is_online(tenant, **reader))
            .map(|reader| room(tenant, *reader))
            .collect();
        if rooms.is_empty() {
            return;
        }
        let names: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let message = Outgoing {
            kind: "deleted",
            id: String::new(),
            data: Bytes::from(format!("{{\"id\":\"{id}\"}}")),
        };
        if let Err(error) = self.hub.publish_many(&names, message).await {
            tracing::debug!(%id, %error, "live readers were not told of a deletion");
        }
    }

    /// Tells somebody how many notifications they have not read.
    pub(crate) async fn tell_unread(&self, tenant: &Tenant, recipient: Id) -> Result<(), FeedError> {
        if !self.is_online(tenant, recipient) {
            return Ok(());
        }
        let unread = self.unread(tenant, recipient).await?;
        let message = Outgoing {
            kind: "notification",
            id: String::new(),
            data: Bytes::from(format!("{{\"unread\":{unread}}}")),
        };
        if let Err(error) = self.hub.publish(&room(tenant, recipient), message).await {
            tracing::debug!(%recipient, %error, "a live reader was not told of a notification");
        }
        Ok(())
    }

    /// What a home got since a cursor, oldest first, as messages.
    pub(crate) async fn missed(&self, reader: &Reader, since: &SeenUpTo) -> Result<Vec<Outgoing>, FeedError> {
        let mut items = self.home_since(reader, since.floor, &since.seen, 200).await?;
        items.reverse();
        let mut messages = Vec::with_capacity(items.len());
        for HomeItem { at, shown, flags } in &items {
            let HomeEntry { id, .. } = at;
            let mut json = Vec::with_capacity(768);
            shown.write(&mut json, Some(*flags));
            messages.push(self.posted(*id, &json)?);
        }
        Ok(messages)
    }
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pushed => "pushed",
            Self::Pulled => "pulled",
            Self::Own => "own",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holon_base::Timestamp;
    use proptest::prelude::*;

    fn id_at(seconds: i64) -> Id {
        Id::first_at(Timestamp::from_millis(1_800_000_000_000 + seconds * 1_000))
    }

    #[test]
    fn a_post_that_is_a_little_late_is_still_to_come() {
        let seen = SeenUpTo::of(&[id_at(100), id_at(95), id_at(20)], id_at(200));
        assert_eq!(seen.seen, [id_at(100), id_at(95)]);
        let is_new = |id: Id| id > seen.floor && !seen.seen.contains(&id);
        assert!(is_new(id_at(97)) && is_new(id_at(101)));
        assert!(!is_new(id_at(100)) && !is_new(id_at(20)));
    }

    proptest! {
        #[test]
        fn what_was_seen_is_not_new(mut seconds in prop::collection::vec(0..1_000_i64, 0..80)) {
            seconds.sort_unstable();
            seconds.dedup();
            let newest: Vec<Id> = seconds.iter().rev().map(|s| id_at(*s)).collect();
            let seen = SeenUpTo::of(&newest, id_at(2_000));
            prop_assert!(newest.iter().all(|id| *id <= seen.floor || seen.seen.contains(id)));
            prop_assert_eq!(SeenUpTo::decode(&seen.encode()), Some(seen));
        }
    }
}
