//! What a mover does while it has the lease: one batch after another, from wherever it stands.

use super::{
    MoveError,
    copy::{Copy, Cursor},
    steps::{self, Place, failed},
};
use crate::{
    core::Core,
    directory::{Directory, Rule},
    encoding::unescape,
    error::Trouble,
    join::copy_tables,
    shard::Shard,
};
use holon_ports::Lease;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Slots that move together.
const BATCH: i64 = 32;
/// Once so few changes are left, the slots are frozen.
const FEW_CHANGES: u64 = 100;
/// How often what has changed since is copied before the slots are frozen in any case.
const ROUNDS: u32 = 50;
/// How long commits are held back at most before they are let go and the batch is tried again.
const FROZEN: Duration = Duration::from_secs(3);
/// How often a drained shard is asked whether it has told everything.
const DRAINED: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Copying,
    Frozen,
    Opening,
    Clearing,
}

/// Slots that move together.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub slots: Vec<i32>,
    /// `None` for a pin: rows may be anywhere.
    pub source: Option<String>,
    pub target: String,
    /// Of a pin.
    pub rule: Option<Rule>,
    pub stage: Stage,
    pub cursor: Cursor,
    pub rows: i64,
    pub bytes: i64,
}

const WORK: &str = "SELECT EXISTS (SELECT FROM holon.moves) OR EXISTS \
    (SELECT FROM holon.directory_shards WHERE state = 'draining')";

pub(super) async fn is_there_work(core: &Core) -> Result<bool, MoveError> {
    let rows = core.home.read(core.deadline(), WORK, &[]).await;
    let rows = rows.map_err(Trouble::of_read)?;
    Ok(rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)))
}

pub(super) struct Session<'a> {
    core: &'a Arc<Core>,
    lease: &'a Lease,
    home: Place,
}

impl<'a> Session<'a> {
    pub async fn open(core: &'a Arc<Core>, lease: &'a Lease) -> Result<Self, MoveError> {
        let home = Place::open(&core.home_connector).await?;
        Ok(Self { core, lease, home })
    }

    fn fence(&self) -> i64 {
        self.lease.fence.0 as i64
    }

    /// Until there is nothing left to do but to wait for relays.
    pub async fn work(&mut self) -> Result<(), MoveError> {
        while let Some(batch) = self.next().await? {
            self.core.refresh(i64::MAX).await?;
            self.carry(batch).await?;
        }
        let sql = "SELECT name FROM holon.directory_shards WHERE state = 'draining'";
        let draining = self.home.fail(self.home.client.query(sql, &[]).await)?;
        for row in &draining {
            steps::retire(self.core, &mut self.home, self.lease, row.get(0)).await?;
        }
        if !draining.is_empty() {
            tokio::time::sleep(DRAINED).await;
        }
        Ok(())
    }

    /// Writes down why a batch does not go on, for whoever looks.
    pub async fn tell(&self, error: &MoveError) {
        let sql = "UPDATE holon.moves SET trouble = $1 WHERE batch IS NOT NULL";
        if let Err(error) = self.home.client.execute(sql, &[&error.to_string()]).await {
            tracing::warn!(%error, "cannot write down why slots do not move");
        }
    }

    /// The batch that is on its way, or else a new one of what was asked for first.
    async fn next(&mut self) -> Result<Option<Batch>, MoveError> {
        let under_way = "SELECT m.slot, m.source, m.target, m.stage, m.place, m.rows, m.bytes, \
                r.kind, r.tenant, r.low, r.high \
            FROM holon.moves m LEFT JOIN holon.directory_rules r ON r.slot = m.slot AND m.source IS NULL \
            WHERE m.batch IS NOT NULL ORDER BY m.slot";
        let rows = self.home.fail(self.home.client.query(under_way, &[]).await)?;
        if let Some(first) = rows.first() {
            let text = |column: usize| first.get::<_, Option<String>>(column).map(unescape);
            let kind: Option<&str> = first.get(7);
            let rule = kind.map(|kind| Rule::from_row(kind, first.get(8), text(9), text(10)));
            let cursor: Option<String> = first.get(4);
            let damaged = || MoveError::Damaged("what is written of a move makes no sense".into());
            return Ok(Some(Batch {
                slots: rows.iter().map(|row| row.get(0)).collect(),
                source: first.get(1),
                target: first.get(2),
                rule: rule.map(|rule| rule.ok_or_else(damaged)).transpose()?,
                stage: match first.get::<_, &str>(3) {
                    "copying" => Stage::Copying,
                    "frozen" => Stage::Frozen,
                    "opening" => Stage::Opening,
                    "clearing" => Stage::Clearing,
                    _ => return Err(damaged()),
                },
                cursor: match cursor {
                    Some(text) => serde_json::from_str(&text).map_err(|_| damaged())?,
                    None => Cursor::default(),
                },
                rows: rows.iter().map(|row| row.get::<_, i64>(5)).sum(),
                bytes: rows.iter().map(|row| row.get::<_, i64>(6)).sum(),
            }));
        }
        if !self.begin().await? {
            return Ok(None);
        }
        Box::pin(self.next()).await
    }

