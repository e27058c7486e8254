//! Copying: rows as they were elsewhere, and what must not be given out again.
//!
//! Rows are written over whatever is there, with the versions that they had. That is for shards that no node uses;
//! they are durable on return, and to write them twice is to write them once.

use crate::{
    Postgres, commit,
    encoding::{escape, is_queryable, unescape},
    error::Trouble,
};
use futures::future::try_join_all;
use holon_base::Timestamp;
use holon_ports::{Partition, Row, StoreError, Table, Value};
use std::collections::HashMap;

/// The columns of rows for one shard.
#[derive(Default)]
struct Columns<'a> {
    tenants: Vec<&'a str>,
    entities: Vec<std::borrow::Cow<'a, str>>,
    sorts: Vec<&'a [u8]>,
    slots: Vec<i32>,
    kinds: Vec<i16>,
    queryable: Vec<bool>,
    bytes: Vec<Option<&'a [u8]>>,
    counters: Vec<Option<i64>>,
    versions: Vec<i64>,
    expires: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    fn add(&mut self, slot: i32, partition: &'a Partition, row: &'a Row) -> Result<(), StoreError> {
        let version = i64::try_from(row.version);
        let (kind, bytes, counter) = match &row.value {
            Value::Json(bytes) => (commit::JSON, Some(bytes.as_ref()), None),
            Value::Binary(bytes) => (commit::BINARY, Some(bytes.as_ref()), None),
            Value::Counter(count) => (commit::COUNTER, None, Some(*count)),
        };
        let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
        self.queryable
            .push(kind == commit::JSON && text.is_some_and(is_queryable));
        self.tenants.push(partition.tenant.as_str());
        self.entities.push(escape(&partition.entity));
        self.sorts.push(&row.sort);
        self.slots.push(slot);
        self.kinds.push(kind);
        self.bytes.push(bytes);
        self.counters.push(counter);
        self.versions
            .push(version.map_err(|_| StoreError::Invalid("a version is above 2^63".into()))?);
        self.expires.push(row.expires.map(Timestamp::millis));
        Ok(())
    }
}

impl Postgres {
    /// The tables that every shard has.
    pub fn tables(&self) -> Vec<String> {
        self.core.tables.names()
    }

    /// Writes rows to the shards that have their partitions.
    ///
    /// # Errors
    /// If a shard is away, or a slot is being moved; some of the rows may be written then.
    pub async fn import_rows(&self, table: Table, rows: &[(Partition, Row)]) -> Result<(), StoreError> {
        let relation = &self.core.tables.get(table.0)?.relation;
        let sql = format!(
            "INSERT INTO holon.\"{relation}\" AS r \
                (tenant, entity, sort, slot, kind, json, bytes, counter, version, expires) \
             SELECT c.tenant, c.entity, c.sort, c.slot, c.kind, \
                CASE WHEN c.queryable THEN convert_from(c.bytes, 'UTF8')::jsonb END, \
                c.bytes, c.counter, c.version, c.expires \
             FROM unnest($1::text[], $2::text[], $3::bytea[], $4::int[], $5::smallint[], $6::boolean[], $7::bytea[], \
                $8::bigint[], $9::bigint[], $10::bigint[]) \
                AS c (tenant, entity, sort, slot, kind, queryable, bytes, counter, version, expires) \
             ON CONFLICT (tenant, entity, sort) DO UPDATE SET \
                slot = excluded.slot, kind = excluded.kind, json = excluded.json, bytes = excluded.bytes, \
                counter = excluded.counter, version = excluded.version, expires = excluded.expires"
        );
        let directory = self.core.directory();
        let mut shards: HashMap<usize, Columns<'_>> = HashMap::new();
        for (partition, row) in rows {
            let route = self.core.route(&directory, partition)?;
            if route.entry.frozen {
                return Err(StoreError::Unavailable("a slot is being moved".into()));
            }
            let columns = shards.entry(route.entry.shard).or_default();
            columns.add(route.slot, partition, row)?;
        }
        let writes = shards.iter().map(|(shard, columns)| async {
            let entities: Vec<&str> = columns.entities.iter().map(AsRef::as_ref).collect();
            let Columns {
                tenants,
                sorts,
                slots,
                kinds,
                queryable,
                bytes,
                counters,
                versions,
                expires,
                ..
            } = columns;
            // To write the same rows again changes nothing, so it may be asked again when the answer is lost.
            self.core
                .shard(*shard)
                .primary
                .read(
                    self.core.deadline(),
                    &sql,
                    &[
                        tenants, &entities, sorts, slots, kinds, queryable, bytes, counters, versions,
                        expires,
                    ],
                )
                .await
                .map_err(Trouble::of_read)
        });
        try_join_all(writes).await?;
        Ok(())
    }

    /// The last version that any shard has given out.
    ///
    /// # Errors
    /// If a shard is away.
    pub async fn last_version(&self) -> Result<u64, StoreError> {
        let sql = "SELECT last_value FROM holon.versions";
        let shards = self.core.shards();
        let answers = shards.iter().map(|shard| async {
            let rows = shard.primary.read(self.core.deadline(), sql, &[]).await;
            let last: i64 = rows
                .map_err(Trouble::of_read)?
                .first()
                .map_or(0, |row| row.get(0));
            Ok::<_, StoreError>(last as u64)
        });
        Ok(try_join_all(answers).await?.into_iter().max().unwrap_or(0))
    }

    /// Gives out no version up to this one any more, on any shard.
    ///
    /// # Errors
    /// If a shard is away.
    pub async fn pass_version(&self, version: u64) -> Result<(), StoreError> {
        let version = i64::try_from(version).unwrap_or(i64::MAX).max(1);
        let sql = "SELECT setval('holon.versions', greatest(last_value, $1)) FROM holon.versions";
        let shards = self.core.shards();
        let raised = shards.iter().map(|shard| async {
            let rows = shard.primary.read(self.core.deadline(), sql, &[&version]).await;
            rows.map_err(Trouble::of_read)
        });
        try_join_all(raised).await?;
        Ok(())
    }

    /// Every lease that there ever was, with its last fence.
    ///
    /// # Errors
    /// If the database of the directory is away.
    pub async fn fences(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let sql = "SELECT name, fence FROM holon.leases ORDER BY name";
        let rows = self.core.home.read(self.core.deadline(), sql, &[]).await;
        let rows = rows.map_err(Trouble::of_read)?;
        let fence = |row: &tokio_postgres::Row| (unescape(row.get(0)), row.get::<_, i64>(1) as u64);
        Ok(rows.iter().map(fence).collect())
    }

    /// The next holder of each lease gets a fence above this one.
    ///
    /// # Errors
    /// If the database of the directory is away.
    pub async fn pass_fences(&self, fences: &[(String, u64)]) -> Result<(), StoreError> {
        let sql = "INSERT INTO holon.leases AS l (name, holder, fence, expires) \
            SELECT f.name, 'before', f.fence, 0 FROM unnest($1::text[], $2::bigint[]) AS f (name, fence) \
            ON CONFLICT (name) DO UPDATE SET fence = greatest(l.fence, excluded.fence)";
        let names: Vec<_> = fences.iter().map(|(name, _)| escape(name)).collect();
        let numbers: Vec<i64> = fences.iter().map(|(_, fence)| *fence as i64).collect();
        let rows = self
            .core
            .home
            .read(self.core.deadline(), sql, &[&names, &numbers])
            .await;
        rows.map_err(Trouble::of_read).map(drop)
    }
}
