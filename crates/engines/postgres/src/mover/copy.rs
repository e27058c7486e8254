//! Rows on their way: pages of them, those that have changed since, and what is left behind.

use super::{
    MoveError,
    session::Batch,
    steps::{Place, failed},
};
use crate::{
    directory::{Directory, Rule},
    encoding::{escape, unescape},
    link::Params,
};
use holon_base::Tenant;
use holon_ports::{Lease, Partition};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use tokio_postgres::Row;

/// What a page has of bytes, about, and of rows at most.
const PAGE_BYTES: u64 = 256 << 10;
const PAGE_ROWS: i64 = 500;
const FIRST_PAGE: i64 = 32;
/// What a row costs beside its document.
const ROW_BYTES: u64 = 64;
/// Changes that are looked at together.
const CHANGES: i64 = 500;
/// How often progress is written down.
const PROGRESS: Duration = Duration::from_millis(500);

/// How far the rows of a batch have been copied: up to this key, of this slot, of this table, of this shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(super) struct Cursor {
    shard: String,
    relation: String,
    slot: i32,
    key: Key,
}

/// A row's address in its table; the entity is escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
struct Key {
    tenant: String,
    entity: String,
    sort: Vec<u8>,
}

impl Key {
    fn of(row: &Row) -> Self {
        Self {
            tenant: row.get(0),
            entity: row.get(1),
            sort: row.get(2),
        }
    }
}

/// Keys as `unnest` takes them.
#[derive(Default)]
struct Keys {
    tenants: Vec<String>,
    entities: Vec<String>,
    sorts: Vec<Vec<u8>>,
}

impl Keys {
    fn push(&mut self, key: Key) {
        self.tenants.push(key.tenant);
        self.entities.push(key.entity);
        self.sorts.push(key.sort);
    }
}

/// Columns 0 to 9 of a row that is copied.
const ROW: &str = "r.tenant, r.entity, r.sort, r.slot, r.kind, r.json IS NOT NULL, r.bytes, r.counter, r.version, r.expires";

/// Rows as `holon.take` takes them.
#[derive(Default)]
struct Rows {
    keys: Keys,
    slots: Vec<i32>,
    kinds: Vec<i16>,
    queryable: Vec<bool>,
    documents: Vec<Option<Vec<u8>>>,
    counters: Vec<Option<i64>>,
    versions: Vec<i64>,
    expiries: Vec<Option<i64>>,
    bytes: u64,
}

impl Rows {
    fn push(&mut self, row: &Row, slot: i32) {
        let key = Key::of(row);
        let document: Option<Vec<u8>> = row.get(6);
        let size = key.entity.len() + key.sort.len() + document.as_ref().map_or(8, Vec::len);
        self.bytes += size as u64 + ROW_BYTES;
        self.keys.push(key);
        self.slots.push(slot);
        self.kinds.push(row.get(4));
        self.queryable.push(row.get(5));
        self.documents.push(document);
        self.counters.push(row.get(7));
        self.versions.push(row.get(8));
        self.expiries.push(row.get(9));
    }

    fn len(&self) -> usize {
        self.slots.len()
    }
}

/// Keeps to a rate: by a pause after each page, so that time in which nothing was copied is not made up for.
struct Pace {
    per_second: u64,
    free: Instant,
}

impl Pace {
    fn new(per_second: u64) -> Self {
        Self {
            per_second,
            free: Instant::now(),
        }
    }

    async fn spent(&mut self, bytes: u64) {
        let took = Duration::from_secs_f64(bytes as f64 / self.per_second as f64);
        self.free = self.free.max(Instant::now()) + took;
        tokio::time::sleep_until(self.free.into()).await;
    }
}

/// From one shard to another.
pub(super) struct Copy<'a> {
    pub batch: &'a Batch,
    /// By which a rule's partitions are known.
    pub directory: &'a Directory,
    pub source: &'a Place,
    pub target: &'a Place,
    pub mover: i64,
    pub bytes_per_second: u64,
    pub cursor: Cursor,
    pub rows: i64,
    pub bytes: i64,
}

