//! Store: rows in partitions.
//!
//! A row is addressed by *(table, partition, sort)*. The partition decides where the row lives and what can change
//! together; the sort key orders the rows inside it, byte by byte. There is no transaction across partitions: what
//! spans two is an event and an idempotent consumer.

mod around;

pub use around::AroundStore;

use crate::log::{NewEvent, Position};
use async_trait::async_trait;
use bytes::Bytes;
use holon_base::{ErrorKind, Tenant, Timestamp, limits};
use serde::{Serialize, de::DeserializeOwned};
use std::ops::Bound;

/// A table, named `system.entity` once and for all, such as `feed.posts`: 1 to 64 of `a-z`, `0-9`, `.` and `_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table(pub &'static str);

/// What lives and changes together: a tenant and an entity, such as `user:42`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    pub tenant: Tenant,
    pub entity: String,
}

impl Partition {
    pub fn new(tenant: &Tenant, entity: impl Into<String>) -> Self {
        Self {
            tenant: tenant.clone(),
            entity: entity.into(),
        }
    }
}

/// The address of one row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    pub table: Table,
    pub partition: Partition,
    pub sort: Bytes,
}

impl RowKey {
    pub fn new(table: Table, partition: Partition, sort: impl Into<Bytes>) -> Self {
        Self {
            table,
            partition,
            sort: sort.into(),
        }
    }
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A JSON document, stored as it is served. The engine may check that it parses; it never rewrites it.
    Json(Bytes),
    /// Bytes, where JSON would be silly.
    Binary(Bytes),
    /// A 64-bit counter, changed by [`Op::Add`]; saturates at its ends.
    Counter(i64),
}

impl Value {
    /// Bytes that count against the limit on a row.
    pub fn size(&self) -> usize {
        match self {
            Self::Json(bytes) | Self::Binary(bytes) => bytes.len(),
            Self::Counter(_) => 8,
        }
    }
}

/// A row as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub sort: Bytes,
    pub value: Value,
    /// Grows with every change of the row, also across a delete and a new put. Serves as ETag.
    pub version: u64,
    /// When the row disappears, if it does.
    pub expires: Option<Timestamp>,
}

impl Row {
    /// The document in the row.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the row holds no JSON or JSON of another shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        match &self.value {
            Value::Json(bytes) => serde_json::from_slice(bytes)
                .map_err(|error| StoreError::Corrupt(format!("row is not as expected: {error}"))),
            other => Err(StoreError::Corrupt(format!(
                "row holds {other:?} where JSON is expected"
            ))),
        }
    }

    /// The bytes of a JSON or binary row; empty for a counter.
    pub fn bytes(&self) -> Bytes {
        match &self.value {
            Value::Json(bytes) | Value::Binary(bytes) => bytes.clone(),
            Value::Counter(_) => Bytes::new(),
        }
    }

    /// The count in the row; 0 for any other.
    pub fn counter(&self) -> i64 {
        if let Value::Counter(count) = self.value {
            count
        } else {
            0
        }
    }
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Sees every commit that was acknowledged before the read began.
    #[default]
    Strong,
    /// May lag, but not behind this commit if one is given: read-your-writes.
    Eventual(Option<WriteToken>),
}

/// Names a commit, for reads that must see it. Ordered within a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteToken(pub u64);

/// What must hold of a row for the commit to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Any,
    Absent,
    Present,
    /// Present with exactly this version.
    Version(u64),
}

/// One step of a commit. Steps apply in order and see the ones before; conditions see the state before the commit.
/// At most one write of each row in a commit, except repeated [`Op::Add`]s.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Put {
        table: Table,
        sort: Bytes,
        value: Value,
        condition: Condition,
        expires: Option<Timestamp>,
    },
    /// Deleting what is not there is no error (unless a condition says so).
    Delete {
        table: Table,
        sort: Bytes,
        condition: Condition,
    },
    /// Adds to a counter row, which starts at 0. `expires`, if given, replaces the row's expiry.
    /// Fails with [`StoreError::NotACounter`] if the row holds something else.
    Add {
        table: Table,
        sort: Bytes,
        delta: i64,
        expires: Option<Timestamp>,
    },
    /// A condition on a row that is not written.
    Check {
        table: Table,
        sort: Bytes,
        condition: Condition,
    },
    /// Told to others if and only if the commit happens.
    Event(NewEvent),
}

