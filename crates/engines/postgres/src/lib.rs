//! Store, Leases and Outbox on PostgreSQL 13 and newer: one server, or many shards.
//!
//! ```text
//!  commit ─► prepare ─► lane ─► holon.commit(...) on the shard ─► answers        get, scan ─► link ─► shard or replica
//!            (caller)   (one call for all that wait)                                          (pipelined)
//! ```
//!
//! [`lane`] says how concurrent commits share round trips and syncs, [`directory`] which shard has which partition
//! and how a slot can move, [`schema`] how the schema comes to be, [`encoding`] how rows lie in it, [`link`] how
//! connections are shared and made anew, [`leases`] and [`outbox`] how those ports work.
//!
//! # What lies in a database
//!
//! Everything is in the schema `holon`. One relation a table, named like it, which an operator can query:
//!
//! ```sql
//! SELECT entity, json->>'text' FROM holon."feed.posts" WHERE tenant = 'main' AND json @> '{"lang": "en"}';
//! ```
//!
//! | column | what |
//! |---|---|
//! | `tenant`, `entity`, `sort` | the address, and the primary key; byte order is the order of scans |
//! | `slot` | the slot that the partition belonged to when the row was written |
//! | `kind` | 0 JSON, 1 binary, 2 counter |
//! | `json` | the document as `jsonb`; null if `jsonb` cannot hold it (a text with a NUL, say) |
//! | `bytes` | the document or the bytes as they were put, and as they are served |
//! | `counter` | the count |
//! | `version` | from the sequence `holon.versions` of the shard; one a commit |
//! | `expires` | milliseconds since 1970, or null |
//!
//! # Promises, and what they rest on
//!
//! - A partition's commits are serialisable: each runs under an advisory lock of its partition, and sees what was
//!   committed before. Durable: `fsync` and `synchronous_commit` must be on; a server without `fsync` is refused.
//! - A scan is one statement, and so one snapshot. Reads are strong on the primary. What was committed on a primary
//!   that was lost before a standby had it is lost with it, unless the standby is a synchronous one.
//! - A [`holon_ports::store::WriteToken`] is a position in the write-ahead log. A replica answers an `Eventual` read
//!   if it has replayed so far, else the primary does.
//! - What expires does so by the engine's clock, at once; a sweep deletes it later, a bounded number at a time.
//! - When a connection breaks, commits that were sent are answered with `Unknown` and never sent again; commits that
//!   wait are sent once there is a connection, or answered with `Unavailable` when patience ends.
//!
//! # Limits
//!
//! Connections are not encrypted: connection strings that require TLS are refused, so servers must be reached
//! over a network that is trusted. Sessions hold prepared statements and settings, so a pooler in between must not pool
//! by transaction. A partition key that is long and full of NULs or `\` can exceed what an index holds
//! (some 2,700 bytes of address); the commit is then refused as `Invalid`. Moving slots is not in here yet, only what
//! makes it safe.

mod commit;
mod copy;
mod core;
pub mod directory;
mod encoding;
mod error;
mod lane;
pub mod leases;
mod link;
mod options;
mod outbox;
mod place;
pub mod schema;
mod store;
mod tables;

pub use directory::Rule;
pub use error::PostgresError;
pub use options::{LeaseTime, PostgresOptions, ShardOptions};

use crate::{
    core::{Core, Shard},
    error::Trouble,
    lane::Lane,
    leases::PostgresLeases,
    link::Connector,
    options::Role,
    outbox::PostgresOutbox,
    schema::refused,
    store::PostgresStore,
};
use holon_ports::{Leases, Outbox, Partition, Store, StoreError};
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};
use tokio::{sync::watch, task::JoinSet};

/// The engine. Dropping it stops it; [`Postgres::close`] also waits for what is under way.
pub struct Postgres {
    core: Arc<Core>,
    tasks: Mutex<JoinSet<()>>,
}

