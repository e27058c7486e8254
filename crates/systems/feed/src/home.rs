//! The home timeline, newest first: what was pushed, merged with what must be pulled.
//!
//! A timeline holds the newest posts of everybody its owner follows, as far as they were pushed: all those with ids above its
//! *floor* by authors of the push tier. What else the definition asks for is pulled while reading, from the
//! outboxes, as ids of other streams into the same merge:
//!
//! - one's own posts, always: what I wrote is there when I look;
//! - authors of the pull tier, whole;
//! - authors of the active tier, above the point from which this reader was pushed to;
//! - everybody, below the floor.
//!
//! The merge is filtered by the reader's graph as it is now, and a post is only shown if its row is there now. So
//! unfollow, block, mute and delete are effective at once, whatever is still queued, and the tiers change how much
//! work is done where, never what is seen.

use crate::{
    Feed,
    cards::{Flags, Shown},
    error::FeedError,
    graph::Viewer,
    heads::HEAD,
    merge::{Merge, Step},
    model::{
        ACTIVITY, Activity, Entry, OUTBOX, PostRef, TIERS, Tier, TierRecord, TimelineMeta, VERSION_GRAPH,
        VERSION_MARKS, VERSION_TIERS, VERSIONS, by_id_desc, id_of, id_of_desc, tiers, user,
    },
    reactions::Marks,
};
use holon_base::{Id, Tenant, Timestamp};
use holon_ports::{Consistency, RowKey, Scan, StoreError};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Outboxes that are read at the same time.
const AT_ONCE: usize = 64;
/// Entries read beyond a page, for those that are filtered out.
const SPARE: usize = 12;

/// Authors who are not pushed to everybody, as they were at one version.
#[derive(Debug, Default)]
pub struct Tiers {
    pub version: u64,
    pub authors: HashMap<Id, TierRecord>,
}

/// Somebody who reads their home, with all that decides what they see.
pub struct Reader {
    pub tenant: Tenant,
    pub viewer: Arc<Viewer>,
    pub marks: Arc<Marks>,
    pub tiers: Arc<Tiers>,
    pub activity: Option<Activity>,
}

/// Where an entry of a home came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Pushed,
    Pulled,
    Own,
}

/// An entry of a home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HomeEntry {
    pub id: Id,
    pub entry: Entry,
    pub source: Source,
}

impl HomeEntry {
    /// What is needed to show it.
    pub fn post(&self) -> (PostRef, Option<PostRef>) {
        let post = PostRef {
            id: self.id,
            author: self.entry.author,
        };
        (post, self.entry.original())
    }
}

/// A post of a home page.
pub struct HomeItem {
    pub at: HomeEntry,
    pub shown: Shown,
    pub flags: Flags,
}

/// A page of a home.
pub struct HomePage {
    pub items: Vec<HomeItem>,
    /// Pass it as `before` to go on.
    pub next: Option<Id>,
}

/// What a stream of the merge reads.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Timeline,
    Outbox(Id),
    /// Stands for the outboxes that matter only below the floor, until the merge gets there.
    BelowFloor,
}

/// A home being read.
pub(crate) struct HomeWalk<'a> {
    feed: &'a Feed,
    reader: &'a Reader,
    merge: Merge,
    streams: Vec<Stream>,
    meta: TimelineMeta,
    /// Everything older than this is still to come.
    position: Id,
    chunk: usize,
    /// False shows what is filtered out too.
    filtered: bool,
}

impl Feed {
    /// Reads what decides what somebody sees now: four point reads if nothing changed since the last time.
    pub(crate) async fn reader(&self, tenant: &Tenant, id: Id) -> Result<Reader, FeedError> {
        let partition = user(tenant, id);
        let keys = [
            RowKey::new(VERSIONS, partition.clone(), VERSION_GRAPH),
            RowKey::new(VERSIONS, partition.clone(), VERSION_MARKS),
            RowKey::new(ACTIVITY, partition, Vec::new()),
            RowKey::new(VERSIONS, tiers(tenant), VERSION_TIERS),
        ];
        let rows = self.ports.store.get_many(&keys, Consistency::Strong).await?;
        let version = |at: usize| rows.get(at).and_then(Option::as_ref).map_or(0, |row| row.version);
        let activity = match rows.get(2) {
            Some(Some(row)) => Some(row.json::<Activity>()?),
            _ => None,
        };
        let (viewer, marks, tiers) = futures::try_join!(
            self.viewer_at(tenant, id, version(0)),
            self.marks_at(tenant, id, version(1)),
            self.tiers_at(tenant, version(3)),
        )?;
        Ok(Reader {
            tenant: tenant.clone(),
            viewer,
            marks,
            tiers,
            activity,
        })
    }

