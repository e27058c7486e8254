//! The directory: which shard has which partition.
//!
//! A partition hashes to one of [`SLOTS`] slots, and the directory maps slots to shards; so a shard that is added
//! takes over slots, and no partition's hash changes (equal-sized partitions: DeCandia et al., "Dynamo", 2007, §6.2; Redis
//! Cluster's hash slots). A [`Rule`] gives some partitions a slot of their own, beyond the hashed ones:
//! one partition, one tenant, a list of prefixes (such as regions), or ranges. Of several that fit, the most specific
//! decides: partition, tenant, longest prefix, range (the oldest), hash.
//!
//! # How a slot can change hands
//!
//! Every node keeps a copy of the directory and refreshes it when a shard says so. Correctness does not depend on
//! the copies: each shard has a *fence*, a directory version, and the list of its slots with their states, and each
//! commit checks both in its own transaction. A commit or a read that was routed by a directory older than the fence is
//! sent back, and its node refreshes. To move a slot from one shard to another:
//!
//! 1. the directory says `frozen` (version v): nodes that know hold commits to the slot back; reads go on;
//! 2. the source's fence is raised to v (`holon.raise_fence`), which waits for running commits; its row in
//!    `holon.slots` becomes `frozen`. From here on the rows of the slot do not change;
//! 3. rows are copied, `holon.versions` of the target is advanced past that of the source, and the target gets the
//!    slot as `owned`;
//! 4. the directory names the target, `owned` (version v + 1), and the source's fence is raised to v + 1, its row
//!    becomes `moved`: readers with an older directory are sent back too, and what is left there may be deleted.
//!
//! | state | directory | shard |
//! |---|---|---|
//! | `owned` | reads and commits go to the shard | takes both |
//! | `frozen` | reads go to the shard, commits wait | refuses commits |
//! | `moved` | - | refuses commits, is not walked |
//!
//! [`crate::Postgres::place`] makes rules for partitions that have no rows yet, in the same steps without the copy.

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
}

/// Where a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub slot: i32,
    pub entry: Entry,
}

/// A copy of the directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory {
    pub version: i64,
    pub slots: HashMap<i32, Entry>,
    /// The most specific first.
    rules: Vec<(Rule, i32)>,
}

impl Directory {
    pub fn new(version: i64, slots: HashMap<i32, Entry>, mut rules: Vec<(Rule, i32)>) -> Self {
        rules.sort_by_key(|(rule, slot)| (std::cmp::Reverse(rule.rank()), *slot));
        Self {
            version,
            slots,
            rules,
        }
    }

    /// `None` if the directory has no entry for its slot: it is damaged.
    pub fn route(&self, partition: &Partition) -> Option<Route> {
        let ruled = self.rules.iter().find(|(rule, _)| rule.covers(partition));
        let slot = ruled.map_or_else(|| i32::from(slot_of(partition)), |(_, slot)| *slot);
        let entry = *self.slots.get(&slot)?;
        Some(Route { slot, entry })
    }

    pub fn rules(&self) -> impl Iterator<Item = (&Rule, i32)> {
        self.rules.iter().map(|(rule, slot)| (rule, *slot))
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
        let directory = Directory::new(1, slots.collect(), rules);
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
