//! Timelines as rows: reading them, adding to them, taking out of them and keeping them short. See [`crate::pack`] for
//! what a row is.
//!
//! # The floor
//!
//! A timeline keeps about `timeline_entries`. Who writes to it counts along, roughly; beyond the slack the oldest
//! are dropped and the floor is raised over them, in one commit. A back-fill of an author with more posts than a timeline
//! keeps raises the floor too.

use crate::{
    Feed,
    error::FeedError,
    graph::{TRIES, unchanged},
    model::{Entry, META_SORT, TIMELINE, TimelineMeta, owner_of, timeline},
    pack::{self, PACK_ENTRIES, Settled, Source, pack_newest, pack_sort},
};
use holon_base::{Id, Tenant};
use holon_ports::{Batch, Committed, Condition, Consistency, Partition, Row, RowKey, Scan, StoreError};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// Packs read at once where a timeline is read to its end.
const CHUNK: usize = 512;

/// A part of a timeline.
pub(crate) struct TimelinePart {
    pub meta: TimelineMeta,
    /// Newest first.
    pub entries: Vec<(Id, Entry)>,
    /// Whether there may be more above the floor.
    pub more: bool,
}

/// Entries as rows of a timeline, in packs that a row can hold. They are newest first, each once.
pub(crate) fn packed(mut batch: Batch, entries: &[(Id, Entry)], source: Source) -> Batch {
    for some in entries.chunks(PACK_ENTRIES) {
        if let Some((newest, _)) = some.first() {
            let bytes = pack::encode(some.iter().map(|(id, entry)| (*id, entry)));
            batch = batch.put_binary(TIMELINE, pack_sort(*newest, source), bytes);
        }
    }
    batch
}

/// The owner of a timeline's partition.
pub(crate) fn timeline_owner(partition: &Partition) -> Result<Id, StoreError> {
    owner_of(partition, "timeline:")
        .ok_or_else(|| StoreError::Corrupt(format!("{} is no timeline", partition.entity)))
}

fn meta_of(row: Option<&Row>) -> Result<TimelineMeta, StoreError> {
    row.map_or(Ok(TimelineMeta::default()), Row::json)
}