    /// Who is not in the push tier, never older than `version`, which the caller has just read.
    async fn tiers_at(&self, tenant: &Tenant, version: u64) -> Result<Arc<Tiers>, FeedError> {
        if let Some(tiers) = self.tiers.lock().get(tenant)
            && tiers.version == version
        {
            return Ok(tiers.clone());
        }
        let mut authors = HashMap::new();
        self.each_row(Scan::all(TIERS, tiers(tenant), 2_000), |row| {
            authors.insert(id_of(&row.sort)?, row.json()?);
            Ok(())
        })
        .await?;
        let tiers = Arc::new(Tiers { version, authors });
        self.tiers.lock().insert(tenant.clone(), tiers.clone());
        Ok(tiers)
    }

    /// A page of somebody's home, newest first, of posts older than `before`.
    pub(crate) async fn home_page(
        &self,
        reader: &Reader,
        before: Option<Id>,
        limit: usize,
    ) -> Result<HomePage, FeedError> {
        let mut walk = HomeWalk::start(self, reader, before.unwrap_or(Id::MAX), limit + 1, true).await?;
        let mut items = Vec::with_capacity(limit + 1);
        loop {
            let entries = walk.take(limit + 1 - items.len()).await?;
            if entries.is_empty() {
                break;
            }
            items.extend(self.hydrate(reader, &entries).await?);
            if items.len() > limit {
                break;
            }
        }
        let next = if items.len() > limit {
            items.truncate(limit);
            items.last().map(|item| item.at.id)
        } else {
            None
        };
        Ok(HomePage { items, next })
    }

    /// The newest posts of a home with ids above `floor` that are not among `seen`, newest first, at most `limit`.
    pub(crate) async fn home_since(
        &self,
        reader: &Reader,
        floor: Id,
        seen: &[Id],
        limit: usize,
    ) -> Result<Vec<HomeItem>, FeedError> {
        let mut walk = HomeWalk::start(self, reader, Id::MAX, 32.min(limit), true).await?;
        let mut fresh = Vec::new();
        while fresh.len() < limit {
            let entries = walk.take(16).await?;
            let is_end = entries.last().is_none_or(|last| last.id <= floor);
            fresh.extend(
                entries
                    .into_iter()
                    .filter(|at| at.id > floor && !seen.contains(&at.id)),
            );
            if is_end {
                break;
            }
        }
        fresh.truncate(limit);
        self.hydrate(reader, &fresh).await
    }

    /// Entries with their posts; without those whose post is gone.
    pub(crate) async fn hydrate(
        &self,
        reader: &Reader,
        entries: &[HomeEntry],
    ) -> Result<Vec<HomeItem>, FeedError> {
        let posts: Vec<_> = entries.iter().map(HomeEntry::post).collect();
        let shown = self
            .shown(&reader.tenant, &posts, |author| reader.viewer.hides(author))
            .await?;
        let subjects: Vec<Id> = posts
            .iter()
            .map(|(post, original)| original.unwrap_or(*post).id)
            .collect();
        let flags = self
            .flags(&reader.tenant, reader.viewer.id, &reader.marks, &subjects)
            .await?;
        Ok(entries
            .iter()
            .zip(shown)
            .zip(flags)
            .filter_map(|((at, shown), flags)| {
                Some(HomeItem {
                    at: *at,
                    shown: shown?,
                    flags,
                })
            })
            .collect())
    }

    /// The first `count` entries of a home, filtered or not; their posts may be gone.
    pub(crate) async fn home_entries(
        &self,
        reader: &Reader,
        count: usize,
        filtered: bool,
    ) -> Result<(Vec<HomeEntry>, TimelineMeta), FeedError> {
        let mut walk = HomeWalk::start(self, reader, Id::MAX, count.min(256), filtered).await?;
        let entries = walk.take(count).await?;
        Ok((entries, walk.meta))
    }

    /// Notes that somebody looks at their home, for the active tier; at most once an hour, and not on the reader's
    /// time.
    pub(crate) fn touch(self: &Arc<Self>, reader: &Reader) {
        let now = self.clock.now();
        let is_fresh = reader.activity.is_some_and(|activity| {
            activity.since.is_some()
                && now.since(activity.last) < self.options.activity_step
                && now >= activity.last
        });
        if is_fresh {
            return;
        }
        let key = (reader.tenant.clone(), reader.viewer.id);
        if !self.touching.lock().insert(key.clone()) {
            return;
        }
        let (feed, before) = (self.clone(), reader.activity);
        tokio::spawn(async move {
            if let Err(error) = feed.write_activity(&key.0, key.1, before).await {
                tracing::debug!(%error, "activity was not noted; the next look tries again");
            }
            feed.touching.lock().remove(&key);
        });
    }

