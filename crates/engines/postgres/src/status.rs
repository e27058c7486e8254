//! What an operator sees of shards, rules and moves.

use crate::{Postgres, PostgresError, Rule, core::Core, encoding::unescape, error::Trouble, shard::Shard};
use futures::future::join_all;
use holon_ports::StoreError;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tokio_postgres::types::PgLsn;

/// How long one server may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a shard stands.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardStatus {
    pub name: String,
    /// `active`, `draining`, or `retired`: drained, and asked for nothing any more.
    pub state: String,
    /// Slots that it has now, those of rules among them.
    pub slots: u32,
    /// What its database says; `None` if it does not answer, or is retired.
    pub contents: Option<Contents>,
    pub replicas: Vec<ReplicaStatus>,
}

/// By PostgreSQL's own estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    pub rows: u64,
    /// Of the whole database, with indexes.
    pub bytes: u64,
    /// Events that have not been told to the log yet.
    pub outbox: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplicaStatus {
    /// Whether it answers, as a standby.
    pub is_up: bool,
    /// How much of the primary's log it has not replayed.
    pub lag_bytes: Option<u64>,
    /// How long ago what it replayed last was committed, if it is behind.
    pub lag_seconds: Option<f64>,
}

/// A rule, its slot, and where that is.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleStatus {
    pub rule: Rule,
    pub slot: i32,
    pub shard: String,
    /// If not, its rows are still on their way.
    pub active: bool,
}

/// Slots that are on their way between the same shards at the same stage.
#[derive(Debug, Clone, PartialEq)]
pub struct MoveStatus {
    /// `None` if rows are gathered from all shards, for a rule.
    pub from: Option<String>,
    pub to: String,
    /// `waiting`, `copying`, `frozen`, `opening` or `clearing`.
    pub stage: String,
    pub slots: u32,
    /// Of these slots, copied so far.
    pub rows: u64,
    pub bytes: u64,
    /// When it was asked for, in seconds ago.
    pub age_seconds: f64,
    /// Why it does not go on, if it does not.
    pub trouble: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The version of the directory.
    pub version: i64,
    pub shards: Vec<ShardStatus>,
    /// The most specific first.
    pub rules: Vec<RuleStatus>,
    pub moves: Vec<MoveStatus>,
    /// The node that moves slots now, if one does.
    pub mover: Option<String>,
}

impl Postgres {
    /// How shards, rules and moves stand. A shard that is away costs a second and is said to be away.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub async fn status(&self) -> Result<Status, PostgresError> {
        status(&self.core).await.map_err(|error| PostgresError::Refused {
            database: self.core.home_connector.database.clone(),
            detail: error.to_string(),
        })
    }

    /// The rules of the directory with their slots, the most specific first.
    pub fn rules(&self) -> Vec<(Rule, i32)> {
        let directory = self.core.directory();
        directory
            .rules()
            .map(|ruled| (ruled.rule.clone(), ruled.slot))
            .collect()
    }

    /// How many slots each shard has, by this node's copy of the directory.
    pub fn slots(&self) -> Vec<(String, usize)> {
        let directory = self.core.directory();
        let shards = self.core.shards();
        let count = |shard: &Arc<Shard>| {
            let entries = directory.slots.values();
            entries
                .filter(|entry| Arc::ptr_eq(&self.core.shard(entry.shard), shard))
                .count()
        };
        shards
            .iter()
            .map(|shard| (shard.name.clone(), count(shard)))
            .collect()
    }
}

