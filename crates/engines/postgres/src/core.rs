//! What all ports of one engine share: the shards, the directory, and how a read finds its shard.

use crate::{
    directory::{Directory, Entry, Route, Rule, Ruled},
    encoding::unescape,
    error::{PostgresError, Trouble},
    link::{Connector, Params, Sockets},
    options::{PostgresOptions, ShardOptions},
    shard::{Shard, fence},
    tables::Tables,
};
use holon_base::{Clock, IdGenerator};
use holon_ports::{Consistency, Partition, StoreError};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_postgres::Row;

/// The version, and what has changed since an earlier one. Rules are few, so all of them.
const DIRECTORY: &str = "SELECT d.version, s.slot, s.shard, s.state, s.arrived, r.kind, r.tenant, r.low, r.high, r.active \
    FROM holon.directory d LEFT JOIN \
        (holon.directory_slots s LEFT JOIN holon.directory_rules r ON r.slot = s.slot) \
        ON s.version > $1 OR r.slot IS NOT NULL";
const SHARDS: &str = "SELECT number, name, url, replicas, state FROM holon.directory_shards ORDER BY number";
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(40);

pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable("the engine is closed".into())
}

/// Where a read goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    pub shard: usize,
    /// The version of the directory by which the newest of its slots came there.
    pub arrived: i64,
}

impl From<Entry> for Aim {
    fn from(entry: Entry) -> Self {
        Self {
            shard: entry.shard,
            arrived: entry.arrived,
        }
    }
}

/// The engine.
pub(crate) struct Core {
    pub options: PostgresOptions,
    /// In the order in which this node learned of them; none is ever taken out, so that a place stays what it is.
    shards: RwLock<Vec<Arc<Shard>>>,
    pub tables: Tables,
    pub ids: IdGenerator,
    /// The database of the directory and of the leases.
    pub home: Sockets,
    pub home_connector: Arc<Connector>,
    directory: watch::Sender<Arc<Directory>>,
    /// When the last refresh that succeeded began.
    refreshed: tokio::sync::Mutex<Option<Instant>>,
    pub stop: watch::Sender<bool>,
    /// Told when this node was asked to move something.
    pub asked: Notify,
    /// Names this process among those that move slots.
    pub mover: String,
    pub tasks: Mutex<JoinSet<()>>,
}