/// The steps of one commit, built up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    pub ops: Vec<Op>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    #[must_use]
    pub fn op(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Bytes that count against [`limits::COMMIT_BYTES`]: its sort keys, values and events.
    pub fn size(&self) -> usize {
        self.ops
            .iter()
            .map(|op| match op {
                Op::Put { sort, value, .. } => sort.len() + value.size(),
                Op::Delete { sort, .. } | Op::Check { sort, .. } => sort.len(),
                Op::Add { sort, .. } => sort.len() + 8,
                Op::Event(event) => event.size(),
            })
            .sum()
    }

    /// What every engine refuses before it looks at a single row: a part above its limit, or a row that is written
    /// twice. O(n log n) in the steps.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] names the limit; [`StoreError::Invalid`] says what was written twice.
    pub fn check_limits(&self, partition: &Partition) -> Result<(), StoreError> {
        within("partition key", partition.entity.len(), limits::KEY_BYTES)?;
        for op in &self.ops {
            match op {
                Op::Put { sort, value, .. } => {
                    within("sort key", sort.len(), limits::KEY_BYTES)?;
                    within("row", value.size(), limits::ROW_BYTES)?;
                }
                Op::Delete { sort, .. } | Op::Check { sort, .. } | Op::Add { sort, .. } => {
                    within("sort key", sort.len(), limits::KEY_BYTES)?;
                }
                Op::Event(event) => event.check_limits()?,
            }
        }
        within("commit", self.size(), limits::COMMIT_BYTES)?;
        self.check_written_once()
    }

    fn check_written_once(&self) -> Result<(), StoreError> {
        if self.ops.len() < 2 {
            return Ok(());
        }
        let mut written: Vec<(Table, &Bytes, bool)> = self
            .ops
            .iter()
            .filter_map(|op| match op {
                Op::Put { table, sort, .. } | Op::Delete { table, sort, .. } => Some((*table, sort, false)),
                Op::Add { table, sort, .. } => Some((*table, sort, true)),
                Op::Check { .. } | Op::Event(_) => None,
            })
            .collect();
        written.sort_unstable();
        for pair in written.windows(2) {
            let ((table, sort, first_adds), (other_table, other_sort, second_adds)) = (pair[0], pair[1]);
            if table == other_table && sort == other_sort && !(first_adds && second_adds) {
                return Err(StoreError::Invalid(format!(
                    "a row of {} is written twice in one commit",
                    table.0
                )));
            }
        }
        Ok(())
    }

    fn put_value(self, table: Table, sort: impl Into<Bytes>, value: Value, condition: Condition) -> Self {
        self.op(Op::Put {
            table,
            sort: sort.into(),
            value,
            condition,
            expires: None,
        })
    }

    /// Puts a document.
    ///
    /// # Panics
    /// If the document cannot be written as JSON (a map with keys that are no text): a defect of its type.
    #[must_use]
    pub fn put<T: Serialize + ?Sized>(self, table: Table, sort: impl Into<Bytes>, document: &T) -> Self {
        self.put_value(table, sort, json(document), Condition::Any)
    }

    #[must_use]
    pub fn put_if<T: Serialize + ?Sized>(
        self,
        table: Table,
        sort: impl Into<Bytes>,
        document: &T,
        condition: Condition,
    ) -> Self {
        self.put_value(table, sort, json(document), condition)
    }

    #[must_use]
    pub fn put_if_absent<T: Serialize + ?Sized>(
        self,
        table: Table,
        sort: impl Into<Bytes>,
        document: &T,
    ) -> Self {
        self.put_if(table, sort, document, Condition::Absent)
    }

    /// Puts a document that disappears at a time.
    #[must_use]
    pub fn put_until<T: Serialize + ?Sized>(
        self,
        table: Table,
        sort: impl Into<Bytes>,
        document: &T,
        condition: Condition,
        expires: Timestamp,
    ) -> Self {
        self.op(Op::Put {
            table,
            sort: sort.into(),
            value: json(document),
            condition,
            expires: Some(expires),
        })
    }

    #[must_use]
    pub fn put_binary(self, table: Table, sort: impl Into<Bytes>, bytes: impl Into<Bytes>) -> Self {
        self.put_value(table, sort, Value::Binary(bytes.into()), Condition::Any)
    }

    #[must_use]
    pub fn put_binary_if(
        self,
        table: Table,
        sort: impl Into<Bytes>,
        bytes: impl Into<Bytes>,
        condition: Condition,
    ) -> Self {
        self.put_value(table, sort, Value::Binary(bytes.into()), condition)
    }

    #[must_use]
    pub fn delete(self, table: Table, sort: impl Into<Bytes>) -> Self {
        self.op(Op::Delete {
            table,
            sort: sort.into(),
            condition: Condition::Any,
        })
    }

    #[must_use]
    pub fn delete_if(self, table: Table, sort: impl Into<Bytes>, condition: Condition) -> Self {
        self.op(Op::Delete {
            table,
            sort: sort.into(),
            condition,
        })
    }

    #[must_use]
    pub fn add(self, table: Table, sort: impl Into<Bytes>, delta: i64) -> Self {
        self.op(Op::Add {
            table,
            sort: sort.into(),
            delta,
            expires: None,
        })
    }

    #[must_use]
    pub fn check(self, table: Table, sort: impl Into<Bytes>, condition: Condition) -> Self {
        self.op(Op::Check {
            table,
            sort: sort.into(),
            condition,
        })
    }

    #[must_use]
    pub fn event(self, event: NewEvent) -> Self {
        self.op(Op::Event(event))
    }
}

