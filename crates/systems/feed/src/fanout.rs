//! Fan-out: from an author's events to the timelines of those who follow.
//!
//! One group, `feed.fanout`, handles posts and follows of an author in the one order of their events, so that nothing
//! falls between: a post told before a follow is found by the follow's back-fill, a post told after it is
//! pushed to the new follower. Whatever an event says is checked against the rows before it is acted on, and every
//! effect is a put or delete of a natural key, so events may come twice or late.
//!
//! # Tiers
//!
//! An author below `push_below` followers is pushed to all of them. From there to `active_below` they are pushed to
//! those who looked at their home lately; from there on to nobody. Readers pull what they were not pushed. A tier is only left
//! downwards at 80 % of its bound. Going up, the new tier is recorded before pushing stops; going down, all
//! followers are back-filled before it is recorded: at every moment what is not pushed is pulled.

use crate::{
    Feed,
    cards::Count,
    error::FeedError,
    graph::TRIES,
    model::{
        ACTIVITY, Activity, Entry, FANOUTS, FOLLOW_CHANGED, FOLLOWER_COUNTS, FOLLOWERS, FOLLOWS,
        FanoutRecord, FollowChanged, Kind, META_SORT, OUTBOX, POST_AUTHORS, PostRef, REPLIES, REPOSTS, Since,
        TIERS, TIMELINE, Tier, TierRecord, TimelineMeta, VERSION_TIERS, VERSIONS, by_id, by_id_desc,
        followers, id_of, post, tiers, timeline, user,
    },
    pack::{self, Source, pack_sort},
    timeline::packed,
};
use async_trait::async_trait;
use futures::future::try_join_all;
use holon_base::{Id, Tenant};
use holon_contracts::feed::{POST_CREATED, POST_DELETED, POST_EDITED, PostCreated, PostDeleted};
use holon_ports::{Batch, Condition, Consistency, Event, Handler, HandlerError, Partition, RowKey, Scan};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
};

/// Timelines written in one call of the store.
const AT_ONCE: usize = 512;
/// Pushes gathered before they are written.
const PUSHES_AT_ONCE: usize = 64 * 1_024;
/// Timelines that are back-filled or trimmed at the same time, so that their commits share a sync.
const TIMELINES_AT_ONCE: usize = 64;
/// Followers read at once.
pub(crate) const FOLLOWERS_CHUNK: usize = 1_000;

/// The consumer.
pub(crate) struct Fanout(pub Arc<Feed>);

#[async_trait]
impl Handler for Fanout {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        // Runs of posts and runs of follows are each handled together, at the price of few syncs; what is of another
        // kind keeps its place between them.
        let mut posts: Vec<(&Event, PostCreated)> = Vec::new();
        let mut follows: Vec<(&Tenant, FollowChanged)> = Vec::new();
        for event in events {
            let (is_post, is_follow) = (event.kind == POST_CREATED, event.kind == FOLLOW_CHANGED);
            if !is_post {
                self.0.push_posts(&std::mem::take(&mut posts)).await?;
            }
            if !is_follow {
                self.0.follows_changed(&std::mem::take(&mut follows)).await?;
            }
            match event.kind.as_str() {
                POST_CREATED => posts.push((event, event.json()?)),
                FOLLOW_CHANGED => follows.push((&event.tenant, event.json()?)),
                POST_EDITED => {
                    let told: PostCreated = event.json()?;
                    self.0.cards.forget(&event.tenant, told.id);
                }
                POST_DELETED => self.0.pull_back(&event.tenant, &event.json()?).await?,
                _ => {}
            }
        }
        self.0.push_posts(&posts).await?;
        self.0.follows_changed(&follows).await?;
        Ok(())
    }
}

/// The tier of an author with this many followers, coming from another.
pub fn tier_for(current: Tier, followers: u64, push_below: u64, active_below: u64) -> Tier {
    // Down only at 80 %, so that an author at a bound does not go to and fro.
    let below = |bound: u64, was_above: bool| followers < if was_above { bound - bound / 5 } else { bound };
    if below(push_below, current != Tier::Push) {
        Tier::Push
    } else if below(active_below.max(push_below), current == Tier::Pull) {
        Tier::Active
    } else {
        Tier::Pull
    }
}

/// A post, by its place among those on their way out, for a reader.
#[derive(Debug, Clone, Copy)]
struct Push {
    reader: Id,
    post: usize,
}

/// A post on its way out.
struct Outgoing {
    tenant: Tenant,
    id: Id,
    entry: Entry,
    record: FanoutRecord,
}

