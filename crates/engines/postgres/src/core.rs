//! What all ports of one engine share: the shards, the directory, and how a read finds its shard.

use crate::{
    directory::{Directory, Entry, Route, Rule},
    encoding::unescape,
    error::{PostgresError, Trouble},
    lane::{Lane, Pending, QUEUE},
    link::{Connector, Params, Socket, Sockets},
    options::{PostgresOptions, Role, ShardOptions},
    tables::Tables,
};
use holon_base::{Clock, IdGenerator};
use holon_ports::{Consistency, Partition, StoreError, store::WriteToken};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_postgres::{Row, types::PgLsn};

const DIRECTORY: &str = "SELECT d.version, s.slot, s.shard, s.state, r.kind, r.tenant, r.low, r.high \
    FROM holon.directory d LEFT JOIN holon.directory_slots s ON true \
    LEFT JOIN holon.directory_rules r ON r.slot = s.slot";
/// How far a replica is; for one that was promoted since, how far it has written.
const REPLAYED: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
    ELSE pg_current_wal_flush_lsn() END";
/// How long a replica may keep a reader from the primary, and how long it is left alone afterwards.
const REPLICA_PATIENCE: Duration = Duration::from_millis(500);
const REPLICA_REST: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable("the engine is closed".into())
}

/// One shard, as this node reaches it.
pub(crate) struct Shard {
    pub name: String,
    pub connector: Arc<Connector>,
    pub primary: Sockets,
    lanes: Vec<mpsc::Sender<Pending>>,
    replicas: Vec<Replica>,
    next_replica: AtomicUsize,
    /// Told when this node has committed events to it.
    pub told: Arc<Notify>,
}

struct Replica {
    sockets: Sockets,
    /// The highest position that it is known to have replayed.
    replayed: AtomicU64,
    /// When it may be asked again, after it did not answer.
    rests_until: Mutex<Instant>,
}

impl Shard {
    pub fn new(
        of: &ShardOptions,
        options: &PostgresOptions,
        stop: &watch::Receiver<bool>,
    ) -> Result<(Self, Vec<Lane>), PostgresError> {
        let name = format!("shard {}", of.name);
        let connector = Arc::new(Connector::new(name, &of.url, Role::Primary, options)?);
        let told = Arc::new(Notify::new());
        let (lanes, senders): (Vec<Lane>, Vec<_>) = (0..options.lanes)
            .map(|_| {
                let (sender, waiting) = mpsc::channel(QUEUE);
                let lane = Lane {
                    socket: Socket::new(Arc::clone(&connector)),
                    waiting,
                    clock: Arc::clone(&options.clock),
                    patience: options.patience,
                    told: Arc::clone(&told),
                    stop: stop.clone(),
                };
                (lane, sender)
            })
            .unzip();
        let mut replicas = Vec::new();
        for url in &of.replicas {
            let name = format!("a replica of shard {}", of.name);
            let connector = Arc::new(Connector::new(name, url, Role::Replica, options)?);
            replicas.push(Replica {
                sockets: Sockets::new(&connector, options.readers),
                replayed: AtomicU64::new(0),
                rests_until: Mutex::new(Instant::now()),
            });
        }
        let shard = Self {
            name: of.name.clone(),
            primary: Sockets::new(&connector, options.readers),
            connector,
            lanes: senders,
            replicas,
            next_replica: AtomicUsize::new(0),
            told,
        };
        Ok((shard, lanes))
    }

    pub async fn submit(&self, pending: Pending) -> Result<(), StoreError> {
        let lane = pending.prepared.lock as u64 as usize % self.lanes.len();
        self.lanes[lane].send(pending).await.map_err(|_| closed())
    }

    pub fn discard(&self) {
        self.primary.discard();
        for replica in &self.replicas {
            replica.sockets.discard();
        }
    }

    async fn read(
        &self,
        consistency: Consistency,
        deadline: Instant,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Trouble> {
        if let Consistency::Eventual(token) = consistency
            && !self.replicas.is_empty()
        {
            let next = self.next_replica.fetch_add(1, Ordering::Relaxed) % self.replicas.len();
            if let Some(rows) = self.replicas[next].read(token, sql, params).await {
                return Ok(rows);
            }
        }
        self.primary.read(deadline, sql, params).await
    }
}

impl Replica {
    /// `None` if it is behind, or away: then the primary is asked.
    async fn read(&self, token: Option<WriteToken>, sql: &str, params: Params<'_>) -> Option<Vec<Row>> {
        if *self.rests_until.lock() > Instant::now() {
            return None;
        }
        let needed = token.map_or(0, |token| token.0);
        let answer = tokio::time::timeout(REPLICA_PATIENCE, self.ask(needed, sql, params)).await;
        let Ok(Ok((replayed, rows))) = answer else {
            *self.rests_until.lock() = Instant::now() + REPLICA_REST;
            return None;
        };
        (needed <= replayed).then_some(rows)
    }

