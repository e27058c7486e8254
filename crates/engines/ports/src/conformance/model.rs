//! The plain model of a store: what its promises mean, in the fewest words.
//!
//! [`Rows`] decides commits over one ordered map. [`ModelStore`] makes an engine of it, which passes the suite; and
//! [`Broken`] breaks one promise at a time, which the suite must notice.

use crate::{
    Batch, Committed, Condition, Consistency, NewEvent, Op, Partition, Row, RowKey, Scan, ScanPage, Store,
    StoreError, Table, Value,
    store::{TableCursor, WriteToken},
};
use async_trait::async_trait;
use bytes::Bytes;
use holon_base::{Clock, Timestamp};
use parking_lot::Mutex;
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// Every row of a store, also those that are expired.
#[derive(Debug, Clone, Default)]
pub struct Rows(BTreeMap<(Table, Partition, Bytes), Row>);

impl Rows {
    /// A row that is there now.
    pub fn get(&self, table: Table, partition: &Partition, sort: &Bytes, now: Timestamp) -> Option<&Row> {
        self.0
            .get(&(table, partition.clone(), sort.clone()))
            .filter(|row| row.expires.is_none_or(|expires| expires > now))
    }

    /// Applies all steps or none; every row that is written gets this version. Answers the events to tell.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit(
        &mut self,
        partition: &Partition,
        batch: &Batch,
        version: u64,
        now: Timestamp,
    ) -> Result<Vec<NewEvent>, StoreError> {
        batch.check_limits(partition)?;
        for (op, step) in batch.ops.iter().enumerate() {
            let (table, sort, condition) = match step {
                Op::Put {
                    table,
                    sort,
                    condition,
                    ..
                }
                | Op::Delete {
                    table,
                    sort,
                    condition,
                }
                | Op::Check {
                    table,
                    sort,
                    condition,
                } => (*table, sort, *condition),
                Op::Add { table, sort, .. } => (*table, sort, Condition::Any),
                Op::Event(_) => continue,
            };
            let row = self.get(table, partition, sort, now);
            let holds = match condition {
                Condition::Any => true,
                Condition::Absent => row.is_none(),
                Condition::Present => row.is_some(),
                Condition::Version(version) => row.is_some_and(|row| row.version == version),
            };
            if !holds {
                return Err(StoreError::ConditionFailed { op });
            }
            let holds_no_counter = row.is_some_and(|row| !matches!(row.value, Value::Counter(_)));
            if matches!(step, Op::Add { .. }) && holds_no_counter {
                return Err(StoreError::NotACounter { op });
            }
        }
        let mut events = Vec::new();
        for step in &batch.ops {
            let (table, sort, value, expires) = match step {
                Op::Put {
                    table,
                    sort,
                    value,
                    expires,
                    ..
                } => (table, sort, value.clone(), *expires),
                Op::Add {
                    table,
                    sort,
                    delta,
                    expires,
                } => {
                    let row = self.get(*table, partition, sort, now);
                    let count = row.map_or(0, Row::counter).saturating_add(*delta);
                    let expires = expires.or(row.and_then(|row| row.expires));
                    (table, sort, Value::Counter(count), expires)
                }
                Op::Delete { table, sort, .. } => {
                    self.0.remove(&(*table, partition.clone(), sort.clone()));
                    continue;
                }
                Op::Event(event) => {
                    events.push(event.clone());
                    continue;
                }
                Op::Check { .. } => continue,
            };
            let row = Row {
                sort: sort.clone(),
                value,
                version,
                expires,
            };
            self.0.insert((*table, partition.clone(), sort.clone()), row);
        }
        Ok(events)
    }

    /// What a scan answers.
    pub fn scan(&self, scan: &Scan, now: Timestamp) -> ScanPage {
        let inside = |sort: &Bytes| {
            let after_start = match &scan.start {
                Bound::Included(start) => sort >= start,
                Bound::Excluded(start) => sort > start,
                Bound::Unbounded => true,
            };
            let before_end = match &scan.end {
                Bound::Included(end) => sort <= end,
                Bound::Excluded(end) => sort < end,
                Bound::Unbounded => true,
            };
            after_start && before_end
        };
        let mut rows: Vec<Row> = self
            .partition(scan.table, &scan.partition, now)
            .filter(|row| inside(&row.sort))
            .cloned()
            .collect();
        if scan.reverse {
            rows.reverse();
        }
        let more = rows.len() > scan.limit;
        rows.truncate(scan.limit);
        ScanPage { rows, more }
    }

    fn partition(&self, table: Table, partition: &Partition, now: Timestamp) -> impl Iterator<Item = &Row> {
        self.0
            .iter()
            .filter(move |((other, within, _), _)| *other == table && within == partition)
            .map(|(_, row)| row)
            .filter(move |row| row.expires.is_none_or(|expires| expires > now))
    }

    /// Every row of a table that is there now.
    pub fn table(&self, table: Table, now: Timestamp) -> Vec<(Partition, Row)> {
        self.0
            .iter()
            .filter(|((other, ..), row)| *other == table && row.expires.is_none_or(|expires| expires > now))
            .map(|((_, partition, _), row)| (partition.clone(), row.clone()))
            .collect()
    }
}

/// A promise of the store, to be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Conditions always hold.
    Conditions,
    /// A commit that fails leaves what came before the failing step.
    Atomicity,
    /// Expired rows stay visible.
    Expiry,
    /// A new put starts with an old version again.
    Versions,
    /// A scan says that there is more only when it is not so.
    More,
    /// Two commits at the same time both see the state before.
    Isolation,
    /// Counters overflow.
    Saturation,
}