impl Feed {
    async fn push_posts(&self, posts: &[(&Event, PostCreated)]) -> Result<(), FeedError> {
        if posts.is_empty() {
            return Ok(());
        }
        let keys: Vec<RowKey> = posts
            .iter()
            .flat_map(|(event, told)| {
                [
                    RowKey::new(OUTBOX, user(&event.tenant, told.author), by_id_desc(told.id)),
                    RowKey::new(TIERS, tiers(&event.tenant), by_id(told.author)),
                ]
            })
            .collect();
        let rows = self.ports.store.get_many(&keys, Consistency::Strong).await?;
        let now = self.clock.now();
        let mut outgoing = Vec::with_capacity(posts.len());
        for ((event, told), rows) in posts.iter().zip(rows.chunks(2)) {
            let [Some(row), tier] = rows else {
                // Taken back before it got here.
                continue;
            };
            let tier = match tier {
                Some(row) => row.json::<TierRecord>()?.tier,
                None => Tier::Push,
            };
            outgoing.push(Outgoing {
                tenant: event.tenant.clone(),
                id: told.id,
                entry: Entry::decode(&row.bytes())?,
                record: FanoutRecord {
                    tier,
                    followers: 0,
                    pushed: 0,
                    at: now,
                    partition: event.position.partition,
                    offset: event.position.offset,
                },
            });
        }
        self.push(&mut outgoing).await?;
        self.record(&outgoing).await?;
        for out in &outgoing {
            self.repair_counts(out).await?;
        }
        Ok(())
    }

    /// Writes posts to the timelines of those who are pushed to, all posts for one timeline in one commit.
    async fn push(&self, outgoing: &mut [Outgoing]) -> Result<(), FeedError> {
        let mut by_author: HashMap<(Tenant, Id), Vec<usize>> = HashMap::new();
        for (at, out) in outgoing.iter().enumerate() {
            by_author
                .entry((out.tenant.clone(), out.entry.author))
                .or_default()
                .push(at);
        }
        let mut pushes: Vec<Push> = Vec::new();
        let mut live: HashMap<usize, Vec<Id>> = HashMap::new();
        let is_watched = self.is_watched();
        for ((tenant, author), posts) in by_author {
            let Some(tier) = posts.first().map(|at| outgoing[*at].record.tier) else {
                continue;
            };
            if tier == Tier::Pull {
                // Nobody is written to, and there are too many to ask each whether they are there.
                let count = self.follower_count(&tenant, author).await?;
                for at in &posts {
                    outgoing[*at].record.followers = count;
                    live.insert(*at, self.online(&tenant));
                }
                continue;
            }
            let mut after = None;
            loop {
                let (page, more) = self.followers_page(&tenant, author, after).await?;
                let pushed = match tier {
                    Tier::Active => self.active_among(&tenant, &page).await?,
                    _ => page.clone(),
                };
                for at in &posts {
                    outgoing[*at].record.followers += page.len() as u64;
                    outgoing[*at].record.pushed += pushed.len() as u64;
                    if is_watched {
                        let online = page.iter().filter(|reader| self.is_online(&tenant, **reader));
                        live.entry(*at).or_default().extend(online);
                    }
                }
                for reader in pushed {
                    pushes.extend(posts.iter().map(|post| Push { reader, post: *post }));
                }
                if pushes.len() >= PUSHES_AT_ONCE {
                    self.write_timelines(outgoing, std::mem::take(&mut pushes))
                        .await?;
                }
                after = page.last().copied();
                if !more {
                    break;
                }
            }
        }
        self.write_timelines(outgoing, pushes).await?;
        if is_watched {
            for (at, out) in outgoing.iter().enumerate() {
                let mut readers = live.remove(&at).unwrap_or_default();
                readers.push(out.entry.author);
                self.tell_posted(&out.tenant, out.id, &out.entry, &readers).await;
            }
        }
        Ok(())
    }