impl Feed {
    /// At least `limit` entries of a timeline older than `before`, or all there are. Meta and entries are of one
    /// moment, or of moments between which the meta row did not change.
    ///
    /// The start of a timeline is one short scan. Packs overlap, so anything further down is read from the start on:
    /// O(entries kept).
    pub(crate) async fn timeline_part(
        &self,
        tenant: &Tenant,
        owner: Id,
        before: Id,
        limit: usize,
    ) -> Result<TimelinePart, FeedError> {
        let partition = timeline(tenant, owner);
        // Each pack has an entry at least, and the meta row is one of the rows.
        let chunk = if before == Id::MAX { limit + 2 } else { CHUNK };
        'anew: loop {
            let mut page = self
                .ports
                .store
                .scan(&Scan::all(TIMELINE, partition.clone(), chunk))
                .await?;
            let meta_row = page.rows.first().filter(|row| row.sort == META_SORT).cloned();
            let meta = meta_of(meta_row.as_ref())?;
            let mut settled = Settled::default();
            loop {
                let mut below_floor = false;
                for row in &page.rows {
                    let Some(newest) = pack_newest(&row.sort)? else {
                        continue;
                    };
                    below_floor = newest <= meta.floor;
                    if below_floor {
                        break;
                    }
                    settled.add(newest, &row.bytes())?;
                }
                let last = page.rows.last().filter(|_| page.more && !below_floor);
                let Some(last) = last else {
                    let (entries, more) = settled.finish(meta.floor, before, true);
                    return Ok(TimelinePart { meta, entries, more });
                };
                if settled.count(before) >= limit {
                    let (entries, more) = settled.finish(meta.floor, before, false);
                    return Ok(TimelinePart { meta, entries, more });
                }
                let scan = Scan::all(TIMELINE, partition.clone(), CHUNK).after(last.sort.clone());
                page = self.ports.store.scan(&scan).await?;
                let now = self.timeline_meta(&partition).await?;
                if now.as_ref().map(|row| row.version) != meta_row.as_ref().map(|row| row.version) {
                    continue 'anew;
                }
            }
        }
    }

    pub(crate) async fn timeline_meta(&self, partition: &Partition) -> Result<Option<Row>, StoreError> {
        let key = RowKey::new(TIMELINE, partition.clone(), META_SORT);
        self.ports.store.get(&key, Consistency::Strong).await
    }

    /// Writes to a timeline. Every write to one goes through here or [`Feed::commit_timelines`].
    pub(crate) async fn commit_timeline(
        &self,
        tenant: &Tenant,
        owner: Id,
        batch: Batch,
    ) -> Result<Committed, StoreError> {
        let answer = self.ports.store.commit(&timeline(tenant, owner), batch).await;
        self.heads.forget(tenant, owner);
        answer
    }

    /// Writes to many timelines.
    pub(crate) async fn commit_timelines(&self, writes: Vec<(Tenant, Id, Batch)>) -> Result<(), FeedError> {
        if writes.is_empty() {
            return Ok(());
        }
        let mut owners = Vec::with_capacity(writes.len());
        let mut commits = Vec::with_capacity(writes.len());
        for (tenant, owner, batch) in writes {
            commits.push((timeline(&tenant, owner), batch));
            owners.push((tenant, owner));
        }
        let answers = self.ports.store.commit_many(commits).await;
        for (tenant, owner) in &owners {
            self.heads.forget(tenant, *owner);
        }
        for answer in answers {
            answer?;
        }
        Ok(())
    }

    /// Whether a timeline holds an entry.
    pub(crate) async fn timeline_has(&self, tenant: &Tenant, owner: Id, id: Id) -> Result<bool, FeedError> {
        Ok(!self.packs_with(&timeline(tenant, owner), id).await?.is_empty())
    }

    /// The packs that hold an entry, with the others that they hold.
    async fn packs_with(
        &self,
        partition: &Partition,
        id: Id,
    ) -> Result<Vec<(Row, Vec<(Id, Entry)>)>, FeedError> {
        let mut found = Vec::new();
        self.each_row(Scan::all(TIMELINE, partition.clone(), CHUNK), |row| {
            if pack_newest(&row.sort)?.is_some_and(|newest| newest >= id) {
                let mut entries = Vec::new();
                pack::decode(&row.bytes(), &mut entries)?;
                let before = entries.len();
                entries.retain(|(held, _)| *held != id);
                if entries.len() < before {
                    found.push((row.clone(), entries));
                }
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// Takes an entry out of a timeline, if it is there.
    pub(crate) async fn take_out(&self, tenant: &Tenant, owner: Id, id: Id) -> Result<(), FeedError> {
        let partition = timeline(tenant, owner);
        for _ in 0..TRIES {
            let found = self.packs_with(&partition, id).await?;
            if found.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for (row, others) in found {
                let condition = Condition::Version(row.version);
                batch = if others.is_empty() {
                    batch.delete_if(TIMELINE, row.sort, condition)
                } else {
                    let bytes = pack::encode(others.iter().map(|(id, entry)| (*id, entry)));
                    batch.put_binary_if(TIMELINE, row.sort, bytes, condition)
                };
            }
            match self.commit_timeline(tenant, owner, batch).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(FeedError::Busy)
    }

    /// Counts what was put into a timeline; true when it is time to trim it. What is not remembered counts as full.
    pub(crate) fn count_pushed(&self, tenant: &Tenant, reader: Id, pushed: usize) -> bool {
        let size = self.timeline_size(tenant, reader);
        let pushed = pushed as u32;
        let size = size.fetch_add(pushed, Ordering::Relaxed).saturating_add(pushed);
        size as usize > self.options.timeline_entries + self.options.timeline_slack
    }

    /// The count of a timeline's entries, which members of the fan-out share: never too small, since a trim takes from it
    /// only what was counted before it looked.
    fn timeline_size(&self, tenant: &Tenant, reader: Id) -> Arc<AtomicU32> {
        let full = || Ok::<_, Infallible>(Arc::new(AtomicU32::new(self.options.timeline_entries as u32)));
        let key = (tenant.clone(), reader);
        match self.timeline_sizes.get_or_insert_with(&key, full) {
            Ok(size) => size,
            Err(never) => match never {},
        }
    }

    /// Drops what a timeline holds beyond its size and raises its floor over it, in one commit.
    pub(crate) async fn trim(&self, tenant: &Tenant, reader: Id) -> Result<(), FeedError> {
        let keep = self.options.timeline_entries;
        let partition = timeline(tenant, reader);
        let size = self.timeline_size(tenant, reader);
        for _ in 0..TRIES {
            let counted = size.load(Ordering::Relaxed);
            let is = |entries: usize| {
                size.fetch_sub(counted.saturating_sub(entries as u32), Ordering::Relaxed);
            };
            let meta_row = self.timeline_meta(&partition).await?;
            let meta = meta_of(meta_row.as_ref())?;
            let mut packs = Vec::new();
            let mut entries = Vec::new();
            self.each_row(Scan::all(TIMELINE, partition.clone(), CHUNK), |row| {
                if let Some(newest) = pack_newest(&row.sort)? {
                    packs.push((newest, row.sort.clone()));
                    pack::decode(&row.bytes(), &mut entries)?;
                }
                Ok(())
            })
            .await?;
            let mut ids: Vec<Id> = entries.iter().map(|(id, _)| *id).collect();
            ids.retain(|id| *id > meta.floor);
            ids.sort_unstable_by(|a, b| b.cmp(a));
            ids.dedup();
            let floor = ids.get(keep).copied().unwrap_or(meta.floor);
            packs.retain(|(newest, _)| *newest <= floor);
            if packs.is_empty() && floor == meta.floor {
                is(ids.len());
                return Ok(());
            }
            let raised = TimelineMeta { floor, ..meta };
            let mut batch = Batch::new().put_if(TIMELINE, META_SORT, &raised, unchanged(meta_row.as_ref()));
            for (_, sort) in packs {
                batch = batch.delete(TIMELINE, sort);
            }
            match self.commit_timeline(tenant, reader, batch).await {
                Ok(_) => {
                    is(ids.len().min(keep));
                    return Ok(());
                }
                Err(error) if error.is_condition_failed() => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Somebody else trims it just now.
        Ok(())
    }

    /// Drops all entries of a timeline; its meta row stays.
    pub(crate) async fn drop_entries(&self, tenant: &Tenant, owner: Id) -> Result<(), FeedError> {
        let partition = timeline(tenant, owner);
        loop {
            let scan = Scan::all(TIMELINE, partition.clone(), CHUNK).after(META_SORT);
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
        let mut entries = Vec::new();
        self.walk(TIMELINE, |partition, row| {
            if pack_newest(&row.sort)?.is_some() {
                entries.clear();
                pack::decode(&row.bytes(), &mut entries)?;
                let owner = (partition.tenant.clone(), timeline_owner(partition)?);
                *sizes.entry(owner).or_default() += entries.len();
            }
            Ok(())
        })
        .await?;
        let most = self.options.timeline_entries + self.options.timeline_slack;
        for ((tenant, owner), _) in sizes.into_iter().filter(|(_, size)| *size > most) {
            self.trim(&tenant, owner).await?;
        }
        Ok(())
    }
}
