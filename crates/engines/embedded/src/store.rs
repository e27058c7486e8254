//! The Store port: rows in one key space, ordered by table, partition and sort key.
//!
//! Reads run on the caller's own thread, without a hop to a pool: what is read often lies in memory (the memtable or
//! the block cache), where a read takes a microsecond or two, less than waking another thread costs. A read that
//! misses waits for one block of a local disk. Writes go to the committer.

use crate::{
    committer::{Message, RawWrite},
    encoding::{self, meta},
    files::read_error,
    prepare::Preparation,
    shared::{FilesGuard, Shared, closed},
    tables,
};
use async_trait::async_trait;
use bytes::Bytes;
use fjall::Readable;
use holon_base::key::prefix_end;
use holon_ports::{
    Batch, Committed, Consistency, Partition, Row, RowKey, Scan, ScanPage, Store, StoreError, Table,
    store::TableCursor,
};
use std::{collections::BTreeMap, ops::Bound, sync::Arc};
use tokio::sync::oneshot;

pub(crate) struct EmbeddedStore(pub Arc<Shared>);

type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn damaged(damaged: encoding::Damaged) -> StoreError {
    StoreError::Corrupt(damaged.to_string())
}

impl EmbeddedStore {
    fn get_one(&self, files: &FilesGuard<'_>, key: &RowKey) -> Result<Option<Row>, StoreError> {
        let table = self.0.tables.id(key.table.0)?;
        let stored = files
            .get_row(&encoding::row_key(table, &key.partition, &key.sort))
            .map_err(|error| read_error(&error))?;
        let Some(value) = stored else {
            return Ok(None);
        };
        let row = encoding::row(key.sort.clone(), value).map_err(damaged)?;
        // The clock is asked only for rows that can expire.
        let expired = row.expires.is_some() && encoding::is_expired(row.expires, self.0.clock.now());
        Ok((!expired).then_some(row))
    }

    async fn commit_request(&self, preparation: Preparation<'_>) -> Vec<Result<Committed, StoreError>> {
        if preparation.is_refused() {
            return preparation.refusals(&closed());
        }
        if let Err(why) = self.0.admit() {
            return preparation.refusals(&why);
        }
        let (answer, answered) = oneshot::channel();
        let request = preparation.request(answer);
        let commits = request.commits.len();
        if let Err(why) = self.0.send(Message::Commit(request)).await {
            return vec![Err(why); commits];
        }
        match answered.await {
            Ok(results) => results,
            Err(_) => vec![Err(StoreError::Unknown("the engine was closed".into())); commits],
        }
    }
}

