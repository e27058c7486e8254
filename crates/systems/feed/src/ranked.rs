//! `order=ranked`: takes the newest posts of a home, ranks them, and keeps the order so that a reader pages through one
//! and the same list.
//!
//! An order is kept for a short time and made anew when the reader's graph changed or they posted. A cursor names the
//! order by its time and its newest post; if it is no longer kept, it is made again for that time over the same
//! candidates. What is shown is always checked against the present: what is deleted or blocked since is left out.

use crate::{
    Feed,
    cards::Count,
    error::FeedError,
    home::{HomeEntry, HomeItem, HomeWalk, Reader},
    model::Kind,
    ranking::{self, Affinity, Candidate, Scored},
};
use holon_base::{Id, Tenant, Timestamp};
use std::{sync::Arc, time::Duration};

/// Newest posts of a home that are ranked.
pub const CANDIDATES: usize = 300;
/// How long one's own newest post stands on top.
const PINNED_FOR: Duration = Duration::from_secs(600);
/// Own posts looked at for whom one replied to.
const OWN_LOOKED_AT: usize = 200;
/// The weight of a reply among the acts of affinity; a like has 1.
const REPLY_WEIGHT: f64 = 2.0;

/// An order of posts.
#[derive(Debug)]
pub struct Order {
    /// Ranked by the state at this time.
    pub as_of: Timestamp,
    /// No candidate is newer than this.
    pub newest: Id,
    graph: u64,
    newest_own: Id,
    pub posts: Vec<(HomeEntry, Scored)>,
}

/// Where a reader is in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderPosition {
    pub as_of: Timestamp,
    pub newest: Id,
    pub offset: usize,
}

impl OrderPosition {
    pub fn encode(self) -> Vec<u8> {
        let parts = [
            self.as_of.millis() as u64,
            self.newest.as_u64(),
            self.offset as u64,
        ];
        parts.iter().flat_map(|part| part.to_be_bytes()).collect()
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let part =
            |at: usize| -> Option<u64> { Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
        Some(Self {
            as_of: Timestamp::from_millis(part(0)? as i64),
            newest: Id::from_u64(part(8)?),
            offset: usize::try_from(part(16)?).ok()?,
        })
    }
}

/// A page of a ranked home.
pub struct RankedPage {
    pub items: Vec<(HomeItem, Scored)>,
    pub next: Option<OrderPosition>,
    /// The newest posts of the home, newest first, for the cursor of what comes after.
    pub newest: Vec<Id>,
}

pub(crate) type OrderKey = (Tenant, Id);

impl Feed {
    pub(crate) async fn ranked_page(
        &self,
        reader: &Reader,
        from: Option<OrderPosition>,
        limit: usize,
    ) -> Result<RankedPage, FeedError> {
        let order = match from {
            Some(position) => self.order_at(reader, position).await?,
            None => self.order_now(reader).await?,
        };
        let mut at = from.map_or(0, |position| position.offset);
        let mut items: Vec<(HomeItem, Scored)> = Vec::with_capacity(limit);
        while items.len() < limit && at < order.posts.len() {
            let end = (at + limit - items.len()).min(order.posts.len());
            let visible: Vec<(HomeEntry, Scored)> = order.posts[at..end]
                .iter()
                .filter(|(entry, _)| reader.viewer.hidden(&entry.entry).is_none())
                .copied()
                .collect();
            at = end;
            let entries: Vec<HomeEntry> = visible.iter().map(|(entry, _)| *entry).collect();
            for item in self.hydrate(reader, &entries).await? {
                if let Some((_, scored)) = visible.iter().find(|(entry, _)| entry.id == item.at.id) {
                    items.push((item, *scored));
                }
            }
        }
        let next = (at < order.posts.len()).then_some(OrderPosition {
            as_of: order.as_of,
            newest: order.newest,
            offset: at,
        });
        let mut newest: Vec<Id> = order.posts.iter().map(|(entry, _)| entry.id).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        Ok(RankedPage { items, next, newest })
    }

