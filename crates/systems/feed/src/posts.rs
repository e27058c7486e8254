//! Posts: writing, changing and taking them back, and reading one with what hangs on it.
//!
//! A post, its place in the author's outbox, its idempotency key and the event that tells of it are one commit. Beside it,
//! in the same write to the disk, go two index rows in other partitions (who wrote it, what it replies to); if the
//! process dies between them, the fan-out makes them good.

use crate::{
    Feed,
    cards::{Count, Flags, Shown},
    error::FeedError,
    flights::Flight,
    graph::{TRIES, Viewer},
    model::{
        AuthorOf, COUNT_POSTS, HISTORY, Kind, Mention, OUTBOX, POST_AUTHORS, POST_KEYS, POSTS, PastText,
        PostKey, PostRecord, PostRef, REPLIES, REPOSTS, RepostMark, VERSION_MARKS, VERSIONS, by_id,
        by_id_desc, history_sort, id_of, post, user,
    },
    text,
};
use holon_base::{Id, Tenant, Timestamp};
use holon_contracts::feed::{POST_CREATED, POST_DELETED, POST_EDITED, POSTS_TOPIC, PostDeleted};
use holon_ports::{Batch, Condition, Consistency, NewEvent, Partition, Row, RowKey, Scan, StoreError};
use holon_web::Caller;
use std::{sync::Arc, time::Duration};

/// The most people that one post can name.
pub const MAX_MENTIONS: usize = 20;
/// The most posts above a post that a thread shows.
pub const MAX_ANCESTORS: usize = 50;
/// How long an idempotency key is remembered.
const KEY_TIME: Duration = Duration::from_secs(holon_base::limits::IDEMPOTENCY_SECONDS);

/// What somebody wants to post.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub text: String,
    pub reply_to: Option<Id>,
    pub quote_of: Option<Id>,
}

/// A post with what is above and below it.
pub struct Thread {
    pub ancestors: Vec<Shown>,
    pub post: Shown,
    pub replies: Vec<Shown>,
    /// The last reply shown, if there are more.
    pub next: Option<Id>,
}

impl Feed {
    /// Writes a post. With an idempotency key, a second try answers the first one's post, also after a crash.
    ///
    /// # Errors
    /// 400 for a text that cannot be posted, 404 for a parent that is not there, 422 for a key used otherwise.
    pub(crate) async fn create_post(
        &self,
        caller: &Caller,
        draft: &Draft,
        key: Option<&str>,
    ) -> Result<(PostRef, u64), FeedError> {
        let tenant = &caller.tenant;
        let text = text::check(&draft.text)?;
        let request = key.map(|_| format!("{:?} {:?} {text}", draft.reply_to, draft.quote_of));
        if let (Some(key), Some(request)) = (key, &request)
            && let Some(made) = self.made_with(caller, key, request).await?
        {
            return Ok(made);
        }
        let viewer = self.viewer(tenant, caller.account).await?;
        let reply_to = self.parent(tenant, &viewer, draft.reply_to, "replyTo").await?;
        let quote_of = self.parent(tenant, &viewer, draft.quote_of, "quoteOf").await?;
        let kind = match (reply_to, quote_of) {
            (Some(_), _) => Kind::Reply,
            (None, Some(_)) => Kind::Quote,
            (None, None) => Kind::Post,
        };
        let record = PostRecord {
            id: self.ids.next(),
            author: caller.account,
            text: text.to_owned(),
            created: self.clock.now(),
            edited: None,
            edits: 0,
            kind,
            reply_to,
            repost_of: None,
            quote_of,
            hashtags: text::hashtags(text),
            mentions: self.mentions(tenant, text).await?,
        };
        let mut batch = Batch::new();
        if let (Some(key), Some(request)) = (key, request.clone()) {
            let made = PostKey {
                id: record.id,
                request,
            };
            let expires = self.clock.now().plus(KEY_TIME);
            batch = batch.put_until(POST_KEYS, key.to_owned(), &made, Condition::Absent, expires);
        }
        match self.publish(tenant, &record, batch).await {
            Ok(version) => Ok((post_ref(&record), version)),
            // Another request with the same key was faster.
            Err(FeedError::Store(error)) if error.is_condition_failed() => {
                let (Some(key), Some(request)) = (key, request) else {
                    return Err(error.into());
                };
                self.made_with(caller, key, &request)
                    .await?
                    .ok_or(FeedError::Busy)
            }
            Err(error) => Err(error),
        }
    }

