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
    graph::{TRIES, unchanged},
    home::Source,
    model::{FOLLOWS, META_SORT, TIMELINE, Tier, TimelineMeta, owner_of, timeline},
    pack,
    timeline::{packed, timeline_owner},
};
use holon_base::{Id, Tenant};
use holon_ports::Batch;
use std::collections::BTreeSet;

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
        for _ in 0..TRIES {
            let row = self.timeline_meta(&partition).await?;
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
            let pushed: Vec<_> = entries
                .iter()
                .filter(|at| at.source != Source::Own && !is_pulled(&at.entry.author))
                .map(|at| (at.id, at.entry))
                .collect();
            batch = packed(batch, &pushed, pack::Source::Rebuild);
            match self.commit_timeline(tenant, owner, batch).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(FeedError::Busy)
    }
}