    /// Notes activity. After a gap in two steps: whoever reads `since` may rely on it that every post made after it
    /// was fanned out when `last` was there to see, so `since` is only taken when `last` is written.
    async fn write_activity(
        &self,
        tenant: &Tenant,
        id: Id,
        before: Option<Activity>,
    ) -> Result<(), FeedError> {
        let partition = user(tenant, id);
        let put = |activity: Activity| {
            let batch = holon_ports::Batch::new().put(ACTIVITY, Vec::new(), &activity);
            self.ports.store.commit(&partition, batch)
        };
        let now = self.clock.now();
        let continued = before.and_then(|before| {
            let since = before.since?;
            (now.since(before.last) <= self.unbroken()).then_some(since)
        });
        if let Some(since) = continued {
            put(Activity {
                last: now,
                since: Some(since),
            })
            .await?;
            return Ok(());
        }
        put(Activity {
            last: now,
            since: None,
        })
        .await?;
        // A margin for clocks of other nodes, which make ids too.
        let since = self.clock.now().plus(Duration::from_secs(5));
        put(Activity {
            last: now,
            since: Some(since),
        })
        .await?;
        Ok(())
    }

    /// A gap in activity that pushing surely did not see: a seventh shorter than what it looks back.
    fn unbroken(&self) -> Duration {
        self.options.active_for * 6 / 7
    }

    /// Above this id, an author of the active tier was pushed to this reader.
    fn pushed_above(&self, reader: &Reader, tier: &TierRecord, now: Timestamp) -> Id {
        match reader.activity {
            Some(Activity {
                last,
                since: Some(since),
            }) if now.since(last) <= self.unbroken() => tier.complete_above.max(Id::first_at(since)),
            _ => Id::MAX,
        }
    }
}

impl<'a> HomeWalk<'a> {
    pub(crate) async fn start(
        feed: &'a Feed,
        reader: &'a Reader,
        before: Id,
        chunk: usize,
        filtered: bool,
    ) -> Result<Self, FeedError> {
        let mut walk = Self {
            feed,
            reader,
            merge: Merge::new(),
            streams: Vec::new(),
            meta: TimelineMeta::default(),
            position: before,
            chunk,
            filtered,
        };
        walk.open().await?;
        Ok(walk)
    }

    /// Opens all streams at the present position.
    async fn open(&mut self) -> Result<(), FeedError> {
        self.merge = Merge::new();
        self.streams.clear();
        let viewer = &self.reader.viewer;
        let tenant = &self.reader.tenant;
        if self.position == Id::MAX && self.chunk <= HEAD && self.feed.options.single_node {
            let head = self.feed.head(tenant, viewer.id).await?;
            self.meta = head.meta;
            self.merge.fetched(head.pushed.clone(), head.more_pushed);
            self.merge.fetched(head.own.clone(), head.more_own);
        } else {
            let part = self
                .feed
                .timeline_part(tenant, viewer.id, self.position, self.chunk + SPARE)
                .await?;
            self.meta = part.meta;
            self.merge.fetched(part.entries, part.more);
            self.merge.stream(self.position);
        }
        self.streams.extend([Stream::Timeline, Stream::Outbox(viewer.id)]);
        let floor = self.below_floor();
        let now = self.feed.clock.now();
        for (author, record) in self.pulled_authors() {
            if self.filtered && viewer.hides(author) {
                continue;
            }
            let bound = match record.tier {
                Tier::Active => {
                    let above = self.feed.pushed_above(self.reader, record, now);
                    floor.max(Id::from_u64(above.as_u64().saturating_add(1)))
                }
                _ => self.position,
            };
            self.open_outbox(author, bound);
        }
        if self.meta.floor > Id::MIN {
            self.merge.stream(floor.min(self.position));
            self.streams.push(Stream::BelowFloor);
        }
        Ok(())
    }

    /// What is older than this is below the floor.
    fn below_floor(&self) -> Id {
        Id::from_u64(self.meta.floor.as_u64().saturating_add(1))
    }