/// A store in memory: the model as an engine, whole or broken.
pub struct ModelStore {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    broken: Option<Broken>,
}

#[derive(Default)]
struct State {
    rows: Rows,
    tables: Vec<Table>,
    version: u64,
    events: Vec<NewEvent>,
}

impl ModelStore {
    pub fn new(clock: Arc<dyn Clock>, broken: Option<Broken>) -> Self {
        Self {
            state: Mutex::default(),
            clock,
            broken,
        }
    }

    fn now(&self) -> Timestamp {
        if self.broken == Some(Broken::Expiry) {
            return Timestamp::from_millis(i64::MIN);
        }
        self.clock.now()
    }

    fn commit_to(
        &self,
        state: &mut State,
        partition: &Partition,
        batch: &Batch,
    ) -> Result<Committed, StoreError> {
        let mut batch = batch.clone();
        for op in &mut batch.ops {
            match op {
                Op::Put { condition, .. } | Op::Delete { condition, .. } | Op::Check { condition, .. }
                    if self.broken == Some(Broken::Conditions) =>
                {
                    *condition = Condition::Any;
                }
                Op::Add { delta, .. } if self.broken == Some(Broken::Saturation) => {
                    *delta = (*delta).clamp(-1_000, 1_000);
                }
                _ => {}
            }
        }
        let version = match self.broken {
            Some(Broken::Versions) => 1,
            _ => state.version + 1,
        };
        let committed = state.rows.commit(partition, &batch, version, self.now());
        if self.broken == Some(Broken::Atomicity)
            && let Err(StoreError::ConditionFailed { op }) = committed
        {
            batch.ops.truncate(op);
            let _ = state.rows.commit(partition, &batch, version, self.now());
        }
        state.events.extend(committed?);
        state.version = version;
        Ok(Committed {
            version,
            token: WriteToken(version),
            positions: Vec::new(),
        })
    }

    fn check_tables(state: &State, tables: impl IntoIterator<Item = Table>) -> Result<(), StoreError> {
        for table in tables {
            if !state.tables.contains(&table) {
                return Err(StoreError::NoSuchTable(table.0.to_owned()));
            }
        }
        Ok(())
    }
}

fn tables_of(batch: &Batch) -> impl Iterator<Item = Table> {
    batch.ops.iter().filter_map(|op| match op {
        Op::Put { table, .. }
        | Op::Delete { table, .. }
        | Op::Add { table, .. }
        | Op::Check { table, .. } => Some(*table),
        Op::Event(_) => None,
    })
}

#[async_trait]
impl Store for ModelStore {
    async fn create_tables(&self, tables: &[Table]) -> Result<(), StoreError> {
        self.state.lock().tables.extend(tables);
        Ok(())
    }

    async fn get(&self, key: &RowKey, _consistency: Consistency) -> Result<Option<Row>, StoreError> {
        let state = self.state.lock();
        Self::check_tables(&state, [key.table])?;
        Ok(state
            .rows
            .get(key.table, &key.partition, &key.sort, self.now())
            .cloned())
    }

    async fn get_many(
        &self,
        keys: &[RowKey],
        consistency: Consistency,
    ) -> Result<Vec<Option<Row>>, StoreError> {
        let mut rows = Vec::new();
        for key in keys {
            rows.push(self.get(key, consistency).await?);
        }
        Ok(rows)
    }

    async fn scan(&self, scan: &Scan) -> Result<ScanPage, StoreError> {
        let state = self.state.lock();
        Self::check_tables(&state, [scan.table])?;
        if scan.limit == 0 {
            return Err(StoreError::Invalid("the limit of a scan is at least 1".into()));
        }
        let mut page = state.rows.scan(scan, self.now());
        page.more ^= self.broken == Some(Broken::More);
        Ok(page)
    }

    async fn commit(&self, partition: &Partition, batch: Batch) -> Result<Committed, StoreError> {
        if self.broken == Some(Broken::Isolation) {
            // Decides on a copy, lets others in, and puts the copy back: the lost update of the textbooks.
            let mut copy = {
                let state = self.state.lock();
                State {
                    rows: state.rows.clone(),
                    tables: state.tables.clone(),
                    version: state.version,
                    events: state.events.clone(),
                }
            };
            tokio::task::yield_now().await;
            let committed = self.commit_to(&mut copy, partition, &batch)?;
            *self.state.lock() = copy;
            return Ok(committed);
        }
        let mut state = self.state.lock();
        Self::check_tables(&state, tables_of(&batch))?;
        self.commit_to(&mut state, partition, &batch)
    }

    async fn commit_many(&self, commits: Vec<(Partition, Batch)>) -> Vec<Result<Committed, StoreError>> {
        let mut answers = Vec::new();
        for (partition, batch) in commits {
            answers.push(self.commit(&partition, batch).await);
        }
        answers
    }

    async fn walk(
        &self,
        table: Table,
        cursor: Option<TableCursor>,
        limit: usize,
    ) -> Result<(Vec<(Partition, Row)>, Option<TableCursor>), StoreError> {
        let state = self.state.lock();
        Self::check_tables(&state, [table])?;
        let seen = cursor
            .and_then(|cursor| cursor.as_ref().try_into().ok().map(u64::from_be_bytes))
            .unwrap_or(0) as usize;
        let rows: Vec<_> = state
            .rows
            .table(table, self.now())
            .into_iter()
            .skip(seen)
            .take(limit)
            .collect();
        let next =
            (rows.len() == limit).then(|| Bytes::copy_from_slice(&((seen + limit) as u64).to_be_bytes()));
        Ok((rows, next))
    }
}
