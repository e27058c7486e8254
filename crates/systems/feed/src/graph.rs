//! Who follows, blocks and mutes whom.
//!
//! All that decides what a person may see lies in their own partition, so that it is read at once and changes at
//! once. What others see of it (the followers of somebody, the count of them) is made behind it by the fan-out, in
//! the order of the followee's events. A block touches two people: the blocker's row is the truth, and the blocked
//! one's partition holds a copy that carries the truth's version, so that copies that come late or twice change
//! nothing. Both are written before a block is answered; the event repairs what a crash in between leaves.

use crate::{
    Feed,
    error::FeedError,
    model::{
        ACTIONS_TOPIC, BLOCK_CHANGED, BLOCKED_BY, BLOCKS, BlockChanged, COUNT_FOLLOWING, FOLLOW_CHANGED,
        FOLLOWS, FollowChanged, MUTES, Mirror, Since, Switch, VERSION_GRAPH, VERSIONS, by_id, id_of, user,
    },
};
use holon_base::{Id, Tenant};
use holon_contracts::feed::POSTS_TOPIC;
use holon_ports::{Batch, Condition, Consistency, NewEvent, Row, RowKey, Scan, StoreError, Table};
use std::{collections::HashSet, sync::Arc};

/// How often a commit that met another one is tried again.
pub(crate) const TRIES: usize = 16;
/// Rows of a scan that reads all of something.
const CHUNK: usize = 2_000;

/// What decides what a person sees, as it was at one version of their graph.
#[derive(Debug)]
pub struct Viewer {
    pub id: Id,
    /// Of the row [`VERSION_GRAPH`]; 0 if there is none.
    pub version: u64,
    /// Ascending.
    pub follows: Vec<Id>,
    pub blocks: HashSet<Id>,
    pub blocked_by: HashSet<Id>,
    pub mutes: HashSet<Id>,
}

impl Viewer {
    pub fn follows(&self, other: Id) -> bool {
        self.follows.binary_search(&other).is_ok()
    }

    /// Whether a block stands between the two, whoever made it.
    pub fn is_cut_off(&self, other: Id) -> bool {
        self.blocks.contains(&other) || self.blocked_by.contains(&other)
    }

    /// Whether an author's posts stay out of this viewer's home. Never one's own.
    pub fn hides(&self, author: Id) -> bool {
        author != self.id && (self.is_cut_off(author) || self.mutes.contains(&author))
    }

    /// Why a post is not in this viewer's home, if it is not.
    pub fn hidden(&self, entry: &crate::model::Entry) -> Option<Hidden> {
        let original = entry.original().map(|original| original.author);
        for author in std::iter::once(entry.author).chain(original) {
            if author != self.id && self.is_cut_off(author) {
                return Some(Hidden::Blocked);
            }
            if author != self.id && self.mutes.contains(&author) {
                return Some(Hidden::Muted);
            }
        }
        let is_mine = entry.author == self.id;
        (!is_mine && !self.follows(entry.author)).then_some(Hidden::Unfollowed)
    }

    pub(crate) fn weight(&self) -> u64 {
        let sets = self.blocks.len() + self.blocked_by.len() + self.mutes.len();
        (256 + self.follows.len() * 8 + sets * 16) as u64
    }
}

/// Why a timeline's entry is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Hidden {
    Unfollowed,
    Blocked,
    Muted,
    Deleted,
}

/// The condition that a row is as it was read.
pub(crate) fn unchanged(row: Option<&Row>) -> Condition {
    row.map_or(Condition::Absent, |row| Condition::Version(row.version))
}

impl Feed {
    /// The graph of a person, never older than the last acknowledged change: a cached copy is checked against
    /// `version`, which the caller has just read.
    pub(crate) async fn viewer_at(
        &self,
        tenant: &Tenant,
        id: Id,
        version: u64,
    ) -> Result<Arc<Viewer>, FeedError> {
        let key = (tenant.clone(), id);
        if let Some(viewer) = self.viewers.get(&key)
            && viewer.version == version
        {
            return Ok(viewer);
        }
        // The version was read before the rows: if they change meanwhile, the copy counts as older than it is and
        // is read again next time.
        let (mut follows, blocks, blocked_by, mutes) = futures::try_join!(
            self.all_ids(tenant, id, FOLLOWS, |_| Ok(true)),
            self.all_ids(tenant, id, BLOCKS, |row| Ok(row.json::<Switch>()?.on)),
            self.all_ids(tenant, id, BLOCKED_BY, |row| Ok(row.json::<Mirror>()?.on)),
            self.all_ids(tenant, id, MUTES, |_| Ok(true)),
        )?;
        follows.sort_unstable();
        let viewer = Arc::new(Viewer {
            id,
            version,
            follows,
            blocks: blocks.into_iter().collect(),
            blocked_by: blocked_by.into_iter().collect(),
            mutes: mutes.into_iter().collect(),
        });
        self.viewers.insert(key, viewer.clone());
        Ok(viewer)
    }

