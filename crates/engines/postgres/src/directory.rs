//! The directory: which shard has which partition.
//!
//! A partition hashes to one of [`SLOTS`] slots, and the directory maps slots to shards; so a shard that is added
//! takes over slots, and no partition's hash changes (equal-sized partitions: DeCandia et al., "Dynamo", 2007, §6.2; Redis
//! Cluster's hash slots). A [`Rule`] gives some partitions a slot of their own, beyond the hashed ones:
//! one partition, one tenant, a list of prefixes (such as regions), or ranges. Of several that fit, the most specific
//! decides: partition, tenant, longest prefix, range (the oldest), hash.
//!
//! # How it is kept
//!
//! Every node keeps a copy of the directory and refreshes it when a shard says so, and from time to time. Correctness
//! does not depend on the copies: each shard has a *fence*, a directory version, and the list of its slots with
//! their states, and each commit checks both in its own transaction. A commit or a read that was routed by a directory
//! older than the fence is sent back, and its node refreshes. A replica answers only if it has replayed the fence by
//! which the slot came to its shard. How a slot changes hands is told in [`crate::mover`].
//!
//! | state of a slot | directory | shard |
//! |---|---|---|
//! | `owned` | reads and commits go to the shard | takes both |
//! | `frozen` | reads go to the shard, commits wait | refuses commits |
//! | `pending` | a rule whose rows are being copied: decides nothing yet | - |
//! | `arriving` | - | refuses commits; rows are being copied here |
//! | `moved` | - | refuses commits; what is left of it is deleted |

use holon_base::Tenant;
use holon_ports::{Partition, log::partition_of};
use std::collections::HashMap;

/// Hashed slots.
pub const SLOTS: u16 = 4_096;

/// FNV-1a, 64 bit, with the high bits folded in; as [`partition_of`] has it.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash ^ hash >> 32
}

/// The hash of a partition: of tenant, a zero byte and entity.
pub(crate) fn hash(partition: &Partition) -> u64 {
    let tenant = partition.tenant.as_str().bytes();
    fnv(tenant.chain([0]).chain(partition.entity.bytes()))
}

/// The slot that a partition hashes to: [`partition_of`] over its tenant and entity, with [`SLOTS`] partitions.
pub fn slot_of(partition: &Partition) -> u16 {
    partition_of(&partition.tenant, &partition.entity, SLOTS)
}

/// Partitions that have a slot of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// One partition, such as a celebrity's.
    Partition(Partition),
    /// All of one tenant.
    Tenant(Tenant),
    /// Entities that start so, of one tenant or of all: a list, such as one of regions (`eu:`), is a rule an item.
    Prefix { tenant: Option<Tenant>, prefix: String },
    /// Entities from `low` up to, and without, `high`, in byte order.
    Range {
        tenant: Option<Tenant>,
        low: String,
        high: Option<String>,
    },
}

impl Rule {
    fn covers(&self, partition: &Partition) -> bool {
        let of_tenant = |tenant: &Option<Tenant>| tenant.as_ref().is_none_or(|t| *t == partition.tenant);
        let entity = partition.entity.as_str();
        match self {
            Self::Partition(one) => one == partition,
            Self::Tenant(tenant) => *tenant == partition.tenant,
            Self::Prefix { tenant, prefix } => of_tenant(tenant) && entity.starts_with(prefix.as_str()),
            Self::Range { tenant, low, high } => {
                let is_below = high.as_ref().is_none_or(|high| entity < high.as_str());
                of_tenant(tenant) && entity >= low.as_str() && is_below
            }
        }
    }

    /// More for what decides over others.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Partition(_) => (3, 0),
            Self::Tenant(_) => (2, 0),
            Self::Prefix { prefix, tenant } => (1, prefix.len() * 2 + usize::from(tenant.is_some())),
            Self::Range { .. } => (0, 0),
        }
    }

    /// Kind, tenant, low and high, as `holon.directory_rules` has them; texts are not escaped.
    pub(crate) fn row(&self) -> (&'static str, Option<&str>, Option<&str>, Option<&str>) {
        fn name(tenant: &Option<Tenant>) -> Option<&str> {
            tenant.as_ref().map(Tenant::as_str)
        }
        match self {
            Self::Partition(partition) => (
                "partition",
                Some(partition.tenant.as_str()),
                Some(&partition.entity),
                None,
            ),
            Self::Tenant(tenant) => ("tenant", Some(tenant.as_str()), None, None),
            Self::Prefix { tenant, prefix } => ("prefix", name(tenant), Some(prefix), None),
            Self::Range { tenant, low, high } => ("range", name(tenant), Some(low), high.as_deref()),
        }
    }

    /// Undoes [`Self::row`].
    pub(crate) fn from_row(
        kind: &str,
        tenant: Option<&str>,
        low: Option<String>,
        high: Option<String>,
    ) -> Option<Self> {
        let tenant = match tenant {
            Some(name) => Some(Tenant::new(name).ok()?),
            None => None,
        };
        Some(match kind {
            "partition" => Self::Partition(Partition::new(&tenant?, low?)),
            "tenant" => Self::Tenant(tenant?),
            "prefix" => Self::Prefix { tenant, prefix: low? },
            "range" => Self::Range {
                tenant,
                low: low?,
                high,
            },
            _ => return None,
        })
    }
}

