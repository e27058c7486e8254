//! The Store port.

use crate::{
    commit::{self, Prepared},
    core::{Aim, Core, Retry, closed},
    directory::Directory,
    encoding::escape,
    lane::{Answer, Outcome, Pending},
    schema, tables,
    walk::{self, Place},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use holon_base::Timestamp;
use holon_ports::{
    Batch, Committed, Consistency, Partition, Row, RowKey, Scan, ScanPage, Store, StoreError, Table, Value,
    store::TableCursor,
};
use std::{collections::HashMap, ops::Bound, sync::Arc};
use tokio::{sync::oneshot, time::Instant};
use tokio_postgres::Row as SqlRow;

/// The most keys that one statement reads.
const READ_KEYS: usize = 1_000;

pub(crate) struct PostgresStore(pub Arc<Core>);

pub(crate) fn damaged(error: &tokio_postgres::Error) -> StoreError {
    StoreError::Corrupt(format!("a row cannot be read: {error}"))
}

/// The row in columns 1 to 5, after the fence; `None` where there is none.
pub(crate) fn read_row(sql: &SqlRow, sort: Bytes) -> Result<Option<Row>, StoreError> {
    let bad = |error: tokio_postgres::Error| damaged(&error);
    let Some(kind) = sql.try_get::<_, Option<i16>>(1).map_err(bad)? else {
        return Ok(None);
    };
    let value = match kind {
        commit::COUNTER => Value::Counter(sql.try_get(3).map_err(bad)?),
        kind => {
            let bytes = Bytes::copy_from_slice(sql.try_get(2).map_err(bad)?);
            match kind {
                commit::JSON => Value::Json(bytes),
                commit::BINARY => Value::Binary(bytes),
                other => return Err(StoreError::Corrupt(format!("a row is of unknown kind {other}"))),
            }
        }
    };
    let version: i64 = sql.try_get(4).map_err(bad)?;
    let expires: Option<i64> = sql.try_get(5).map_err(bad)?;
    Ok(Some(Row {
        sort,
        value,
        version: version as u64,
        expires: expires.map(Timestamp::from_millis),
    }))
}

pub(crate) fn read_sort(sql: &SqlRow) -> Result<Bytes, StoreError> {
    let sort: Option<&[u8]> = sql.try_get(6).map_err(|error| damaged(&error))?;
    Ok(Bytes::copy_from_slice(sort.unwrap_or_default()))
}

/// The smallest key that is larger: no key lies between a key and itself with a zero byte.
fn successor(sort: &[u8]) -> Vec<u8> {
    [sort, &[0]].concat()
}

impl PostgresStore {
    async fn get_some(
        &self,
        table: Table,
        shard: usize,
        keys: &[(usize, &RowKey)],
        consistency: Consistency,
    ) -> Result<Vec<(usize, Row)>, StoreError> {
        let sql = self.0.tables.get(table.0)?;
        let tenants: Vec<&str> = keys
            .iter()
            .map(|(_, key)| key.partition.tenant.as_str())
            .collect();
        let entities: Vec<_> = keys
            .iter()
            .map(|(_, key)| escape(&key.partition.entity))
            .collect();
        let sorts: Vec<&[u8]> = keys.iter().map(|(_, key)| key.sort.as_ref()).collect();
        let now = self.0.clock().now().millis();
        let mut is_moved = false;
        let route = |directory: &Directory| {
            let mut arrived = 0;
            for (_, key) in keys {
                let entry = self.0.route(directory, &key.partition)?.entry;
                is_moved |= entry.shard != shard;
                arrived = arrived.max(entry.arrived);
            }
            Ok(Aim { shard, arrived })
        };
        let rows = self
            .0
            .read(
                consistency,
                route,
                &sql.get_many,
                &[&tenants, &entities, &sorts, &now],
            )
            .await?;
        if is_moved {
            // Rare: what was one shard's may no longer be, so each key finds its own way.
            let mut found = Vec::new();
            for (place, key) in keys {
                found.extend(self.get(key, consistency).await?.map(|row| (*place, row)));
            }
            return Ok(found);
        }
        let mut found = Vec::with_capacity(rows.len());
        for sql in &rows {
            let place: Option<i64> = sql.try_get(6).map_err(|error| damaged(&error))?;
            let key = place.and_then(|place| keys.get(place as usize - 1));
            if let Some((place, key)) = key
                && let Some(row) = read_row(sql, key.sort.clone())?
            {
                found.push((*place, row));
            }
        }
        Ok(found)
    }

    /// Sends commits to the shards that have them, and again those that a shard sent back.
    async fn send(&self, commits: Vec<(usize, Arc<Prepared>)>, answers: &mut [Option<CommitAnswer>]) {
        let mut retry = Retry::new(self.0.deadline());
        let mut waiting = commits;
        while !waiting.is_empty() {
            let directory = self.0.directory();
            let since = Instant::now();
            let mut held = Vec::new();
            let mut sent = Vec::with_capacity(waiting.len());
            for (place, prepared) in waiting {
                let route = match self.0.route(&directory, &prepared.partition) {
                    Ok(route) if route.entry.frozen => {
                        held.push((place, prepared));
                        continue;
                    }
                    Ok(route) => route,
                    Err(error) => {
                        answers[place] = Some(Err(error));
                        continue;
                    }
                };
                let (answer, answered) = oneshot::channel();
                let pending = Pending {
                    prepared: Arc::clone(&prepared),
                    slot: route.slot,
                    directory: directory.version,
                    since,
                    answer,
                };
                match self.0.shard(route.entry.shard).submit(pending).await {
                    Ok(()) => sent.push((place, prepared, answered)),
                    Err(error) => answers[place] = Some(Err(error)),
                }
            }
            for (place, prepared, answered) in sent {
                let lost = || Err(StoreError::Unknown("the engine was closed".into()));
                let answer: Answer = answered.await.unwrap_or_else(|_| lost());
                match answer {
                    Ok(Outcome::Committed(committed)) => answers[place] = Some(Ok(committed)),
                    Ok(Outcome::Moved) => held.push((place, prepared)),
                    Err(error) => answers[place] = Some(Err(error)),
                }
            }
            // Commits to one partition keep the caller's order.
            held.sort_by_key(|(place, _)| *place);
            if !held.is_empty()
                && let Err(error) = retry.pause(&self.0, directory.version).await
            {
                for (place, _) in held.drain(..) {
                    answers[place] = Some(Err(error.clone()));
                }
            }
            waiting = held;
        }
    }
}

type CommitAnswer = Result<Committed, StoreError>;

#[async_trait]
impl Store for PostgresStore {
    async fn create_tables(&self, tables: &[Table]) -> Result<(), StoreError> {
        let mut new = Vec::new();
        for table in tables {
            if !tables::is_name(table.0) {
                return Err(StoreError::Invalid(format!(
                    "a table's name is 1 to 64 of a-z, 0-9, '.' and '_'; got {:?}",
                    table.0
                )));
            }
            if !self.0.tables.is_there(table.0) {
                new.push((table.0, tables::relation_of(table.0)));
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        if self.0.is_closed() {
            return Err(closed());
        }
        let away = |error: crate::PostgresError| StoreError::Unavailable(error.to_string());
        // A shard that was added lately has it too.
        self.0.refresh(i64::MAX).await?;
        try_join_all(self.0.shards().iter().map(|shard| async {
            let mut client = schema::connect(&shard.connector).await?;
            schema::create_tables(&mut client, &shard.connector.database, &new).await
        }))
        .await
        .map_err(away)?;
        for (name, _) in new {
            self.0.tables.insert(name);
        }
        Ok(())
    }

    async fn get(&self, key: &RowKey, consistency: Consistency) -> Result<Option<Row>, StoreError> {
        let sql = self.0.tables.get(key.table.0)?;
        let (tenant, entity) = (key.partition.tenant.as_str(), escape(&key.partition.entity));
        let (sort, now) = (key.sort.as_ref(), self.0.clock().now().millis());
        let route = |directory: &Directory| Ok(self.0.route(directory, &key.partition)?.entry.into());
        let rows = self
            .0
            .read(consistency, route, &sql.get, &[&tenant, &entity, &sort, &now])
            .await?;
        rows.first()
            .map_or(Ok(None), |row| read_row(row, key.sort.clone()))
    }

    async fn get_many(
        &self,
        keys: &[RowKey],
        consistency: Consistency,
    ) -> Result<Vec<Option<Row>>, StoreError> {
        let directory = self.0.directory();
        let mut groups: HashMap<(Table, usize), Vec<(usize, &RowKey)>> = HashMap::new();
        for (place, key) in keys.iter().enumerate() {
            let shard = self.0.route(&directory, &key.partition)?.entry.shard;
            groups.entry((key.table, shard)).or_default().push((place, key));
        }
        let reads = groups.iter().flat_map(|((table, shard), keys)| {
            keys.chunks(READ_KEYS)
                .map(|keys| self.get_some(*table, *shard, keys, consistency))
        });
        let mut answer = vec![None; keys.len()];
        for (place, row) in try_join_all(reads).await?.into_iter().flatten() {
            answer[place] = Some(row);
        }
        Ok(answer)
    }

    async fn scan(&self, scan: &Scan) -> Result<ScanPage, StoreError> {
        if scan.limit == 0 {
            return Err(StoreError::Invalid("the limit of a scan is at least 1".into()));
        }
        let table = self.0.tables.get(scan.table.0)?;
        let start = match &scan.start {
            Bound::Included(sort) => sort.to_vec(),
            Bound::Excluded(sort) => successor(sort),
            Bound::Unbounded => Vec::new(),
        };
        let end = match &scan.end {
            Bound::Included(sort) => Some(successor(sort)),
            Bound::Excluded(sort) => Some(sort.to_vec()),
            Bound::Unbounded => None,
        };
        let (tenant, entity) = (scan.partition.tenant.as_str(), escape(&scan.partition.entity));
        let now = self.0.clock().now().millis();
        // One more, to know whether there is more.
        let limit = i64::try_from(scan.limit).unwrap_or(i64::MAX).saturating_add(1);
        let route = |directory: &Directory| Ok(self.0.route(directory, &scan.partition)?.entry.into());
        let sql = table.scan(end.is_some(), scan.reverse);
        let rows = match &end {
            Some(end) => {
                self.0
                    .read(
                        scan.consistency,
                        route,
                        sql,
                        &[&tenant, &entity, &start, &now, &limit, end],
                    )
                    .await?
            }
            None => {
                self.0
                    .read(
                        scan.consistency,
                        route,
                        sql,
                        &[&tenant, &entity, &start, &now, &limit],
                    )
                    .await?
            }
        };
        let mut page = ScanPage::default();
        for sql in &rows {
            page.rows.extend(read_row(sql, read_sort(sql)?)?);
        }
        page.more = page.rows.len() > scan.limit;
        page.rows.truncate(scan.limit);
        Ok(page)
    }

    async fn commit(&self, partition: &Partition, batch: Batch) -> Result<Committed, StoreError> {
        self.commit_many(vec![(partition.clone(), batch)])
            .await
            .pop()
            .unwrap_or_else(|| Err(closed()))
    }

    async fn commit_many(&self, commits: Vec<(Partition, Batch)>) -> Vec<Result<Committed, StoreError>> {
        let mut answers: Vec<Option<CommitAnswer>> = vec![None; commits.len()];
        let now = self.0.clock().now();
        let mut prepared = Vec::with_capacity(commits.len());
        for (place, (partition, batch)) in commits.into_iter().enumerate() {
            match commit::prepare(&self.0.tables, &self.0.ids, now, partition, batch) {
                Ok(commit) => prepared.push((place, Arc::new(commit))),
                Err(error) => answers[place] = Some(Err(error)),
            }
        }
        if self.0.is_closed() {
            return answers
                .into_iter()
                .map(|answer| answer.unwrap_or_else(|| Err(closed())))
                .collect();
        }
        self.send(prepared, &mut answers).await;
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(closed())))
            .collect()
    }

    async fn walk(
        &self,
        table: Table,
        cursor: Option<TableCursor>,
        limit: usize,
    ) -> Result<(Vec<(Partition, Row)>, Option<TableCursor>), StoreError> {
        if limit == 0 {
            return Err(StoreError::Invalid("the limit of a walk is at least 1".into()));
        }
        let place = match cursor {
            Some(cursor) => Place::read(table, &cursor)?,
            None => Place::default(),
        };
        walk::walk(&self.0, table, place, limit).await
    }
}