/// The keys of a scan; `None` when its bounds leave nothing.
fn scan_range(prefix: &[u8], scan: &Scan) -> Option<KeyRange> {
    let with = |sort: &Bytes| [prefix, sort].concat();
    let start = match &scan.start {
        Bound::Included(sort) => Bound::Included(with(sort)),
        Bound::Excluded(sort) => Bound::Excluded(with(sort)),
        Bound::Unbounded => Bound::Included(prefix.to_vec()),
    };
    let end = match &scan.end {
        Bound::Included(sort) => Bound::Included(with(sort)),
        Bound::Excluded(sort) => Bound::Excluded(with(sort)),
        Bound::Unbounded => prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded),
    };
    if let (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) =
        (&start, &end)
    {
        let both_included = matches!((&start, &end), (Bound::Included(_), Bound::Included(_)));
        if from > to || (from == to && !both_included) {
            return None;
        }
    }
    Some((start, end))
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn create_tables(&self, tables: &[Table]) -> Result<(), StoreError> {
        let _one_at_a_time = self.0.creation.lock().await;
        let mut next_id = self.0.tables.next_id();
        let mut created = BTreeMap::new();
        for table in tables {
            if !tables::is_name(table.0) {
                return Err(StoreError::Invalid(format!(
                    "a table's name is 1 to 64 of a-z, 0-9, '.' and '_'; got {:?}",
                    table.0
                )));
            }
            if self.0.tables.is_there(table.0) || created.contains_key(table.0) {
                continue;
            }
            let id = next_id.ok_or_else(|| StoreError::Invalid("there are too many tables".into()))?;
            created.insert(table.0, id);
            next_id = id.checked_add(1);
        }
        if created.is_empty() {
            return Ok(());
        }
        let records = created
            .iter()
            .map(|(name, id)| RawWrite::meta(meta::table(name), id.to_be_bytes()));
        self.0.write_raw(records.collect()).await?;
        for (name, id) in created {
            self.0.tables.insert(name, id);
        }
        Ok(())
    }

    async fn get(&self, key: &RowKey, _consistency: Consistency) -> Result<Option<Row>, StoreError> {
        self.get_one(&self.0.files()?, key)
    }

    async fn get_many(
        &self,
        keys: &[RowKey],
        _consistency: Consistency,
    ) -> Result<Vec<Option<Row>>, StoreError> {
        let files = self.0.files()?;
        keys.iter().map(|key| self.get_one(&files, key)).collect()
    }

    async fn scan(&self, scan: &Scan) -> Result<ScanPage, StoreError> {
        if scan.limit == 0 {
            return Err(StoreError::Invalid("the limit of a scan is at least 1".into()));
        }
        let table = self.0.tables.id(scan.table.0)?;
        let prefix = encoding::partition_prefix(table, &scan.partition, 0);
        let Some(range) = scan_range(&prefix, scan) else {
            return Ok(ScanPage::default());
        };
        let files = self.0.files()?;
        let now = self.0.clock.now();
        let mut keys = files.snapshot().range(&files.rows, range);
        let mut page = ScanPage::default();
        while let Some(guard) = if scan.reverse {
            keys.next_back()
        } else {
            keys.next()
        } {
            let (key, value) = guard.into_inner().map_err(|error| read_error(&error))?;
            let sort = Bytes::from(key).slice(prefix.len()..);
            let row = encoding::row(sort, value).map_err(damaged)?;
            if encoding::is_expired(row.expires, now) {
                continue;
            }
            if page.rows.len() == scan.limit {
                page.more = true;
                break;
            }
            page.rows.push(row);
        }
        Ok(page)
    }

    async fn commit(&self, partition: &Partition, batch: Batch) -> Result<Committed, StoreError> {
        let mut preparation = Preparation::new(&self.0.tables, &self.0.topics, 1);
        preparation.add(partition, batch);
        self.commit_request(preparation)
            .await
            .pop()
            .unwrap_or_else(|| Err(closed()))
    }

    async fn commit_many(&self, commits: Vec<(Partition, Batch)>) -> Vec<Result<Committed, StoreError>> {
        let mut preparation = Preparation::new(&self.0.tables, &self.0.topics, commits.len());
        for (partition, batch) in commits {
            preparation.add(&partition, batch);
        }
        self.commit_request(preparation).await
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
        let prefix = self.0.tables.id(table.0)?.to_be_bytes();
        let start = match cursor {
            Some(cursor) if cursor.starts_with(&prefix) => Bound::Excluded(cursor.to_vec()),
            Some(_) => return Err(StoreError::Invalid("the cursor is not of this table".into())),
            None => Bound::Included(prefix.to_vec()),
        };
        let end = prefix_end(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
        let files = self.0.files()?;
        let now = self.0.clock.now();
        let mut rows = Vec::new();
        for guard in files.rows.range((start, end)) {
            let (key, value) = guard.into_inner().map_err(|error| read_error(&error))?;
            let key = Bytes::from(key);
            let (partition, sort_at) = encoding::split_row_key(&key).map_err(damaged)?;
            let row = encoding::row(key.slice(sort_at..), value).map_err(damaged)?;
            if !encoding::is_expired(row.expires, now) {
                rows.push((partition, row));
            }
            if rows.len() == limit {
                return Ok((rows, Some(key)));
            }
        }
        Ok((rows, None))
    }
}
