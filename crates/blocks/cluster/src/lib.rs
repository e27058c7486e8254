//! Many nodes as one: who is there, who has what, how one asks another, and who leads.
//!
//! - [`membership`]: nodes gossip what they are and that they live; a silent one is found dead by how unusual its silence is.
//! - [`placement`]: which nodes have which shards of in-memory state, by rendezvous hashing weighted by capacity. Nobody
//!   assigns anything: whoever knows the same members finds the same owners.
//! - [`Cluster::call`] asks whoever has a shard: in process if this node has it, by gRPC if another; with a deadline that
//!   goes along, and errors that say whether it may have been done. [`Handler`] is what answers.
//! - [`leader`]: at most one node leads, by a lease; [`fence`] has the store refuse what one that led before still writes.
//!
//! What placement says is a guess that all nodes make alike, once they have heard the same; for a moment two can think that
//! they own a shard. That is right for read models, which each can rebuild, and for nothing else. What must be done by one
//! alone is done under a [`leader::Term`], and what must be written by one alone under a [`fence::Claim`].
//!
//! ```text
//!  Cluster::call(service, shard) ─► view().owners(service, shard) ─┬─ this node ──► Handler
//!                                        ▲                        └─ another ─gRPC─► its Handler
//!                                   membership (gossip, φ)
//! ```

mod call;
mod client;
mod cluster;
mod facts;
pub mod fence;
pub mod leader;
pub mod membership;
pub mod placement;
mod secret;
mod server;
mod view;
mod wire;

pub use call::{CallError, Handler, MESSAGE_BYTES, Request};
pub use cluster::{Cluster, ClusterError, JoinOptions, Listener};
pub use facts::{NodeFacts, Shards};
pub use membership::Timing;
pub use secret::Key;
pub use view::{Liveness, Member, View};
