//! The Outbox port: a table on each shard, written by the commits that tell the events.
//!
//! An event's number is taken under the lock of its partition, so numbers grow with the commits of a partition. They
//! become visible with their commits, so a smaller one may appear after a larger.
//!
//! Whoever waits is woken by the commits of this node, and looks from time to time for those of others. `NOTIFY`
//! would wake without looking, but it takes a lock of the whole server until its transaction has been synced to disk,
//! which would put an end to commits that share a sync.

use crate::{
    core::{Core, Shard, closed},
    encoding::unescape,
    error::Trouble,
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

impl PostgresOutbox {
    fn shard(&self, source: &str) -> Result<&Shard, StoreError> {
        if self.0.is_closed() {
            return Err(closed());
        }
        let index = self.0.shard_index(source);
        index
            .map(|index| &self.0.shards[index])
            .ok_or_else(|| StoreError::Invalid(format!("there is no shard {source:?}")))
    }

    async fn has_some(&self, shard: &Shard) -> bool {
        let sql = "SELECT EXISTS (SELECT FROM holon.outbox)";
        let rows = shard.primary.read(Instant::now() + LONGEST_PAUSE, sql, &[]).await;
        rows.is_ok_and(|rows| rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)))
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
        Ok(self.0.shards.iter().map(|shard| shard.name.clone()).collect())
    }

    async fn read(&self, source: &str, max: usize) -> Result<Vec<OutboxEvent>, StoreError> {
        let sql = "SELECT number, topic, id, time, tenant, key, kind, subject, data, traceparent \
                   FROM holon.outbox ORDER BY number LIMIT $1";
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let shard = self.shard(source)?;
        let rows = shard.primary.read(self.0.deadline(), sql, &[&max]).await;
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
        while !self.has_some(shard).await && Instant::now() < end {
            tokio::select! {
                () = shard.told.notified() => return,
                _ = stop.changed() => return,
                () = tokio::time::sleep_until(end.min(Instant::now() + pause)) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