    /// Makes a batch of what waits; false if nothing does.
    async fn begin(&mut self) -> Result<bool, MoveError> {
        let database = self.home.database.clone();
        let fail = |error: tokio_postgres::Error| failed(&database, &error);
        let transaction = steps::in_directory(&mut self.home, self.lease).await?;
        let sql = "UPDATE holon.moves SET stage = 'copying', batch = b.batch \
            FROM (SELECT nextval('holon.batches') AS batch) b \
            WHERE slot IN (SELECT m.slot FROM holon.moves m, ( \
                    SELECT slot, source, target FROM holon.moves WHERE stage = 'waiting' ORDER BY asked, slot LIMIT 1) f \
                WHERE m.stage = 'waiting' AND m.target = f.target \
                    AND (m.source = f.source OR f.source IS NULL AND m.slot = f.slot) \
                ORDER BY m.asked, m.slot LIMIT $1)";
        let begun = transaction.execute(sql, &[&BATCH]).await.map_err(fail)?;
        transaction.commit().await.map_err(fail)?;
        Ok(begun > 0)
    }

    fn shard(&self, name: &str) -> Result<Arc<Shard>, MoveError> {
        self.core
            .shard_named(name)
            .ok_or_else(|| MoveError::Damaged(format!("there is no shard {name}")))
    }

    /// Takes a batch to its end.
    async fn carry(&mut self, mut batch: Batch) -> Result<(), MoveError> {
        let target = self.shard(&batch.target)?;
        let mut sources: Vec<Arc<Shard>> = match &batch.source {
            Some(name) => vec![self.shard(name)?],
            None => {
                let shards = self.core.shards().into_iter();
                shards.filter(|shard| shard.name != batch.target).collect()
            }
        };
        // As cursors have it.
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        let mut ends = Ends {
            target: Place::open(&target.connector).await?,
            sources: Vec::new(),
        };
        for source in sources {
            ends.sources
                .push((source.name.clone(), Place::open(&source.connector).await?));
        }
        for place in ends.sources.iter().map(|(_, place)| place).chain([&ends.target]) {
            steps::take_over(place, &batch, self.fence()).await?;
        }
        if batch.stage == Stage::Frozen {
            self.thaw(&mut batch, &ends).await?;
        }
        if batch.stage == Stage::Copying {
            self.copy(&mut batch, &mut ends).await?;
            let frozen = tokio::time::timeout(FROZEN, self.hand_over(&mut batch, &mut ends)).await;
            // Whatever went wrong, the next session thaws first.
            frozen.map_err(|_| MoveError::Late("a shard, while slots were frozen,".into()))??;
        }
        if batch.stage == Stage::Opening {
            self.open_up(&mut batch, &mut ends).await?;
        }
        self.clear(&batch, &mut ends).await
    }

    async fn thaw(&mut self, batch: &mut Batch, ends: &Ends) -> Result<(), MoveError> {
        for (_, source) in &ends.sources {
            steps::thaw(source, batch, self.fence()).await?;
        }
        let state = if batch.rule.is_some() { "pending" } else { "owned" };
        steps::tell_directory(&mut self.home, self.lease, batch, state, "copying").await?;
        batch.stage = Stage::Copying;
        Ok(())
    }

    /// Copies all rows, and then what has changed since, until that is little.
    async fn copy(&mut self, batch: &mut Batch, ends: &mut Ends) -> Result<(), MoveError> {
        for (_, source) in &mut ends.sources {
            copy_tables(
                &mut source.client,
                &source.database,
                &mut ends.target.client,
                &ends.target.database,
            )
            .await?;
            let relations = relations(source).await?;
            if batch.rule.is_none() {
                steps::index(source, &relations).await?;
            }
        }
        steps::await_arrival(&ends.target, batch, self.fence()).await?;
        for (_, source) in &mut ends.sources {
            steps::log_changes(source, batch, self.fence()).await?;
        }
        let directory = self.directory_then(batch);
        for (name, source) in &ends.sources {
            let relations = relations(source).await?;
            let mut copy = self.copying(batch, &directory, source, &ends.target);
            copy.all(name, &relations, &self.home, self.lease).await?;
            let Copy {
                rows, bytes, cursor, ..
            } = copy;
            (batch.rows, batch.bytes, batch.cursor) = (rows, bytes, cursor);
        }
        for round in 1..=ROUNDS {
            let mut changes = 0;
            for (_, source) in &ends.sources {
                changes += self
                    .copying(batch, &directory, source, &ends.target)
                    .changes()
                    .await?;
            }
            if changes <= FEW_CHANGES {
                break;
            }
            tracing::debug!(round, changes, "rows changed while they were copied");
        }
        Ok(())
    }