    /// Commits a new post with its index rows and counts. Answers the version of its row.
    pub(crate) async fn publish(
        &self,
        tenant: &Tenant,
        record: &PostRecord,
        batch: Batch,
    ) -> Result<u64, FeedError> {
        let batch = batch
            .put_if_absent(POSTS, by_id(record.id), record)
            .put_binary(OUTBOX, by_id_desc(record.id), record.entry().encode())
            .add(VERSIONS, COUNT_POSTS, 1)
            .event(NewEvent::new(
                POSTS_TOPIC,
                tenant,
                record.author.to_string(),
                POST_CREATED,
                format!("post:{}", record.id),
                &record.told(),
            ));
        let mut commits = vec![(user(tenant, record.author), batch)];
        commits.extend(index_rows(tenant, post_ref(record), record.reply_to));
        let epoch = self.cards.epoch(record.id);
        let mut answers = self.ports.store.commit_many(commits).await.into_iter();
        self.heads.forget(tenant, record.author);
        let committed = answers
            .next()
            .unwrap_or_else(|| Err(StoreError::Unknown("store answered nothing".into())))?;
        for answer in answers {
            if let Err(error) = answer {
                tracing::warn!(id = %record.id, %error, "index row of a post is left to the fan-out");
            }
        }
        self.count_targets(tenant, record, true).await;
        self.keep_new_card(tenant, record, committed.version, epoch)
            .await?;
        Ok(committed.version)
    }

    /// Counts a post at what it replies to, quotes or reposts; what fails here is made good by the fan-out.
    pub(crate) async fn count_targets(&self, tenant: &Tenant, record: &PostRecord, up: bool) {
        let member = |count| {
            if count == Count::Reposts {
                record.author
            } else {
                record.id
            }
        };
        for (target, count) in [
            (record.reply_to, Count::Replies),
            (record.quote_of, Count::Quotes),
            (record.repost_of, Count::Reposts),
        ] {
            let Some(target) = target else { continue };
            if let Err(error) = self.count_one(tenant, target.id, count, member(count), up).await {
                tracing::warn!(id = %record.id, %error, "count is left to the fan-out");
            }
        }
    }

    async fn made_with(
        &self,
        caller: &Caller,
        key: &str,
        request: &str,
    ) -> Result<Option<(PostRef, u64)>, FeedError> {
        let partition = user(&caller.tenant, caller.account);
        let row_key = RowKey::new(POST_KEYS, partition, key.to_owned());
        let Some(row) = self.ports.store.get(&row_key, Consistency::Strong).await? else {
            return Ok(None);
        };
        let made: PostKey = row.json()?;
        if made.request != request {
            return Err(FeedError::KeyReused);
        }
        let made = PostRef {
            id: made.id,
            author: caller.account,
        };
        let row = self
            .post_row(&caller.tenant, made)
            .await?
            .ok_or(FeedError::NotFound("post"))?;
        // The request that made it may still be writing the row that says whose it is, which is in another partition.
        self.authors_of_posts
            .insert((caller.tenant.clone(), made.id), made.author);
        Ok(Some((made, row.version)))
    }

    async fn mentions(&self, tenant: &Tenant, text: &str) -> Result<Vec<Mention>, FeedError> {
        let mut mentions = Vec::new();
        for handle in text::mentions(text).into_iter().take(MAX_MENTIONS) {
            if let Some(account) = self.accounts.by_handle(tenant, &handle).await? {
                mentions.push(Mention {
                    id: account.id,
                    handle: account.handle,
                });
            }
        }
        Ok(mentions)
    }

    /// What a post replies to or quotes; a repost stands for its original.
    async fn parent(
        &self,
        tenant: &Tenant,
        viewer: &Viewer,
        id: Option<Id>,
        field: &'static str,
    ) -> Result<Option<PostRef>, FeedError> {
        let Some(id) = id else { return Ok(None) };
        match self.subject(tenant, Some(viewer), id).await {
            Ok(found) => Ok(Some(found)),
            Err(FeedError::NotFound(_)) => {
                Err(FeedError::invalid(field, "there is no such post to point at"))
            }
            Err(error) => Err(error),
        }
    }