    async fn order_now(&self, reader: &Reader) -> Result<Arc<Order>, FeedError> {
        let now = self.clock.now();
        let key = (reader.tenant.clone(), reader.viewer.id);
        let newest_own = self.newest_own(reader).await?;
        if let Some(order) = self.orders.get(&key) {
            let age = now.millis() - order.as_of.millis();
            let is_fresh = age >= 0 && age < self.options.ranked_fresh.as_millis() as i64;
            if is_fresh && order.graph == reader.viewer.version && order.newest_own == newest_own {
                return Ok(order);
            }
        }
        let order = Arc::new(
            self.make_order(reader, ranking::quantised(now), Id::MAX, newest_own)
                .await?,
        );
        self.orders.insert(key, order.clone());
        Ok(order)
    }

    async fn order_at(&self, reader: &Reader, position: OrderPosition) -> Result<Arc<Order>, FeedError> {
        let key = (reader.tenant.clone(), reader.viewer.id);
        if let Some(order) = self.orders.get(&key)
            && order.as_of == position.as_of
            && order.newest == position.newest
        {
            return Ok(order);
        }
        let before = Id::from_u64(position.newest.as_u64().saturating_add(1));
        let newest_own = self.newest_own(reader).await?;
        Ok(Arc::new(
            self.make_order(reader, position.as_of, before, newest_own)
                .await?,
        ))
    }

    async fn newest_own(&self, reader: &Reader) -> Result<Id, FeedError> {
        let (posts, _) = self.outbox(&reader.tenant, reader.viewer.id, Id::MAX, 1).await?;
        Ok(posts.first().map_or(Id::MIN, |(id, _)| *id))
    }

    async fn make_order(
        &self,
        reader: &Reader,
        as_of: Timestamp,
        before: Id,
        newest_own: Id,
    ) -> Result<Order, FeedError> {
        let mut walk = HomeWalk::start(self, reader, before, CANDIDATES, true).await?;
        let entries = walk.take(CANDIDATES).await?;
        let newest = entries.first().map_or(Id::MIN, |entry| entry.id);
        let items = self.hydrate(reader, &entries).await?;
        let candidates: Vec<Candidate> = items.iter().map(|item| candidate(reader, item)).collect();
        let affinity = self.affinity(reader, as_of).await?;
        let is_new = as_of.since(newest_own.time()) < PINNED_FOR;
        let pinned = (newest_own > Id::MIN && is_new).then_some(newest_own);
        let scored = ranking::rank(&candidates, &affinity, pinned, as_of);
        let places: std::collections::HashMap<Id, HomeEntry> =
            items.iter().map(|item| (item.at.id, item.at)).collect();
        let posts = scored
            .into_iter()
            .filter_map(|scored| Some((*places.get(&scored.id)?, scored)))
            .collect();
        Ok(Order {
            as_of,
            newest,
            graph: reader.viewer.version,
            newest_own,
            posts,
        })
    }

    /// How much a reader cares for authors: whom they liked and whom they answered.
    async fn affinity(&self, reader: &Reader, now: Timestamp) -> Result<Affinity, FeedError> {
        let mut affinity = Affinity::default();
        for mark in reader.marks.likes.values() {
            affinity.add(mark.author, mark.at, 1.0, now);
        }
        let (own, _) = self
            .outbox(&reader.tenant, reader.viewer.id, Id::MAX, OWN_LOOKED_AT)
            .await?;
        for (id, entry) in own {
            if entry.kind == Kind::Reply
                && let Some(answered) = entry.target
            {
                affinity.add(answered.author, id.time(), REPLY_WEIGHT, now);
            }
        }
        Ok(affinity)
    }
}

fn candidate(reader: &Reader, item: &HomeItem) -> Candidate {
    let subject = item.shown.subject();
    let target = item.at.entry.target.map(|target| target.author);
    Candidate {
        id: item.at.id,
        author: item.at.entry.author,
        created: item.shown.card.created,
        likes: subject.count(Count::Likes),
        reposts: subject.count(Count::Reposts),
        replies: subject.count(Count::Replies),
        quotes: subject.count(Count::Quotes),
        media: subject.has_link,
        near: target.is_some_and(|author| author == reader.viewer.id || reader.viewer.follows(author)),
        is_reply: item.at.entry.kind == Kind::Reply,
    }
}