    /// The graph of a person as it is now.
    pub(crate) async fn viewer(&self, tenant: &Tenant, id: Id) -> Result<Arc<Viewer>, FeedError> {
        let key = RowKey::new(VERSIONS, user(tenant, id), VERSION_GRAPH);
        let row = self.ports.store.get(&key, Consistency::Strong).await?;
        self.viewer_at(tenant, id, row.map_or(0, |row| row.version)).await
    }

    async fn all_ids(
        &self,
        tenant: &Tenant,
        id: Id,
        table: Table,
        keep: impl Fn(&Row) -> Result<bool, StoreError>,
    ) -> Result<Vec<Id>, FeedError> {
        let mut ids = Vec::new();
        self.each_row(Scan::all(table, user(tenant, id), CHUNK), |row| {
            if keep(row)? {
                ids.push(id_of(&row.sort)?);
            }
            Ok(())
        })
        .await?;
        Ok(ids)
    }

    /// Reads a range to its end, a chunk at a time.
    pub(crate) async fn each_row(
        &self,
        mut scan: Scan,
        mut each: impl FnMut(&Row) -> Result<(), StoreError>,
    ) -> Result<(), FeedError> {
        loop {
            let page = self.ports.store.scan(&scan).await?;
            for row in &page.rows {
                each(row)?;
            }
            let Some(last) = page.rows.last().filter(|_| page.more) else {
                return Ok(());
            };
            scan = scan.after(last.sort.clone());
        }
    }