    /// The author of a post, whether it is still there or not.
    pub(crate) async fn author_of(&self, tenant: &Tenant, id: Id) -> Result<Option<Id>, FeedError> {
        let key = (tenant.clone(), id);
        if let Some(author) = self.authors_of_posts.get(&key) {
            return Ok(Some(author));
        }
        let lead = match self.author_flights.join(key.clone()) {
            // Another may have landed between the look and this.
            Flight::Leads(lead) => match self.authors_of_posts.get(&key) {
                Some(author) => return Ok(Some(author)),
                None => Some(lead),
            },
            Flight::Follows(follow) => match follow.landed().await {
                Some(author) => return Ok(Some(author)),
                None => None,
            },
        };
        let row_key = RowKey::new(POST_AUTHORS, post(tenant, id), Vec::new());
        let Some(row) = self.ports.store.get(&row_key, Consistency::Strong).await? else {
            return Ok(None);
        };
        let author = row.json::<AuthorOf>()?.author;
        self.authors_of_posts.insert(key, author);
        if let Some(lead) = lead {
            lead.land(author);
        }
        Ok(Some(author))
    }

    pub(crate) async fn post_row(&self, tenant: &Tenant, at: PostRef) -> Result<Option<Row>, FeedError> {
        let key = RowKey::new(POSTS, user(tenant, at.author), by_id(at.id));
        Ok(self.ports.store.get(&key, Consistency::Strong).await?)
    }

    /// One post as a viewer sees it.
    ///
    /// # Errors
    /// 404 if it is gone or a block stands between viewer and author.
    pub(crate) async fn show(
        &self,
        tenant: &Tenant,
        viewer: Option<&Viewer>,
        id: Id,
    ) -> Result<Shown, FeedError> {
        let gone = || FeedError::NotFound("post");
        let author = self.author_of(tenant, id).await?.ok_or_else(gone)?;
        let cut_off =
            |author: Id| viewer.is_some_and(|viewer| author != viewer.id && viewer.is_cut_off(author));
        if cut_off(author) {
            return Err(gone());
        }
        let at = PostRef { id, author };
        let card = self
            .cards(tenant, &[at])
            .await?
            .pop()
            .flatten()
            .ok_or_else(gone)?;
        if card.repost_of.is_some_and(|original| cut_off(original.author)) {
            return Err(gone());
        }
        let shown = self.shown(tenant, &[(at, card.repost_of)], cut_off).await?;
        shown.into_iter().next().flatten().ok_or_else(gone)
    }

    /// What actions on a post are about: the post, or the original of a repost.
    pub(crate) async fn subject(
        &self,
        tenant: &Tenant,
        viewer: Option<&Viewer>,
        id: Id,
    ) -> Result<PostRef, FeedError> {
        Ok(self.show(tenant, viewer, id).await?.subject().post)
    }

