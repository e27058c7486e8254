//! Lists of posts and of people.

use crate::{
    Feed,
    cards::{Count, Shown},
    error::FeedError,
    graph::Viewer,
    model::{
        BLOCKS, BOOKMARKS, COUNT_FOLLOWING, COUNT_POSTS, FOLLOWERS, FOLLOWS, Kind, MUTES, Mark, PostRef,
        Switch, VERSIONS, by_id, followers, id_of, user,
    },
};
use holon_base::{Id, Tenant};
use holon_contracts::identity::AccountSummary;
use holon_ports::{Consistency, Partition, RowKey, Scan, Table};
use std::{future::Future, sync::Arc};

/// What a list of posts has next: each with the original of a repost, and whether there is more after them.
type Posts = (Vec<(PostRef, Option<PostRef>)>, bool);

/// Whom a list is of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum People {
    Followers(Id),
    Following(Id),
    Blocked(Id),
    Muted(Id),
}

/// What a profile says besides the account.
pub struct ProfileCounts {
    pub posts: u64,
    pub followers: u64,
    pub following: u64,
}

/// What stands between a viewer and somebody.
pub struct Relation {
    pub following: bool,
    pub followed_by: bool,
    pub blocking: bool,
    pub blocked_by: bool,
    pub muting: bool,
}

impl Feed {
    /// # Errors
    /// 404 if there is no such account.
    pub(crate) async fn account(&self, tenant: &Tenant, handle: &str) -> Result<AccountSummary, FeedError> {
        let handle = handle.to_ascii_lowercase();
        let account = self.accounts.by_handle(tenant, &handle).await?;
        account.ok_or(FeedError::NotFound("account"))
    }

