//! What every other crate stands on: ids, time, order-preserving keys, signed cursors, error kinds and limits.
//!
//! Nothing here does I/O, and nothing here knows of a store, of HTTP or of any system.

pub mod cursor;
pub mod error;
pub mod id;
pub mod key;
pub mod limits;
#[cfg(feature = "openapi")]
mod openapi;
pub mod tenant;
pub mod time;
pub mod trace;

pub use cursor::{Cursor, CursorError, CursorSigner};
pub use error::ErrorKind;
pub use id::{Id, IdGenerator};
pub use key::{KeyReader, KeyWriter};
pub use tenant::Tenant;
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
