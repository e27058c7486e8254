//! Likes, reposts and bookmarks: what a viewer does to posts.
//!
//! A like is a member of the post's once-per-user counter: that is the truth, exact, and one commit with its event.
//! The viewer's own list of likes is a copy in their partition, read with every page to say `liked`. It is written
//! before the like is answered, by *copy, then look again*: whoever copies reads the truth, writes the copy, and reads the truth once more,
//! until both are the same. So however two changes cross, the last copier leaves what is true; the event repairs
//! what a crash leaves. A repost is the other way round: the row in the reposter's partition is the truth.

use crate::{
    Feed,
    cards::{Count, Flags},
    error::FeedError,
    graph::TRIES,
    model::{
        ACTIONS_TOPIC, BOOKMARKS, Kind, LIKE_CHANGED, LIKES, LikeChanged, Mark, PostRecord, PostRef, REPOSTS,
        RepostMark, VERSION_MARKS, VERSIONS, by_id, id_of, user,
    },
};
use holon_base::{Id, Tenant};
use holon_ports::{Batch, Condition, Consistency, NewEvent, RowKey, Scan, Table};
use holon_web::Caller;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Marks that are kept decoded for a viewer, of each sort; those on older posts are looked up one by one.
const KEPT: usize = 4_000;

/// What a viewer did to posts, as it was at one version.
#[derive(Debug)]
pub struct Marks {
    version: u64,
    /// With the post's author and when, for affinity.
    pub likes: HashMap<Id, Mark>,
    reposts: HashSet<Id>,
    bookmarks: HashSet<Id>,
    /// All marks on posts with larger ids are here.
    above: Id,
}

impl Marks {
    pub(crate) fn weight(&self) -> u64 {
        (128 + self.likes.len() * 48 + (self.reposts.len() + self.bookmarks.len()) * 16) as u64
    }
}

impl Feed {
    /// A viewer's marks, never older than `version`, which the caller has just read.
    pub(crate) async fn marks_at(
        &self,
        tenant: &Tenant,
        viewer: Id,
        version: u64,
    ) -> Result<Arc<Marks>, FeedError> {
        let key = (tenant.clone(), viewer);
        if let Some(marks) = self.marks.get(&key)
            && marks.version == version
        {
            return Ok(marks);
        }
        let newest = |table: Table| {
            let scan = Scan::all(table, user(tenant, viewer), KEPT).reversed();
            async move { self.ports.store.scan(&scan).await }
        };
        let (likes, reposts, bookmarks) =
            futures::try_join!(newest(LIKES), newest(REPOSTS), newest(BOOKMARKS))?;
        let mut above = Id::MIN;
        for page in [&likes, &reposts, &bookmarks] {
            if let Some(last) = page.rows.last().filter(|_| page.more) {
                above = above.max(Id::from_u64(id_of(&last.sort)?.as_u64().saturating_sub(1)));
            }
        }
        let ids = |rows: &[holon_ports::Row]| {
            rows.iter()
                .map(|row| id_of(&row.sort))
                .collect::<Result<HashSet<Id>, _>>()
        };
        let marks = Arc::new(Marks {
            version,
            likes: likes
                .rows
                .iter()
                .map(|row| Ok((id_of(&row.sort)?, row.json()?)))
                .collect::<Result<_, holon_ports::StoreError>>()?,
            reposts: ids(&reposts.rows)?,
            bookmarks: ids(&bookmarks.rows)?,
            above,
        });
        self.marks.insert(key, marks.clone());
        Ok(marks)
    }

    /// What a viewer did to posts, in their order.
    pub(crate) async fn flags(
        &self,
        tenant: &Tenant,
        viewer: Id,
        marks: &Marks,
        posts: &[Id],
    ) -> Result<Vec<Flags>, FeedError> {
        let mut flags: Vec<Flags> = posts
            .iter()
            .map(|id| Flags {
                liked: marks.likes.contains_key(id),
                reposted: marks.reposts.contains(id),
                bookmarked: marks.bookmarks.contains(id),
            })
            .collect();
        let old: Vec<usize> = (0..posts.len()).filter(|at| posts[*at] <= marks.above).collect();
        if old.is_empty() {
            return Ok(flags);
        }
        let partition = user(tenant, viewer);
        let keys: Vec<RowKey> = old
            .iter()
            .flat_map(|at| {
                [LIKES, REPOSTS, BOOKMARKS]
                    .map(|table| RowKey::new(table, partition.clone(), by_id(posts[*at])))
            })
            .collect();
        let rows = self.ports.store.get_many(&keys, Consistency::Strong).await?;
        for (at, rows) in old.into_iter().zip(rows.chunks(3)) {
            if let [liked, reposted, bookmarked] = rows {
                flags[at] = Flags {
                    liked: liked.is_some(),
                    reposted: reposted.is_some(),
                    bookmarked: bookmarked.is_some(),
                };
            }
        }
        Ok(flags)
    }

