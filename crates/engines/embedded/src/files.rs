//! The files: one fjall database with four keyspaces, and a lock so that one process has them.

use crate::{EngineError, encoding::row_head, options::EngineOptions};
use fjall::{
    AbstractTree as _, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable,
    Slice, Snapshot,
};
use holon_ports::{LogError, StoreError};
use std::{
    fs::{File, TryLockError},
    io::{ErrorKind, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long closing waits for tables to be written.
const FLUSH_TIME: Duration = Duration::from_secs(30);

/// The open database. Clones share it; when the last is dropped, the files are closed.
#[derive(Clone)]
pub(crate) struct Files {
    pub db: Database,
    pub rows: Keyspace,
    pub events: Keyspace,
    pub expiry: Keyspace,
    pub meta: Keyspace,
    /// No batch that is being written has a lower number than this; `u64::MAX` while none is.
    in_flight: Arc<AtomicU64>,
    /// The version of the last commit whose batch is written: what a snapshot sees at least.
    published: Arc<AtomicU64>,
    memtable_bytes: u64,
}

impl Files {
    pub fn open(options: &EngineOptions) -> Result<Self, EngineError> {
        let path = options.dir.join("db");
        // The library states some of what it relies on by panics; a damaged file must be an error all the same.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_unguarded(options, &path)));
        match opened {
            Ok(result) => result.map_err(|error| EngineError::from_opening(&path, &error)),
            Err(_) => Err(EngineError::Corrupt {
                path,
                detail: "it cannot be made sense of".into(),
            }),
        }
    }

    fn open_unguarded(options: &EngineOptions, path: &Path) -> fjall::Result<Self> {
        let db = Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes.max(64 << 20))
            .worker_threads(options.background_threads.max(1))
            .open()?;
        // Every write goes through a batch that states its durability, so the journal never flushes on its own.
        let keyspace = |name| {
            db.keyspace(name, || {
                KeyspaceCreateOptions::default()
                    .manual_journal_persist(true)
                    .max_memtable_size(options.memtable_bytes)
            })
        };
        Ok(Self {
            rows: keyspace("rows")?,
            events: keyspace("events")?,
            expiry: keyspace("expiry")?,
            meta: keyspace("meta")?,
            in_flight: Arc::new(AtomicU64::new(u64::MAX)),
            published: Arc::new(AtomicU64::new(0)),
            memtable_bytes: options.memtable_bytes,
            db,
        })
    }

    /// Writes a batch whose newest rows have this version. Only one thread may.
    pub fn write(&self, batch: OwnedWriteBatch, version: u64) -> fjall::Result<()> {
        self.in_flight.store(self.db.seqno(), Ordering::SeqCst);
        let written = batch.commit();
        if written.is_ok() {
            self.published.store(version, Ordering::SeqCst);
        }
        self.in_flight.store(u64::MAX, Ordering::SeqCst);
        if written.is_ok() {
            self.seal_what_is_full();
        }
        written
    }

    /// Hands memtables that have grown to their size to the background threads.
    ///
    /// fjall does so too, but by a message for each batch until a background thread comes to it. While that one merges for
    /// some seconds, a thousand such messages fill its queue; then it waits for room in the queue that only it empties, for
    /// good, and memory grows without end. Sealed here, there is one message for each memtable, and the wait for sealed
    /// ones that comes with the next batch bounds them.
    fn seal_what_is_full(&self) {
        for keyspace in self.keyspaces() {
            if keyspace.tree.active_memtable().size() <= self.memtable_bytes {
                continue;
            }
            // The batch is written whatever comes of this; the next one is told if the database has failed.
            if let Err(error) = keyspace.rotate_memtable() {
                tracing::warn!(%error, "a full memtable was not sealed");
            }
        }
    }

    /// A row as the last batch left it that snapshots see too.
    ///
    /// fjall applies a batch row by row before it makes it visible to snapshots, and a plain point read sees each
    /// row at once. Whoever then scanned would go back in time, so what is not published yet is read from a
    /// snapshot instead. A row tells by its version whether it is; that there is none may be a removal that is not.
    pub fn get_row(&self, key: &[u8]) -> fjall::Result<Option<Slice>> {
        let found = self.rows.get(key)?;
        let is_published = match found.as_deref().map(row_head) {
            Some(Ok(head)) => head.version <= self.published.load(Ordering::SeqCst),
            // Whoever decodes it will say what is wrong with it.
            Some(Err(_)) => true,
            None => self.in_flight.load(Ordering::SeqCst) == u64::MAX,
        };
        if is_published {
            return Ok(found);
        }
        self.snapshot().get(&self.rows, key)
    }

    /// A view in which each batch is whole or not at all.
    ///
    /// fjall's snapshots see what has a lower number than the last that was made visible. A batch takes its number,
    /// goes to the journal, and is then applied row by row; when a background merge takes a later number meanwhile
    /// and makes that visible, a snapshot would see the rows applied so far. Such a snapshot is not taken.
    pub fn snapshot(&self) -> Snapshot {
        loop {
            let snapshot = self.db.snapshot();
            if snapshot.seqno() <= self.in_flight.load(Ordering::SeqCst) {
                return snapshot;
            }
            std::thread::yield_now();
        }
    }

    pub fn keyspaces(&self) -> [&Keyspace; 4] {
        [&self.rows, &self.events, &self.expiry, &self.meta]
    }

    /// Says what the last version on disk is; once, after opening.
    pub fn set_published(&self, version: u64) {
        self.published.store(version, Ordering::SeqCst);
    }

    /// Writes what is in memory to tables. False when that is not done in time.
    pub fn flush(&self) -> fjall::Result<bool> {
        for keyspace in self.keyspaces() {
            keyspace.rotate_memtable()?;
        }
        let deadline = Instant::now() + FLUSH_TIME;
        while self
            .keyspaces()
            .iter()
            .any(|keyspace| keyspace.sealed_memtable_count() > 0)
        {
            // A background thread that failed will never finish; this tells.
            self.db.persist(PersistMode::Buffer)?;
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(true)
    }

    /// Empties the newest journal, whose writes must all be in tables, and the database closed.
    ///
    /// A start reads the whole journal to find that there is nothing to replay: about a second for the 64 MB that one may
    /// have. The file itself stays, since without any the library takes the database for a new one.
    pub fn empty_journal(options: &EngineOptions) -> std::io::Result<()> {
        let mut newest: Option<(u64, PathBuf)> = None;
        for entry in std::fs::read_dir(options.dir.join("db"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "jnl") {
                continue;
            }
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let Some(number) = number else { continue };
            if newest.as_ref().is_none_or(|(highest, _)| number > *highest) {
                newest = Some((number, path));
            }
        }
        let Some((_, path)) = newest else { return Ok(()) };
        let file = File::options().write(true).open(path)?;
        file.set_len(0)?;
        file.sync_all()
    }
}

/// Holds the data directory for this process, as long as it lives.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    pub fn take(dir: &Path) -> Result<Self, EngineError> {
        let path = dir.join("lock");
        let io = |source| EngineError::Io {
            path: path.clone(),
            source,
        };
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(EngineError::InUse {
                    dir: dir.to_owned(),
                    holder: holder.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // Only for the message that a second process shows.
        file.set_len(0).map_err(io)?;
        write!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

/// True when the file system had no room for a write.
pub(crate) fn is_full(error: &fjall::Error) -> bool {
    let io = match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io,
        _ => return false,
    };
    matches!(
        io.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

/// What a failed read is to a reader.
pub(crate) fn read_error(error: &fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io))
            if !matches!(io.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            StoreError::Unavailable(format!("cannot read: {io}"))
        }
        other => StoreError::Corrupt(format!("{other:?}")),
    }
}

/// The same failure, as a log tells it.
pub(crate) fn as_log_error(error: StoreError) -> LogError {
    match error {
        StoreError::TooLarge { what, size, limit } => LogError::TooLarge { what, size, limit },
        StoreError::Full => LogError::Full,
        StoreError::Corrupt(detail) => LogError::Corrupt(detail),
        StoreError::Invalid(detail) => LogError::Invalid(detail),
        StoreError::Unavailable(detail) => LogError::Unavailable(detail),
        other => LogError::Unavailable(other.to_string()),
    }
}

/// A number kept in `meta`.
pub(crate) fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memtable_that_is_full_is_sealed_by_the_write_that_filled_it() {
        const BOUND: u64 = 16 << 10;
        let directory = tempfile::tempdir().unwrap();
        let mut options = EngineOptions::new(directory.path());
        options.memtable_bytes = BOUND;
        let files = Files::open(&options).unwrap();
        for number in 0..400_u64 {
            let mut batch = files.db.batch().durability(Some(PersistMode::Buffer));
            batch.insert(&files.rows, number.to_be_bytes(), [7_u8; 1_024]);
            files.write(batch, number).unwrap();
            let size = files.rows.tree.active_memtable().size();
            assert!(size <= BOUND, "{size} bytes after write {number}");
        }
    }
}
