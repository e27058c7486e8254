//! What the feed keeps of a person: to hand out and to erase.

use crate::{
    Feed,
    cards::Count,
    error::FeedError,
    model::{
        ACTIVITY, BLOCKED_BY, BLOCKS, BOOKMARKS, FOLLOWS, HISTORY, LIKES, META_SORT, MUTES, NOTIFICATIONS,
        NOTIFIED, NotificationRecord, OUTBOX, POST_KEYS, POSTS, PastText, PostRecord, READ_MARKS, REPOSTS,
        Switch, TIMELINE, VERSION_GRAPH, VERSIONS, by_id, id_of, id_of_desc, user,
    },
    notifications::notified_sort,
};
use async_trait::async_trait;
use bytes::Bytes;
use holon_base::{Id, Tenant};
use holon_contracts::person::{Person, PersonalData, PersonalDataError};
use holon_ports::{Batch, Partition, Row, Scan, Table};
use serde_json::{Value, json};

const CHUNK: usize = 500;

#[async_trait]
impl PersonalData for Feed {
    fn system(&self) -> &'static str {
        "feed"
    }

    async fn export(&self, person: &Person) -> Result<Value, PersonalDataError> {
        self.export_person(&person.tenant, person.id)
            .await
            .map_err(failed)
    }

    async fn erase(&self, person: &Person) -> Result<(), PersonalDataError> {
        self.erase_person(&person.tenant, person.id).await.map_err(failed)
    }
}

fn failed(error: FeedError) -> PersonalDataError {
    PersonalDataError {
        system: "feed",
        message: error.to_string(),
    }
}