    /// Writes pushes, what is for one reader in one pack.
    async fn write_timelines(&self, outgoing: &[Outgoing], mut pushes: Vec<Push>) -> Result<(), FeedError> {
        // Newest first for each reader. Tenants have no reader in common.
        pushes.sort_unstable_by_key(|push| (push.reader, Reverse(outgoing[push.post].id)));
        let mut full = Vec::new();
        let mut commits = Vec::with_capacity(AT_ONCE);
        for pushes in pushes.chunk_by(|a, b| a.reader == b.reader) {
            let Some(Push { reader, post }) = pushes.first().copied() else {
                continue;
            };
            let newest = &outgoing[post];
            let entries = pushes.iter().map(|push| &outgoing[push.post]);
            let pack = pack::encode(entries.map(|out| (out.id, &out.entry)));
            let sort = pack_sort(newest.id, Source::Fanout(newest.record.partition));
            let batch = Batch::new().put_binary(TIMELINE, sort, pack);
            commits.push((newest.tenant.clone(), reader, batch));
            if self.count_pushed(&newest.tenant, reader, pushes.len()) {
                full.push((newest.tenant.clone(), reader));
            }
            if commits.len() == AT_ONCE {
                self.commit_timelines(std::mem::take(&mut commits)).await?;
            }
        }
        let written = pushes.len() as u64;
        self.commit_timelines(commits).await?;
        self.stats.entries_written.fetch_add(written, Ordering::Relaxed);
        for some in full.chunks(TIMELINES_AT_ONCE) {
            try_join_all(some.iter().map(|(tenant, reader)| self.trim(tenant, *reader))).await?;
        }
        Ok(())
    }

    async fn commit_all(&self, commits: Vec<(Partition, Batch)>) -> Result<(), FeedError> {
        if commits.is_empty() {
            return Ok(());
        }
        for answer in self.ports.store.commit_many(commits).await {
            answer?;
        }
        Ok(())
    }

    /// Followers after one, and whether there are more.
    pub(crate) async fn followers_page(
        &self,
        tenant: &Tenant,
        author: Id,
        after: Option<Id>,
    ) -> Result<(Vec<Id>, bool), FeedError> {
        let mut scan = Scan::all(FOLLOWERS, followers(tenant, author), FOLLOWERS_CHUNK);
        if let Some(after) = after {
            scan = scan.after(by_id(after));
        }
        let page = self.ports.store.scan(&scan).await?;
        let ids = page
            .rows
            .iter()
            .map(|row| id_of(&row.sort))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((ids, page.more))
    }

    async fn active_among(&self, tenant: &Tenant, readers: &[Id]) -> Result<Vec<Id>, FeedError> {
        let since = self.clock.now().minus(self.options.active_for);
        let keys: Vec<RowKey> = readers
            .iter()
            .map(|reader| RowKey::new(ACTIVITY, user(tenant, *reader), Vec::new()))
            .collect();
        let rows = self.ports.store.get_many(&keys, Consistency::Strong).await?;
        let mut active = Vec::new();
        for (reader, row) in readers.iter().zip(rows) {
            if let Some(row) = row
                && row.json::<Activity>()?.last >= since
            {
                active.push(*reader);
            }
        }
        Ok(active)
    }

