//! Limits that hold everywhere, each with a name so that an error can say which one was met.

/// The largest value of one row, in bytes.
pub const ROW_BYTES: usize = 1 << 20;
/// The largest commit: the sum of its keys, values and events, in bytes.
pub const COMMIT_BYTES: usize = 4 << 20;
/// The largest partition or sort key, in bytes.
pub const KEY_BYTES: usize = 1 << 10;
/// The most items that a list answers at once.
pub const PAGE_ITEMS: usize = 200;
/// The items that a list answers when the caller names no limit.
pub const PAGE_ITEMS_DEFAULT: usize = 50;
/// The largest request body unless a route says otherwise, in bytes.
pub const BODY_BYTES: usize = 1 << 20;
/// How long a request may take unless a route says otherwise, in seconds.
pub const REQUEST_SECONDS: u64 = 30;
/// How long the answer to an idempotency key is kept, in seconds.
pub const IDEMPOTENCY_SECONDS: u64 = 24 * 60 * 60;