impl Feed {
    async fn rows_of(&self, table: Table, partition: Partition) -> Result<Vec<Row>, FeedError> {
        let mut rows = Vec::new();
        self.each_row(Scan::all(table, partition, CHUNK), |row| {
            rows.push(row.clone());
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    async fn export_person(&self, tenant: &Tenant, id: Id) -> Result<Value, FeedError> {
        let mine = || user(tenant, id);
        let mut posts = Vec::new();
        for row in self.rows_of(POSTS, mine()).await? {
            posts.push(row.json::<PostRecord>()?);
        }
        let mut past_texts = Vec::new();
        for row in self.rows_of(HISTORY, mine()).await? {
            let post = id_of(row.sort.get(..8).unwrap_or_default())?;
            let past: PastText = row.json()?;
            past_texts.push(json!({ "post": post, "text": past.text, "at": past.at }));
        }
        let mut notifications = Vec::new();
        for row in self.rows_of(NOTIFICATIONS, mine()).await? {
            let record: NotificationRecord = row.json()?;
            notifications.push(json!({ "id": id_of_desc(&row.sort)?, "notification": record }));
        }
        let mut export = json!({
            "posts": posts,
            "pastTexts": past_texts,
            "notifications": notifications,
        });
        for (name, table) in [
            ("follows", FOLLOWS),
            ("blocks", BLOCKS),
            ("mutes", MUTES),
            ("likes", LIKES),
            ("reposts", REPOSTS),
            ("bookmarks", BOOKMARKS),
        ] {
            let mut list = Vec::new();
            for row in self.rows_of(table, mine()).await? {
                list.push(json!({ "id": id_of(&row.sort)?, "row": row.json::<Value>()? }));
            }
            export[name] = list.into();
        }
        for (name, table) in [("activity", ACTIVITY), ("readMark", READ_MARKS)] {
            if let Some(row) = self.rows_of(table, mine()).await?.first() {
                export[name] = row.json()?;
            }
        }
        Ok(export)
    }

    /// Erases what somebody left behind: their posts with all that hangs on them, what they did to others' posts,
    /// their ties in both directions, what was told to them and what others were told of them. What the fan-out keeps (timelines,
    /// lists of followers, indexes) follows from the events of this.
    async fn erase_person(&self, tenant: &Tenant, id: Id) -> Result<(), FeedError> {
        for row in self.rows_of(POSTS, user(tenant, id)).await? {
            self.unpublish(tenant, &row.json()?).await?;
        }
        for row in self.rows_of(LIKES, user(tenant, id)).await? {
            let post = id_of(&row.sort)?;
            self.change_count(tenant, post, Count::Likes, id, false, Vec::new())
                .await?;
        }
        self.erase_ties(tenant, id).await?;
        self.erase_notifications(tenant, id).await?;
        self.drop_entries(tenant, id).await?;
        let meta = Batch::new().delete(TIMELINE, META_SORT);
        self.commit_timeline(tenant, id, meta).await?;
        for table in [
            OUTBOX,
            HISTORY,
            POST_KEYS,
            FOLLOWS,
            BLOCKS,
            BLOCKED_BY,
            MUTES,
            LIKES,
            REPOSTS,
            BOOKMARKS,
            ACTIVITY,
            NOTIFICATIONS,
            NOTIFIED,
            READ_MARKS,
            VERSIONS,
        ] {
            let sorts = self.rows_of(table, user(tenant, id)).await?;
            self.delete_rows(&user(tenant, id), sorts.into_iter().map(|row| (table, row.sort)))
                .await?;
        }
        self.heads.forget(tenant, id);
        let key = (tenant.clone(), id);
        self.viewers.remove(&key);
        self.marks.remove(&key);
        self.orders.remove(&key);
        Ok(())
    }

    async fn erase_ties(&self, tenant: &Tenant, id: Id) -> Result<(), FeedError> {
        for row in self.rows_of(FOLLOWS, user(tenant, id)).await? {
            self.unfollow(tenant, id, id_of(&row.sort)?).await?;
        }
        let mut after = None;
        loop {
            let (page, more) = self.followers_page(tenant, id, after).await?;
            for follower in &page {
                self.unfollow(tenant, *follower, id).await?;
            }
            after = page.last().copied();
            if !more {
                break;
            }
        }
        for row in self.rows_of(BLOCKS, user(tenant, id)).await? {
            let blocked = id_of(&row.sort)?;
            if row.json::<Switch>()?.on {
                self.set_block(tenant, id, blocked, false).await?;
            }
            let rows = [(BLOCKED_BY, by_id(id))];
            self.delete_rows(&user(tenant, blocked), rows.into_iter()).await?;
        }
        // Who blocks or mutes them has no index, since nobody else asks; erasing is rare enough to look at all.
        let mut theirs: Vec<(Partition, Table)> = Vec::new();
        for table in [BLOCKS, MUTES] {
            self.walk(table, |partition, row| {
                if partition.tenant == *tenant && id_of(&row.sort)? == id {
                    theirs.push((partition.clone(), table));
                }
                Ok(())
            })
            .await?;
        }
        for (partition, table) in theirs {
            let batch = Batch::new()
                .delete(table, by_id(id))
                .add(VERSIONS, VERSION_GRAPH, 1);
            self.ports.store.commit(&partition, batch).await?;
        }
        Ok(())
    }

    async fn erase_notifications(&self, tenant: &Tenant, id: Id) -> Result<(), FeedError> {
        let mut of_them: Vec<(Partition, [(Table, Bytes); 2])> = Vec::new();
        self.walk(NOTIFICATIONS, |partition, row| {
            let record: NotificationRecord = row.json()?;
            if partition.tenant == *tenant && record.actor == id {
                let notified = notified_sort(record.kind, id, record.post);
                of_them.push((
                    partition.clone(),
                    [(NOTIFICATIONS, row.sort.clone()), (NOTIFIED, notified)],
                ));
            }
            Ok(())
        })
        .await?;
        for (partition, rows) in of_them {
            self.delete_rows(&partition, rows.into_iter()).await?;
        }
        Ok(())
    }

    async fn delete_rows(
        &self,
        partition: &Partition,
        rows: impl Iterator<Item = (Table, Bytes)>,
    ) -> Result<(), FeedError> {
        let rows: Vec<_> = rows.collect();
        for some in rows.chunks(CHUNK) {
            let batch = some.iter().fold(Batch::new(), |batch, (table, sort)| {
                batch.delete(*table, sort.clone())
            });
            self.ports.store.commit(partition, batch).await?;
        }
        Ok(())
    }
}