    /// Makes `follower` follow `followee`.
    ///
    /// # Errors
    /// 403 if a block stands between them.
    pub(crate) async fn follow(&self, tenant: &Tenant, follower: Id, followee: Id) -> Result<(), FeedError> {
        let partition = user(tenant, follower);
        let sort = by_id(followee);
        let keys =
            [FOLLOWS, BLOCKS, BLOCKED_BY].map(|table| RowKey::new(table, partition.clone(), sort.clone()));
        for _ in 0..TRIES {
            let rows = self.ports.store.get_many(&keys, Consistency::Strong).await?;
            let [follows, blocks, blocked_by] = rows.as_slice() else {
                return Err(StoreError::Corrupt("store answered too few rows".into()).into());
            };
            if let Some(row) = blocks
                && row.json::<Switch>()?.on
            {
                return Err(FeedError::Forbidden {
                    code: "you-block-them",
                    detail: "you block this person; unblock them first",
                });
            }
            if let Some(row) = blocked_by
                && row.json::<Mirror>()?.on
            {
                return Err(FeedError::Forbidden {
                    code: "blocked",
                    detail: "this person does not want to be followed by you",
                });
            }
            if follows.is_some() {
                return Ok(());
            }
            let batch = Batch::new()
                .put_if_absent(
                    FOLLOWS,
                    sort.clone(),
                    &Since {
                        since: self.clock.now(),
                    },
                )
                .check(BLOCKS, sort.clone(), unchanged(blocks.as_ref()))
                .check(BLOCKED_BY, sort.clone(), unchanged(blocked_by.as_ref()))
                .add(VERSIONS, VERSION_GRAPH, 1)
                .add(VERSIONS, COUNT_FOLLOWING, 1)
                .event(follow_changed(tenant, follower, followee, true));
            match self.ports.store.commit(&partition, batch).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(FeedError::Busy)
    }

    /// Ends a follow; nothing happens if there is none.
    pub(crate) async fn unfollow(
        &self,
        tenant: &Tenant,
        follower: Id,
        followee: Id,
    ) -> Result<(), FeedError> {
        let batch = Batch::new()
            .delete_if(FOLLOWS, by_id(followee), Condition::Present)
            .add(VERSIONS, VERSION_GRAPH, 1)
            .add(VERSIONS, COUNT_FOLLOWING, -1)
            .event(follow_changed(tenant, follower, followee, false));
        match self.ports.store.commit(&user(tenant, follower), batch).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_condition_failed() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Blocks or unblocks, on both sides, before it returns.
    pub(crate) async fn set_block(
        &self,
        tenant: &Tenant,
        blocker: Id,
        blocked: Id,
        on: bool,
    ) -> Result<(), FeedError> {
        let partition = user(tenant, blocker);
        let sort = by_id(blocked);
        let keys = [BLOCKS, FOLLOWS].map(|table| RowKey::new(table, partition.clone(), sort.clone()));
        let mut settled = false;
        for _ in 0..TRIES {
            let rows = self.ports.store.get_many(&keys, Consistency::Strong).await?;
            let [block, follow] = rows.as_slice() else {
                return Err(StoreError::Corrupt("store answered too few rows".into()).into());
            };
            let is_on = match block {
                Some(row) => row.json::<Switch>()?.on,
                None => false,
            };
            if is_on == on {
                settled = true;
                break;
            }
            let since = self.clock.now();
            let mut batch = Batch::new()
                .put_if(
                    BLOCKS,
                    sort.clone(),
                    &Switch { on, since },
                    unchanged(block.as_ref()),
                )
                .add(VERSIONS, VERSION_GRAPH, 1)
                .event(NewEvent::new(
                    ACTIONS_TOPIC,
                    tenant,
                    blocker.to_string(),
                    BLOCK_CHANGED,
                    format!("account:{blocked}"),
                    &BlockChanged { blocker, blocked },
                ));
            if on && let Some(follow) = follow {
                batch = end_follow(batch, tenant, blocker, blocked, follow);
            }
            match self.ports.store.commit(&partition, batch).await {
                Ok(_) => {
                    settled = true;
                    break;
                }
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !settled {
            return Err(FeedError::Busy);
        }
        // Also when the truth was there before: an earlier call may have died between the two.
        self.mirror_block(tenant, blocker, blocked).await
    }

    /// Copies a block, as it is now, into the blocked one's partition, and ends their follow of the blocker.
    pub(crate) async fn mirror_block(
        &self,
        tenant: &Tenant,
        blocker: Id,
        blocked: Id,
    ) -> Result<(), FeedError> {
        let truth = RowKey::new(BLOCKS, user(tenant, blocker), by_id(blocked));
        let Some(truth) = self.ports.store.get(&truth, Consistency::Strong).await? else {
            return Ok(());
        };
        let mirror = Mirror {
            on: truth.json::<Switch>()?.on,
            version: truth.version,
        };
        let partition = user(tenant, blocked);
        let sort = by_id(blocker);
        let keys = [BLOCKED_BY, FOLLOWS].map(|table| RowKey::new(table, partition.clone(), sort.clone()));
        for _ in 0..TRIES {
            let rows = self.ports.store.get_many(&keys, Consistency::Strong).await?;
            let [copy, follow] = rows.as_slice() else {
                return Err(StoreError::Corrupt("store answered too few rows".into()).into());
            };
            if let Some(row) = copy
                && row.json::<Mirror>()?.version >= mirror.version
            {
                return Ok(());
            }
            let mut batch = Batch::new()
                .put_if(BLOCKED_BY, sort.clone(), &mirror, unchanged(copy.as_ref()))
                .add(VERSIONS, VERSION_GRAPH, 1);
            if mirror.on
                && let Some(follow) = follow
            {
                batch = end_follow(batch, tenant, blocked, blocker, follow);
            }
            match self.ports.store.commit(&partition, batch).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(FeedError::Busy)
    }

    /// Mutes or unmutes.
    pub(crate) async fn set_mute(
        &self,
        tenant: &Tenant,
        muter: Id,
        muted: Id,
        on: bool,
    ) -> Result<(), FeedError> {
        let since = Since {
            since: self.clock.now(),
        };
        let batch = if on {
            Batch::new().put_if_absent(MUTES, by_id(muted), &since)
        } else {
            Batch::new().delete_if(MUTES, by_id(muted), Condition::Present)
        };
        match self
            .ports
            .store
            .commit(&user(tenant, muter), batch.add(VERSIONS, VERSION_GRAPH, 1))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_condition_failed() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn end_follow(batch: Batch, tenant: &Tenant, follower: Id, followee: Id, row: &Row) -> Batch {
    batch
        .delete_if(FOLLOWS, by_id(followee), Condition::Version(row.version))
        .add(VERSIONS, COUNT_FOLLOWING, -1)
        .event(follow_changed(tenant, follower, followee, false))
}

fn follow_changed(tenant: &Tenant, follower: Id, followee: Id, following: bool) -> NewEvent {
    NewEvent::new(
        POSTS_TOPIC,
        tenant,
        followee.to_string(),
        FOLLOW_CHANGED,
        format!("account:{followee}"),
        &FollowChanged {
            follower,
            followee,
            following,
        },
    )
}
