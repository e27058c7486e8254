//! What the benchmarks and the peer they bring share: the graph and the texts of the demo.

pub mod graph;
