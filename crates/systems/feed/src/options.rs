//! What can be set.

use std::time::Duration;

/// How the feed works.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedOptions {
    /// Authors with fewer followers are pushed to all of them.
    pub push_below: u64,
    /// Authors with fewer followers, from `push_below` on, are pushed to active ones; from here on to nobody.
    pub active_below: u64,
    /// Whoever looked at their home within this time is active.
    pub active_for: Duration,
    /// How often activity is noted at most.
    pub activity_step: Duration,
    /// Entries that a timeline keeps.
    pub timeline_entries: usize,
    /// Entries beyond that before the oldest are dropped.
    pub timeline_slack: usize,
    /// How long a post can be edited.
    pub edit_window: Duration,
    /// How long a ranked order is served again.
    pub ranked_fresh: Duration,
    /// Partitions of the feed's topics. Fixed once there are events.
    pub post_partitions: u16,
    /// Members of each consumer group in this process.
    pub consumers: usize,
    /// Bytes of posts kept ready to be served.
    pub card_bytes: u64,
    /// Bytes of the newest entries of homes kept decoded.
    pub head_bytes: u64,
    /// Bytes of readers' graphs and marks kept decoded.
    pub reader_bytes: u64,
    /// False where several nodes share one store: live messages and invalidations then go to all of them.
    pub single_node: bool,
}

impl Default for FeedOptions {
    fn default() -> Self {
        Self {
            push_below: 10_000,
            active_below: 1_000_000,
            active_for: Duration::from_secs(7 * 24 * 3_600),
            activity_step: Duration::from_secs(3_600),
            timeline_entries: 800,
            timeline_slack: 80,
            edit_window: Duration::from_secs(300),
            ranked_fresh: Duration::from_secs(30),
            post_partitions: 8,
            consumers: 2,
            card_bytes: 32 << 20,
            head_bytes: 12 << 20,
            reader_bytes: 16 << 20,
            single_node: true,
        }
    }
}
