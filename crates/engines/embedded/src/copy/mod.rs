//! Copying a data directory: a view of everything as it was at one moment, and writing everything as it was elsewhere.
//!
//! [`Snapshot`] reads rows, events, offsets and dead letters under one snapshot of the database, while the engine goes
//! on: each commit is in it whole, with its events, or not at all. The offsets in it may be older than the last ones
//! that were committed, never newer than the work that they stand for, so that whoever goes on from a copy does some
//! work again and none too little.
//!
//! What `import_...` writes keeps the versions, offsets, ids and times that it had. It is for a directory that nobody
//! uses yet; the engine must be opened anew before it is used, since it knows its versions and ids from the start on.

mod export;
mod import;

pub use export::{Committed, Mark, Page, Snapshot};