    /// Changes the text of one's own post, for a short time after it was written.
    ///
    /// # Errors
    /// 403 if it is another's or too late, 409 for a repost, 412 if it changed since the caller read it.
    pub(crate) async fn edit_post(
        &self,
        caller: &Caller,
        id: Id,
        text: &str,
        seen: Option<u64>,
    ) -> Result<(), FeedError> {
        let tenant = &caller.tenant;
        let text = text::check(text)?;
        let viewer = self.viewer(tenant, caller.account).await?;
        let at = self.show(tenant, Some(&viewer), id).await?.card.post;
        if at.author != caller.account {
            return Err(FeedError::Forbidden {
                code: "not-yours",
                detail: "only its author can change a post",
            });
        }
        let mentions = self.mentions(tenant, text).await?;
        for _ in 0..TRIES {
            let row = self
                .post_row(tenant, at)
                .await?
                .ok_or(FeedError::NotFound("post"))?;
            if seen.is_some_and(|seen| seen != row.version) {
                return Err(FeedError::Changed);
            }
            let before: PostRecord = row.json()?;
            let now = self.clock.now();
            check_editable(&before, now, self.options.edit_window)?;
            if before.text == text {
                return Ok(());
            }
            let past = PastText {
                text: before.text.clone(),
                at: before.edited.unwrap_or(before.created),
            };
            let after = PostRecord {
                text: text.to_owned(),
                edited: Some(now),
                edits: before.edits + 1,
                hashtags: text::hashtags(text),
                mentions: mentions.clone(),
                ..before
            };
            let batch = Batch::new()
                .put_if(POSTS, by_id(id), &after, Condition::Version(row.version))
                .put(HISTORY, history_sort(id, before.edits), &past)
                .event(NewEvent::new(
                    POSTS_TOPIC,
                    tenant,
                    at.author.to_string(),
                    POST_EDITED,
                    format!("post:{id}"),
                    &after.told(),
                ));
            match self.ports.store.commit(&user(tenant, at.author), batch).await {
                Ok(_) => {
                    self.post_changed(tenant, id).await;
                    return Ok(());
                }
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(FeedError::Busy)
    }

    /// Takes a post back.
    ///
    /// # Errors
    /// 403 if it is another's, unless the caller may moderate (`feed.posts.delete`).
    pub(crate) async fn delete_post(&self, caller: &Caller, id: Id) -> Result<(), FeedError> {
        let tenant = &caller.tenant;
        let gone = || FeedError::NotFound("post");
        let author = self.author_of(tenant, id).await?.ok_or_else(gone)?;
        let at = PostRef { id, author };
        let record: PostRecord = self.post_row(tenant, at).await?.ok_or_else(gone)?.json()?;
        if author != caller.account && !caller.may("feed.posts.delete") {
            let viewer = self.viewer(tenant, caller.account).await?;
            // Whoever may not see it is not told that it is there.
            self.show(tenant, Some(&viewer), id).await?;
            return Err(FeedError::Forbidden {
                code: "not-yours",
                detail: "only its author can delete a post",
            });
        }
        self.unpublish(tenant, &record).await
    }

    /// Removes a post with its history, index rows and counts. Nothing happens if it is gone already.
    pub(crate) async fn unpublish(&self, tenant: &Tenant, record: &PostRecord) -> Result<(), FeedError> {
        let id = record.id;
        let partition = user(tenant, record.author);
        let mut history = Vec::new();
        let scan = Scan::all(HISTORY, partition.clone(), 500).prefix(&by_id(id));
        self.each_row(scan, |row| {
            history.push(row.sort.clone());
            Ok(())
        })
        .await?;
        let told = PostDeleted {
            id,
            author: record.author,
            reply_to: record.reply_to.map(|to| to.id),
            repost_of: record.repost_of.map(|of| of.id),
            quote_of: record.quote_of.map(|of| of.id),
            hashtags: record.hashtags.clone(),
        };
        let mut batch = Batch::new()
            .delete_if(POSTS, by_id(id), Condition::Present)
            .delete(OUTBOX, by_id_desc(id))
            .add(VERSIONS, COUNT_POSTS, -1)
            .event(NewEvent::new(
                POSTS_TOPIC,
                tenant,
                record.author.to_string(),
                POST_DELETED,
                format!("post:{id}"),
                &told,
            ));
        for sort in history {
            batch = batch.delete(HISTORY, sort);
        }
        if let Some(original) = record.repost_of {
            let key = RowKey::new(REPOSTS, partition.clone(), by_id(original.id));
            if let Some(row) = self.ports.store.get(&key, Consistency::Strong).await?
                && row.json::<RepostMark>()?.repost == id
            {
                batch = batch
                    .delete(REPOSTS, by_id(original.id))
                    .add(VERSIONS, VERSION_MARKS, 1);
            }
        }
        let mut commits = vec![(partition, batch)];
        if let Some(parent) = record.reply_to {
            let unlist = Batch::new().delete(REPLIES, by_id(id));
            commits.push((post(tenant, parent.id), unlist));
        }
        let mut answers = self.ports.store.commit_many(commits).await.into_iter();
        self.heads.forget(tenant, record.author);
        match answers.next() {
            Some(Ok(_)) => {}
            Some(Err(error)) if error.is_condition_failed() => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(StoreError::Unknown("store answered nothing".into()).into()),
        }
        self.post_changed(tenant, id).await;
        self.count_targets(tenant, record, false).await;
        Ok(())
    }

    /// The texts that a post had, newest first, the present one included.
    pub(crate) async fn post_history(
        &self,
        tenant: &Tenant,
        viewer: Option<&Viewer>,
        id: Id,
    ) -> Result<Vec<PastText>, FeedError> {
        let at = self.show(tenant, viewer, id).await?.card.post;
        let record: PostRecord = self
            .post_row(tenant, at)
            .await?
            .ok_or(FeedError::NotFound("post"))?
            .json()?;
        let mut texts = vec![PastText {
            text: record.text,
            at: record.edited.unwrap_or(record.created),
        }];
        let scan = Scan::all(HISTORY, user(tenant, at.author), 500)
            .prefix(&by_id(id))
            .reversed();
        self.each_row(scan, |row| {
            texts.push(row.json()?);
            Ok(())
        })
        .await?;
        Ok(texts)
    }

    /// A post with the posts that it replies to, root first, and a page of the replies to it, oldest first.
    pub(crate) async fn thread(
        &self,
        tenant: &Tenant,
        viewer: Option<&Viewer>,
        id: Id,
        after: Option<Id>,
        limit: usize,
    ) -> Result<Thread, FeedError> {
        let shown = self.show(tenant, viewer, id).await?;
        let hides = |author: Id| viewer.is_some_and(|viewer| viewer.hides(author));
        let mut ancestors = Vec::new();
        let mut above = shown.subject().reply_to;
        while let Some(parent) =
            above.filter(|parent| ancestors.len() < MAX_ANCESTORS && !hides(parent.author))
        {
            let Some(parent) = self
                .shown(tenant, &[(parent, None)], hides)
                .await?
                .pop()
                .flatten()
            else {
                break;
            };
            above = parent.card.reply_to;
            ancestors.push(parent);
        }
        ancestors.reverse();
        let below = shown.subject().post.id;
        let (replies, next) = self.replies(tenant, below, after, limit, hides).await?;
        Ok(Thread {
            ancestors,
            post: shown,
            replies,
            next,
        })
    }

    async fn replies(
        &self,
        tenant: &Tenant,
        below: Id,
        mut after: Option<Id>,
        limit: usize,
        hides: impl Fn(Id) -> bool + Copy,
    ) -> Result<(Vec<Shown>, Option<Id>), FeedError> {
        let mut replies = Vec::new();
        loop {
            let mut scan = Scan::all(REPLIES, post(tenant, below), limit + 1);
            if let Some(after) = after {
                scan = scan.after(by_id(after));
            }
            let page = self.ports.store.scan(&scan).await?;
            let mut found = Vec::with_capacity(page.rows.len());
            for row in &page.rows {
                let id = id_of(&row.sort)?;
                after = Some(id);
                let author = row.json::<AuthorOf>()?.author;
                if !hides(author) {
                    found.push((PostRef { id, author }, None));
                }
            }
            replies.extend(self.shown(tenant, &found, hides).await?.into_iter().flatten());
            if replies.len() > limit {
                replies.truncate(limit);
                let last = replies.last().map(|reply| reply.card.post.id);
                return Ok((replies, last));
            }
            if !page.more {
                return Ok((replies, None));
            }
        }
    }

    /// A viewer's marks on posts, in their order.
    pub(crate) async fn flags_now(
        &self,
        tenant: &Tenant,
        viewer: Option<Id>,
        posts: &[Id],
    ) -> Result<Vec<Option<Flags>>, FeedError> {
        let Some(viewer) = viewer else {
            return Ok(vec![None; posts.len()]);
        };
        let key = RowKey::new(VERSIONS, user(tenant, viewer), VERSION_MARKS);
        let version = self.ports.store.get(&key, Consistency::Strong).await?;
        let marks = self
            .marks_at(tenant, viewer, version.map_or(0, |row| row.version))
            .await?;
        let flags = self.flags(tenant, viewer, &marks, posts).await?;
        Ok(flags.into_iter().map(Some).collect())
    }

    /// Several posts as one viewer sees them, with their marks, as JSON objects.
    pub(crate) async fn write_posts(
        &self,
        tenant: &Tenant,
        viewer: Option<Id>,
        posts: &[Shown],
    ) -> Result<Vec<Arc<[u8]>>, FeedError> {
        let ids: Vec<Id> = posts.iter().map(|shown| shown.subject().post.id).collect();
        let flags = self.flags_now(tenant, viewer, &ids).await?;
        Ok(posts
            .iter()
            .zip(flags)
            .map(|(shown, flags)| {
                let mut out = Vec::with_capacity(768);
                shown.write(&mut out, flags);
                out.into()
            })
            .collect())
    }
}

fn post_ref(record: &PostRecord) -> PostRef {
    PostRef {
        id: record.id,
        author: record.author,
    }
}

/// The rows by which others find a post.
pub(crate) fn index_rows(tenant: &Tenant, at: PostRef, reply_to: Option<PostRef>) -> Vec<(Partition, Batch)> {
    let author = AuthorOf { author: at.author };
    let mut commits = vec![(
        post(tenant, at.id),
        Batch::new().put(POST_AUTHORS, Vec::new(), &author),
    )];
    if let Some(parent) = reply_to {
        commits.push((
            post(tenant, parent.id),
            Batch::new().put(REPLIES, by_id(at.id), &author),
        ));
    }
    commits
}

fn check_editable(record: &PostRecord, now: Timestamp, window: Duration) -> Result<(), FeedError> {
    if record.kind == Kind::Repost {
        return Err(FeedError::Conflict {
            code: "repost-has-no-text",
            detail: "a repost has no text of its own; quote the post instead",
        });
    }
    if now.since(record.created) > window {
        return Err(FeedError::Forbidden {
            code: "too-late-to-edit",
            detail: "a post can be changed for five minutes; post a new one instead",
        });
    }
    Ok(())
}