async fn status(core: &Arc<Core>) -> Result<Status, StoreError> {
    core.refresh(i64::MAX).await?;
    let read = |sql: &'static str| async move {
        let rows = core.home.read(core.deadline(), sql, &[]).await;
        rows.map_err(Trouble::of_read)
    };
    let bad = |error: tokio_postgres::Error| StoreError::Corrupt(error.to_string());
    let known = read(
        "SELECT d.name, d.state, count(s.slot) FILTER (WHERE s.state <> 'pending') \
         FROM holon.directory_shards d LEFT JOIN holon.directory_slots s ON s.shard = d.name \
         GROUP BY d.number ORDER BY d.number",
    )
    .await?;
    let mut shards = Vec::new();
    for row in &known {
        shards.push(ShardStatus {
            name: row.try_get(0).map_err(bad)?,
            state: row.try_get(1).map_err(bad)?,
            slots: row.try_get::<_, i64>(2).map_err(bad)? as u32,
            contents: None,
            replicas: Vec::new(),
        });
    }
    join_all(shards.iter_mut().map(|status| async {
        let shard = core.shard_named(&status.name).filter(|shard| !shard.is_retired());
        if let Some(shard) = shard {
            look_at(&shard, status).await;
        }
    }))
    .await;
    let under_way = read(
        "SELECT source, target, stage, count(*), sum(rows)::bigint, sum(bytes)::bigint, \
            extract(epoch FROM now() - min(asked))::float8, min(trouble) \
         FROM holon.moves GROUP BY source, target, stage, batch ORDER BY stage = 'waiting', min(asked)",
    )
    .await?;
    let mut moves = Vec::new();
    for row in &under_way {
        moves.push(MoveStatus {
            from: row.try_get(0).map_err(bad)?,
            to: row.try_get(1).map_err(bad)?,
            stage: row.try_get(2).map_err(bad)?,
            slots: row.try_get::<_, i64>(3).map_err(bad)? as u32,
            rows: row.try_get::<_, i64>(4).map_err(bad)? as u64,
            bytes: row.try_get::<_, i64>(5).map_err(bad)? as u64,
            age_seconds: row.try_get(6).map_err(bad)?,
            trouble: row.try_get(7).map_err(bad)?,
        });
    }
    let mover = read(
        "SELECT holder FROM holon.leases WHERE name = 'shards.mover' \
         AND expires > (extract(epoch FROM clock_timestamp()) * 1000)::bigint",
    )
    .await?;
    let mover = mover.first().and_then(|row| row.try_get::<_, String>(0).ok());
    let directory = core.directory();
    let rules = directory.rules().map(|ruled| RuleStatus {
        rule: ruled.rule.clone(),
        slot: ruled.slot,
        shard: directory
            .slots
            .get(&ruled.slot)
            .map(|entry| core.shard(entry.shard).name.clone())
            .unwrap_or_default(),
        active: ruled.active,
    });
    Ok(Status {
        version: directory.version,
        shards,
        rules: rules.collect(),
        moves,
        mover: mover.map(unescape),
    })
}

/// Asks a shard and its replicas; what does not answer in time is left as it is.
async fn look_at(shard: &Shard, status: &mut ShardStatus) {
    let sql = "SELECT pg_database_size(current_database()), \
        (SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM holon.tables t \
            JOIN pg_class c ON c.relname = t.relation AND c.relkind = 'r' \
            JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'holon'), \
        (SELECT count(*) FROM holon.outbox), pg_current_wal_flush_lsn()";
    let asked = shard.primary.read(Instant::now() + PATIENCE, sql, &[]);
    let rows = timeout(PATIENCE, asked).await;
    let row = rows
        .ok()
        .and_then(Result::ok)
        .and_then(|rows| rows.into_iter().next());
    let number = |column: usize| -> Option<u64> {
        let number: i64 = row.as_ref()?.try_get(column).ok()?;
        u64::try_from(number).ok()
    };
    status.contents = (|| {
        Some(Contents {
            bytes: number(0)?,
            rows: number(1)?,
            outbox: number(2)?,
        })
    })();
    let written: Option<u64> = row
        .as_ref()
        .and_then(|row| row.try_get::<_, PgLsn>(3).ok())
        .map(u64::from);
    status.replicas = join_all(shard.replicas.iter().map(|replica| async move {
        let sql = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(), \
            extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8";
        let asked = replica.sockets.read(Instant::now() + PATIENCE, sql, &[]);
        let rows = timeout(PATIENCE, asked).await;
        let row = rows
            .ok()
            .and_then(Result::ok)
            .and_then(|rows| rows.into_iter().next());
        let replayed: Option<u64> = row
            .as_ref()
            .and_then(|row| row.try_get::<_, Option<PgLsn>>(1).ok().flatten())
            .map(u64::from);
        let lag_bytes = written
            .zip(replayed)
            .map(|(written, replayed)| written.saturating_sub(replayed));
        let age: Option<f64> = row.as_ref().and_then(|row| row.try_get(2).ok().flatten());
        ReplicaStatus {
            is_up: row.as_ref().is_some_and(|row| row.try_get(0).unwrap_or(false)),
            lag_bytes,
            lag_seconds: match lag_bytes {
                Some(0) => Some(0.0),
                _ => age,
            },
        }
    }))
    .await;
}
