//! Who is there, as one node sees it.

use crate::{
    facts::{NodeFacts, Shards},
    placement::{Weighted, owners},
};
use holon_base::Timestamp;
use std::collections::BTreeMap;

/// Whether a node is heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Liveness {
    Alive,
    /// Not heard of for unusually long; still counted on.
    Suspect,
    /// Not heard of for so long that others have what it had.
    Dead,
    /// It said that it ends.
    Left,
}

impl Liveness {
    /// Whether a node has shards, and is asked for things.
    pub fn is_counted_on(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// A node that is or was there.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub facts: NodeFacts,
    pub liveness: Liveness,
    /// When it came to be so, by this node's clock.
    pub since: Timestamp,
    /// How unusual the present silence is: its length over the usual one. A node is dead above
    /// [`crate::membership::PHI_DEAD`].
    pub phi: f64,
}

/// All nodes that this node knows of, by their number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    pub members: BTreeMap<u16, Member>,
}

impl View {
    pub fn member(&self, node: u16) -> Option<&Member> {
        self.members.get(&node)
    }

    /// The nodes that are counted on.
    pub fn living(&self) -> impl Iterator<Item = &Member> {
        self.members
            .values()
            .filter(|member| member.liveness.is_counted_on())
    }

    /// How a service is divided, by the word of whoever takes its shards. If nodes differ, as they may while a new version
    /// comes in, the word of the one that started last is taken.
    pub fn shards(&self, service: &str) -> Option<Shards> {
        self.living()
            .filter_map(|member| {
                let shards = member.facts.services.get(service)?;
                Some((member.facts.started, member.facts.node, *shards))
            })
            .max_by_key(|(started, node, _)| (*started, *node))
            .map(|(_, _, shards)| shards)
    }

    /// The nodes that have a shard: the owner first. Empty if nobody takes shards of this service.
    pub fn owners(&self, service: &str, shard: u32) -> Vec<u16> {
        let Some(shards) = self.shards(service) else {
            return Vec::new();
        };
        owners(&self.takers(service), service, shard, shards.copies)
    }

    /// Who takes shards of a service.
    pub fn takers(&self, service: &str) -> Vec<Weighted> {
        self.living()
            .filter(|member| member.facts.services.contains_key(service))
            .map(|member| Weighted {
                node: member.facts.node,
                capacity: member.facts.capacity,
            })
            .collect()
    }

    /// The services that somebody takes shards of.
    pub fn services(&self) -> BTreeMap<String, Shards> {
        let names = self.living().flat_map(|member| member.facts.services.keys());
        names
            .filter_map(|name| Some((name.clone(), self.shards(name)?)))
            .collect()
    }

    /// The same but for what changes all the time.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let same =
            |(a, b): (&Member, &Member)| a.facts == b.facts && a.liveness == b.liveness && a.since == b.since;
        self.members.len() == other.members.len()
            && self.members.values().zip(other.members.values()).all(same)
    }
}
