//! Leases on any [`Store`]: one row a name, changed by compare and set.
//!
//! A row says who holds the lease, under which fence and until when. It stays when the lease is given back or runs
//! out, so that the next holder's fence is larger, whatever was restarted in between. Two that want the same lease
//! write on the condition that the row still has the version that they read; the store lets one of them through.
//!
//! Times are those of the clock handed in. Where several nodes share a store, the skew between their clocks takes
//! away from the time that a holder can count on; a holder therefore stops well before `expires`, and the fence
//! guards what it writes if it does not.

use async_trait::async_trait;
use bytes::Bytes;
use holon_base::{Clock, Tenant, Timestamp};
use holon_ports::store::{Batch, Condition, Consistency};
use holon_ports::{
    Fence, Lease, LeaseError, Leases, Partition, Row, RowKey, Store, StoreError, Table, Value,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

const LEASES: Table = Table("leases.leases");
/// The tables that leases need.
pub const TABLES: [Table; 1] = [LEASES];

/// The longest name of a lease or of a holder, in bytes.
pub const NAME_BYTES: usize = 256;
const SORT: &[u8] = b"lease";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    holder: String,
    fence: u64,
    expires: Timestamp,
}

/// Leases kept as rows.
pub struct StoreLeases {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl StoreLeases {
    /// Its [`TABLES`] must be there.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    async fn read(&self, name: &str) -> Result<Option<(Record, u64)>, LeaseError> {
        let key = RowKey::new(LEASES, partition(name), SORT);
        let row = self.store.get(&key, Consistency::Strong).await.map_err(away)?;
        row.map(|row| Ok((row.json().map_err(away)?, row.version)))
            .transpose()
    }

    /// True if the row was written, false if another was faster.
    async fn write(&self, name: &str, record: &Record, condition: Condition) -> Result<bool, LeaseError> {
        let batch = Batch::new().put_if(LEASES, SORT, record, condition);
        match self.store.commit(&partition(name), batch).await {
            Ok(_) => Ok(true),
            Err(StoreError::ConditionFailed { .. }) => Ok(false),
            Err(error) => Err(away(error)),
        }
    }
}

fn partition(name: &str) -> Partition {
    Partition::new(&Tenant::default(), format!("lease:{name}"))
}

/// The name and the last fence of the lease in a row of [`TABLES`].
pub(crate) fn fence(partition: &Partition, row: &Row) -> Result<(String, u64), StoreError> {
    let record: Record = row.json()?;
    let name = partition.entity.strip_prefix("lease:").unwrap_or_default();
    Ok((name.to_owned(), record.fence))
}

/// The row of a lease that nobody holds any more.
pub(crate) fn past(name: &str, fence: u64, version: u64) -> Result<(Table, Partition, Row), StoreError> {
    let record = Record {
        holder: "before".into(),
        fence,
        expires: Timestamp::EPOCH,
    };
    let value = serde_json::to_vec(&record).map_err(|error| StoreError::Invalid(error.to_string()))?;
    let row = Row {
        sort: Bytes::from_static(SORT),
        value: Value::Json(value.into()),
        version,
        expires: None,
    };
    Ok((LEASES, partition(name), row))
}

fn away(error: StoreError) -> LeaseError {
    LeaseError::Unavailable(error.to_string())
}

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

fn check_ttl(ttl: Duration) -> Result<(), LeaseError> {
    if ttl.as_millis() == 0 {
        return Err(LeaseError::Invalid("a lease lasts at least a millisecond".into()));
    }
    Ok(())
}

fn lease(name: &str, record: Record) -> Lease {
    Lease {
        name: name.to_owned(),
        holder: record.holder,
        fence: Fence(record.fence),
        expires: record.expires,
    }
}

#[async_trait]
impl Leases for StoreLeases {
    async fn acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Lease, LeaseError> {
        check_names(name, holder)?;
        check_ttl(ttl)?;
        // Each time round, another has written: that is progress, and it ends when that one holds the lease.
        loop {
            let now = self.clock.now();
            let (fence, condition) = match self.read(name).await? {
                None => (1, Condition::Absent),
                Some((record, version)) if record.expires <= now => {
                    (record.fence + 1, Condition::Version(version))
                }
                Some((record, version)) if record.holder == holder => {
                    (record.fence, Condition::Version(version))
                }
                Some((record, _)) => {
                    return Err(LeaseError::Held {
                        holder: record.holder,
                        expires: record.expires,
                    });
                }
            };
            let record = Record {
                holder: holder.to_owned(),
                fence,
                expires: now.plus(ttl),
            };
            if self.write(name, &record, condition).await? {
                return Ok(lease(name, record));
            }
        }
    }

    async fn renew(&self, held: &Lease, ttl: Duration) -> Result<Lease, LeaseError> {
        check_ttl(ttl)?;
        loop {
            let now = self.clock.now();
            let (mut record, version) = self.read(&held.name).await?.ok_or(LeaseError::Lost)?;
            let is_ours = record.holder == held.holder && record.fence == held.fence.0;
            if !is_ours || record.expires <= now {
                return Err(LeaseError::Lost);
            }
            record.expires = now.plus(ttl);
            if self
                .write(&held.name, &record, Condition::Version(version))
                .await?
            {
                return Ok(lease(&held.name, record));
            }
        }
    }

    async fn release(&self, held: &Lease) -> Result<(), LeaseError> {
        loop {
            let Some((mut record, version)) = self.read(&held.name).await? else {
                return Ok(());
            };
            let is_ours = record.holder == held.holder && record.fence == held.fence.0;
            if !is_ours || record.expires <= self.clock.now() {
                return Ok(());
            }
            // Over for every clock, also one that goes back.
            record.expires = Timestamp::EPOCH;
            if self
                .write(&held.name, &record, Condition::Version(version))
                .await?
            {
                return Ok(());
            }
        }
    }

    async fn current(&self, name: &str) -> Result<Option<Lease>, LeaseError> {
        let now = self.clock.now();
        let record = self.read(name).await?.map(|(record, _)| record);
        Ok(record
            .filter(|record| record.expires > now)
            .map(|record| lease(name, record)))
    }
}
