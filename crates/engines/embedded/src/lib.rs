//! Every port in one process and one data directory: what `holon serve` runs on when nothing else is configured.
//!
//! ```text
//!  commit ─► prepare ─► queue ─► committer ─► one batch, one sync ─► answers       get, scan, read, poll
//!            (caller's thread)   (one thread) (fjall: rows, events)                (caller's thread, no hop)
//! ```
//!
//! Rows and events lie in one [fjall](https://docs.rs/fjall) database, a log-structured merge tree (O'Neil et al.,
//! 1996) with a write-ahead journal, so that a commit's rows and events are one journal write. [`committer`] says how
//! concurrent commits share a sync, [`encoding`] how records lie on disk, [`log`] how events are read by groups,
//! [`housekeeping`] how what is expired or too old goes away.
//!
//! # The data directory
//!
//! | path | what |
//! |---|---|
//! | `lock` | held by the process that has the directory; its number is in it |
//! | `db/` | fjall: journals (`*.jnl`) and tables |
//! | `blobs/` | chunks of blobs |
//! | `secrets/` | random secrets of the deployment, mode 0600 |
//!
//! # When things go wrong
//!
//! - *The process dies*: the journal is replayed at the next start; a write that was cut off is dropped whole.
//! - *The disk fills*: commits are refused with `Full` while less than the reserve is left. If a write fails all the
//!   same, its callers are told that the outcome is unknown, and the engine refuses all else until it is opened again.
//! - *A file is damaged*: opening fails and names it, or a read answers `Corrupt`; checksums are over every block.
//! - *A second process* wants the directory: [`EngineError::InUse`].
//! - *The clock goes back*: ids, versions and the times of events do not.

pub mod bus;
pub mod cache;
mod committer;
pub mod copy;
mod encoding;
mod error;
mod files;
mod housekeeping;
pub mod leases;
mod log;
mod options;
mod prepare;
mod secrets;
mod shared;
pub mod stats;
mod store;
mod tables;

pub use error::EngineError;
pub use housekeeping::Round;
pub use options::{EngineOptions, FreeSpace};
pub use stats::EngineStats;

use crate::{
    bus::EmbeddedBus,
    cache::{CacheOptions, EmbeddedCache},
    committer::{Committer, Message},
    encoding::meta,
    files::{DirectoryLock, Files, read_error, read_u64},
    housekeeping::{Chore, Housekeeper},
    leases::StoreLeases,
    log::EmbeddedLog,
    secrets::Secrets,
    shared::{Shared, closed},
    stats::{PartitionStats, TopicStats},
    store::EmbeddedStore,
};
use holon_base::{Id, IdGenerator};
use holon_objects::ObjectBlobs;
use holon_ports::{Ports, Store, StoreError, Table};
use parking_lot::Mutex;
use std::{
    fs::{self, File},
    sync::{Arc, atomic::Ordering, mpsc},
    thread::JoinHandle,
};
use tokio::sync::oneshot;

/// The engine. Dropping it stops it in good order; [`Engine::close`] also leaves nothing to replay.
pub struct Engine {
    core: Arc<Core>,
    ports: Ports,
    cache: Arc<EmbeddedCache>,
    bus: Arc<EmbeddedBus>,
    objects: ObjectBlobs,
    secrets: Secrets,
}

/// What is stopped once.
struct Core {
    shared: Arc<Shared>,
    chores: mpsc::Sender<Chore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<DirectoryLock>>,
}

impl Engine {
    /// Opens a data directory, making it if it is not there.
    ///
    /// # Errors
    /// See [`EngineError`]: in use, damaged, full, or not to be read.
    pub async fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let opened = tokio::task::spawn_blocking({
            let options = options.clone();
            move || Core::open(options)
        });
        let core = Arc::new(opened.await.map_err(|error| EngineError::Corrupt {
            path: options.dir.join("db"),
            detail: format!("opening it failed: {error}"),
        })??);

