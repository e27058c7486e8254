//! Heads: the newest part of a home's two streams that nearly every read wants (the timeline and one's own outbox),
//! kept decoded.
//!
//! Only where one process writes all timelines, since it is dropped by whoever writes: after the commit and before
//! anything is acknowledged. A load that began before a write is not kept (see [`crate::cards`], which works the same way).

use crate::{
    Feed,
    error::FeedError,
    model::{Entry, TimelineMeta},
    timeline::TimelinePart,
};
use holon_base::{Id, Tenant};
use parking_lot::Mutex;
use std::sync::Arc;

/// Entries of each stream; a page of 50 needs no more, unless much of it is filtered out.
pub(crate) const HEAD: usize = 64;
/// How long a head is served without being read anew, in milliseconds: a net below the rule, not the rule.
const FRESH_MS: i64 = 30_000;
const SHARDS: usize = 64;

type Key = (Tenant, Id);

/// The newest entries of a timeline and of its owner's outbox.
#[derive(Debug)]
pub(crate) struct Head {
    pub meta: TimelineMeta,
    pub pushed: Vec<(Id, Entry)>,
    pub more_pushed: bool,
    pub own: Vec<(Id, Entry)>,
    pub more_own: bool,
    loaded: i64,
}

#[derive(Clone)]
struct ByBytes;

impl quick_cache::Weighter<Key, Arc<Head>> for ByBytes {
    fn weight(&self, _: &Key, head: &Arc<Head>) -> u64 {
        let entries = head.pushed.capacity() + head.own.capacity();
        (192 + entries * size_of::<(Id, Entry)>()) as u64
    }
}

pub(crate) struct Heads {
    kept: quick_cache::sync::Cache<Key, Arc<Head>, ByBytes>,
    epochs: Vec<Mutex<u64>>,
}

impl Heads {
    pub fn new(bytes: u64) -> Self {
        Self {
            kept: quick_cache::sync::Cache::with_weighter((bytes / 3_000) as usize, bytes, ByBytes),
            epochs: (0..SHARDS).map(|_| Mutex::new(0)).collect(),
        }
    }

    fn shard(&self, id: Id) -> &Mutex<u64> {
        let spread = id.as_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        &self.epochs[spread as usize % SHARDS]
    }

    /// Drops a head, and whatever is being loaded of it.
    pub fn forget(&self, tenant: &Tenant, id: Id) {
        let mut epoch = self.shard(id).lock();
        *epoch += 1;
        self.kept.remove(&(tenant.clone(), id));
    }
}

impl Feed {
    /// The head of somebody's home as it is now.
    pub(crate) async fn head(&self, tenant: &Tenant, id: Id) -> Result<Arc<Head>, FeedError> {
        let key = (tenant.clone(), id);
        let now = self.clock.now().millis();
        if let Some(head) = self.heads.kept.get(&key)
            && (0..FRESH_MS).contains(&(now - head.loaded))
        {
            return Ok(head);
        }
        let epoch = *self.heads.shard(id).lock();
        let part = self.timeline_part(tenant, id, Id::MAX, HEAD).await?;
        let TimelinePart {
            meta,
            mut entries,
            mut more,
        } = part;
        if entries.len() > HEAD {
            entries.truncate(HEAD);
            entries.shrink_to_fit();
            more = true;
        }
        let (own, more_own) = self.outbox(tenant, id, Id::MAX, HEAD).await?;
        let head = Arc::new(Head {
            meta,
            pushed: entries,
            more_pushed: more,
            own,
            more_own,
            loaded: now,
        });
        let current = self.heads.shard(id).lock();
        if *current == epoch {
            self.heads.kept.insert(key, head.clone());
        }
        Ok(head)
    }
}
