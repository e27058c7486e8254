//! What an engine can be told at its start.

use holon_base::{Clock, SystemClock};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How an engine is opened. [`EngineOptions::new`] gives defaults that suit a small machine: with them an idle engine
/// takes some 40 MB of memory.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where everything is kept. Made if it is not there; of one engine at a time.
    pub dir: PathBuf,
    /// The number of this node in the ids that it makes, 0 to 1,023.
    pub node: u16,
    /// Decides what is expired and when events were told.
    pub clock: Arc<dyn Clock>,
    /// Memory for blocks of tables that were read, in bytes. What is read often should fit.
    pub cache_bytes: u64,
    /// How much is written to a keyspace before it goes from memory to a table on disk, in bytes. There are four
    /// keyspaces; a larger number means fewer, larger tables, more memory and a longer replay after a crash. Not larger than
    /// when the directory was made.
    pub memtable_bytes: u64,
    /// The journals are kept below this by writing tables, in bytes; at least 64 MiB. A restart after a crash reads
    /// at most this much and one journal (64 MiB) more.
    pub journal_bytes: u64,
    /// Threads that write and merge tables in the background.
    pub background_threads: usize,
    /// Commits that may wait for the committer; more wait at the door.
    pub queue: usize,
    /// Commits are refused with `Full` while the file system has less than this left, in bytes: what remains is
    /// needed to write and merge tables, to drop old events and to stop in good order.
    pub reserve_bytes: u64,
    /// How often expired rows are swept, old events dropped and committed offsets written when nothing else is.
    pub housekeeping: Duration,
    /// Answers how many bytes are left on the file system of a directory. Tests put their own here.
    pub free_space: FreeSpace,
}

type Probe = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

/// Answers how many bytes can still be written below a directory.
#[derive(Clone)]
pub struct FreeSpace(pub Arc<Probe>);

impl FreeSpace {
    /// Asks the file system.
    pub fn of_file_system() -> Self {
        Self(Arc::new(|dir| {
            let stat = rustix::fs::statvfs(dir)?;
            Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
        }))
    }
}

impl std::fmt::Debug for FreeSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FreeSpace(..)")
    }
}

impl EngineOptions {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            node: 0,
            clock: Arc::new(SystemClock),
            cache_bytes: 24 << 20,
            memtable_bytes: 4 << 20,
            journal_bytes: 64 << 20,
            background_threads: 1,
            queue: 4_096,
            reserve_bytes: 256 << 20,
            housekeeping: Duration::from_millis(500),
            free_space: FreeSpace::of_file_system(),
        }
    }

    #[must_use]
    pub fn node(mut self, node: u16) -> Self {
        self.node = node;
        self
    }

    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}