pub(crate) fn within(what: &'static str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit {
        return Err(StoreError::TooLarge { what, size, limit });
    }
    Ok(())
}

fn json<T: Serialize + ?Sized>(document: &T) -> Value {
    #[expect(
        clippy::expect_used,
        reason = "documented panic: a document type that is not JSON is a defect"
    )]
    let bytes = serde_json::to_vec(document).expect("document types can be written as JSON");
    Value::Json(bytes.into())
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The version that every row written by this commit now has.
    pub version: u64,
    /// For [`Consistency::Eventual`].
    pub token: WriteToken,
    /// Where its events are, in the order of their ops; empty on engines that relay them later.
    pub positions: Vec<Position>,
}

/// A range of one partition of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub table: Table,
    pub partition: Partition,
    pub start: Bound<Bytes>,
    pub end: Bound<Bytes>,
    /// From the end to the start.
    pub reverse: bool,
    /// The most rows to answer; at least 1.
    pub limit: usize,
    pub consistency: Consistency,
}

impl Scan {
    /// All rows of a partition, in order.
    pub fn all(table: Table, partition: Partition, limit: usize) -> Self {
        Self {
            table,
            partition,
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            reverse: false,
            limit,
            consistency: Consistency::Strong,
        }
    }

    /// All rows whose sort key starts with a prefix.
    #[must_use]
    pub fn prefix(mut self, prefix: &[u8]) -> Self {
        self.start = Bound::Included(Bytes::copy_from_slice(prefix));
        self.end = match holon_base::key::prefix_end(prefix) {
            Some(end) => Bound::Excluded(end.into()),
            None => Bound::Unbounded,
        };
        self
    }