/// Where a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its place among the shards of the options.
    pub shard: usize,
    /// Commits must wait.
    pub frozen: bool,
    /// The version by which it came there; a replica that has not replayed so far does not have its rows.
    pub arrived: i64,
}

/// Where a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub slot: i32,
    pub entry: Entry,
}

/// A rule, and the slot that it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruled {
    pub rule: Rule,
    pub slot: i32,
    /// If not, its rows are still on their way, and all that it decides is that commits wait while it is frozen.
    pub active: bool,
}

/// A copy of the directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory {
    pub version: i64,
    pub slots: HashMap<i32, Entry>,
    /// The most specific first.
    rules: Vec<Ruled>,
}

impl Directory {
    pub fn new(version: i64, slots: HashMap<i32, Entry>, mut rules: Vec<Ruled>) -> Self {
        rules.sort_by_key(|ruled| (std::cmp::Reverse(ruled.rule.rank()), ruled.slot));
        Self {
            version,
            slots,
            rules,
        }
    }

    /// `None` if the directory has no entry for its slot: it is damaged.
    pub fn route(&self, partition: &Partition) -> Option<Route> {
        let mut is_leaving = false;
        for ruled in self.rules.iter().filter(|ruled| ruled.rule.covers(partition)) {
            let entry = *self.slots.get(&ruled.slot)?;
            if ruled.active {
                return Some(Self::held(ruled.slot, entry, is_leaving));
            }
            is_leaving |= entry.frozen;
        }
        let slot = i32::from(slot_of(partition));
        Some(Self::held(slot, *self.slots.get(&slot)?, is_leaving))
    }

    fn held(slot: i32, mut entry: Entry, is_leaving: bool) -> Route {
        entry.frozen |= is_leaving;
        Route { slot, entry }
    }

    /// As it will be once a rule is active.
    pub fn with_active(&self, slot: i32) -> Self {
        let mut next = self.clone();
        for ruled in &mut next.rules {
            ruled.active |= ruled.slot == slot;
        }
        next
    }

    pub fn rules(&self) -> impl Iterator<Item = &Ruled> {
        self.rules.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_rule_decides() {
        let (main, shop) = (Tenant::default(), Tenant::new("shop").unwrap());
        let slots = (0..4_200).map(|slot| {
            (
                slot,
                Entry {
                    shard: 0,
                    frozen: false,
                    arrived: 0,
                },
            )
        });
        let prefix = |prefix: &str, tenant: Option<&Tenant>| Rule::Prefix {
            tenant: tenant.cloned(),
            prefix: prefix.into(),
        };
        let rules = vec![
            (
                Rule::Range {
                    tenant: None,
                    low: "m".into(),
                    high: Some("p".into()),
                },
                4_096,
            ),
            (prefix("eu:", None), 4_097),
            (prefix("eu:de:", None), 4_098),
            (prefix("eu:", Some(&main)), 4_099),
            (Rule::Tenant(shop.clone()), 4_100),
            (Rule::Partition(Partition::new(&shop, "eu:de:1")), 4_101),
        ];
        let rules = rules.into_iter().map(|(rule, slot)| Ruled {
            rule,
            slot,
            active: true,
        });
        let directory = Directory::new(1, slots.collect(), rules.collect());
        let slot = |tenant: &Tenant, entity: &str| {
            let partition = Partition::new(tenant, entity);
            directory.route(&partition).map(|route| route.slot)
        };
        let hashed = i32::from(slot_of(&Partition::new(&main, "user:1")));
        assert!(hashed < 4_096);
        assert_eq!(slot(&main, "user:1"), Some(hashed));
        assert_eq!(slot(&main, "n"), Some(4_096));
        assert_ne!(slot(&main, "p"), Some(4_096));
        assert_eq!(slot(&main, "eu:1"), Some(4_099));
        assert_eq!(slot(&main, "eu:de:1"), Some(4_098));
        assert_eq!(slot(&shop, "eu:de:2"), Some(4_100));
        assert_eq!(slot(&shop, "eu:de:1"), Some(4_101));
    }
}
