//! Store, Leases and Outbox on PostgreSQL 13 and newer: one server, or many shards.
//!
//! ```text
//!  commit ─► prepare ─► lane ─► holon.commit(...) on the shard ─► answers        get, scan ─► link ─► shard or replica
//!            (caller)   (one call for all that wait)                                          (pipelined)
//! ```
//!
//! [`lane`] says how concurrent commits share round trips and syncs, [`directory`] which shard has which partition
//! and [`mover`] how a slot moves, [`schema`] how the schema comes to be, [`encoding`] how rows lie in it, [`link`] how
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
//! (some 2,700 bytes of address); the commit is then refused as `Invalid`.

mod commit;
mod copy;
mod core;
pub mod directory;
mod encoding;
mod error;
mod house;
mod join;
mod lane;
pub mod leases;
mod link;
pub mod mover;
mod options;
mod outbox;
pub mod schema;
mod shard;
pub mod status;
mod store;
mod tables;
mod walk;

pub use directory::Rule;
pub use error::PostgresError;
pub use mover::{Moving, Spread};
pub use options::{LeaseTime, PostgresOptions, ShardOptions};

use crate::{
    core::Core, leases::PostgresLeases, link::Connector, options::Role, outbox::PostgresOutbox,
    schema::refused, store::PostgresStore,
};
use holon_ports::{Leases, Outbox, Partition, Store, StoreError};
use std::{collections::BTreeSet, sync::Arc};

/// The engine. Dropping it stops it; [`Postgres::close`] also waits for what is under way.
pub struct Postgres {
    core: Arc<Core>,
}

impl Postgres {
    /// Connects to every shard of the options, brings their schemas up to date, and makes the directory if there is
    /// none. Other shards are learned from the directory.
    ///
    /// # Errors
    /// See [`PostgresError`]. No message holds a password.
    pub async fn connect(options: PostgresOptions) -> Result<Self, PostgresError> {
        options.check()?;
        let url = options.directory.as_ref().unwrap_or(&options.shards[0].url);
        let name = match &options.directory {
            Some(_) => "the directory".to_owned(),
            None => format!("shard {}", options.shards[0].name),
        };
        let home = Arc::new(Connector::new(name, url, Role::Primary, &options)?);
        join::join(&home, &options).await?;
        let core = Arc::new(Core::new(options, home));
        let engine = Self { core };
        let core = &engine.core;
        core.refresh(0)
            .await
            .map_err(|error| PostgresError::Options(error.to_string()))?;
        for table in tables_of_all(core).await? {
            core.tables.insert(&table);
        }
        core.tasks.lock().spawn(mover::run(Arc::clone(core)));
        Ok(engine)
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

    /// The shard that has a partition, as this node knows it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the directory has a hole.
    pub fn shard_of(&self, partition: &Partition) -> Result<String, StoreError> {
        let route = self.core.route(&self.core.directory(), partition)?;
        Ok(self.core.shard(route.entry.shard).name.clone())
    }

    /// Deletes expired rows now, a bounded number of each table and shard; answers how many.
    ///
    /// # Errors
    /// If a shard is away.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let mut swept = 0;
        for shard in self.core.shards() {
            swept += house::sweep(&self.core, &shard).await?;
        }
        Ok(swept)
    }

    /// Stops: commits that wait are sent and answered, everything after is refused. Closing twice does nothing more.
    pub async fn close(&self) {
        self.core.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.core.tasks.lock());
        while tasks.join_next().await.is_some() {}
        self.core.home.discard();
        for shard in self.core.shards() {
            shard.discard();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.core.stop.send_replace(true);
    }
}

/// The tables that every shard has.
async fn tables_of_all(core: &Core) -> Result<BTreeSet<String>, PostgresError> {
    let mut common: Option<BTreeSet<String>> = None;
    for shard in core.shards() {
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