    /// Only what comes after this sort key in the direction of the scan: how a cursor goes on. Call it last.
    #[must_use]
    pub fn after(mut self, sort: impl Into<Bytes>) -> Self {
        if self.reverse {
            self.end = Bound::Excluded(sort.into());
        } else {
            self.start = Bound::Excluded(sort.into());
        }
        self
    }

    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.reverse = true;
        self
    }
}

/// Rows in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanPage {
    pub rows: Vec<Row>,
    /// Whether there may be more after the last row: pass its sort key to [`Scan::after`].
    pub more: bool,
}

/// A place in a walk over a whole table; opaque, of one engine.
pub type TableCursor = Bytes;

/// Rows in partitions. See the module for the model; every promise here is tried by [`crate::conformance`].
///
/// Strong reads do not go back in time: what one saw of a commit, those that begin after it see too, whatever rows or
/// ranges they read. (A cache may so be kept under a version that was read before the rows.)
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes tables that are not there yet. Called once at start, before any other use of them.
    async fn create_tables(&self, tables: &[Table]) -> Result<(), StoreError>;

    /// Reads one row. An expired row is not there.
    async fn get(&self, key: &RowKey, consistency: Consistency) -> Result<Option<Row>, StoreError>;

    /// Reads rows of any partitions; the answer has the order of the keys. The rows are not one snapshot.
    async fn get_many(
        &self,
        keys: &[RowKey],
        consistency: Consistency,
    ) -> Result<Vec<Option<Row>>, StoreError>;

    /// Reads a range of one partition, as one snapshot.
    async fn scan(&self, scan: &Scan) -> Result<ScanPage, StoreError>;

    /// Applies all steps or none, to one partition. When it returns, the change is durable and every later strong
    /// read sees it. Commits to one partition are serialisable.
    ///
    /// # Errors
    /// [`StoreError::ConditionFailed`] names the first step whose condition did not hold; nothing was changed.
    /// After [`StoreError::Unknown`] the commit may or may not have happened; after any other error it has not.
    async fn commit(&self, partition: &Partition, batch: Batch) -> Result<Committed, StoreError>;

    /// Many commits at once, each exactly as [`Store::commit`] would do it and each with its own answer; there is
    /// no atomicity across them. Commits to the same partition apply in the given order. This is how a fan-out
    /// writes to a thousand partitions at the price of a few.
    async fn commit_many(&self, commits: Vec<(Partition, Batch)>) -> Vec<Result<Committed, StoreError>>;

    /// Walks a whole table in the engine's order, for rebuilds, exports and checks; not for serving. Rows written
    /// during the walk may or may not be seen. `None` for the next cursor ends it.
    async fn walk(
        &self,
        table: Table,
        cursor: Option<TableCursor>,
        limit: usize,
    ) -> Result<(Vec<(Partition, Row)>, Option<TableCursor>), StoreError>;
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("condition of step {op} does not hold")]
    ConditionFailed { op: usize },
    #[error("{what} is {size} bytes, above the limit of {limit}")]
    TooLarge {
        what: &'static str,
        size: usize,
        limit: usize,
    },
    #[error("step {op} adds to a row that is no counter")]
    NotACounter { op: usize },
    #[error("invalid request: {0}")]
    Invalid(String),
    #[error("table {0} was not created")]
    NoSuchTable(String),
    #[error("no space left for the data; free some, nothing was changed")]
    Full,
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    #[error("store is in use: {0}")]
    InUse(String),
    #[error("store is closed or away: {0}")]
    Unavailable(String),
    #[error("the answer was lost; the commit may have happened: {0}")]
    Unknown(String),
}

impl StoreError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ConditionFailed { .. } => ErrorKind::Conflict,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Full | Self::InUse(_) | Self::Unavailable(_) | Self::Unknown(_) => ErrorKind::Unavailable,
            Self::NotACounter { .. } | Self::NoSuchTable(_) | Self::Corrupt(_) => ErrorKind::Internal,
        }
    }

    pub fn is_condition_failed(&self) -> bool {
        matches!(self, Self::ConditionFailed { .. })
    }
}