impl Postgres {
    /// Connects to every shard, brings their schemas up to date, and makes the directory if there is none.
    ///
    /// # Errors
    /// See [`PostgresError`]. No message holds a password.
    pub async fn connect(options: PostgresOptions) -> Result<Self, PostgresError> {
        options.check()?;
        let (stop, stopped) = watch::channel(false);
        let mut shards = Vec::new();
        let mut lanes = Vec::new();
        for of in &options.shards {
            let (shard, of_shard) = Shard::new(of, &options, &stopped)?;
            shards.push(shard);
            lanes.extend(of_shard);
        }
        let home = match &options.directory {
            Some(url) => Arc::new(Connector::new(
                "the directory".into(),
                url,
                Role::Primary,
                &options,
            )?),
            None => Arc::clone(&shards[0].connector),
        };
        prepare(&shards, &home).await?;
        let tables = tables_of_all(&shards).await?;
        let core = Arc::new(Core::new(options, shards, home, stop));
        for table in tables {
            core.tables.insert(&table);
        }
        core.refresh(0)
            .await
            .map_err(|error| PostgresError::Options(error.to_string()))?;
        let tasks = spawn(&core, lanes);
        Ok(Self {
            core,
            tasks: Mutex::new(tasks),
        })
    }

    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore(Arc::clone(&self.core)))
    }

    pub fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(PostgresLeases(Arc::clone(&self.core)))
    }

    pub fn outbox(&self) -> Arc<dyn Outbox> {
        Arc::new(PostgresOutbox(Arc::clone(&self.core)))
    }

    /// Gives the partitions of a rule a slot of their own, on a shard of choice. For partitions that have no rows
    /// yet; asking again for the same does nothing more. Other nodes learn of it when they next read or write.
    ///
    /// # Errors
    /// [`PostgresError::Occupied`] if rows are there that the rule covers.
    pub async fn place(&self, rule: &Rule, shard: &str) -> Result<(), PostgresError> {
        place::place(&self.core, rule, shard).await
    }

    /// The shard that has a partition, as this node knows it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the directory has a hole.
    pub fn shard_of(&self, partition: &Partition) -> Result<String, StoreError> {
        let route = self.core.route(&self.core.directory(), partition)?;
        Ok(self.core.shards[route.entry.shard].name.clone())
    }

    /// The rules of the directory with their slots, the most specific first.
    pub fn rules(&self) -> Vec<(Rule, i32)> {
        let directory = self.core.directory();
        directory
            .rules()
            .map(|(rule, slot)| (rule.clone(), slot))
            .collect()
    }

    /// How many slots each shard has, by this node's copy of the directory.
    pub fn slots(&self) -> Vec<(String, usize)> {
        let directory = self.core.directory();
        let count = |index: usize| {
            directory
                .slots
                .values()
                .filter(|entry| entry.shard == index)
                .count()
        };
        let shards = self.core.shards.iter().enumerate();
        shards
            .map(|(index, shard)| (shard.name.clone(), count(index)))
            .collect()
    }

    /// Deletes expired rows now, a bounded number of each table and shard; answers how many.
    ///
    /// # Errors
    /// If a shard is away.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let mut swept = 0;
        for shard in &self.core.shards {
            swept += sweep(&self.core, shard).await?;
        }
        Ok(swept)
    }

    /// Stops: commits that wait are sent and answered, everything after is refused. Closing twice does nothing more.
    pub async fn close(&self) {
        self.core.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
        self.core.home.discard();
        for shard in &self.core.shards {
            shard.discard();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.core.stop.send_replace(true);
    }
}

/// Schemas, directory and claims, in this order.
async fn prepare(shards: &[Shard], home: &Arc<Connector>) -> Result<(), PostgresError> {
    let mut directory = schema::connect(home).await?;
    schema::migrate(&mut directory, &home.database).await?;
    let mut clients = Vec::new();
    for shard in shards {
        let mut client = schema::connect(&shard.connector).await?;
        schema::migrate(&mut client, &shard.connector.database).await?;
        clients.push(client);
    }
    let names: Vec<&str> = shards.iter().map(|shard| shard.name.as_str()).collect();
    place::create_directory(&mut directory, &home.database, &names).await?;
    for (shard, client) in shards.iter().zip(&mut clients) {
        let slots = place::slots_of(&directory, &home.database, &shard.name).await?;
        place::claim(client, &shard.connector.database, &shard.name, &slots).await?;
    }
    Ok(())
}

/// The tables that every shard has.
async fn tables_of_all(shards: &[Shard]) -> Result<BTreeSet<String>, PostgresError> {
    let mut common: Option<BTreeSet<String>> = None;
    for shard in shards {
        let client = schema::connect(&shard.connector).await?;
        let rows = client.query("SELECT name FROM holon.tables", &[]).await;
        let rows = rows.map_err(|error| refused(&shard.connector.database, &error))?;
        let there: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        common = Some(match common {
            Some(common) => common.intersection(&there).cloned().collect(),
            None => there,
        });
    }
    Ok(common.unwrap_or_default())
}

fn spawn(core: &Arc<Core>, lanes: Vec<Lane>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for lane in lanes {
        tasks.spawn(lane.run());
    }
    for index in 0..core.shards.len() {
        tasks.spawn(keep_house(Arc::clone(core), index));
    }
    tasks
}

/// Sweeps a shard until the engine stops; without a pause while there is much.
async fn keep_house(core: Arc<Core>, shard: usize) {
    let mut stop = core.stop.subscribe();
    let shard = &core.shards[shard];
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(core.options.housekeeping) => {}
        }
        loop {
            match sweep(&core, shard).await {
                Ok(swept) if swept >= u64::from(core.options.sweep_rows) && !core.is_closed() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(shard = shard.name, %error, "expired rows were not swept");
                    break;
                }
            }
        }
    }
}

async fn sweep(core: &Core, shard: &Shard) -> Result<u64, StoreError> {
    let (now, most) = (core.clock().now().millis(), core.options.sweep_rows as i32);
    let sql = "SELECT holon.sweep($1, $2)";
    let rows = shard.primary.read(core.deadline(), sql, &[&now, &most]).await;
    let rows = rows.map_err(Trouble::of_read)?;
    let swept: Option<i64> = rows.first().and_then(|row| row.try_get(0).ok());
    Ok(swept.and_then(|swept| u64::try_from(swept).ok()).unwrap_or(0))
}