    fn copying<'b>(
        &'b self,
        batch: &'b Batch,
        directory: &'b Directory,
        source: &'b Place,
        target: &'b Place,
    ) -> Copy<'b> {
        Copy {
            batch,
            directory,
            source,
            target,
            mover: self.fence(),
            bytes_per_second: self.core.options.move_bytes_per_second,
            cursor: batch.cursor.clone(),
            rows: batch.rows,
            bytes: batch.bytes,
        }
    }

    /// The directory as it will be, to know which rows a rule moves.
    fn directory_then(&self, batch: &Batch) -> Directory {
        let directory = self.core.directory();
        match batch.rule {
            Some(_) => directory.with_active(batch.slots[0]),
            None => Directory::clone(&directory),
        }
    }

    /// Freezes, copies the rest, and writes into the directory who has the slots.
    async fn hand_over(&mut self, batch: &mut Batch, ends: &mut Ends) -> Result<(), MoveError> {
        let began = Instant::now();
        let frozen = steps::tell_directory(&mut self.home, self.lease, batch, "frozen", "frozen").await?;
        for (_, source) in &mut ends.sources {
            steps::freeze(source, batch, self.fence(), frozen).await?;
        }
        if batch.rule.is_some() {
            steps::freeze(&mut ends.target, batch, self.fence(), frozen).await?;
            // What it told before comes before what it will tell.
            let reached = steps::reached(&ends.target).await?;
            steps::hold_events(&ends.target, &batch.target, reached, &ends.target, batch).await?;
        }
        let directory = self.directory_then(batch);
        for (name, source) in &ends.sources {
            self.copying(batch, &directory, source, &ends.target)
                .changes()
                .await?;
            let reached = steps::reached(source).await?;
            steps::hold_events(source, name, reached, &ends.target, batch).await?;
        }
        steps::hand_over(&mut self.home, self.lease, batch).await?;
        batch.stage = Stage::Opening;
        tracing::debug!(millis = began.elapsed().as_millis() as u64, "slots were frozen");
        Ok(())
    }

    async fn open_up(&mut self, batch: &mut Batch, ends: &mut Ends) -> Result<(), MoveError> {
        let sql = "SELECT min(arrived) FROM holon.directory_slots WHERE slot = ANY ($1)";
        let row = self.home.client.query_one(sql, &[&batch.slots]).await;
        let version: i64 = self.home.fail(row)?.get(0);
        for (_, source) in &mut ends.sources {
            steps::close_source(source, batch, self.fence(), version).await?;
        }
        steps::open_target(&mut ends.target, batch, self.fence(), version).await?;
        self.stage(batch, "clearing").await?;
        batch.stage = Stage::Clearing;
        Ok(())
    }

    async fn stage(&mut self, batch: &Batch, stage: &str) -> Result<(), MoveError> {
        let database = self.home.database.clone();
        let fail = |error: tokio_postgres::Error| failed(&database, &error);
        let transaction = steps::in_directory(&mut self.home, self.lease).await?;
        let sql = "UPDATE holon.moves SET stage = $2, trouble = NULL WHERE slot = ANY ($1)";
        transaction
            .execute(sql, &[&batch.slots, &stage])
            .await
            .map_err(fail)?;
        transaction.commit().await.map_err(fail)
    }

    /// Deletes what is left at the sources, and then the batch itself.
    async fn clear(&mut self, batch: &Batch, ends: &mut Ends) -> Result<(), MoveError> {
        let directory = Directory::clone(&self.core.directory());
        let directory = match batch.rule {
            Some(_) => directory.with_active(batch.slots[0]),
            None => directory,
        };
        for (_, source) in &ends.sources {
            let relations = relations(source).await?;
            self.copying(batch, &directory, source, &ends.target)
                .clear(&relations)
                .await?;
        }
        if batch.rule.is_some() {
            let relations = relations(&ends.target).await?;
            self.copying(batch, &directory, &ends.target, &ends.target)
                .relabel(&relations)
                .await?;
        }
        let database = self.home.database.clone();
        let fail = |error: tokio_postgres::Error| failed(&database, &error);
        let transaction = steps::in_directory(&mut self.home, self.lease).await?;
        let done = "DELETE FROM holon.moves WHERE slot = ANY ($1)";
        transaction.execute(done, &[&batch.slots]).await.map_err(fail)?;
        transaction.commit().await.map_err(fail)
    }
}

/// Connections to the two ends of a batch's way.
pub(super) struct Ends {
    pub sources: Vec<(String, Place)>,
    pub target: Place,
}

/// All tables of a shard, in a fixed order.
async fn relations(place: &Place) -> Result<Vec<String>, MoveError> {
    let sql = "SELECT relation FROM holon.tables ORDER BY relation";
    let rows = place.fail(place.client.query(sql, &[]).await)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