    /// Likes a post or takes the like back; answers how many like it now.
    pub(crate) async fn set_like(&self, caller: &Caller, id: Id, on: bool) -> Result<u64, FeedError> {
        let tenant = &caller.tenant;
        let viewer = self.viewer(tenant, caller.account).await?;
        let subject = self.subject(tenant, Some(&viewer), id).await?;
        let event = NewEvent::new(
            ACTIONS_TOPIC,
            tenant,
            caller.account.to_string(),
            LIKE_CHANGED,
            format!("post:{}", subject.id),
            &LikeChanged {
                actor: caller.account,
                post: subject,
                liked: on,
            },
        );
        self.change_count(tenant, subject.id, Count::Likes, caller.account, on, vec![event])
            .await?;
        self.mirror_like(tenant, caller.account, subject).await?;
        self.count_exact(tenant, subject.id, Count::Likes).await
    }

    /// Copies whether somebody likes a post into their own partition.
    pub(crate) async fn mirror_like(
        &self,
        tenant: &Tenant,
        viewer: Id,
        subject: PostRef,
    ) -> Result<(), FeedError> {
        let partition = user(tenant, viewer);
        let key = RowKey::new(LIKES, partition.clone(), by_id(subject.id));
        for _ in 0..TRIES {
            let likes = self
                .counts_member(tenant, subject.id, Count::Likes, viewer)
                .await?;
            let copy = self.ports.store.get(&key, Consistency::Strong).await?;
            if copy.is_some() == likes {
                return Ok(());
            }
            let batch = if likes {
                let mark = Mark {
                    author: subject.author,
                    at: self.clock.now(),
                };
                Batch::new().put(LIKES, by_id(subject.id), &mark)
            } else {
                Batch::new().delete(LIKES, by_id(subject.id))
            };
            self.ports
                .store
                .commit(&partition, batch.add(VERSIONS, VERSION_MARKS, 1))
                .await?;
        }
        Err(FeedError::Busy)
    }

    /// Reposts a post or takes the repost back; answers how many reposted it now.
    pub(crate) async fn set_repost(&self, caller: &Caller, id: Id, on: bool) -> Result<u64, FeedError> {
        let tenant = &caller.tenant;
        let viewer = self.viewer(tenant, caller.account).await?;
        let subject = self.subject(tenant, Some(&viewer), id).await?;
        let key = RowKey::new(REPOSTS, user(tenant, caller.account), by_id(subject.id));
        let before = self.ports.store.get(&key, Consistency::Strong).await?;
        match (before, on) {
            (Some(row), false) => {
                let at = PostRef {
                    id: row.json::<RepostMark>()?.repost,
                    author: caller.account,
                };
                if let Some(row) = self.post_row(tenant, at).await? {
                    self.unpublish(tenant, &row.json()?).await?;
                }
            }
            (None, true) => self.publish_repost(caller, subject).await?,
            _ => {}
        }
        self.count_exact(tenant, subject.id, Count::Reposts).await
    }

    async fn publish_repost(&self, caller: &Caller, subject: PostRef) -> Result<(), FeedError> {
        let now = self.clock.now();
        let record = PostRecord {
            id: self.ids.next(),
            author: caller.account,
            text: String::new(),
            created: now,
            edited: None,
            edits: 0,
            kind: Kind::Repost,
            reply_to: None,
            repost_of: Some(subject),
            quote_of: None,
            hashtags: Vec::new(),
            mentions: Vec::new(),
        };
        let mark = RepostMark {
            repost: record.id,
            author: subject.author,
            at: now,
        };
        let batch =
            Batch::new()
                .put_if_absent(REPOSTS, by_id(subject.id), &mark)
                .add(VERSIONS, VERSION_MARKS, 1);
        match self.publish(&caller.tenant, &record, batch).await {
            // Reposted at the same time elsewhere: once is enough.
            Err(FeedError::Store(error)) if error.is_condition_failed() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Puts a post among one's bookmarks or takes it out.
    pub(crate) async fn set_bookmark(&self, caller: &Caller, id: Id, on: bool) -> Result<(), FeedError> {
        let tenant = &caller.tenant;
        let viewer = self.viewer(tenant, caller.account).await?;
        let subject = self.subject(tenant, Some(&viewer), id).await?;
        let mark = Mark {
            author: subject.author,
            at: self.clock.now(),
        };
        let batch = if on {
            Batch::new().put_if_absent(BOOKMARKS, by_id(subject.id), &mark)
        } else {
            Batch::new().delete_if(BOOKMARKS, by_id(subject.id), Condition::Present)
        };
        let batch = batch.add(VERSIONS, VERSION_MARKS, 1);
        match self
            .ports
            .store
            .commit(&user(tenant, caller.account), batch)
            .await
        {
            Err(error) if error.is_condition_failed() => Ok(()),
            other => Ok(other.map(|_| ())?),
        }
    }
}
