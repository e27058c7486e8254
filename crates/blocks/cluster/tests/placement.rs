//! Placement by property: everybody has a share by weight, and no shard moves that need not.
#![allow(clippy::unwrap_used, reason = "a failing test should fail")]

use holon_cluster::placement::{Weighted, owners};
use proptest::prelude::*;
use std::collections::BTreeSet;

const SHARDS: u32 = 512;

/// Nodes of different numbers, each with some capacity.
fn nodes() -> impl Strategy<Value = Vec<Weighted>> {
    prop::collection::btree_map(0_u16..512, 1_u32..=16, 2..9).prop_map(|nodes| {
        let nodes = nodes.into_iter();
        nodes
            .map(|(node, capacity)| Weighted { node, capacity })
            .collect()
    })
}

fn owner(nodes: &[Weighted], shard: u32) -> u16 {
    owners(nodes, "maps", shard, 1)[0]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// When a node goes, its shards go to whoever came next, and no other shard moves; coming is going backwards.
    #[test]
    fn only_what_must_move_moves(nodes in nodes(), gone in any::<prop::sample::Index>()) {
        let gone = nodes[gone.index(nodes.len())];
        let rest: Vec<Weighted> = nodes.iter().copied().filter(|node| *node != gone).collect();
        for shard in 0..SHARDS {
            let before = owners(&nodes, "maps", shard, 2);
            let after = owner(&rest, shard);
            let expected = if before[0] == gone.node { before[1] } else { before[0] };
            prop_assert_eq!(after, expected);
        }
    }

    /// With more capacity a node takes shards from others and loses none, and none move between others.
    #[test]
    fn more_capacity_only_takes(nodes in nodes(), grown in any::<prop::sample::Index>(), by in 1_u32..16) {
        let grown = grown.index(nodes.len());
        let mut after = nodes.clone();
        after[grown].capacity += by;
        for shard in 0..SHARDS {
            let (old, new) = (owner(&nodes, shard), owner(&after, shard));
            prop_assert!(new == old || new == nodes[grown].node);
        }
    }

    /// Neither the order in which nodes are known nor nodes that can bear nothing change anything; copies are on different
    /// nodes, and more copies leave the first where they are.
    #[test]
    fn everybody_finds_the_same(nodes in nodes(), copies in 1_usize..12) {
        let mut known = nodes.clone();
        known.reverse();
        known.push(Weighted { node: 600, capacity: 0 });
        for shard in 0..64 {
            let found = owners(&nodes, "maps", shard, copies);
            prop_assert_eq!(&owners(&known, "maps", shard, copies), &found);
            prop_assert_eq!(found.len(), copies.min(nodes.len()));
            prop_assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
            prop_assert_eq!(&owners(&nodes, "maps", shard, 1)[..], &found[..1]);
        }
    }

    /// A node has about its share of the capacity: within five standard deviations of what chance would give it.
    #[test]
    fn shares_are_by_capacity(nodes in nodes()) {
        const MANY: u32 = 4_096;
        let all: u32 = nodes.iter().map(|node| node.capacity).sum();
        let found: Vec<u16> = (0..MANY).map(|shard| owner(&nodes, shard)).collect();
        for node in &nodes {
            let share = f64::from(node.capacity) / f64::from(all);
            let expected = share * f64::from(MANY);
            let deviation = (expected * (1.0 - share)).sqrt();
            let has = found.iter().filter(|owner| **owner == node.node).count() as f64;
            prop_assert!((has - expected).abs() <= 5.0 * deviation, "{node:?} of {all} has {has}, not {expected}");
        }
    }
}

#[test]
fn nobody_owns_what_nobody_can_bear() {
    assert!(owners(&[], "maps", 0, 2).is_empty());
    let none = [Weighted { node: 1, capacity: 0 }];
    assert!(owners(&none, "maps", 0, 2).is_empty());
}