    /// The followees that are not in the push tier.
    fn pulled_authors(&self) -> impl Iterator<Item = (Id, &'a TierRecord)> + use<'a> {
        let Reader { viewer, tiers, .. } = self.reader;
        let few = (tiers.authors.len() < viewer.follows.len()).then(|| {
            let authors = tiers.authors.iter();
            authors.filter_map(|(id, record)| viewer.follows(*id).then_some((*id, record)))
        });
        let follows = if few.is_some() {
            &[]
        } else {
            viewer.follows.as_slice()
        };
        let all = follows
            .iter()
            .filter_map(|id| Some((*id, tiers.authors.get(id)?)));
        few.into_iter().flatten().chain(all)
    }

    /// The walk has come to the floor: from here on everybody is pulled. Those of the push tier, who may be many, are only
    /// opened now, since few readers get here.
    fn open_below_floor(&mut self) {
        let viewer = &self.reader.viewer;
        let floor = self.below_floor();
        for author in &viewer.follows {
            let is_open = self.reader.tiers.authors.contains_key(author);
            if !(is_open || self.filtered && viewer.hides(*author)) {
                self.open_outbox(*author, floor);
            }
        }
    }

    fn open_outbox(&mut self, author: Id, bound: Id) {
        let bound = bound.min(self.position);
        if bound.as_u64() > 1 {
            self.merge.stream(bound);
            self.streams.push(Stream::Outbox(author));
        }
    }

    /// The next entries that the reader may see: `count` of them, fewer only at the end.
    pub async fn take(&mut self, count: usize) -> Result<Vec<HomeEntry>, FeedError> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            match self.merge.step() {
                Step::Done => break,
                Step::Fetch(wanted) => self.fetch(&wanted).await?,
                Step::Post(id, entry, stream) => {
                    self.position = id;
                    if self.filtered && self.reader.viewer.hidden(&entry).is_some() {
                        continue;
                    }
                    let source = match self.streams[stream] {
                        _ if entry.author == self.reader.viewer.id => Source::Own,
                        Stream::Timeline => Source::Pushed,
                        Stream::Outbox(_) | Stream::BelowFloor => Source::Pulled,
                    };
                    taken.push(HomeEntry { id, entry, source });
                }
            }
        }
        Ok(taken)
    }

    async fn fetch(&mut self, wanted: &[usize]) -> Result<(), FeedError> {
        if wanted
            .iter()
            .any(|stream| matches!(self.streams[*stream], Stream::BelowFloor))
        {
            self.open_below_floor();
        }
        // Many outboxes share a page; each is asked for its part and some more.
        let each = (2 * self.chunk / wanted.len()).clamp(8, self.chunk.max(8) + 1);
        for some in wanted.chunks(AT_ONCE) {
            let reads = some.iter().map(|stream| self.fetch_one(*stream, each));
            let parts = futures::future::try_join_all(reads).await?;
            for (stream, part) in some.iter().zip(parts) {
                let Some(part) = part else {
                    // The timeline's promise changed under the walk; go on from here under the new one.
                    return self.open().await;
                };
                self.merge.feed(*stream, part.0, part.1);
            }
        }
        Ok(())
    }

    async fn fetch_one(
        &self,
        stream: usize,
        limit: usize,
    ) -> Result<Option<(Vec<(Id, Entry)>, bool)>, FeedError> {
        let Some(bound) = self.merge.bound(stream) else {
            return Ok(Some((Vec::new(), false)));
        };
        let tenant = &self.reader.tenant;
        match self.streams[stream] {
            Stream::Timeline => {
                let part = self
                    .feed
                    .timeline_part(tenant, self.reader.viewer.id, bound, self.chunk + SPARE)
                    .await?;
                Ok((part.meta == self.meta).then_some((part.entries, part.more)))
            }
            Stream::Outbox(author) => self.feed.outbox(tenant, author, bound, limit).await.map(Some),
            // What it stood for is open now.
            Stream::BelowFloor => Ok(Some((Vec::new(), false))),
        }
    }
}

impl Feed {
    /// An author's posts older than `before`, newest first, and whether there are more.
    pub(crate) async fn outbox(
        &self,
        tenant: &Tenant,
        author: Id,
        before: Id,
        limit: usize,
    ) -> Result<(Vec<(Id, Entry)>, bool), FeedError> {
        let scan = Scan::all(OUTBOX, user(tenant, author), limit).after(by_id_desc(before));
        let page = self.ports.store.scan(&scan).await?;
        let posts = page
            .rows
            .iter()
            .map(|row| Ok((id_of_desc(&row.sort)?, Entry::decode(&row.bytes())?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        Ok((posts, page.more))
    }
}