impl Copy<'_> {
    /// Copies every row from the cursor on.
    pub async fn all(
        &mut self,
        shard: &str,
        relations: &[String],
        home: &Place,
        lease: &Lease,
    ) -> Result<(), MoveError> {
        let mut pace = Pace::new(self.bytes_per_second);
        let mut noted = Instant::now();
        for relation in relations {
            for slot in &self.batch.slots {
                let start = Cursor {
                    shard: shard.to_owned(),
                    relation: relation.clone(),
                    slot: *slot,
                    key: Key::default(),
                };
                let end = (shard, relation.as_str(), *slot);
                let at = (
                    self.cursor.shard.as_str(),
                    self.cursor.relation.as_str(),
                    self.cursor.slot,
                );
                if at > end {
                    continue;
                }
                self.cursor = start.max(self.cursor.clone());
                let mut limit = FIRST_PAGE;
                loop {
                    let page = self.page(relation, *slot, &self.cursor.key, limit).await?;
                    let Some(last) = page.last().map(Key::of) else {
                        break;
                    };
                    let mut rows = Rows::default();
                    for row in page.iter().filter(|row| self.is_moved(row)) {
                        rows.push(row, *slot);
                    }
                    let size = rows.bytes.max(page.len() as u64 * ROW_BYTES);
                    (self.rows, self.bytes) = (self.rows + rows.len() as i64, self.bytes + rows.bytes as i64);
                    if rows.len() > 0 {
                        self.take(relation, rows, Keys::default()).await?;
                    }
                    self.cursor.key = last;
                    if noted.elapsed() > PROGRESS {
                        self.note(home, lease).await?;
                        noted = Instant::now();
                    }
                    if (page.len() as i64) < limit {
                        break;
                    }
                    let fits = PAGE_BYTES / (size / page.len() as u64).max(1);
                    limit = (fits as i64).clamp(1, PAGE_ROWS);
                    pace.spent(size).await;
                }
            }
        }
        self.note(home, lease).await
    }

    async fn note(&self, home: &Place, lease: &Lease) -> Result<(), MoveError> {
        let cursor = serde_json::to_string(&self.cursor).unwrap_or_default();
        // What a batch has done is written to its first slot.
        let sql = "UPDATE holon.moves SET place = $2, \
                rows = CASE WHEN slot = $3 THEN $4::bigint ELSE 0 END, \
                bytes = CASE WHEN slot = $3 THEN $5::bigint ELSE 0 END \
            WHERE slot = ANY ($1) AND EXISTS \
                (SELECT FROM holon.leases WHERE name = $6 AND holder = $7 AND fence = $8)";
        let (slots, first) = (&self.batch.slots, self.batch.slots[0]);
        let (name, holder, fence) = (escape(&lease.name), escape(&lease.holder), lease.fence.0 as i64);
        let noted = home
            .client
            .execute(
                sql,
                &[
                    slots,
                    &cursor,
                    &first,
                    &self.rows,
                    &self.bytes,
                    &name,
                    &holder,
                    &fence,
                ],
            )
            .await;
        match home.fail(noted)? {
            0 => Err(MoveError::Fenced),
            _ => Ok(()),
        }
    }

    /// Rows of a table after a key, of a slot, or that a rule may cover.
    async fn page(&self, relation: &str, slot: i32, after: &Key, limit: i64) -> Result<Vec<Row>, MoveError> {
        let Key { tenant, entity, sort } = after;
        let order = "(r.tenant, r.entity, r.sort) > ($1, $2, $3) \
            ORDER BY r.tenant, r.entity, r.sort LIMIT $4";
        let Some(rule) = &self.batch.rule else {
            let sql = format!("SELECT {ROW} FROM holon.\"{relation}\" r WHERE r.slot = $5 AND {order}");
            let params: Params<'_> = &[tenant, entity, sort, &limit, &slot];
            return self.source.fail(self.source.client.query(&sql, params).await);
        };
        let (kind, of_tenant, low, high) = rule.row();
        let (low, high) = (low.map(escape), high.map(escape));
        // What an index can find; the rest is left to `holon.covers`.
        let narrow = match rule {
            Rule::Partition(_) => "r.tenant = $6 AND r.entity = $7 AND",
            Rule::Tenant(_) | Rule::Range { tenant: Some(_), .. } => "r.tenant = $6 AND",
            Rule::Prefix { tenant: Some(_), .. } => {
                "r.tenant = $6 AND r.entity >= $7 AND r.entity < $7 || chr(1114111) AND"
            }
            _ => "",
        };
        let sql = format!(
            "SELECT {ROW} FROM holon.\"{relation}\" r \
             WHERE {narrow} holon.covers($5, $6, $7, $8, r.tenant, r.entity) AND {order}"
        );
        let params: Params<'_> = &[tenant, entity, sort, &limit, &kind, &of_tenant, &low, &high];
        self.source.fail(self.source.client.query(&sql, params).await)
    }

    /// Whether a row that was found moves: of a rule, if no more specific one keeps it where it is.
    fn is_moved(&self, row: &Row) -> bool {
        self.batch.rule.is_none() || self.is_ruled(row.get(0), row.get(1))
    }

    fn is_ruled(&self, tenant: &str, entity: String) -> bool {
        let Ok(tenant) = Tenant::new(tenant) else {
            return false;
        };
        let route = self.directory.route(&Partition::new(&tenant, unescape(entity)));
        route.is_some_and(|route| route.slot == self.batch.slots[0])
    }

    async fn take(&self, relation: &str, rows: Rows, gone: Keys) -> Result<(), MoveError> {
        let sql = "SELECT holon.take($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
        let taken = self
            .target
            .client
            .execute(
                sql,
                &[
                    &self.batch.slots,
                    &self.mover,
                    &relation,
                    &rows.slots,
                    &rows.keys.tenants,
                    &rows.keys.entities,
                    &rows.keys.sorts,
                    &rows.kinds,
                    &rows.queryable,
                    &rows.documents,
                    &rows.counters,
                    &rows.versions,
                    &rows.expiries,
                    &gone.tenants,
                    &gone.entities,
                    &gone.sorts,
                ],
            )
            .await;
        self.target.fail(taken).map(drop)
    }

    /// Copies what has changed, as it is now; answers how many changes there were.
    pub async fn changes(&self) -> Result<u64, MoveError> {
        let sql = "SELECT number, relation, tenant, entity, sort FROM holon.changes \
            WHERE slot = ANY ($1) ORDER BY number LIMIT $2";
        let mut seen = 0;
        loop {
            let found = self
                .source
                .client
                .query(sql, &[&self.batch.slots, &CHANGES])
                .await;
            let found = self.source.fail(found)?;
            let mut numbers: Vec<i64> = Vec::with_capacity(found.len());
            let mut changed: BTreeMap<String, BTreeSet<Key>> = BTreeMap::new();
            for row in &found {
                numbers.push(row.get(0));
                let key = Key {
                    tenant: row.get(2),
                    entity: row.get(3),
                    sort: row.get(4),
                };
                if self.batch.rule.is_none() || self.is_ruled(&key.tenant, key.entity.clone()) {
                    changed.entry(row.get(1)).or_default().insert(key);
                }
            }
            for (relation, keys) in changed {
                self.copy_again(&relation, keys).await?;
            }
            // Only now, and only what was read: others may appear among them.
            let forget = "DELETE FROM holon.changes WHERE number = ANY ($1)";
            self.source
                .fail(self.source.client.execute(forget, &[&numbers]).await)?;
            seen += found.len() as u64;
            if (found.len() as i64) < CHANGES {
                return Ok(seen);
            }
        }
    }

    async fn copy_again(&self, relation: &str, mut keys: BTreeSet<Key>) -> Result<(), MoveError> {
        let mut asked = Keys::default();
        for key in &keys {
            asked.push(key.clone());
        }
        let sql = format!(
            "SELECT {ROW} FROM unnest($1::text[], $2::text[], $3::bytea[]) k (tenant, entity, sort) \
             JOIN holon.\"{relation}\" r ON r.tenant = k.tenant AND r.entity = k.entity AND r.sort = k.sort"
        );
        let found = self
            .source
            .client
            .query(&sql, &[&asked.tenants, &asked.entities, &asked.sorts])
            .await;
        let mut rows = Rows::default();
        for row in &self.source.fail(found)? {
            keys.remove(&Key::of(row));
            let slot = if self.batch.rule.is_some() {
                self.batch.slots[0]
            } else {
                row.get(3)
            };
            rows.push(row, slot);
        }
        let mut gone = Keys::default();
        for key in keys {
            gone.push(key);
        }
        self.take(relation, rows, gone).await
    }

    /// Deletes at the source what has moved away.
    pub async fn clear(&self, relations: &[String]) -> Result<(), MoveError> {
        let sql = "DELETE FROM holon.\"{relation}\" r USING unnest($1::text[], $2::text[], $3::bytea[]) \
            k (tenant, entity, sort) WHERE r.tenant = k.tenant AND r.entity = k.entity AND r.sort = k.sort";
        self.each_left(relations, sql, |_| true).await?;
        // Changes of slots are written down until the source is closed; all have been copied by then.
        for sql in [
            "DELETE FROM holon.changes WHERE slot = ANY ($1)",
            "DELETE FROM holon.pins WHERE slot = ANY ($1) AND state = 'moved'",
        ] {
            self.source
                .fail(self.source.client.execute(sql, &[&self.batch.slots]).await)?;
        }
        Ok(())
    }

    /// Gives rows that were at the target of a pin already the number of its slot.
    pub async fn relabel(&self, relations: &[String]) -> Result<(), MoveError> {
        let slot = self.batch.slots[0];
        let sql = format!(
            "UPDATE holon.\"{{relation}}\" r SET slot = {slot} FROM unnest($1::text[], $2::text[], $3::bytea[]) \
             k (tenant, entity, sort) WHERE r.tenant = k.tenant AND r.entity = k.entity AND r.sort = k.sort \
             AND r.slot <> {slot}"
        );
        self.each_left(relations, &sql, |row| row.get::<_, i32>(3) != slot)
            .await
    }

    /// Runs a statement on all rows at the source that move, a page at a time and at the given rate.
    async fn each_left(
        &self,
        relations: &[String],
        sql: &str,
        is_wanted: impl Fn(&Row) -> bool,
    ) -> Result<(), MoveError> {
        let mut pace = Pace::new(self.bytes_per_second);
        for relation in relations {
            let sql = sql.replace("{relation}", relation);
            for slot in &self.batch.slots {
                let mut after = Key::default();
                let mut limit = FIRST_PAGE;
                loop {
                    let page = self.page(relation, *slot, &after, limit).await?;
                    let Some(last) = page.last().map(Key::of) else {
                        break;
                    };
                    let (mut keys, mut bytes) = (Keys::default(), page.len() as u64 * ROW_BYTES);
                    for row in page.iter().filter(|row| is_wanted(row) && self.is_moved(row)) {
                        bytes += row.get::<_, Option<&[u8]>>(6).map_or(0, <[u8]>::len) as u64;
                        keys.push(Key::of(row));
                    }
                    if !keys.tenants.is_empty() {
                        self.change_left(&sql, &keys).await?;
                    }
                    after = last;
                    if (page.len() as i64) < limit {
                        break;
                    }
                    let fits = PAGE_BYTES / (bytes / page.len() as u64).max(1);
                    limit = (fits as i64).clamp(1, PAGE_ROWS);
                    pace.spent(bytes).await;
                }
            }
        }
        Ok(())
    }

    /// Fenced: if the slots have come back since, nothing of them is touched.
    async fn change_left(&self, sql: &str, keys: &Keys) -> Result<(), MoveError> {
        let database = &self.source.database;
        let fail = |error: tokio_postgres::Error| failed(database, &error);
        self.source
            .fail(self.source.client.batch_execute("BEGIN").await)?;
        let is_at_target = self.source.database == self.target.database;
        let (table, state) = match (&self.batch.rule, is_at_target) {
            (Some(_), false) => ("pins", "moved"),
            (Some(_), true) => ("slots", "owned"),
            (None, _) => ("slots", "moved"),
        };
        let check = format!(
            "SELECT count(*) FROM (SELECT FROM holon.{table} WHERE slot = ANY ($1) AND state = $2 AND mover = $3 \
             FOR SHARE) s"
        );
        let held = self
            .source
            .client
            .query_one(&check, &[&self.batch.slots, &state, &self.mover])
            .await
            .map_err(fail)?;
        if held.get::<_, i64>(0) != self.batch.slots.len() as i64 {
            return Err(MoveError::Fenced);
        }
        self.source
            .client
            .execute(sql, &[&keys.tenants, &keys.entities, &keys.sorts])
            .await
            .map_err(fail)?;
        self.source.client.batch_execute("COMMIT").await.map_err(fail)
    }
}
