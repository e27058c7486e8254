//! Making timelines anew, one after the other, while they are read and written.
//!
//! A timeline that is being made has its floor at the top, so its reader pulls everything and sees all the while
//! what they should. Then its rows are dropped, and the newest posts are read from the outboxes: a post that was
//! pushed before the drop is in an outbox by then, one that is pushed after it stays. At last the entries and the new
//! floor are put in one commit. The epoch, which grows each time, tells a reader in the middle of a walk that the floor may have
//! sunk.

use crate::{
    Feed,
    error::FeedError,
    fanout::timeline_owner,
    graph::{TRIES, unchanged},
    home::Source,
    model::{FOLLOWS, META_SORT, TIMELINE, Tier, TimelineMeta, owner_of, timeline, timeline_sort},
};
use holon_base::{Id, Tenant};
use holon_ports::{Batch, Consistency, RowKey, Scan};
use std::collections::{BTreeMap, BTreeSet};

/// Rows dropped in one commit.
const DROPPED_AT_ONCE: usize = 2_000;

impl Feed {
    /// Makes every timeline anew from the outboxes.
    pub(crate) async fn rebuild_homes(&self) -> Result<(), FeedError> {
        let mut owners: BTreeSet<(Tenant, Id)> = BTreeSet::new();
        self.walk(FOLLOWS, |partition, _| {
            owners.extend(owner_of(partition, "user:").map(|id| (partition.tenant.clone(), id)));
            Ok(())
        })
        .await?;
        self.walk(TIMELINE, |partition, _| {
            owners.insert((partition.tenant.clone(), timeline_owner(partition)?));
            Ok(())
        })
        .await?;
        for (tenant, owner) in owners {
            self.rebuild_home(&tenant, owner).await?;
        }
        Ok(())
    }

    async fn rebuild_home(&self, tenant: &Tenant, owner: Id) -> Result<(), FeedError> {
        let partition = timeline(tenant, owner);
        let meta_key = RowKey::new(TIMELINE, partition.clone(), META_SORT);
        for _ in 0..TRIES {
            let row = self.ports.store.get(&meta_key, Consistency::Strong).await?;
            let before: TimelineMeta = match &row {
                Some(row) => row.json()?,
                None => TimelineMeta::default(),
            };
            let making = TimelineMeta {
                floor: Id::MAX,
                epoch: before.epoch + 1,
            };
            let batch = Batch::new().put_if(TIMELINE, META_SORT, &making, unchanged(row.as_ref()));
            let version = match self.commit_timeline(tenant, owner, batch).await {
                Ok(committed) => committed.version,
                Err(error) if error.is_condition_failed() => continue,
                Err(error) => return Err(error.into()),
            };
            self.drop_entries(tenant, owner).await?;
            let reader = self.reader(tenant, owner).await?;
            let keep = self.options.timeline_entries;
            let (entries, _) = self.home_entries(&reader, keep, false).await?;
            let floor = match entries.last() {
                Some(last) if entries.len() == keep => Id::from_u64(last.id.as_u64().saturating_sub(1)),
                _ => Id::MIN,
            };
            let made = TimelineMeta {
                floor,
                epoch: making.epoch + 1,
            };
            let mut batch = Batch::new().put_if(
                TIMELINE,
                META_SORT,
                &made,
                holon_ports::Condition::Version(version),
            );
            let is_pulled = |author: &Id| matches!(reader.tiers.authors.get(author), Some(record) if record.tier == Tier::Pull);
            for at in &entries {
                if at.source != Source::Own && !is_pulled(&at.entry.author) {
                    batch = batch.put_binary(TIMELINE, timeline_sort(at.id), at.entry.encode());
                }
            }
            match self.commit_timeline(tenant, owner, batch).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(FeedError::Busy)
    }

    /// Drops all entries of a timeline; its meta row stays.
    pub(crate) async fn drop_entries(&self, tenant: &Tenant, owner: Id) -> Result<(), FeedError> {
        let partition = timeline(tenant, owner);
        loop {
            let scan = Scan::all(TIMELINE, partition.clone(), DROPPED_AT_ONCE).after(META_SORT);
            let page = self.ports.store.scan(&scan).await?;
            if page.rows.is_empty() {
                return Ok(());
            }
            let batch = page
                .rows
                .into_iter()
                .fold(Batch::new(), |batch, row| batch.delete(TIMELINE, row.sort));
            self.commit_timeline(tenant, owner, batch).await?;
        }
    }

    /// Trims every timeline that is too long: those whose length was forgotten in a restart.
    pub(crate) async fn trim_all(&self) -> Result<(), FeedError> {
        let mut sizes: BTreeMap<(Tenant, Id), usize> = BTreeMap::new();
        self.walk(TIMELINE, |partition, _| {
            *sizes
                .entry((partition.tenant.clone(), timeline_owner(partition)?))
                .or_default() += 1;
            Ok(())
        })
        .await?;
        let most = self.options.timeline_entries + self.options.timeline_slack + 1;
        for ((tenant, owner), _) in sizes.into_iter().filter(|(_, size)| *size > most) {
            self.trim(&tenant, owner).await?;
        }
        Ok(())
    }
}