        let secrets = Secrets::open(&options.dir);
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore(Arc::clone(&core.shared)));
        let tables: Vec<Table> = holon_objects::TABLES.into_iter().chain(leases::TABLES).collect();
        store.create_tables(&tables).await.map_err(EngineError::Store)?;
        let blobs = ObjectBlobs::directory(
            options.dir.join("blobs"),
            Arc::clone(&store),
            secrets.get("blob")?,
            Arc::clone(&options.clock),
        )
        .map_err(EngineError::Blobs)?;
        let cache = Arc::new(EmbeddedCache::new(
            CacheOptions::default(),
            Arc::clone(&options.clock),
        ));
        let bus = Arc::new(EmbeddedBus::default());
        let ports = Ports {
            log: Arc::new(EmbeddedLog(Arc::clone(&core.shared))),
            cache: Arc::clone(&cache) as _,
            bus: Arc::clone(&bus) as _,
            blobs: Arc::new(blobs.clone()),
            leases: Arc::new(StoreLeases::new(Arc::clone(&store), Arc::clone(&options.clock))),
            store,
        };
        Ok(Self {
            core,
            ports,
            cache,
            bus,
            objects: blobs,
            secrets,
        })
    }

    /// All six ports. After [`Engine::close`] they answer that they are away.
    pub fn ports(&self) -> Ports {
        self.ports.clone()
    }

    /// Makes ids that were never given out before, also not before a restart, whatever the clock says.
    pub fn ids(&self) -> IdGenerator {
        self.core.shared.ids.clone()
    }

    /// A random secret of this deployment, made when it is first asked for; the same ever after.
    ///
    /// # Errors
    /// If it can be neither read nor written.
    pub fn secret(&self, name: &str) -> Result<[u8; 32], EngineError> {
        self.secrets.get(name)
    }

    /// The blobs, for whoever copies them as they lie.
    pub fn objects(&self) -> &ObjectBlobs {
        &self.objects
    }

    pub fn options(&self) -> &EngineOptions {
        &self.core.shared.options
    }

    pub fn cache(&self) -> &EmbeddedCache {
        &self.cache
    }

    pub fn bus(&self) -> &EmbeddedBus {
        &self.bus
    }

    /// Why nothing can be written any more; `None` while all is well. Reads still work.
    pub fn failure(&self) -> Option<String> {
        self.core.shared.failure().map(str::to_owned)
    }

    /// Sweeps expired rows and drops old events now: one round, of bounded work.
    ///
    /// # Errors
    /// If the engine is closed or failed.
    pub async fn housekeep(&self) -> Result<Round, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.core.chores.send(Chore::Now(answer)).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// How the engine is. Asks the file system, so not for every request.
    pub fn stats(&self) -> EngineStats {
        let shared = &self.core.shared;
        let counters = &shared.counters;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (commits, groups) = (count(&counters.commits), count(&counters.groups));
        let per_group = |sum: u64| {
            if groups == 0 {
                0.0
            } else {
                sum as f64 / groups as f64
            }
        };
        let mut stats = EngineStats {
            failure: self.failure(),
            commits,
            refused: count(&counters.refused),
            commits_per_second: counters.commits_per_second(),
            rows_written: count(&counters.rows),
            events_written: count(&counters.events),
            groups,
            group_size: per_group(commits),
            group_sizes: counters.group_sizes.iter().map(count).collect(),
            group_micros: per_group(count(&counters.journal_micros)),
            queue_depth: shared.queued(),
            rows_swept: count(&counters.swept),
            disk_bytes: 0,
            journal_bytes: 0,
            free_bytes: (shared.options.free_space.0)(&shared.options.dir).unwrap_or(0),
            cache_bytes: 0,
            cache_capacity_bytes: shared.options.cache_bytes,
            memtable_bytes: 0,
            topics: shared
                .topics
                .all()
                .iter()
                .map(|topic| topic_stats(topic))
                .collect(),
        };
        if let Ok(files) = shared.files() {
            stats.journal_bytes = files.db.journal_disk_space().unwrap_or(0);
            stats.disk_bytes = files.db.disk_space().unwrap_or(0);
            stats.cache_bytes = files.db.cache_size();
            stats.memtable_bytes = files.db.write_buffer_size();
        }
        stats
    }

    /// Stops: finishes what waits, writes what is in memory to tables, and gives the directory free. All ports
    /// answer that they are away from then on; waiting polls end. Closing twice does nothing more.
    pub async fn close(&self) {
        self.bus.close();
        let core = Arc::clone(&self.core);
        let stopped = tokio::task::spawn_blocking(move || core.stop(true)).await;
        if let Err(error) = stopped {
            tracing::error!(%error, "the engine was not closed in good order");
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.core.shared.is_closed() {
            return;
        }
        let core = Arc::clone(&self.core);
        // A thread of its own, since this one may belong to a runtime, where nothing may block on its queues.
        let _ = std::thread::spawn(move || core.stop(false)).join();
    }
}