    /// Notes where posts went, and makes the rows good by which they are found.
    async fn record(&self, outgoing: &[Outgoing]) -> Result<(), FeedError> {
        let mut commits = Vec::with_capacity(outgoing.len());
        for out in outgoing {
            let at = PostRef {
                id: out.id,
                author: out.entry.author,
            };
            let parent = out.entry.target.filter(|_| out.entry.kind == Kind::Reply);
            let mut rows = crate::posts::index_rows(&out.tenant, at, parent);
            if let Some((_, batch)) = rows.first_mut() {
                *batch = std::mem::take(batch).put(FANOUTS, Vec::new(), &out.record);
            }
            commits.extend(rows);
        }
        self.commit_all(commits).await?;
        self.stats
            .posts_handled
            .fetch_add(outgoing.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Counts a post at its target if a crash kept it from being counted there.
    async fn repair_counts(&self, out: &Outgoing) -> Result<(), FeedError> {
        let Some(target) = out.entry.target else {
            return Ok(());
        };
        let (count, member) = match out.entry.kind {
            Kind::Reply => (Count::Replies, out.id),
            Kind::Quote => (Count::Quotes, out.id),
            Kind::Repost => (Count::Reposts, out.entry.author),
            Kind::Post => return Ok(()),
        };
        if !self.counts_member(&out.tenant, target.id, count, member).await? {
            let at = PostRef {
                id: out.id,
                author: out.entry.author,
            };
            // It may have been taken back since; counting it then would leave it counted.
            if self.post_row(&out.tenant, at).await?.is_some() {
                self.count_one(&out.tenant, target.id, count, member, true)
                    .await?;
            }
            if self.post_row(&out.tenant, at).await?.is_none() {
                self.count_one(&out.tenant, target.id, count, member, false)
                    .await?;
            }
        }
        Ok(())
    }

    /// Takes a deleted post out of timelines, indexes and counts. Readers do not see it any more already.
    async fn pull_back(&self, tenant: &Tenant, told: &PostDeleted) -> Result<(), FeedError> {
        self.cards.forget(tenant, told.id);
        let mut live = Vec::new();
        let is_watched = self.is_watched();
        let mut after = None;
        loop {
            let (page, more) = self.followers_page(tenant, told.author, after).await?;
            for some in page.chunks(TIMELINES_AT_ONCE) {
                try_join_all(some.iter().map(|reader| self.take_out(tenant, *reader, told.id))).await?;
            }
            if is_watched {
                live.extend(page.iter().filter(|reader| self.is_online(tenant, **reader)));
            }
            after = page.last().copied();
            if !more {
                break;
            }
        }
        let mut commits = vec![(
            post(tenant, told.id),
            Batch::new()
                .delete(POST_AUTHORS, Vec::new())
                .delete(FANOUTS, Vec::new()),
        )];
        if let Some(parent) = told.reply_to {
            commits.push((post(tenant, parent), Batch::new().delete(REPLIES, by_id(told.id))));
        }
        self.commit_all(commits).await?;
        for (target, count, member) in [
            (told.reply_to, Count::Replies, told.id),
            (told.quote_of, Count::Quotes, told.id),
            (told.repost_of, Count::Reposts, told.author),
        ] {
            let Some(target) = target else { continue };
            let is_counted = match count {
                // Reposted anew since then?
                Count::Reposts => {
                    let key = RowKey::new(REPOSTS, user(tenant, told.author), by_id(target));
                    self.ports.store.get(&key, Consistency::Strong).await?.is_some()
                }
                _ => false,
            };
            self.count_one(tenant, target, count, member, is_counted).await?;
        }
        live.push(told.author);
        self.tell_deleted(tenant, told.id, &live).await;
        Ok(())
    }

    /// Brings followers, their counts, authors' tiers and followers' timelines in line with the followers' rows.
    async fn follows_changed(&self, told: &[(&Tenant, FollowChanged)]) -> Result<(), FeedError> {
        let pairs: BTreeSet<(&Tenant, Id, Id)> = told
            .iter()
            .map(|(tenant, told)| (*tenant, told.followee, told.follower))
            .collect();
        if pairs.is_empty() {
            return Ok(());
        }
        let truths: Vec<RowKey> = pairs
            .iter()
            .map(|(tenant, followee, follower)| {
                RowKey::new(FOLLOWS, user(tenant, *follower), by_id(*followee))
            })
            .collect();
        let truths = self.ports.store.get_many(&truths, Consistency::Strong).await?;
        let mut commits = Vec::with_capacity(pairs.len());
        let mut begun = Vec::new();
        for ((tenant, followee, follower), follows) in pairs.iter().zip(&truths) {
            let batch = match follows {
                Some(row) => {
                    begun.push((*tenant, *followee, *follower));
                    Batch::new()
                        .put_if_absent(FOLLOWERS, by_id(*follower), &row.json::<Since>()?)
                        .add(FOLLOWER_COUNTS, Vec::new(), 1)
                }
                None => Batch::new()
                    .delete_if(FOLLOWERS, by_id(*follower), Condition::Present)
                    .add(FOLLOWER_COUNTS, Vec::new(), -1),
            };
            commits.push((followers(tenant, *followee), batch));
        }
        for answer in self.ports.store.commit_many(commits).await {
            match answer {
                Ok(_) => {}
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let authors: BTreeSet<(&Tenant, Id)> = pairs
            .iter()
            .map(|(tenant, followee, _)| (*tenant, *followee))
            .collect();
        let mut tiers: HashMap<(&Tenant, Id), Tier> = HashMap::new();
        for (tenant, author) in authors {
            tiers.insert((tenant, author), self.settle_tier(tenant, author).await?);
        }
        begun.retain(|(tenant, followee, _)| tiers.get(&(*tenant, *followee)) != Some(&Tier::Pull));
        for some in begun.chunks(TIMELINES_AT_ONCE) {
            let fills = some
                .iter()
                .map(|(tenant, followee, follower)| self.backfill(tenant, *follower, *followee));
            try_join_all(fills).await?;
        }
        Ok(())
    }

    pub(crate) async fn follower_count(&self, tenant: &Tenant, author: Id) -> Result<u64, FeedError> {
        let key = RowKey::new(FOLLOWER_COUNTS, followers(tenant, author), Vec::new());
        let row = self.ports.store.get(&key, Consistency::Strong).await?;
        Ok(row.map_or(0, |row| u64::try_from(row.counter()).unwrap_or(0)))
    }

    /// Moves an author to the tier that the number of followers asks for. Only the fan-out does this, which sees an
    /// author's events one after the other.
    async fn settle_tier(&self, tenant: &Tenant, author: Id) -> Result<Tier, FeedError> {
        let key = RowKey::new(TIERS, tiers(tenant), by_id(author));
        let before = match self.ports.store.get(&key, Consistency::Strong).await? {
            Some(row) => row.json::<TierRecord>()?.tier,
            None => Tier::Push,
        };
        let followers = self.follower_count(tenant, author).await?;
        let after = tier_for(
            before,
            followers,
            self.options.push_below,
            self.options.active_below,
        );
        if after == before {
            return Ok(after);
        }
        let batch = match after {
            Tier::Push => {
                let mut cursor = None;
                loop {
                    let (page, more) = self.followers_page(tenant, author, cursor).await?;
                    for some in page.chunks(TIMELINES_AT_ONCE) {
                        try_join_all(some.iter().map(|reader| self.backfill(tenant, *reader, author)))
                            .await?;
                    }
                    cursor = page.last().copied();
                    if !more {
                        break;
                    }
                }
                Batch::new().delete(TIERS, by_id(author))
            }
            Tier::Active | Tier::Pull => {
                // From the push tier everything is there; from the pull tier only what is pushed from now on.
                let complete_above = if before == Tier::Push {
                    Id::MIN
                } else {
                    let newest = self.outbox(tenant, author, Id::MAX, 1).await?.0;
                    let newest = newest.first().map_or(Id::MIN, |(id, _)| *id);
                    newest.max(self.ids.next())
                };
                let record = TierRecord {
                    tier: after,
                    complete_above,
                };
                Batch::new().put(TIERS, by_id(author), &record)
            }
        };
        let batch = batch.add(VERSIONS, VERSION_TIERS, 1);
        self.ports.store.commit(&tiers(tenant), batch).await?;
        tracing::debug!(%author, ?before, ?after, followers, "author changed tier");
        Ok(after)
    }

    /// Puts an author's newest posts into a timeline, as many as it keeps, above its floor.
    pub(crate) async fn backfill(&self, tenant: &Tenant, reader: Id, author: Id) -> Result<(), FeedError> {
        let keep = self.options.timeline_entries;
        let (posts, more) = self.outbox(tenant, author, Id::MAX, keep).await?;
        let missing = posts.last().filter(|_| more).map(|(oldest, _)| *oldest);
        let partition = timeline(tenant, reader);
        for _ in 0..TRIES {
            let row = self.timeline_meta(&partition).await?;
            let meta = match &row {
                Some(row) => row.json()?,
                None => TimelineMeta::default(),
            };
            // Newest first, so that those above the floor come first.
            let fresh = &posts[..posts.partition_point(|(id, _)| *id > meta.floor)];
            let count = fresh.len();
            let mut batch = packed(Batch::new(), fresh, Source::Backfill(author));
            // The oldest that is there stays readable: the floor goes right below it.
            let floor = missing.map_or(Id::MIN, |oldest| Id::from_u64(oldest.as_u64() - 1));
            if floor > meta.floor {
                let raised = TimelineMeta { floor, ..meta };
                batch = batch.put_if(
                    TIMELINE,
                    META_SORT,
                    &raised,
                    crate::graph::unchanged(row.as_ref()),
                );
            }
            if batch.is_empty() {
                return Ok(());
            }
            match self.commit_timeline(tenant, reader, batch).await {
                Ok(_) => {
                    self.stats
                        .entries_written
                        .fetch_add(count as u64, Ordering::Relaxed);
                    if self.count_pushed(tenant, reader, count) {
                        self.trim(tenant, reader).await?;
                    }
                    return Ok(());
                }
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(FeedError::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_go_up_at_their_bound_and_down_at_four_fifths_of_it() {
        let tier = |current, followers| tier_for(current, followers, 100, 1_000);
        assert_eq!(tier(Tier::Push, 99), Tier::Push);
        assert_eq!(tier(Tier::Push, 100), Tier::Active);
        assert_eq!(tier(Tier::Active, 80), Tier::Active);
        assert_eq!(tier(Tier::Active, 79), Tier::Push);
        assert_eq!(tier(Tier::Active, 1_000), Tier::Pull);
        assert_eq!(tier(Tier::Pull, 800), Tier::Pull);
        assert_eq!(tier(Tier::Pull, 799), Tier::Active);
        assert_eq!(tier(Tier::Pull, 10), Tier::Push);
        assert_eq!(tier(Tier::Push, 5_000), Tier::Pull);
    }
}