    /// Rows, and what the replica had at least replayed when they were read.
    async fn ask(&self, needed: u64, sql: &str, params: Params<'_>) -> Result<(u64, Vec<Row>), Trouble> {
        let link = self.sockets.link(Instant::now() + REPLICA_PATIENCE).await?;
        let known = self.replayed.load(Ordering::Relaxed);
        if needed <= known {
            return Ok((known, link.query(sql, params).await?));
        }
        // How far it is, is asked before the rows: what it has replayed by then, the rows' snapshot has.
        let (replayed, rows) = link.query_both((REPLAYED, &[]), (sql, params)).await?;
        let replayed = replayed
            .first()
            .and_then(|row| row.try_get::<_, Option<PgLsn>>(0).ok());
        let replayed = replayed.flatten().map_or(0, u64::from);
        self.replayed.fetch_max(replayed, Ordering::Relaxed);
        Ok((replayed, rows))
    }
}

/// The engine, but for its tasks.
pub(crate) struct Core {
    pub options: PostgresOptions,
    pub shards: Vec<Shard>,
    pub tables: Tables,
    pub ids: IdGenerator,
    /// The database of the directory and of the leases.
    pub home: Sockets,
    pub home_connector: Arc<Connector>,
    directory: RwLock<Arc<Directory>>,
    refreshing: tokio::sync::Mutex<()>,
    pub stop: watch::Sender<bool>,
}

impl Core {
    pub fn new(
        options: PostgresOptions,
        shards: Vec<Shard>,
        home_connector: Arc<Connector>,
        stop: watch::Sender<bool>,
    ) -> Self {
        Self {
            ids: IdGenerator::new(options.node, Arc::clone(&options.clock)),
            home: Sockets::new(&home_connector, 2),
            home_connector,
            options,
            shards,
            tables: Tables::default(),
            directory: RwLock::default(),
            refreshing: tokio::sync::Mutex::new(()),
            stop,
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
        Arc::clone(&self.directory.read())
    }

    pub fn shard_index(&self, name: &str) -> Option<usize> {
        self.shards.iter().position(|shard| shard.name == name)
    }

    pub fn route(&self, directory: &Directory, partition: &Partition) -> Result<Route, StoreError> {
        directory
            .route(partition)
            .ok_or_else(|| StoreError::Corrupt("the directory has no entry for a slot".into()))
    }

    /// Reads the directory anew, unless another has done so since the caller took its copy.
    pub async fn refresh(&self, seen: i64) -> Result<(), StoreError> {
        let _one_at_a_time = self.refreshing.lock().await;
        if self.directory().version > seen {
            return Ok(());
        }
        let rows = self.home.read(self.deadline(), DIRECTORY, &[]).await;
        let directory = self.read_directory(&rows.map_err(Trouble::of_read)?)?;
        *self.directory.write() = Arc::new(directory);
        Ok(())
    }

    fn read_directory(&self, rows: &[Row]) -> Result<Directory, StoreError> {
        let damaged = || StoreError::Corrupt("the directory is malformed".into());
        let version = rows
            .first()
            .and_then(|row| row.try_get(0).ok())
            .ok_or_else(damaged)?;
        let mut slots = HashMap::with_capacity(rows.len());
        let mut rules = Vec::new();
        for row in rows {
            let (slot, shard, state): (i32, &str, &str) = (
                row.try_get(1).map_err(|_| damaged())?,
                row.try_get(2).map_err(|_| damaged())?,
                row.try_get(3).map_err(|_| damaged())?,
            );
            let shard = self.shard_index(shard).ok_or_else(|| {
                StoreError::Unavailable(format!(
                    "the directory names shard {shard}, which is not configured"
                ))
            })?;
            let frozen = state != "owned";
            slots.insert(slot, Entry { shard, frozen });
            let Some(kind) = row.try_get::<_, Option<&str>>(4).map_err(|_| damaged())? else {
                continue;
            };
            let text = |column| -> Result<Option<String>, StoreError> {
                let text: Option<String> = row.try_get(column).map_err(|_| damaged())?;
                Ok(text.map(unescape))
            };
            let tenant: Option<&str> = row.try_get(5).map_err(|_| damaged())?;
            let rule = Rule::from_row(kind, tenant, text(6)?, text(7)?).ok_or_else(damaged)?;
            rules.push((rule, slot));
        }
        Ok(Directory::new(version, slots, rules))
    }

    /// Reads from a shard. `route` picks it from the directory, and is asked again if the shard knows of a newer one.
    /// The first column of every row is the shard's fence.
    pub async fn read(
        &self,
        consistency: Consistency,
        mut route: impl FnMut(&Directory) -> Result<usize, StoreError>,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let mut retry = Retry::new(self.deadline());
        loop {
            if self.is_closed() {
                return Err(closed());
            }
            let directory = self.directory();
            let shard = &self.shards[route(&directory)?];
            let rows = shard.read(consistency, retry.deadline, sql, params).await;
            let rows = rows.map_err(Trouble::of_read)?;
            if fence(&rows)? <= directory.version {
                return Ok(rows);
            }
            retry.pause(self, directory.version).await?;
        }
    }
}

fn fence(rows: &[Row]) -> Result<i64, StoreError> {
    rows.first()
        .and_then(|row| row.try_get(0).ok())
        .ok_or_else(|| StoreError::Corrupt("the shard does not know what it is".into()))
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
    pub async fn pause(&mut self, core: &Core, refused: i64) -> Result<(), StoreError> {
        if Instant::now() >= self.deadline {
            return Err(StoreError::Unavailable("a slot is being moved".into()));
        }
        core.refresh(refused).await?;
        if core.directory().version <= refused {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }
}
