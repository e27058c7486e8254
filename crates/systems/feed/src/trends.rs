//! Trends: which tags are used now, more than they were.
//!
//! Uses are counted in buckets of time, and a window's score is a sum in which a use counts half after a quarter of the
//! window: a sliding, exponentially decayed count that needs no memory of single uses. Windows and buckets: an hour
//! in minutes, a day in hours, a week in quarters of a day. Buckets expire with their window.
//!
//! The consumer of each log partition counts into a partition of its own, and puts the offset that it got to into the
//! same commit: an event that comes twice is not counted twice. What was deleted since stays counted: it was said.

use crate::{
    Feed,
    error::FeedError,
    graph::unchanged,
    model::{AuthorOf, PostRef, TAG_COUNTS, TAGS, by_id_desc, id_of_desc, tag},
};
use async_trait::async_trait;
use bytes::Bytes;
use holon_base::{Id, KeyReader, KeyWriter, Tenant, Timestamp};
use holon_contracts::feed::{POST_CREATED, POST_DELETED, POST_EDITED, PostCreated, PostDeleted};
use holon_ports::{
    Batch, Consistency, Event, Handler, HandlerError, Op, Partition, RowKey, Scan, StoreError,
};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// How long an answer is served again, in milliseconds.
const FRESH_MS: i64 = 2_000;
/// Where a partition keeps its offset: after all buckets.
const OFFSET_SORT: &[u8] = &[0xff];

/// How far back trends look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum Window {
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "24h")]
    Day,
    #[serde(rename = "7d")]
    Week,
}

impl Window {
    const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    fn bucket_ms(self) -> i64 {
        match self {
            Self::Hour => 60_000,
            Self::Day => 3_600_000,
            Self::Week => 6 * 3_600_000,
        }
    }

    fn length_ms(self) -> i64 {
        match self {
            Self::Hour => 3_600_000,
            Self::Day => 24 * 3_600_000,
            Self::Week => 7 * 24 * 3_600_000,
        }
    }

    /// What a use that is this old counts, from 1 down; 0 outside the window.
    pub fn decay(self, age_ms: i64) -> f64 {
        if age_ms >= self.length_ms() {
            return 0.0;
        }
        let half_life = self.length_ms() as f64 / 4.0;
        (-(age_ms.max(0) as f64) / half_life).exp2()
    }

    fn bucket(self, at: Timestamp) -> i64 {
        at.millis().div_euclid(self.bucket_ms()) * self.bucket_ms()
    }

    fn sort(self, bucket: i64, tag: &str) -> Bytes {
        KeyWriter::with_capacity(12 + tag.len())
            .u8(self as u8)
            .i64(bucket)
            .str(tag)
            .finish()
    }
}

/// A tag in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Trend {
    /// Without `#`, lower case.
    pub tag: String,
    /// The decayed count of its uses.
    #[schema(minimum = 0)]
    pub score: f64,
    /// How many posts used it in the window.
    #[schema(minimum = 0)]
    pub posts: u64,
}

/// What is answered for a short time.
pub(crate) struct KeptTrends {
    pub made: Timestamp,
    pub trends: Arc<Vec<Trend>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Offset {
    next: u64,
}

/// The consumer.
pub(crate) struct CountTags(pub Arc<Feed>);

#[async_trait]
impl Handler for CountTags {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        let mut by_tenant: HashMap<&Tenant, Vec<(u64, PostCreated)>> = HashMap::new();
        let mut index = Vec::new();
        for event in events {
            match event.kind.as_str() {
                POST_CREATED | POST_EDITED => {
                    let told: PostCreated = event.json()?;
                    for name in &told.hashtags {
                        let author = AuthorOf { author: told.author };
                        let row = Batch::new().put(TAGS, by_id_desc(told.id), &author);
                        index.push((tag(&event.tenant, name), row));
                    }
                    if event.kind == POST_CREATED && !told.hashtags.is_empty() {
                        by_tenant
                            .entry(&event.tenant)
                            .or_default()
                            .push((event.position.offset, told));
                    }
                }
                POST_DELETED => {
                    let told: PostDeleted = event.json()?;
                    for name in &told.hashtags {
                        let row = Batch::new().delete(TAGS, by_id_desc(told.id));
                        index.push((tag(&event.tenant, name), row));
                    }
                }
                _ => {}
            }
        }
        if !index.is_empty() {
            for answer in self.0.ports.store.commit_many(index).await {
                answer?;
            }
        }
        let Some(partition) = events.first().map(|event| event.position.partition) else {
            return Ok(());
        };
        for (tenant, posts) in by_tenant {
            self.0.count_tags(tenant, partition, &posts).await?;
        }
        Ok(())
    }
}

fn counts_of(tenant: &Tenant, partition: u16) -> Partition {
    Partition::new(tenant, format!("trends:{partition}"))
}

