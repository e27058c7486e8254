//! The Leases port: one row a name, in the database of the directory, one statement an operation.
//!
//! A row stays when its lease is given back or runs out, so that the next holder's fence is larger. Time is the
//! database's unless the options say otherwise: one clock decides for all nodes, and a node whose own clock is off is
//! at worst refused. The lease is counted from when the statement began, so a holder never has it for longer than
//! it thinks.

use crate::{
    core::{Core, closed},
    encoding::{escape, unescape},
    error::Trouble,
    link::Params,
    options::LeaseTime,
};
use async_trait::async_trait;
use holon_base::Timestamp;
use holon_ports::{Fence, Lease, LeaseError, Leases};
use std::{sync::Arc, time::Duration};
use tokio_postgres::Row;

/// The longest name of a lease or of a holder, in bytes.
pub const NAME_BYTES: usize = 256;

const NOW: &str =
    "t AS (SELECT coalesce($1::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now)";

pub(crate) struct PostgresLeases(pub Arc<Core>);

fn check_names(name: &str, holder: &str) -> Result<(), LeaseError> {
    for (what, text) in [("name", name), ("holder", holder)] {
        if text.is_empty() || text.len() > NAME_BYTES {
            return Err(LeaseError::Invalid(format!(
                "a {what} is 1 to {NAME_BYTES} bytes"
            )));
        }
    }
    Ok(())
}

fn millis(ttl: Duration) -> Result<i64, LeaseError> {
    if ttl.as_millis() == 0 {
        return Err(LeaseError::Invalid("a lease lasts at least a millisecond".into()));
    }
    // Room for the time itself to be added.
    Ok(i64::try_from(ttl.as_millis())
        .unwrap_or(i64::MAX)
        .min(i64::MAX / 4))
}

fn malformed(error: &tokio_postgres::Error) -> LeaseError {
    LeaseError::Unavailable(format!("a lease cannot be read: {error}"))
}

/// The holder, fence and expiry in three columns.
fn lease(name: &str, row: &Row, first: usize) -> Result<Lease, LeaseError> {
    let bad = |error: tokio_postgres::Error| malformed(&error);
    let fence: i64 = row.try_get(first + 1).map_err(bad)?;
    Ok(Lease {
        name: name.to_owned(),
        holder: unescape(row.try_get(first).map_err(bad)?),
        fence: Fence(fence as u64),
        expires: Timestamp::from_millis(row.try_get(first + 2).map_err(bad)?),
    })
}

impl PostgresLeases {
    /// The time, if it is not the database's to tell.
    fn now(&self) -> Option<i64> {
        match self.0.options.lease_time {
            LeaseTime::Database => None,
            LeaseTime::Clock => Some(self.0.clock().now().millis()),
        }
    }

    /// Also while the engine closes.
    pub(crate) async fn give_up(&self, held: &Lease) -> Result<(), LeaseError> {
        // Over for every clock, also one that goes back.
        let sql = "UPDATE holon.leases SET expires = 0 WHERE name = $1 AND holder = $2 AND fence = $3";
        let (name, holder, fence) = (escape(&held.name), escape(&held.holder), held.fence.0 as i64);
        let given = self
            .0
            .home
            .read(self.0.deadline(), sql, &[&name, &holder, &fence])
            .await;
        given
            .map(drop)
            .map_err(|trouble| LeaseError::Unavailable(trouble.of_read().to_string()))
    }

    /// Every operation may be repeated when its answer was lost: the holder that asks twice gets the same.
    async fn ask(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, LeaseError> {
        if self.0.is_closed() {
            return Err(LeaseError::Unavailable(closed().to_string()));
        }
        let rows = self.0.home.read(self.0.deadline(), sql, params).await;
        rows.map_err(Trouble::of_read)
            .map_err(|error| LeaseError::Unavailable(error.to_string()))
    }
}

#[async_trait]
impl Leases for PostgresLeases {
    async fn acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Lease, LeaseError> {
        check_names(name, holder)?;
        let ttl = millis(ttl)?;
        let sql = format!(
            "WITH {NOW}, taken AS ( \
                INSERT INTO holon.leases AS l (name, holder, fence, expires) \
                SELECT $2, $3, 1, t.now + $4::bigint FROM t \
                ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires, \
                    fence = CASE WHEN l.expires <= excluded.expires - $4 THEN l.fence + 1 ELSE l.fence END \
                WHERE l.expires <= excluded.expires - $4 OR l.holder = excluded.holder \
                RETURNING l.holder, l.fence, l.expires) \
             SELECT true, holder, fence, expires FROM taken \
             UNION ALL SELECT false, holder, fence, expires FROM holon.leases \
             WHERE name = $2 AND NOT EXISTS (SELECT FROM taken)"
        );
        let (escaped, escaped_holder) = (escape(name), escape(holder));
        loop {
            let params: Params<'_> = &[&self.now(), &escaped, &escaped_holder, &ttl];
            let rows = self.ask(&sql, params).await?;
            // Nothing at all: another made the row after this statement had looked. It is there the next time.
            let Some(row) = rows.first() else { continue };
            let lease = lease(name, row, 1)?;
            if row.try_get(0).map_err(|error| malformed(&error))? {
                return Ok(lease);
            }
            // What the statement saw when it began may be older than what it was refused for.
            if lease.holder == holder {
                continue;
            }
            return Err(LeaseError::Held {
                holder: lease.holder,
                expires: lease.expires,
            });
        }
    }

    async fn renew(&self, held: &Lease, ttl: Duration) -> Result<Lease, LeaseError> {
        let ttl = millis(ttl)?;
        let sql = format!(
            "WITH {NOW} UPDATE holon.leases l SET expires = t.now + $5::bigint FROM t \
             WHERE l.name = $2 AND l.holder = $3 AND l.fence = $4 AND l.expires > t.now \
             RETURNING l.holder, l.fence, l.expires"
        );
        let (name, holder, fence) = (escape(&held.name), escape(&held.holder), held.fence.0 as i64);
        let rows = self
            .ask(&sql, &[&self.now(), &name, &holder, &fence, &ttl])
            .await?;
        lease(&held.name, rows.first().ok_or(LeaseError::Lost)?, 0)
    }

    async fn release(&self, held: &Lease) -> Result<(), LeaseError> {
        if self.0.is_closed() {
            return Err(LeaseError::Unavailable(closed().to_string()));
        }
        self.give_up(held).await
    }

    async fn current(&self, name: &str) -> Result<Option<Lease>, LeaseError> {
        let sql = format!(
            "WITH {NOW} SELECT l.holder, l.fence, l.expires FROM holon.leases l, t \
             WHERE l.name = $2 AND l.expires > t.now"
        );
        let rows = self.ask(&sql, &[&self.now(), &escape(name)]).await?;
        rows.first().map(|row| lease(name, row, 0)).transpose()
    }
}
