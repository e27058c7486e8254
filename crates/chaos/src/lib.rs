//! Faults under load, and whether the promises held.
//!
//! - [`linear`]: whether a history of concurrent calls is linearisable.

pub mod linear;
