//! Notifications: that somebody followed, liked, mentioned, answered, reposted or quoted.
//!
//! They are made behind the events, once each: a row under what happened (kind, actor, post) is put in the same commit
//! if it is not there, so neither an event that comes twice nor a like taken back and given again tells twice. The
//! notification's id is its event's, so that they are listed in the order in which things happened.

use crate::{
    Feed,
    cards::{Count, Shown},
    error::FeedError,
    graph::{TRIES, unchanged},
    model::{
        BLOCK_CHANGED, BlockChanged, FOLLOW_CHANGED, FOLLOWS, FollowChanged, LIKE_CHANGED, LikeChanged,
        NOTIFICATIONS, NOTIFIED, NotificationKind, NotificationRecord, PostRef, READ_MARKS, ReadMark, by_id,
        by_id_desc, id_of_desc, user,
    },
};
use async_trait::async_trait;
use futures::future::try_join_all;
use holon_base::{Id, KeyWriter, Tenant, Timestamp};
use holon_contracts::{
    feed::{POST_CREATED, PostCreated},
    identity::AccountSummary,
};
use holon_ports::{Batch, Consistency, Event, Handler, HandlerError, RowKey, Scan};
use std::{ops::Bound, sync::Arc};

/// Events that are handled at the same time.
const AT_ONCE: usize = 64;
/// Unread notifications are counted up to here.
pub const MAX_UNREAD: usize = 1_000;

/// A notification with what it shows.
pub struct Notification {
    pub id: Id,
    pub kind: NotificationKind,
    pub time: Timestamp,
    pub actor: AccountSummary,
    pub post: Option<Shown>,
    pub read: bool,
}

/// Makes notifications of what happens to posts and follows.
pub(crate) struct NotifyOfPosts(pub Arc<Feed>);

#[async_trait]
impl Handler for NotifyOfPosts {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        // Each is a natural key of its own, so they need no order, and their commits share a sync.
        let notify = |event| async move {
            let event: &Event = event;
            match event.kind.as_str() {
                POST_CREATED => self.0.notify_of_post(event, &event.json()?).await,
                FOLLOW_CHANGED => self.0.notify_of_follow(event, &event.json()?).await,
                _ => Ok(()),
            }
        };
        for some in events.chunks(AT_ONCE) {
            try_join_all(some.iter().map(notify)).await?;
        }
        Ok(())
    }
}

/// Repairs the copies that likes and blocks leave in other partitions, and makes notifications of likes.
pub(crate) struct SettleActions(pub Arc<Feed>);

#[async_trait]
impl Handler for SettleActions {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        // What is copied is the truth as it is now, whichever event asks for it: no order is needed.
        let settle = |event| async move {
            let event: &Event = event;
            match event.kind.as_str() {
                LIKE_CHANGED => {
                    let told: LikeChanged = event.json()?;
                    self.0.mirror_like(&event.tenant, told.actor, told.post).await?;
                    self.0.notify_of_like(event, &told).await
                }
                BLOCK_CHANGED => {
                    let told: BlockChanged = event.json()?;
                    self.0
                        .mirror_block(&event.tenant, told.blocker, told.blocked)
                        .await
                }
                _ => Ok(()),
            }
        };
        for some in events.chunks(AT_ONCE) {
            try_join_all(some.iter().map(settle)).await?;
        }
        Ok(())
    }
}

impl Feed {
    async fn notify_of_post(&self, event: &Event, told: &PostCreated) -> Result<(), FeedError> {
        let at = PostRef {
            id: told.id,
            author: told.author,
        };
        let targets = [
            (told.reply_to, NotificationKind::Reply),
            (told.quote_of, NotificationKind::Quote),
            (told.repost_of, NotificationKind::Repost),
        ];
        if told.mentions.is_empty() && targets.iter().all(|(target, _)| target.is_none()) {
            return Ok(());
        }
        if self.post_row(&event.tenant, at).await?.is_none() {
            return Ok(());
        }
        // Each person is told once of a post, for the closest reason.
        let mut recipients: Vec<Id> = vec![told.author];
        for (target, kind) in targets {
            let Some(target) = target else { continue };
            let Some(author) = self.author_of(&event.tenant, target).await? else {
                continue;
            };
            if !recipients.contains(&author) {
                recipients.push(author);
                // Of a repost the original is shown.
                let post = if kind == NotificationKind::Repost {
                    PostRef { id: target, author }
                } else {
                    at
                };
                self.notify(event, author, kind, told.author, Some(post)).await?;
            }
        }
        for mentioned in &told.mentions {
            if !recipients.contains(mentioned) {
                recipients.push(*mentioned);
                self.notify(
                    event,
                    *mentioned,
                    NotificationKind::Mention,
                    told.author,
                    Some(at),
                )
                .await?;
            }
        }
        Ok(())
    }

    async fn notify_of_follow(&self, event: &Event, told: &FollowChanged) -> Result<(), FeedError> {
        if !told.following {
            return Ok(());
        }
        let row = RowKey::new(FOLLOWS, user(&event.tenant, told.follower), by_id(told.followee));
        if self.ports.store.get(&row, Consistency::Strong).await?.is_none() {
            return Ok(());
        }
        self.notify(
            event,
            told.followee,
            NotificationKind::Follow,
            told.follower,
            None,
        )
        .await
    }

    async fn notify_of_like(&self, event: &Event, told: &LikeChanged) -> Result<(), FeedError> {
        let still = told.liked
            && told.post.author != told.actor
            && self
                .counts_member(&event.tenant, told.post.id, Count::Likes, told.actor)
                .await?;
        if !still {
            return Ok(());
        }
        let recipient = told.post.author;
        self.notify(
            event,
            recipient,
            NotificationKind::Like,
            told.actor,
            Some(told.post),
        )
        .await
    }

