//! Which nodes have which shards: rendezvous hashing, weighted by capacity.
//!
//! Every node gives every shard a score, and the shard belongs to the nodes that give it the highest ones (Thaler and
//! Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998). Nobody has to agree on anything but on who is
//! there: whoever knows the same members finds the same owners. When a node goes, only its shards move, since no other
//! node's score has changed; when one comes, it takes shards from the others and moves none between them.
//!
//! Capacity comes in by the logarithmic method (Schindler and Schomaker, "Weighted Distributed Hash Tables", 2005): with
//! `h` drawn uniformly from (0, 1) by the hash of node and shard, the score is `-capacity / ln(h)`. Then `-ln(h)/capacity`
//! is exponentially distributed with rate `capacity`, and of independent exponentials the smallest is node `i`'s with
//! probability `capacity_i / Σ capacity`: each node has its share exactly, in expectation, whatever the others have.
//!
//! Scores are floating-point numbers, so nodes of one deployment must compute `ln` alike: two scores that differ in the
//! last bit only would have to be compared for it to matter, one chance in some 2⁵⁰ for a shard.

use sha2::{Digest as _, Sha256};

/// A node and how much it can bear, in units of the operator's choosing; 0 for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weighted {
    pub node: u16,
    pub capacity: u32,
}

/// The nodes that have a shard, at most `copies` of them: the owner first, then those that come next. Empty if no node
/// has any capacity. O(nodes · log nodes).
pub fn owners(nodes: &[Weighted], service: &str, shard: u32, copies: usize) -> Vec<u16> {
    let mut scored: Vec<(f64, u16)> = nodes
        .iter()
        .filter(|node| node.capacity > 0)
        .map(|node| (score(*node, service, shard), node.node))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scored.truncate(copies);
    scored.into_iter().map(|(_, node)| node).collect()
}

fn score(node: Weighted, service: &str, shard: u32) -> f64 {
    let hash = Sha256::new()
        .chain_update(node.node.to_be_bytes())
        .chain_update(shard.to_be_bytes())
        .chain_update(service.as_bytes())
        .finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    // The upper 53 bits, as many as a float holds, and a half: never 0, never 1.
    let uniform = ((u64::from_be_bytes(first) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(node.capacity) / uniform.ln()
}
