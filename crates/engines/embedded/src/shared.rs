//! What the ports, the committer and the housekeeper have in common.

use crate::{
    committer::{Message, RawWrite},
    files::{Files, read_error},
    log::{groups::Groups, topics::Topics},
    options::EngineOptions,
    stats::Counters,
    tables::Tables,
};
use bytes::Bytes;
use fjall::Slice;
use holon_base::{Clock, IdGenerator};
use holon_ports::StoreError;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};
use tokio::sync::{mpsc, oneshot};

pub(crate) struct Shared {
    pub options: EngineOptions,
    pub clock: Arc<dyn Clock>,
    pub ids: IdGenerator,
    pub tables: Tables,
    pub topics: Topics,
    pub groups: Groups,
    pub counters: Counters,
    /// Offsets that were committed and wait to be written with the next batch. They are written after the work that
    /// they stand for and without a sync of their own: at least once, never ahead.
    pub offsets: Mutex<HashMap<Vec<u8>, u64>>,
    /// Where the sweeper goes on: nothing that expires earlier is in the index.
    pub sweep_from: AtomicI64,
    /// Creating tables and topics happens one after the other.
    pub creation: tokio::sync::Mutex<()>,
    /// `None` once the engine is closed.
    files: RwLock<Option<Files>>,
    queue: mpsc::Sender<Message>,
    failure: OnceLock<String>,
}

impl Shared {
    pub fn new(options: EngineOptions, ids: IdGenerator, files: Files, queue: mpsc::Sender<Message>) -> Self {
        Self {
            clock: Arc::clone(&options.clock),
            options,
            ids,
            tables: Tables::default(),
            topics: Topics::default(),
            groups: Groups::default(),
            counters: Counters::default(),
            offsets: Mutex::default(),
            sweep_from: AtomicI64::new(i64::MIN),
            creation: tokio::sync::Mutex::default(),
            files: RwLock::new(Some(files)),
            queue,
            failure: OnceLock::new(),
        }
    }

    /// The files, for the time of one read. Held across no await.
    pub fn files(&self) -> Result<FilesGuard<'_>, StoreError> {
        let guard = self.files.read();
        if guard.is_none() {
            return Err(closed());
        }
        Ok(FilesGuard(guard))
    }

    /// Gives the files up: every later call answers that the engine is closed.
    pub fn take_files(&self) -> Option<Files> {
        self.files.write().take()
    }

    pub fn is_closed(&self) -> bool {
        self.files.read().is_none()
    }

    /// Why nothing can be written any more, if so.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    pub fn fail(&self, why: String) {
        if self.failure.set(why).is_ok() {
            tracing::error!(why = self.failure(), "the engine failed and writes no more");
        }
    }

    /// What a write is told at the door; `Ok` when it may come in.
    pub fn admit(&self) -> Result<(), StoreError> {
        match self.failure() {
            Some(why) => Err(StoreError::Unavailable(format!(
                "an earlier write failed ({why}); open the engine again once the cause is gone"
            ))),
            None => Ok(()),
        }
    }

    pub async fn send(&self, message: Message) -> Result<(), StoreError> {
        self.queue.send(message).await.map_err(|_| closed())
    }

    pub fn send_blocking(&self, message: Message) -> Result<(), StoreError> {
        self.queue.blocking_send(message).map_err(|_| closed())
    }

    /// Messages that wait for the committer.
    pub fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Writes records of the engine itself, durably, all or none.
    pub async fn write_raw(&self, writes: Vec<RawWrite>) -> Result<(), StoreError> {
        self.admit()?;
        let (answer, answered) = oneshot::channel();
        self.send(Message::Raw {
            writes,
            durable: true,
            answer: Some(answer),
        })
        .await?;
        answered.await.map_err(|_| closed())?
    }

    pub fn meta(&self, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        self.files()?.meta.get(key).map_err(|error| read_error(&error))
    }

    /// The records of `meta` whose keys start with a prefix, in order.
    pub fn meta_with_prefix(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let files = self.files()?;
        files
            .meta
            .prefix(prefix)
            .map(|guard| {
                let (key, value) = guard.into_inner().map_err(|error| read_error(&error))?;
                Ok((key.into(), value.into()))
            })
            .collect()
    }

    /// Wakes all who wait for events: to find out that the engine is closed.
    pub fn wake_all(&self) {
        for topic in self.topics.all() {
            topic.wake();
        }
    }

    /// Makes sure that the sweeper comes by at this time.
    pub fn expects_expiry(&self, at: i64) {
        self.sweep_from.fetch_min(at, Ordering::AcqRel);
    }
}

pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable("the engine is closed".into())
}

pub(crate) struct FilesGuard<'a>(RwLockReadGuard<'a, Option<Files>>);

impl std::ops::Deref for FilesGuard<'_> {
    type Target = Files;

    #[expect(
        clippy::expect_used,
        reason = "made only when the files are there, and the lock is held"
    )]
    fn deref(&self) -> &Files {
        self.0.as_ref().expect("the files are there")
    }
}
