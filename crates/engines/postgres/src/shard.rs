//! One shard, as this node reaches it: lanes for commits, links for reads, and its replicas.

use crate::{
    core::closed,
    error::{PostgresError, Trouble},
    lane::{Lane, Pending, QUEUE},
    link::{Connector, Params, Socket, Sockets},
    options::{PostgresOptions, Role, ShardOptions},
};
use holon_ports::{Consistency, StoreError, store::WriteToken};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_postgres::{Row, types::PgLsn};

/// How far a replica is; for one that was promoted since, how far it has written.
const REPLAYED: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
    ELSE pg_current_wal_flush_lsn() END";
/// How long a replica may keep a reader from the primary, and how long it is left alone afterwards.
const REPLICA_PATIENCE: Duration = Duration::from_millis(500);
const REPLICA_REST: Duration = Duration::from_secs(2);

/// Bits of a token that say where in the log of a shard; those above say which shard. 4 PiB of log are enough.
const POSITION_BITS: u32 = 52;
/// The largest number of a shard that a token can name.
pub(crate) const MOST_SHARDS: i32 = (1 << (u64::BITS - POSITION_BITS)) - 1;

/// A position in the write-ahead log of one shard.
pub(crate) fn token(shard: i32, position: PgLsn) -> WriteToken {
    WriteToken((shard as u64) << POSITION_BITS | u64::from(position))
}

/// The position, if the token is of this shard: positions of others say nothing.
fn position(token: WriteToken, shard: i32) -> Option<u64> {
    (token.0 >> POSITION_BITS == shard as u64).then_some(token.0 & ((1 << POSITION_BITS) - 1))
}

/// The fence, which is the first column of every row of a read.
pub(crate) fn fence(rows: &[Row]) -> Result<i64, StoreError> {
    rows.first()
        .and_then(|row| row.try_get(0).ok())
        .ok_or_else(|| StoreError::Corrupt("the shard does not know what it is".into()))
}

pub(crate) struct Shard {
    pub name: String,
    /// In the directory.
    pub number: i32,
    pub connector: Arc<Connector>,
    pub primary: Sockets,
    lanes: Vec<mpsc::Sender<Pending>>,
    pub replicas: Vec<Replica>,
    next_replica: AtomicUsize,
    /// Told when this node has committed events to it.
    pub told: Arc<Notify>,
    /// It has been drained: nothing is there, and it may be gone.
    is_retired: AtomicBool,
}

impl Shard {
    pub fn new(
        of: &ShardOptions,
        number: i32,
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
                    shard: number,
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
            number,
            primary: Sockets::new(&connector, options.readers),
            connector,
            lanes: senders,
            replicas,
            next_replica: AtomicUsize::new(0),
            told,
            is_retired: AtomicBool::new(false),
        };
        Ok((shard, lanes))
    }

    pub fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    pub fn retire(&self) {
        if !self.is_retired.swap(true, Ordering::Relaxed) {
            self.discard();
        }
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

    /// Reads from the primary, or from a replica if that will do: one that has the slots asked for, which came to this
    /// shard by the version `arrived` of the directory.
    pub async fn read(
        &self,
        consistency: Consistency,
        arrived: i64,
        deadline: Instant,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Trouble> {
        if let Some(needed) = self.needed(consistency) {
            let next = self.next_replica.fetch_add(1, Ordering::Relaxed) % self.replicas.len();
            if let Some(rows) = self.replicas[next].read(needed, sql, params).await
                && fence(&rows).is_ok_and(|fence| fence >= arrived)
            {
                return Ok(rows);
            }
        }
        self.primary.read(deadline, sql, params).await
    }

    /// How far a replica must be to answer; `None` if no replica may.
    fn needed(&self, consistency: Consistency) -> Option<u64> {
        let Consistency::Eventual(token) = consistency else {
            return None;
        };
        if self.replicas.is_empty() {
            return None;
        }
        token.map_or(Some(0), |token| position(token, self.number))
    }
}

pub(crate) struct Replica {
    pub sockets: Sockets,
    /// The highest position that it is known to have replayed.
    replayed: AtomicU64,
    /// When it may be asked again, after it did not answer.
    rests_until: Mutex<Instant>,
}

impl Replica {
    /// `None` if it is behind, or away: then the primary is asked.
    async fn read(&self, needed: u64, sql: &str, params: Params<'_>) -> Option<Vec<Row>> {
        if *self.rests_until.lock() > Instant::now() {
            return None;
        }
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