    pub(crate) async fn maybe_viewer(
        &self,
        tenant: &Tenant,
        viewer: Option<Id>,
    ) -> Result<Option<Arc<Viewer>>, FeedError> {
        match viewer {
            Some(id) => self.viewer(tenant, id).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads on in a list until a page of posts that can be shown is full; answers them and where to go on.
    async fn fill<F, R>(
        &self,
        tenant: &Tenant,
        viewer: Option<&Viewer>,
        mut before: Option<Id>,
        limit: usize,
        read: F,
    ) -> Result<(Vec<Shown>, Option<Id>), FeedError>
    where
        F: Fn(Option<Id>, usize) -> R,
        R: Future<Output = Result<Posts, FeedError>>,
    {
        let cut_off =
            |author: Id| viewer.is_some_and(|viewer| author != viewer.id && viewer.is_cut_off(author));
        let mut list: Vec<Shown> = Vec::new();
        loop {
            let (mut posts, more) = read(before, limit + 1 - list.len()).await?;
            before = posts.last().map(|(post, _)| post.id).or(before);
            posts.retain(|(post, original)| {
                !cut_off(post.author) && !original.is_some_and(|original| cut_off(original.author))
            });
            list.extend(self.shown(tenant, &posts, cut_off).await?.into_iter().flatten());
            if list.len() > limit {
                list.truncate(limit);
                let last = list.last().map(|shown| shown.card.post.id);
                return Ok((list, last));
            }
            if !more {
                return Ok((list, None));
            }
        }
    }

    /// Somebody's posts, newest first, with or without their replies.
    pub(crate) async fn user_posts(
        &self,
        tenant: &Tenant,
        viewer: Option<&Viewer>,
        author: Id,
        replies: bool,
        before: Option<Id>,
        limit: usize,
    ) -> Result<(Vec<Shown>, Option<Id>), FeedError> {
        self.fill(tenant, viewer, before, limit, |before, count| async move {
            // Where replies are left out, more are read than are wanted.
            let count = if replies { count } else { 2 * count };
            let (entries, more) = self
                .outbox(tenant, author, before.unwrap_or(Id::MAX), count)
                .await?;
            let wanted = entries.iter().enumerate().filter(|(at, (_, entry))| {
                // The last one stays, since the list goes on from it.
                replies || entry.kind != Kind::Reply || (more && *at + 1 == entries.len())
            });
            let posts = wanted.map(|(_, (id, entry))| (PostRef { id: *id, author }, entry.original()));
            Ok((posts.collect(), more))
        })
        .await
        .map(|(mut list, next)| {
            if !replies {
                list.retain(|shown| shown.card.kind != Kind::Reply);
            }
            (list, next)
        })
    }

    /// One's bookmarks, newest post first.
    pub(crate) async fn bookmarks(
        &self,
        tenant: &Tenant,
        viewer: &Viewer,
        before: Option<Id>,
        limit: usize,
    ) -> Result<(Vec<Shown>, Option<Id>), FeedError> {
        self.fill(tenant, Some(viewer), before, limit, |before, count| async move {
            let mut scan = Scan::all(BOOKMARKS, user(tenant, viewer.id), count).reversed();
            if let Some(before) = before {
                scan = scan.after(by_id(before));
            }
            let page = self.ports.store.scan(&scan).await?;
            let mut posts = Vec::with_capacity(page.rows.len());
            for row in &page.rows {
                let post = PostRef {
                    id: id_of(&row.sort)?,
                    author: row.json::<Mark>()?.author,
                };
                posts.push((post, None));
            }
            Ok((posts, page.more))
        })
        .await
    }

    /// Posts with a tag, newest first.
    pub(crate) async fn tag_posts(
        &self,
        tenant: &Tenant,
        viewer: Option<&Viewer>,
        tag: &str,
        before: Option<Id>,
        limit: usize,
    ) -> Result<(Vec<Shown>, Option<Id>), FeedError> {
        let (mut list, next) = self
            .fill(tenant, viewer, before, limit, |before, count| async move {
                let (posts, more) = self.tagged(tenant, tag, before, count).await?;
                Ok((posts.into_iter().map(|post| (post, None)).collect(), more))
            })
            .await?;
        // An edit may have taken the tag out.
        list.retain(|shown| shown.card.hashtags.iter().any(|other| other == tag));
        Ok((list, next))
    }

    /// People in a list after one, and where to go on.
    pub(crate) async fn people(
        &self,
        tenant: &Tenant,
        of: People,
        mut after: Option<Id>,
        limit: usize,
    ) -> Result<(Vec<AccountSummary>, Option<Id>), FeedError> {
        let (table, partition): (Table, Partition) = match of {
            People::Followers(id) => (FOLLOWERS, followers(tenant, id)),
            People::Following(id) => (FOLLOWS, user(tenant, id)),
            People::Blocked(id) => (BLOCKS, user(tenant, id)),
            People::Muted(id) => (MUTES, user(tenant, id)),
        };
        let mut list: Vec<AccountSummary> = Vec::new();
        loop {
            let mut scan = Scan::all(table, partition.clone(), limit + 1);
            if let Some(after) = after {
                scan = scan.after(by_id(after));
            }
            let page = self.ports.store.scan(&scan).await?;
            let mut ids = Vec::with_capacity(page.rows.len());
            for row in &page.rows {
                let id = id_of(&row.sort)?;
                after = Some(id);
                if !matches!(of, People::Blocked(_)) || row.json::<Switch>()?.on {
                    ids.push(id);
                }
            }
            let accounts = self.accounts.by_ids(tenant, &ids).await?;
            list.extend(accounts.into_iter().flatten());
            if list.len() > limit {
                list.truncate(limit);
                let last = list.last().map(|account| account.id);
                return Ok((list, last));
            }
            if !page.more {
                return Ok((list, None));
            }
        }
    }

    /// Who likes a post, and where to go on.
    pub(crate) async fn likers(
        &self,
        tenant: &Tenant,
        viewer: Option<&Viewer>,
        post: Id,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<AccountSummary>, Option<String>), FeedError> {
        let subject = self.subject(tenant, viewer, post).await?;
        let counter = Count::Likes.counter(subject.id);
        let members = self.counters.members(tenant, &counter, after, limit).await?;
        let ids: Vec<Id> = members
            .items
            .iter()
            .filter_map(|member| member.name.parse().ok())
            .collect();
        let accounts = self.accounts.by_ids(tenant, &ids).await?;
        Ok((accounts.into_iter().flatten().collect(), members.next))
    }

    pub(crate) async fn profile_counts(&self, tenant: &Tenant, id: Id) -> Result<ProfileCounts, FeedError> {
        let keys = [COUNT_POSTS, COUNT_FOLLOWING].map(|sort| RowKey::new(VERSIONS, user(tenant, id), sort));
        let rows = self.ports.store.get_many(&keys, Consistency::Strong).await?;
        let count = |at: usize| {
            let row = rows.get(at).and_then(Option::as_ref);
            row.map_or(0, |row| u64::try_from(row.counter()).unwrap_or(0))
        };
        Ok(ProfileCounts {
            posts: count(0),
            following: count(1),
            followers: self.follower_count(tenant, id).await?,
        })
    }

    pub(crate) async fn relation(
        &self,
        tenant: &Tenant,
        viewer: &Viewer,
        other: Id,
    ) -> Result<Relation, FeedError> {
        let key = RowKey::new(FOLLOWS, user(tenant, other), by_id(viewer.id));
        Ok(Relation {
            following: viewer.follows(other),
            followed_by: self.ports.store.get(&key, Consistency::Strong).await?.is_some(),
            blocking: viewer.blocks.contains(&other),
            blocked_by: viewer.blocked_by.contains(&other),
            muting: viewer.mutes.contains(&other),
        })
    }
}
