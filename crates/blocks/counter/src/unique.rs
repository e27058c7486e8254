//! Counters that count each member once, however often it is added, while they grow.
//!
//! # The parts
//!
//! A member has a row in one shard. Adding it is one commit to that shard: the row, on the condition that it is not
//! there; one more in the shard's count; and the caller's events. So the count is always the number of rows, and what
//! is told is what happened.
//!
//! # Growing
//!
//! With `2^g` shards a member's *home* is shard `h mod 2^g`, where `h` is a hash of the member that never changes
//! (linear hashing; Litwin, VLDB 1980). When the shards double, the home of half the members moves, but no row does:
//! rows stay where they were written, and a member is looked for in its homes of all generations, of which there are
//! at most nine. What must never happen is that a member gets a row in its new home while somebody who has not heard
//! of the growth writes one into the old home. Therefore:
//!
//! 1. Each commit that adds a member at generation `g` checks, in the same partition, that there is no *seal* for
//!    `g + 1`.
//! 2. Growing puts a seal for `g + 1` into every shard of generation `g`, and only then publishes generation `g + 1`.
//! 3. Adding a member at generation `g` first looks into its older homes. They are sealed, so nobody can add it
//!    there any more: if it is not there now, it never will be. Then the commit to its home decides.
//!
//! Homes only grow (`h mod 2^g <= h mod 2^(g+1)`), so an old home does not become the home again. Each answer takes
//! effect at one moment: that of the commit to the home, or of the read that found the member in an older one.
//!
//! Who finds a seal that was not published finishes the growing himself, so one who dies in the middle blocks nobody.

use crate::shards::{COUNTS, Known, ONLY, Shards, Verdict, generation_of};
use crate::{CounterError, CounterOptions, MAX_SHARDS, check_name};
use bytes::Bytes;
use holon_base::{Clock, Tenant, Timestamp};
use holon_ports::log::partition_of;
use holon_ports::store::{Batch, Condition, Consistency, Scan};
use holon_ports::{Cache, NewEvent, RowKey, Store, StoreError, Table};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(crate) const MEMBERS: Table = Table("counter.members");
pub(crate) const SEALS: Table = Table("counter.seals");

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// False if it was so already; then no event was told.
    pub changed: bool,
}

/// A member of a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// When it was added.
    pub added: Timestamp,
}

