//! What the engine counts about itself, for the administrator's page.

use holon_ports::log::Bounds;
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Groups are counted by size: 1, 2-3, 4-7, ... 512 and more.
pub const GROUP_BUCKETS: usize = 10;

/// Counted since the engine was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub commits: AtomicU64,
    pub refused: AtomicU64,
    pub rows: AtomicU64,
    pub events: AtomicU64,
    pub groups: AtomicU64,
    pub group_sizes: [AtomicU64; GROUP_BUCKETS],
    /// Spent in writing and syncing the journal.
    pub journal_micros: AtomicU64,
    pub swept: AtomicU64,
    samples: Mutex<VecDeque<(Instant, u64)>>,
}

impl Counters {
    pub fn count_group(&self, commits: u64, refused: u64, rows: u64, events: u64, took: Duration) {
        self.commits.fetch_add(commits, Ordering::Relaxed);
        self.refused.fetch_add(refused, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.events.fetch_add(events, Ordering::Relaxed);
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.journal_micros
            .fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        let bucket = (commits.max(1).ilog2() as usize).min(GROUP_BUCKETS - 1);
        self.group_sizes[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Remembers how far the count is now; the rate is taken over the last ten seconds.
    pub fn sample(&self) {
        let mut samples = self.samples.lock();
        samples.push_back((Instant::now(), self.commits.load(Ordering::Relaxed)));
        while samples
            .front()
            .is_some_and(|(at, _)| at.elapsed() > Duration::from_secs(10))
        {
            samples.pop_front();
        }
    }

    pub fn commits_per_second(&self) -> f64 {
        let Some((since, before)) = self.samples.lock().front().copied() else {
            return 0.0;
        };
        let seconds = since.elapsed().as_secs_f64();
        if seconds < 0.001 {
            return 0.0;
        }
        (self.commits.load(Ordering::Relaxed) - before) as f64 / seconds
    }
}

/// How the engine is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineStats {
    /// Why nothing can be written any more; `None` while all is well.
    pub failure: Option<String>,
    /// Commits acknowledged since the engine was opened.
    pub commits: u64,
    /// Commits answered with a failed condition or another refusal of the committer.
    pub refused: u64,
    /// Over the last ten seconds.
    pub commits_per_second: f64,
    pub rows_written: u64,
    pub events_written: u64,
    /// Journal writes, each with one sync.
    pub groups: u64,
    /// Commits that shared one sync, on average.
    pub group_size: f64,
    /// Groups of 1, 2-3, 4-7, ... 512 and more commits.
    pub group_sizes: Vec<u64>,
    /// Mean time to write and sync one group, in microseconds.
    pub group_micros: f64,
    /// Requests that wait for the committer.
    pub queue_depth: usize,
    /// Expired rows removed since the engine was opened.
    pub rows_swept: u64,
    /// Tables and journals, in bytes.
    pub disk_bytes: u64,
    pub journal_bytes: u64,
    /// Left on the file system, in bytes.
    pub free_bytes: u64,
    pub cache_bytes: u64,
    pub cache_capacity_bytes: u64,
    pub memtable_bytes: u64,
    pub topics: Vec<TopicStats>,
}

/// How a topic is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicStats {
    pub name: &'static str,
    pub partitions: Vec<PartitionStats>,
}

/// What a partition of a topic holds: offsets `first..next`, taking `bytes`.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStats {
    pub first: u64,
    pub next: u64,
    pub bytes: u64,
}

impl PartitionStats {
    pub fn bounds(&self) -> Bounds {
        Bounds {
            first: self.first,
            next: self.next,
        }
    }
}