    async fn notify(
        &self,
        event: &Event,
        recipient: Id,
        kind: NotificationKind,
        actor: Id,
        post: Option<PostRef>,
    ) -> Result<(), FeedError> {
        let tenant = &event.tenant;
        if recipient == actor || self.viewer(tenant, recipient).await?.hides(actor) {
            return Ok(());
        }
        let record = NotificationRecord {
            kind,
            time: event.time,
            actor,
            post,
        };
        let batch = Batch::new()
            .put_if_absent(NOTIFIED, notified_sort(kind, actor, post), &event.id)
            .put(NOTIFICATIONS, by_id_desc(event.id), &record);
        match self.ports.store.commit(&user(tenant, recipient), batch).await {
            Ok(_) => self.tell_unread(tenant, recipient).await,
            Err(error) if error.is_condition_failed() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Somebody's notifications older than `before`, newest first, and where to go on. Without those by people who
    /// are blocked or muted now, or about posts that are gone.
    pub(crate) async fn notifications(
        &self,
        tenant: &Tenant,
        recipient: Id,
        mut before: Option<Id>,
        limit: usize,
    ) -> Result<(Vec<Notification>, Option<Id>), FeedError> {
        let viewer = self.viewer(tenant, recipient).await?;
        let read = self.read_up_to(tenant, recipient).await?;
        let mut list = Vec::new();
        loop {
            let mut scan = Scan::all(NOTIFICATIONS, user(tenant, recipient), limit + 1);
            if let Some(before) = before {
                scan = scan.after(by_id_desc(before));
            }
            let page = self.ports.store.scan(&scan).await?;
            let mut records: Vec<(Id, NotificationRecord)> = Vec::with_capacity(page.rows.len());
            for row in &page.rows {
                let id = id_of_desc(&row.sort)?;
                before = Some(id);
                let record: NotificationRecord = row.json()?;
                if !viewer.hides(record.actor) {
                    records.push((id, record));
                }
            }
            let actors = self
                .authors(tenant, records.iter().map(|(_, record)| record.actor))
                .await?;
            let posts: Vec<_> = records
                .iter()
                .filter_map(|(_, record)| Some((record.post?, None)))
                .collect();
            let hides = |author| viewer.hides(author);
            let mut shown = self.shown(tenant, &posts, hides).await?.into_iter();
            for (id, record) in records {
                let post = record.post.map(|_| shown.next().flatten());
                let (Some(actor), false) = (actors.get(&record.actor), matches!(post, Some(None))) else {
                    continue;
                };
                list.push(Notification {
                    id,
                    kind: record.kind,
                    time: record.time,
                    actor: actor.clone(),
                    post: post.flatten(),
                    read: id <= read,
                });
            }
            if list.len() > limit {
                list.truncate(limit);
                let last = list.last().map(|notification| notification.id);
                return Ok((list, last));
            }
            if !page.more {
                return Ok((list, None));
            }
        }
    }

    async fn read_up_to(&self, tenant: &Tenant, recipient: Id) -> Result<Id, FeedError> {
        let key = RowKey::new(READ_MARKS, user(tenant, recipient), Vec::new());
        let row = self.ports.store.get(&key, Consistency::Strong).await?;
        Ok(match row {
            Some(row) => row.json::<ReadMark>()?.up_to,
            None => Id::MIN,
        })
    }

    /// How many notifications somebody has not read, up to [`MAX_UNREAD`].
    pub(crate) async fn unread(&self, tenant: &Tenant, recipient: Id) -> Result<usize, FeedError> {
        let read = self.read_up_to(tenant, recipient).await?;
        let viewer = self.viewer(tenant, recipient).await?;
        let mut scan = Scan::all(NOTIFICATIONS, user(tenant, recipient), MAX_UNREAD);
        if read > Id::MIN {
            scan.end = Bound::Excluded(by_id_desc(read));
        }
        let page = self.ports.store.scan(&scan).await?;
        let mut unread = 0;
        for row in &page.rows {
            if !viewer.hides(row.json::<NotificationRecord>()?.actor) {
                unread += 1;
            }
        }
        Ok(unread)
    }

    /// Marks notifications as read, up to one; never back.
    pub(crate) async fn mark_read(
        &self,
        tenant: &Tenant,
        recipient: Id,
        up_to: Id,
    ) -> Result<usize, FeedError> {
        let partition = user(tenant, recipient);
        let key = RowKey::new(READ_MARKS, partition.clone(), Vec::new());
        for _ in 0..TRIES {
            let row = self.ports.store.get(&key, Consistency::Strong).await?;
            if let Some(row) = &row
                && row.json::<ReadMark>()?.up_to >= up_to
            {
                return self.unread(tenant, recipient).await;
            }
            let batch = Batch::new().put_if(
                READ_MARKS,
                Vec::new(),
                &ReadMark { up_to },
                unchanged(row.as_ref()),
            );
            match self.ports.store.commit(&partition, batch).await {
                Ok(_) => {
                    self.tell_unread(tenant, recipient).await?;
                    return self.unread(tenant, recipient).await;
                }
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(FeedError::Busy)
    }
}

/// What a notification is about: told once.
pub(crate) fn notified_sort(kind: NotificationKind, actor: Id, post: Option<PostRef>) -> bytes::Bytes {
    let post = post.map_or(Id::MIN, |post| post.id);
    KeyWriter::with_capacity(17)
        .u8(kind as u8)
        .id(actor)
        .id(post)
        .finish()
}
