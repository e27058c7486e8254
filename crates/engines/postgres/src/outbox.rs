//! The Outbox port: a table on each shard, written by the commits that tell the events.
//!
//! An event's number is taken under the lock of its partition, so numbers grow with the commits of a partition. They
//! become visible with their commits, so a smaller one may appear after a larger.
//!
//! When a partition moves to another shard, events that have not been told stay where they were committed, so that the
//! relay there tells them once; what is committed after the move waits in the other outbox until they are forgotten
//! (`holon.outbox_holds`). So the order of a partition's events holds across any number of moves: whatever a hold waits
//! for was committed before the hold was made, so holds never wait for each other in a circle.
//!
//! Whoever waits is woken by the commits of this node, and looks from time to time for those of others. `NOTIFY`
//! would wake without looking, but it takes a lock of the whole server until its transaction has been synced to disk,
//! which would put an end to commits that share a sync.

use crate::{
    core::{Core, closed},
    encoding::unescape,
    error::Trouble,
    link::Params,
    shard::Shard,
};
use async_trait::async_trait;
use holon_base::{Id, Tenant, Timestamp};
use holon_ports::{Outbox, OutboxEvent, StoreError};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_postgres::Row;

const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct PostgresOutbox(pub Arc<Core>);

/// Whether an event must wait: for those of its partition that are still where the partition was before.
const HELD: &str = "EXISTS (SELECT FROM holon.outbox_holds h WHERE h.slot = o.slot AND o.number > h.after)";

impl PostgresOutbox {
    fn shard(&self, source: &str) -> Result<Arc<Shard>, StoreError> {
        if self.0.is_closed() {
            return Err(closed());
        }
        self.0
            .shard_named(source)
            .ok_or_else(|| StoreError::Invalid(format!("there is no shard {source:?}")))
    }

    async fn has_some(&self, shard: &Shard) -> bool {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM holon.outbox o WHERE NOT {HELD}), EXISTS (SELECT FROM holon.outbox_holds)"
        );
        let rows = shard
            .primary
            .read(Instant::now() + LONGEST_PAUSE, &sql, &[])
            .await;
        let is = |column: usize| -> bool {
            let first = rows.as_ref().ok().and_then(|rows| rows.first());
            first.is_some_and(|row| row.try_get(column).unwrap_or(false))
        };
        if is(1) {
            // If that fails, whoever reads hears of it.
            let _ = self.lift_holds(shard).await;
        }
        is(0)
    }

    /// Lets events go that waited for others to be told, if those have been.
    async fn lift_holds(&self, shard: &Shard) -> Result<(), StoreError> {
        let sql = "SELECT slot, after, source, upto, whole FROM holon.outbox_holds";
        let holds = shard.primary.read(self.0.deadline(), sql, &[]).await;
        for hold in holds.map_err(Trouble::of_read)? {
            let bad = |error: tokio_postgres::Error| StoreError::Corrupt(error.to_string());
            let (slot, after): (i32, i64) = (hold.try_get(0).map_err(bad)?, hold.try_get(1).map_err(bad)?);
            let source: &str = hold.try_get(2).map_err(bad)?;
            let (upto, whole): (i64, bool) = (hold.try_get(3).map_err(bad)?, hold.try_get(4).map_err(bad)?);
            if self.has_to_tell(source, slot, upto, whole).await? {
                continue;
            }
            let lift =
                "DELETE FROM holon.outbox_holds WHERE slot = $1 AND after = $2 AND source = $3 AND upto = $4";
            let params: Params<'_> = &[&slot, &after, &source, &upto];
            let lifted = shard.primary.read(self.0.deadline(), lift, params).await;
            lifted.map_err(Trouble::of_read)?;
        }
        Ok(())
    }

    /// Whether a shard has events up to a number: of a slot, or any at all.
    async fn has_to_tell(&self, source: &str, slot: i32, upto: i64, whole: bool) -> Result<bool, StoreError> {
        let Some(shard) = self.0.shard_named(source).filter(|shard| !shard.is_retired()) else {
            // It had told everything before it was let go.
            return Ok(false);
        };
        let sql = "SELECT EXISTS (SELECT FROM holon.outbox \
            WHERE number <= $1 AND ($2 OR slot IS NULL OR slot = $3))";
        let rows = shard
            .primary
            .read(self.0.deadline(), sql, &[&upto, &whole, &slot])
            .await;
        let rows = rows.map_err(Trouble::of_read)?;
        Ok(rows.first().is_none_or(|row| row.try_get(0).unwrap_or(true)))
    }
}

fn event(row: &Row) -> Result<OutboxEvent, StoreError> {
    let bad = |error: tokio_postgres::Error| StoreError::Corrupt(format!("an event cannot be read: {error}"));
    let (number, id): (i64, i64) = (row.try_get(0).map_err(bad)?, row.try_get(2).map_err(bad)?);
    let text = |column| -> Result<String, StoreError> { Ok(unescape(row.try_get(column).map_err(bad)?)) };
    let data: &[u8] = row.try_get(8).map_err(bad)?;
    let traceparent: Option<String> = row.try_get(9).map_err(bad)?;
    Ok(OutboxEvent {
        number: number as u64,
        topic: text(1)?,
        id: Id::from_u64(id as u64),
        time: Timestamp::from_millis(row.try_get(3).map_err(bad)?),
        tenant: Tenant::new(&text(4)?).map_err(|error| StoreError::Corrupt(error.to_string()))?,
        key: text(5)?,
        kind: text(6)?,
        subject: text(7)?,
        data: data.to_vec().into(),
        traceparent: traceparent.map(|trace| unescape(trace).into()),
    })
}

#[async_trait]
impl Outbox for PostgresOutbox {
    async fn sources(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.0.shards().iter().map(|shard| shard.name.clone()).collect())
    }

    async fn read(&self, source: &str, max: usize) -> Result<Vec<OutboxEvent>, StoreError> {
        let sql = format!(
            "SELECT number, topic, id, time, tenant, key, kind, subject, data, traceparent \
             FROM holon.outbox o WHERE NOT {HELD} ORDER BY number LIMIT $1"
        );
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let shard = self.shard(source)?;
        self.lift_holds(&shard).await?;
        let rows = shard.primary.read(self.0.deadline(), &sql, &[&max]).await;
        rows.map_err(Trouble::of_read)?.iter().map(event).collect()
    }

    async fn forget(&self, source: &str, numbers: &[u64]) -> Result<(), StoreError> {
        let numbers: Vec<i64> = numbers.iter().map(|number| *number as i64).collect();
        let sql = "DELETE FROM holon.outbox WHERE number = ANY ($1)";
        let shard = self.shard(source)?;
        // To forget twice is to forget.
        let rows = shard.primary.read(self.0.deadline(), sql, &[&numbers]).await;
        rows.map_err(Trouble::of_read).map(drop)
    }

    async fn wait(&self, source: &str, patience: Duration) {
        let end = Instant::now() + patience;
        let Ok(shard) = self.shard(source) else {
            // There is nothing to wait for, and callers ask in a loop.
            return tokio::time::sleep_until(end).await;
        };
        let mut stop = self.0.stop.subscribe();
        let mut pause = FIRST_LOOK;
        while !self.has_some(&shard).await && Instant::now() < end {
            tokio::select! {
                () = shard.told.notified() => return,
                _ = stop.changed() => return,
                () = tokio::time::sleep_until(end.min(Instant::now() + pause)) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
