//! Faults under load, and whether the promises held.
//!
//! Two things are tried. That the *Store* is linearisable while its servers die: [`linear`]. And that the whole loses
//! nothing, does nothing twice, and shows everybody the home that the definition says, while anything dies:
//!
//! ```text
//!  load ──► public HTTP ──► nodes ◄── faults
//!    │                        ▲
//!    ▼                        │ lists, counts, homes
//!  journal ─► expected ─────► judge ──► complaints, in words
//! ```
//!
//! - [`load`] is people who post, follow, like and take it back through good [`client`]s; what they asked for and were told
//!   goes into the [`journal`].
//! - [`expected`] is what must be there, from that journal alone; [`observe`] is what the nodes show, and [`judge`] holds
//!   one against the other. [`oracle`] is the definition of a home.

pub mod client;
pub mod disk;
pub mod expected;
pub mod faults;
pub mod http;
pub mod journal;
pub mod judge;
pub mod linear;
pub mod load;
pub mod observe;
pub mod oracle;
pub mod results;
pub mod round;
pub mod sessions;

use holon_lab::ClusterOptions;

/// A cluster for chaos: nobody is told to slow down, and tiers are so low that all ways of fan-out are in play.
pub fn cluster(options: ClusterOptions) -> ClusterOptions {
    options
        .set("rate_limit.enabled", "false")
        .set("feed.push_below", "8")
        .set("feed.active_below", "12")
}