impl Core {
    pub fn new(options: PostgresOptions, home_connector: Arc<Connector>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            ids: IdGenerator::new(options.node, Arc::clone(&options.clock)),
            home: Sockets::new(&home_connector, 2),
            home_connector,
            mover: format!("{}.{}.{:x}", options.node, std::process::id(), since.as_nanos()),
            options,
            shards: RwLock::default(),
            tables: Tables::default(),
            directory: watch::Sender::default(),
            refreshed: tokio::sync::Mutex::new(None),
            stop: watch::Sender::new(false),
            asked: Notify::new(),
            tasks: Mutex::default(),
        }
    }

    pub fn is_closed(&self) -> bool {
        *self.stop.borrow()
    }

    pub fn deadline(&self) -> Instant {
        Instant::now() + self.options.patience
    }

    pub fn clock(&self) -> &dyn Clock {
        &*self.options.clock
    }

    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.borrow())
    }

    pub fn shard(&self, index: usize) -> Arc<Shard> {
        Arc::clone(&self.shards.read()[index])
    }

    /// All that have not been drained for good.
    pub fn shards(&self) -> Vec<Arc<Shard>> {
        let shards = self.shards.read();
        shards
            .iter()
            .filter(|shard| !shard.is_retired())
            .cloned()
            .collect()
    }

    pub fn shard_named(&self, name: &str) -> Option<Arc<Shard>> {
        self.shard_index(name).map(|index| self.shard(index))
    }

    fn shard_index(&self, name: &str) -> Option<usize> {
        // One that was drained and added again is there twice.
        self.shards.read().iter().rposition(|shard| shard.name == name)
    }

    pub fn route(&self, directory: &Directory, partition: &Partition) -> Result<Route, StoreError> {
        directory
            .route(partition)
            .ok_or_else(|| StoreError::Corrupt("the directory has no entry for a slot".into()))
    }

    /// Reads the directory anew, unless that has been done, or begun, since the caller looked.
    pub async fn refresh(self: &Arc<Self>, seen: i64) -> Result<(), StoreError> {
        let asked = Instant::now();
        let mut refreshed = self.refreshed.lock().await;
        let known = self.directory();
        if known.version > seen || refreshed.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        let began = Instant::now();
        let rows = self
            .home
            .read(self.deadline(), DIRECTORY, &[&known.version])
            .await;
        let rows = rows.map_err(Trouble::of_read)?;
        let version: i64 = rows
            .first()
            .and_then(|row| row.try_get(0).ok())
            .ok_or_else(damaged)?;
        if version != known.version {
            // After the directory: a shard is there before it has a slot.
            let shards = self.home.read(self.deadline(), SHARDS, &[]).await;
            self.learn_shards(&shards.map_err(Trouble::of_read)?)?;
            let directory = self.read_directory(version, &known, &rows)?;
            self.directory.send_replace(Arc::new(directory));
        }
        *refreshed = Some(began);
        Ok(())
    }

    fn learn_shards(self: &Arc<Self>, rows: &[Row]) -> Result<(), StoreError> {
        let bad = |_: tokio_postgres::Error| damaged();
        for row in rows {
            let (number, name): (i32, &str) = (row.try_get(0).map_err(bad)?, row.try_get(1).map_err(bad)?);
            let (url, replicas): (&str, Vec<String>) =
                (row.try_get(2).map_err(bad)?, row.try_get(3).map_err(bad)?);
            let is_retired = row.try_get::<_, &str>(4).map_err(bad)? == "retired";
            let known = self.shard_named(name);
            match known {
                Some(known) if is_retired => known.retire(),
                Some(known) if !known.is_retired() => {}
                None if is_retired => {}
                _ => {
                    let mut learned = ShardOptions::new(name, url);
                    learned.replicas = replicas;
                    // This node may reach it another way.
                    let own = self.options.shards.iter().find(|own| own.name == name);
                    self.open(own.unwrap_or(&learned), number)
                        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
                }
            }
        }
        Ok(())
    }

    fn open(self: &Arc<Self>, of: &ShardOptions, number: i32) -> Result<(), PostgresError> {
        let (shard, lanes) = Shard::new(of, number, &self.options, &self.stop.subscribe())?;
        let shard = Arc::new(shard);
        self.shards.write().push(Arc::clone(&shard));
        let mut tasks = self.tasks.lock();
        if self.is_closed() {
            return Ok(());
        }
        for lane in lanes {
            tasks.spawn(lane.run());
        }
        tasks.spawn(crate::house::keep(Arc::clone(self), shard));
        Ok(())
    }

    fn read_directory(&self, version: i64, known: &Directory, rows: &[Row]) -> Result<Directory, StoreError> {
        let bad = |_: tokio_postgres::Error| damaged();
        let mut slots: HashMap<i32, Entry> = known.slots.clone();
        let mut rules = Vec::new();
        for row in rows {
            let Some(slot) = row.try_get::<_, Option<i32>>(1).map_err(bad)? else {
                continue;
            };
            let name: &str = row.try_get(2).map_err(bad)?;
            let shard = self.shard_index(name).ok_or_else(|| {
                StoreError::Corrupt(format!("the directory gives slots to {name}, which is no shard"))
            })?;
            let entry = Entry {
                shard,
                frozen: row.try_get::<_, &str>(3).map_err(bad)? == "frozen",
                arrived: row.try_get(4).map_err(bad)?,
            };
            slots.insert(slot, entry);
            let Some(kind) = row.try_get::<_, Option<&str>>(5).map_err(bad)? else {
                continue;
            };
            let text = |column| -> Result<Option<String>, StoreError> {
                let text: Option<String> = row.try_get(column).map_err(bad)?;
                Ok(text.map(unescape))
            };
            let tenant: Option<&str> = row.try_get(6).map_err(bad)?;
            let rule = Rule::from_row(kind, tenant, text(7)?, text(8)?).ok_or_else(damaged)?;
            rules.push(Ruled {
                rule,
                slot,
                active: row
                    .try_get::<_, Option<bool>>(9)
                    .map_err(bad)?
                    .ok_or_else(damaged)?,
            });
        }
        Ok(Directory::new(version, slots, rules))
    }

    /// Reads from a shard. `route` picks it from the directory, and is asked again if the shard knows of a newer one.
    /// The first column of every row is the shard's fence.
    pub async fn read(
        self: &Arc<Self>,
        consistency: Consistency,
        mut route: impl FnMut(&Directory) -> Result<Aim, StoreError>,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let mut retry = Retry::new(self.deadline());
        loop {
            if self.is_closed() {
                return Err(closed());
            }
            let directory = self.directory();
            let aim = route(&directory)?;
            let shard = self.shard(aim.shard);
            let rows = shard
                .read(consistency, aim.arrived, retry.deadline, sql, params)
                .await;
            let rows = rows.map_err(Trouble::of_read)?;
            if fence(&rows)? <= directory.version {
                return Ok(rows);
            }
            retry.pause(self, directory.version).await?;
        }
    }
}

fn damaged() -> StoreError {
    StoreError::Corrupt("the directory is malformed".into())
}

/// Waits for a directory that is newer than the one that was refused.
pub(crate) struct Retry {
    pub deadline: Instant,
    pause: Duration,
}

impl Retry {
    pub fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            pause: FIRST_PAUSE,
        }
    }

    /// # Errors
    /// When the deadline has passed.
    pub async fn pause(&mut self, core: &Arc<Core>, refused: i64) -> Result<(), StoreError> {
        if Instant::now() >= self.deadline {
            return Err(StoreError::Unavailable("a slot is being moved".into()));
        }
        let mut changes = core.directory.subscribe();
        core.refresh(refused).await?;
        if core.directory().version <= refused {
            // Whoever refreshes it next wakes all that wait.
            let _ = tokio::time::timeout(self.pause, changes.changed()).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }
}