fn topic_stats(topic: &log::topics::Topic) -> TopicStats {
    let partitions = (0..topic.partitions.len() as u16)
        .filter_map(|partition| topic.state(partition))
        .map(|state| PartitionStats {
            first: state.first,
            next: state.next,
            bytes: state.bytes,
        });
    TopicStats {
        name: topic.name,
        partitions: partitions.collect(),
    }
}

impl Core {
    fn open(options: EngineOptions) -> Result<Self, EngineError> {
        if options.node > holon_base::id::MAX_NODE {
            return Err(EngineError::Options(format!(
                "a node's number is at most {}; got {}",
                holon_base::id::MAX_NODE,
                options.node
            )));
        }
        fs::create_dir_all(&options.dir).map_err(|source| EngineError::Io {
            path: options.dir.clone(),
            source,
        })?;
        let lock = DirectoryLock::take(&options.dir)?;
        let files = Files::open(&options)?;

        let ids = IdGenerator::new(options.node, Arc::clone(&options.clock));
        let (sequence, last_id) = read_high_water(&files).map_err(EngineError::Store)?;
        ids.advance_past(last_id);

        let (queue, waiting) = tokio::sync::mpsc::channel(options.queue.max(1));
        let shared = Arc::new(Shared::new(options, ids, files.clone(), queue));
        recover_tables(&shared).map_err(EngineError::Store)?;
        log::recover(&shared).map_err(EngineError::Store)?;

        let committer = Committer::new(Arc::clone(&shared), files, waiting, sequence);
        let (chores, chores_waiting) = mpsc::channel();
        let housekeeper = Housekeeper {
            shared: Arc::clone(&shared),
            chores: chores_waiting,
        };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map_err(|source| EngineError::Io {
                    path: shared.options.dir.clone(),
                    source,
                })
        };
        let threads = vec![
            spawn("holon-keeper", Box::new(move || housekeeper.run()))?,
            spawn("holon-committer", Box::new(move || committer.run()))?,
        ];
        // The directory's own entry is made durable once; fjall sees to what is below.
        let _ = File::open(&shared.options.dir).and_then(|dir| dir.sync_all());
        Ok(Self {
            shared,
            chores,
            threads: Mutex::new(threads),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Blocks until all is done; must not be called from an asynchronous task.
    fn stop(&self, flush: bool) {
        let threads = std::mem::take(&mut *self.threads.lock());
        if threads.is_empty() {
            return;
        }
        let _ = self.chores.send(Chore::Stop);
        if self.shared.failure().is_none() {
            let _ = self.shared.send_blocking(Message::Raw {
                writes: log::retention::records(&self.shared),
                durable: true,
                answer: None,
            });
        }
        let _ = self.shared.send_blocking(Message::Stop);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine panicked");
            }
        }
        let files = self.shared.take_files();
        self.shared.wake_all();
        if let Some(files) = files
            && flush
            && self.shared.failure().is_none()
        {
            let is_written = files.flush();
            drop(files);
            let is_emptied = match is_written {
                Ok(true) => Files::empty_journal(&self.shared.options).map_err(|error| error.to_string()),
                Ok(false) => Err("tables are not written yet".into()),
                Err(error) => Err(format!("{error:?}")),
            };
            if let Err(why) = is_emptied {
                tracing::warn!(why, "the next start replays the journal");
            }
        }
        self.lock.lock().take();
    }
}

fn read_high_water(files: &Files) -> Result<(u64, Id), StoreError> {
    let record = files.meta.get(meta::HIGH_WATER);
    high_water(record.map_err(|error| read_error(&error))?.as_deref())
}

/// The last version and the last id that a record says were given out.
fn high_water(record: Option<&[u8]>) -> Result<(u64, Id), StoreError> {
    let Some(record) = record else {
        return Ok((0, Id::MIN));
    };
    let sequence = read_u64(record, 0);
    let last_id = read_u64(record, 8).map(Id::from_u64);
    sequence
        .zip(last_id)
        .ok_or_else(|| StoreError::Corrupt("the high-water mark is malformed".into()))
}

fn recover_tables(shared: &Shared) -> Result<(), StoreError> {
    for (key, value) in shared.meta_with_prefix(meta::TABLES)? {
        let name = std::str::from_utf8(&key[meta::TABLES.len()..]).ok();
        let id = value.as_ref().try_into().ok().map(u16::from_be_bytes);
        let Some((name, id)) = name.zip(id) else {
            return Err(StoreError::Corrupt("the record of a table is malformed".into()));
        };
        shared.tables.insert(name, id);
    }
    Ok(())
}
