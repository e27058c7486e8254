//! What systems know of each other: event types, versioned, and the traits that one system implements and another
//! calls, in process or over the wire. Nothing here does anything.
//!
//! Fields of an event are only ever added, with a default; a breaking change is a new type.

pub mod feed;
pub mod identity;
pub mod person;