impl Feed {
    async fn count_tags(
        &self,
        tenant: &Tenant,
        number: u16,
        posts: &[(u64, PostCreated)],
    ) -> Result<(), FeedError> {
        let partition = counts_of(tenant, number);
        let key = RowKey::new(TAG_COUNTS, partition.clone(), OFFSET_SORT);
        let row = self.ports.store.get(&key, Consistency::Strong).await?;
        let done = match &row {
            Some(row) => row.json::<Offset>()?.next,
            None => 0,
        };
        let now = self.clock.now();
        let mut uses: HashMap<(Window, i64, &str), i64> = HashMap::new();
        let mut next = done;
        for (offset, told) in posts.iter().filter(|(offset, _)| *offset >= done) {
            next = offset + 1;
            for window in Window::ALL {
                if window.decay(now.millis() - told.created.millis()) > 0.0 {
                    for tag in &told.hashtags {
                        *uses
                            .entry((window, window.bucket(told.created), tag))
                            .or_default() += 1;
                    }
                }
            }
        }
        if next == done {
            return Ok(());
        }
        let mut batch =
            Batch::new().put_if(TAG_COUNTS, OFFSET_SORT, &Offset { next }, unchanged(row.as_ref()));
        for ((window, bucket, tag), delta) in uses {
            let life = window.length_ms() + window.bucket_ms();
            let expires = Timestamp::from_millis(bucket).plus(Duration::from_millis(life as u64));
            batch = batch.op(Op::Add {
                table: TAG_COUNTS,
                sort: window.sort(bucket, tag),
                delta,
                expires: Some(expires),
            });
        }
        self.ports.store.commit(&partition, batch).await?;
        Ok(())
    }

    /// The tags of a window, most used first; at most two seconds old.
    pub(crate) async fn trends(
        &self,
        tenant: &Tenant,
        window: Window,
    ) -> Result<(Timestamp, Arc<Vec<Trend>>), FeedError> {
        let now = self.clock.now();
        let key = (tenant.clone(), window);
        if let Some(kept) = self.kept_trends.lock().get(&key)
            && (0..FRESH_MS).contains(&(now.millis() - kept.made.millis()))
        {
            return Ok((kept.made, kept.trends.clone()));
        }
        let oldest = window.bucket(Timestamp::from_millis(now.millis() - window.length_ms()));
        let mut tags: HashMap<String, (f64, u64)> = HashMap::new();
        for number in 0..self.options.post_partitions {
            let mut scan = Scan::all(TAG_COUNTS, counts_of(tenant, number), 2_000).prefix(&[window as u8]);
            scan.start = std::ops::Bound::Included(window.sort(oldest, ""));
            self.each_row(scan, |row| {
                let (bucket, tag) = read_sort(&row.sort)?;
                // A bucket counts as old as its middle.
                let age = (now.millis() - bucket - window.bucket_ms() / 2).max(0);
                let uses = u64::try_from(row.counter()).unwrap_or(0);
                let weight = window.decay(age);
                if weight > 0.0 {
                    let (score, posts) = tags.entry(tag).or_default();
                    *score += weight * uses as f64;
                    *posts += uses;
                }
                Ok(())
            })
            .await?;
        }
        let mut trends: Vec<Trend> = tags
            .into_iter()
            .map(|(tag, (score, posts))| Trend { tag, score, posts })
            .collect();
        trends.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.tag.cmp(&b.tag)));
        trends.truncate(holon_base::limits::PAGE_ITEMS);
        let trends = Arc::new(trends);
        let kept = KeptTrends {
            made: now,
            trends: trends.clone(),
        };
        self.kept_trends.lock().insert(key, kept);
        Ok((now, trends))
    }

    /// Posts with a tag older than `before`, newest first.
    pub(crate) async fn tagged(
        &self,
        tenant: &Tenant,
        name: &str,
        before: Option<Id>,
        limit: usize,
    ) -> Result<(Vec<PostRef>, bool), FeedError> {
        let mut scan = Scan::all(TAGS, tag(tenant, name), limit);
        if let Some(before) = before {
            scan = scan.after(by_id_desc(before));
        }
        let page = self.ports.store.scan(&scan).await?;
        let posts = page
            .rows
            .iter()
            .map(|row| {
                Ok(PostRef {
                    id: id_of_desc(&row.sort)?,
                    author: row.json::<AuthorOf>()?.author,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok((posts, page.more))
    }
}

fn read_sort(sort: &[u8]) -> Result<(i64, String), StoreError> {
    let mut key = KeyReader::new(sort);
    let corrupt = |_| StoreError::Corrupt("sort key is no bucket of tags".into());
    key.u8().map_err(corrupt)?;
    Ok((key.i64().map_err(corrupt)?, key.str().map_err(corrupt)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_counts_half_after_a_quarter_of_the_window_and_nothing_after_it() {
        for window in Window::ALL {
            assert!((window.decay(0) - 1.0).abs() < 1e-9);
            assert!((window.decay(window.length_ms() / 4) - 0.5).abs() < 1e-9);
            assert!(window.decay(window.length_ms() - 1) > 0.0);
            assert!(window.decay(window.length_ms()).abs() < 1e-9);
        }
    }

    #[test]
    fn buckets_sort_by_time_within_their_window() {
        let early = Window::Hour.sort(60_000, "zebra");
        let late = Window::Hour.sort(120_000, "ant");
        assert!(early < late && late < Window::Day.sort(0, "a"));
        assert_eq!(read_sort(&early), Ok((60_000, "zebra".to_owned())));
    }
}
