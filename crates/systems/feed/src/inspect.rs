//! The glass box: what the fan-out, the tiers, the caches and a single timeline look like right now.

use crate::{
    Feed,
    error::FeedError,
    fanout::FOLLOWERS_CHUNK,
    graph::Hidden,
    home::Source,
    model::{FANOUTS, FanoutRecord, POST_AUTHORS, TIERS, Tier, TierRecord, by_id, post, tiers},
};
use holon_base::{Id, Tenant};
use holon_contracts::feed::POSTS_TOPIC;
use holon_ports::{Consistency, RowKey, log::partition_of};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use utoipa::ToSchema;

/// How long the count of those who have followers is kept.
const FOLLOWED_FRESH: Duration = Duration::from_secs(10);
/// Followers named in the inspection of a post.
const SAMPLE: usize = 20;

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeedInspection {
    pub tiers: TierBounds,
    /// Entries written to timelines since the start.
    pub timeline_entries: u64,
    pub consumers: Vec<ConsumerInspection>,
    pub authors_by_tier: AuthorsByTier,
    pub caches: Caches,
    pub fanout: FanoutRate,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierBounds {
    pub push_below: u64,
    pub active_below: u64,
    pub active_days: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerInspection {
    pub group: String,
    pub topic: String,
    pub lag: u64,
    pub partitions: Vec<PartitionInspection>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionInspection {
    pub partition: u16,
    pub committed: u64,
    pub next: u64,
}

/// Authors of the push tier that have no followers yet are not counted; those that have some are counted anew every ten
/// seconds at most.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct AuthorsByTier {
    pub push: u64,
    pub active: u64,
    pub pull: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Caches {
    pub cards: usize,
    pub card_bytes: u64,
    pub card_hits: u64,
    pub card_misses: u64,
    pub readers: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FanoutRate {
    pub posts_handled: u64,
    pub entries_written: u64,
    /// Entries per second since the start.
    pub per_second: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostInspection {
    pub post: Id,
    pub author: Id,
    pub tier: Tier,
    pub followers: u64,
    /// Timelines that it was written to.
    pub pushed: u64,
    /// Whether its fan-out is still to come.
    pub pending: bool,
    pub position: EventPosition,
    /// The next offset that the fan-out handles in that partition.
    pub group_at: u64,
    pub sample: Vec<SampledFollower>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventPosition {
    pub partition: u16,
    /// Known once the fan-out was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SampledFollower {
    pub handle: String,
    pub present: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HomeInspection {
    /// Above this id the timeline is complete; below, everything is pulled.
    pub floor: Id,
    pub entries: Vec<EntryInspection>,
    pub follows: usize,
    /// Followees whose posts are not (all) pushed.
    pub pulled_authors: Vec<Id>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EntryInspection {
    pub id: Id,
    pub author: Id,
    pub source: Source,
    /// Its place in the ranked order, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Why it is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Hidden>,
}

impl Feed {
    pub(crate) async fn inspect(&self, tenant: &Tenant) -> Result<FeedInspection, FeedError> {
        let mut consumers = Vec::new();
        for (group, topic) in [
            ("feed.fanout", POSTS_TOPIC),
            ("feed.notify", POSTS_TOPIC),
            ("feed.trends", POSTS_TOPIC),
            ("feed.settle", crate::model::ACTIONS_TOPIC),
        ] {
            let progress = self.ports.log.progress(group, topic).await?;
            consumers.push(ConsumerInspection {
                group: group.to_owned(),
                topic: topic.to_owned(),
                lag: progress.iter().map(|p| p.next.saturating_sub(p.committed)).sum(),
                partitions: progress
                    .iter()
                    .map(|p| PartitionInspection {
                        partition: p.partition,
                        committed: p.committed,
                        next: p.next,
                    })
                    .collect(),
            });
        }
        let mut authors = AuthorsByTier {
            push: self.followed_authors(tenant).await?,
            ..AuthorsByTier::default()
        };
        self.each_row(holon_ports::Scan::all(TIERS, tiers(tenant), 2_000), |row| {
            match row.json::<TierRecord>()?.tier {
                Tier::Push => {}
                Tier::Active => authors.active += 1,
                Tier::Pull => authors.pull += 1,
            }
            Ok(())
        })
        .await?;
        authors.push = authors.push.saturating_sub(authors.active + authors.pull);
        let (cards, card_bytes) = self.cards.size();
        let entries_written = self.stat(|stats| &stats.entries_written);
        let seconds = self.clock.now().since(self.started).as_secs_f64().max(1.0);
        Ok(FeedInspection {
            tiers: TierBounds {
                push_below: self.options.push_below,
                active_below: self.options.active_below,
                active_days: self.options.active_for.as_secs() / 86_400,
            },
            timeline_entries: entries_written,
            consumers,
            authors_by_tier: authors,
            caches: Caches {
                cards,
                card_bytes,
                card_hits: self.stat(|stats| &stats.card_hits),
                card_misses: self.stat(|stats| &stats.card_misses),
                readers: self.viewers.len(),
            },
            fanout: FanoutRate {
                posts_handled: self.stat(|stats| &stats.posts_handled),
                entries_written,
                per_second: entries_written as f64 / seconds,
            },
        })
    }

    /// How many have followers. A walk through everybody, so it is done once at a time and kept for [`FOLLOWED_FRESH`].
    async fn followed_authors(&self, tenant: &Tenant) -> Result<u64, FeedError> {
        let mut kept = self.followed.lock().await;
        if let Some((counted, by_tenant)) = &*kept
            && counted.elapsed() < FOLLOWED_FRESH
        {
            return Ok(by_tenant.get(tenant).copied().unwrap_or(0));
        }
        let mut by_tenant: HashMap<Tenant, u64> = HashMap::new();
        self.walk(crate::model::FOLLOWER_COUNTS, |partition, row| {
            if row.counter() > 0 {
                *by_tenant.entry(partition.tenant.clone()).or_default() += 1;
            }
            Ok(())
        })
        .await?;
        let followed = by_tenant.get(tenant).copied().unwrap_or(0);
        *kept = Some((Instant::now(), by_tenant));
        Ok(followed)
    }

    pub(crate) async fn inspect_post(&self, tenant: &Tenant, id: Id) -> Result<PostInspection, FeedError> {
        let gone = || FeedError::NotFound("post");
        let author = self.author_of(tenant, id).await?.ok_or_else(gone)?;
        let keys = [
            RowKey::new(FANOUTS, post(tenant, id), Vec::new()),
            RowKey::new(TIERS, tiers(tenant), by_id(author)),
            RowKey::new(POST_AUTHORS, post(tenant, id), Vec::new()),
        ];
        let rows = self.ports.store.get_many(&keys, Consistency::Strong).await?;
        let record = match rows.first() {
            Some(Some(row)) => Some(row.json::<FanoutRecord>()?),
            _ => None,
        };
        if rows.get(2).is_none_or(Option::is_none) {
            return Err(gone());
        }
        let tier = match (&record, rows.get(1)) {
            (Some(record), _) => record.tier,
            (None, Some(Some(row))) => row.json::<TierRecord>()?.tier,
            _ => Tier::Push,
        };
        let (page, _) = self.followers_page(tenant, author, None).await?;
        let step = (page.len().min(FOLLOWERS_CHUNK) / SAMPLE).max(1);
        let sampled: Vec<Id> = page.into_iter().step_by(step).take(SAMPLE).collect();
        let looks = sampled
            .iter()
            .map(|reader| self.timeline_has(tenant, *reader, id));
        let present = futures::future::try_join_all(looks).await?;
        let names = self.authors(tenant, sampled.iter().copied()).await?;
        let sample = sampled
            .iter()
            .zip(present)
            .filter_map(|(reader, present)| {
                Some(SampledFollower {
                    handle: names.get(reader)?.handle.clone(),
                    present,
                })
            })
            .collect();
        let partition = record.as_ref().map_or_else(
            || partition_of(tenant, &author.to_string(), self.options.post_partitions),
            |record| record.partition,
        );
        let progress = self.ports.log.progress("feed.fanout", POSTS_TOPIC).await?;
        Ok(PostInspection {
            post: id,
            author,
            tier,
            followers: match &record {
                Some(record) => record.followers,
                None => self.follower_count(tenant, author).await?,
            },
            pushed: record.as_ref().map_or(0, |record| record.pushed),
            pending: record.is_none(),
            position: EventPosition {
                partition,
                offset: record.as_ref().map(|record| record.offset),
            },
            group_at: progress
                .iter()
                .find(|progress| progress.partition == partition)
                .map_or(0, |progress| progress.committed),
            sample,
        })
    }

    pub(crate) async fn inspect_home(
        &self,
        tenant: &Tenant,
        owner: Id,
        limit: usize,
    ) -> Result<HomeInspection, FeedError> {
        let reader = self.reader(tenant, owner).await?;
        let (entries, meta) = self.home_entries(&reader, limit, false).await?;
        let ranked = self.ranked_page(&reader, None, crate::ranked::CANDIDATES).await?;
        let shown: Vec<_> = entries.iter().map(crate::home::HomeEntry::post).collect();
        let shown = self.shown(tenant, &shown, |_| false).await?;
        let entries = entries
            .iter()
            .zip(shown)
            .map(|(at, shown)| {
                let rank = ranked.items.iter().position(|(item, _)| item.at.id == at.id);
                EntryInspection {
                    id: at.id,
                    author: at.entry.author,
                    source: at.source,
                    rank: rank.map(|rank| rank + 1),
                    score: rank.and_then(|rank| Some(ranked.items.get(rank)?.1.score)),
                    hidden: match shown {
                        None => Some(Hidden::Deleted),
                        Some(_) => reader.viewer.hidden(&at.entry),
                    },
                }
            })
            .collect();
        let pulled_authors = reader
            .viewer
            .follows
            .iter()
            .filter(|author| reader.tiers.authors.contains_key(author))
            .copied()
            .collect();
        Ok(HomeInspection {
            floor: meta.floor,
            entries,
            follows: reader.viewer.follows.len(),
            pulled_authors,
        })
    }
}