/// Members of a counter in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    pub items: Vec<Member>,
    /// Pass it on for those that follow; `None` at the end.
    pub next: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemberRecord {
    added: Timestamp,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Seal {}

/// Counters of members. Cheap to clone.
#[derive(Clone)]
pub struct UniqueCounters {
    shards: Shards,
}

/// Where a member may be: its homes of all generations up to one, the present one last, each once.
struct Homes {
    generation: u8,
    older: Vec<u16>,
    home: u16,
}

impl Homes {
    fn of(tenant: &Tenant, member: &str, generation: u8) -> Self {
        // The shards are powers of two up to this one, so the low bits of the largest answer are all the others.
        let hash = partition_of(tenant, member, MAX_SHARDS);
        let at = |generation: u8| hash & ((1 << generation) - 1);
        let home = at(generation);
        let mut older: Vec<u16> = (0..generation).map(at).filter(|shard| *shard != home).collect();
        older.dedup();
        Self {
            generation,
            older,
            home,
        }
    }

    fn all(&self) -> impl Iterator<Item = u16> {
        self.older.iter().copied().chain([self.home])
    }
}

/// The sort key of the seal that ends a generation.
fn seal_after(generation: u8) -> Bytes {
    Bytes::from(vec![generation + 1])
}

impl UniqueCounters {
    /// The [`crate::tables`] must be in the store before the first use.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, options: CounterOptions) -> Self {
        Self {
            shards: Shards::new("unique", store, clock, options),
        }
    }

    /// Keeps sums for [`Self::count_approximate`]; without a cache, that reads exactly.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn Cache>) -> Self {
        self.shards.set_cache(cache);
        self
    }

    /// Adds a member, unless it is one, and tells the events with it: one commit for a counter that never grew, and
    /// one more read for one that did. Safe to try again after any error.
    pub async fn add(
        &self,
        tenant: &Tenant,
        counter: &str,
        member: &str,
        events: Vec<NewEvent>,
    ) -> Result<Change, CounterError> {
        check_name("counter", counter)?;
        check_name("member", member)?;
        let known = self.shards.known(tenant, counter);
        let adding = self.add_once_known(&known, tenant, counter, member, &events);
        let change = self.shards.measured(&known, adding).await?;
        self.grow_if_busy(&known, tenant, counter).await;
        Ok(change)
    }

    async fn add_once_known(
        &self,
        known: &Known,
        tenant: &Tenant,
        counter: &str,
        member: &str,
        events: &[NewEvent],
    ) -> Result<Change, CounterError> {
        loop {
            let homes = Homes::of(tenant, member, known.generation());
            if self.find_older(tenant, counter, member, &homes).await?.is_some() {
                return Ok(Change { changed: false });
            }
            let record = MemberRecord {
                added: self.shards.clock.now(),
            };
            let batch = Batch::new()
                .check(SEALS, seal_after(homes.generation), Condition::Absent)
                .put_if_absent(MEMBERS, sort(member), &record)
                .add(COUNTS, ONLY, 1);
            let batch = events.iter().cloned().fold(batch, Batch::event);
            let home = self.shards.partition(tenant, counter, homes.home);
            match self.shards.store.commit(&home, batch).await {
                Ok(_) => return Ok(Change { changed: true }),
                Err(StoreError::ConditionFailed { op: 0 }) => {
                    self.catch_up(known, tenant, counter, homes.generation).await?;
                }
                Err(StoreError::ConditionFailed { .. }) => return Ok(Change { changed: false }),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes a member out, if it is one, and tells the events with it: one commit for a counter that never grew, and
    /// at most one read and one commit more for one that did. Safe to try again after any error.
    pub async fn remove(
        &self,
        tenant: &Tenant,
        counter: &str,
        member: &str,
        events: Vec<NewEvent>,
    ) -> Result<Change, CounterError> {
        check_name("counter", counter)?;
        check_name("member", member)?;
        let known = self.shards.known(tenant, counter);
        loop {
            let homes = Homes::of(tenant, member, known.generation());
            let older = self.find_older(tenant, counter, member, &homes).await?;
            for shard in older.into_iter().chain([homes.home]) {
                let batch = Batch::new()
                    .check(SEALS, seal_after(homes.generation), Condition::Absent)
                    .delete_if(MEMBERS, sort(member), Condition::Present)
                    .add(COUNTS, ONLY, -1);
                let batch = events.iter().cloned().fold(batch, Batch::event);
                let partition = self.shards.partition(tenant, counter, shard);
                match self.shards.store.commit(&partition, batch).await {
                    Ok(_) => return Ok(Change { changed: true }),
                    Err(StoreError::ConditionFailed { op: 0 }) => {
                        self.catch_up(&known, tenant, counter, homes.generation).await?;
                        break;
                    }
                    Err(StoreError::ConditionFailed { .. }) if shard == homes.home => {
                        return Ok(Change { changed: false });
                    }
                    // Another took it out of the older home; it may be in its home by now.
                    Err(StoreError::ConditionFailed { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    pub async fn contains(&self, tenant: &Tenant, counter: &str, member: &str) -> Result<bool, CounterError> {
        let found = self.contains_many(tenant, &[counter], member).await?;
        Ok(found.into_iter().any(|found| found))
    }

    /// Of which counters this is a member, in their order: one read of the store, and another if a counter has more
    /// shards than this process knew.
    pub async fn contains_many<S: AsRef<str>>(
        &self,
        tenant: &Tenant,
        counters: &[S],
        member: &str,
    ) -> Result<Vec<bool>, CounterError> {
        check_name("member", member)?;
        let mut found = vec![false; counters.len()];
        let mut open: Vec<usize> = (0..counters.len()).collect();
        while !open.is_empty() {
            let mut keys = Vec::with_capacity(open.len() * 2);
            let mut lookups = Vec::with_capacity(open.len());
            for &at in &open {
                let counter = counters[at].as_ref();
                check_name("counter", counter)?;
                let known = self.shards.known(tenant, counter);
                let homes = Homes::of(tenant, member, known.generation());
                keys.push(self.shards.directory_key(tenant, counter));
                keys.extend(
                    homes
                        .all()
                        .map(|shard| self.member_key(tenant, counter, member, shard)),
                );
                lookups.push((at, known, homes));
            }
            let rows = self.shards.store.get_many(&keys, Consistency::Strong).await?;
            let mut rows = rows.into_iter();
            open.clear();
            for (at, known, homes) in lookups {
                let generation = generation_of(rows.next().flatten().as_ref())?;
                let looked_at = homes.older.len() + 1;
                let here = rows.by_ref().take(looked_at).filter(Option::is_some).count() > 0;
                found[at] = here;
                if !here && generation > homes.generation {
                    known.learn(generation);
                    open.push(at);
                }
            }
        }
        Ok(found)
    }

    pub async fn count_exact(&self, tenant: &Tenant, counter: &str) -> Result<i64, CounterError> {
        let sums = self.counts(tenant, &[counter]).await?;
        Ok(sums.into_iter().sum())
    }

    /// A count that was exact at most [`CounterOptions::staleness`] ago.
    pub async fn count_approximate(&self, tenant: &Tenant, counter: &str) -> Result<i64, CounterError> {
        self.shards.approximate(tenant, counter).await
    }

    /// Exact counts of many counters, in their order: one read of the store, and another if a counter has more
    /// shards than this process knew.
    pub async fn counts<S: AsRef<str>>(
        &self,
        tenant: &Tenant,
        counters: &[S],
    ) -> Result<Vec<i64>, CounterError> {
        self.shards.sums(tenant, counters).await
    }

    /// Members in the byte order of their names, those after `after` if it is given. Each shard is read in order and
    /// merged, so the cost grows with the shards times the limit.
    pub async fn members(
        &self,
        tenant: &Tenant,
        counter: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Members, CounterError> {
        check_name("counter", counter)?;
        let published = self.shards.published(tenant, counter).await?;
        let limit = limit.max(1);
        let mut items = Vec::new();
        let mut more = false;
        for shard in 0..1_u16 << published.generation {
            let partition = self.shards.partition(tenant, counter, shard);
            let mut scan = Scan::all(MEMBERS, partition, limit);
            if let Some(after) = after {
                scan = scan.after(sort(after));
            }
            let page = self.shards.store.scan(&scan).await?;
            more |= page.more;
            for row in page.rows {
                let record: MemberRecord = row.json()?;
                let name = String::from_utf8(row.sort.to_vec())
                    .map_err(|_| StoreError::Corrupt("a member's name is no text".into()))?;
                items.push(Member {
                    name,
                    added: record.added,
                });
            }
        }
        items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // A member that moved while the shards were read may have been seen twice.
        items.dedup_by(|a, b| a.name == b.name);
        more |= items.len() > limit;
        items.truncate(limit);
        let next = if more {
            items.last().map(|member| member.name.clone())
        } else {
            None
        };
        Ok(Members { items, next })
    }

    /// How many shards a counter has.
    pub async fn shards(&self, tenant: &Tenant, counter: &str) -> Result<u16, CounterError> {
        check_name("counter", counter)?;
        let published = self.shards.published(tenant, counter).await?;
        Ok(1 << published.generation)
    }

    /// Doubles the shards of a counter, unless it has the most already, and answers how many there are. Happens by
    /// itself under load; call it for a counter that is known to become busy.
    pub async fn grow(&self, tenant: &Tenant, counter: &str) -> Result<u16, CounterError> {
        check_name("counter", counter)?;
        let known = self.shards.known(tenant, counter);
        let published = self.shards.published(tenant, counter).await?;
        known.learn(published.generation);
        if self.shards.may_grow(published.generation) {
            self.catch_up(&known, tenant, counter, published.generation)
                .await?;
        }
        Ok(1 << known.generation())
    }

    async fn grow_if_busy(&self, known: &Known, tenant: &Tenant, counter: &str) {
        if !matches!(self.shards.judge(known), Verdict::Busy) {
            return;
        }
        // The member is counted, so its caller must not see an error.
        if let Err(error) = self.grow(tenant, counter).await {
            tracing::warn!(counter, %error, "cannot give a counter more shards, will try again");
        }
    }

    /// Sees to it that a generation after this one is published, and learns of it.
    async fn catch_up(
        &self,
        known: &Known,
        tenant: &Tenant,
        counter: &str,
        generation: u8,
    ) -> Result<(), CounterError> {
        let published = self.shards.published(tenant, counter).await?;
        if published.generation > generation {
            known.learn(published.generation);
            return Ok(());
        }
        let seals = (0..1_u16 << generation)
            .map(|shard| {
                let seal = Batch::new().put(SEALS, seal_after(generation), &Seal {});
                (self.shards.partition(tenant, counter, shard), seal)
            })
            .collect();
        for sealed in self.shards.store.commit_many(seals).await {
            sealed?;
        }
        self.shards.publish_next(tenant, counter, &published).await?;
        // Whoever published it: all shards of the old generation are sealed.
        known.learn(generation + 1);
        Ok(())
    }

    /// The older home that holds a member.
    async fn find_older(
        &self,
        tenant: &Tenant,
        counter: &str,
        member: &str,
        homes: &Homes,
    ) -> Result<Option<u16>, StoreError> {
        if homes.older.is_empty() {
            return Ok(None);
        }
        let keys: Vec<RowKey> = homes
            .older
            .iter()
            .map(|shard| self.member_key(tenant, counter, member, *shard))
            .collect();
        let rows = self.shards.store.get_many(&keys, Consistency::Strong).await?;
        let at = rows.iter().position(Option::is_some);
        Ok(at.map(|at| homes.older[at]))
    }

    fn member_key(&self, tenant: &Tenant, counter: &str, member: &str, shard: u16) -> RowKey {
        RowKey::new(
            MEMBERS,
            self.shards.partition(tenant, counter, shard),
            sort(member),
        )
    }
}

fn sort(member: &str) -> Bytes {
    Bytes::copy_from_slice(member.as_bytes())
}
