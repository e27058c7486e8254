//! Walks over whole tables, across shards and moves.
//!
//! Rows come in the order of their keys, whatever shard has them: a page asks every shard for the next rows and merges
//! them. So a row that moves between two pages is neither missed nor told twice. Within a page, what a shard holds of
//! partitions that the directory gives to another (copies on their way, remains) is left out, and if a shard knows of a
//! newer directory than the page was read by, the page is read again.

use crate::{
    core::{Core, Retry, closed},
    encoding::unescape,
    error::Trouble,
    shard::fence,
    store::{damaged, read_row, read_sort},
};
use futures::future::try_join_all;
use holon_base::Tenant;
use holon_ports::{Partition, Row, StoreError, Table, store::TableCursor};
use std::sync::Arc;
use tokio_postgres::Row as SqlRow;

/// The last row that was answered, or that is known to have nothing of interest before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct Place {
    tenant: String,
    /// Escaped.
    entity: String,
    sort: Vec<u8>,
}

impl Place {
    fn write(&self, table: Table) -> TableCursor {
        // Texts can always be written.
        serde_json::to_vec(&(table.0, self)).unwrap_or_default().into()
    }

    pub fn read(table: Table, cursor: &TableCursor) -> Result<Self, StoreError> {
        match serde_json::from_slice::<(&str, Self)>(cursor) {
            Ok((name, place)) if name == table.0 => Ok(place),
            _ => Err(StoreError::Invalid("the cursor is not of this table".into())),
        }
    }

    fn of(sql: &SqlRow) -> Result<Self, StoreError> {
        let bad = |error: tokio_postgres::Error| damaged(&error);
        Ok(Self {
            tenant: sql.try_get(7).map_err(bad)?,
            entity: sql.try_get(8).map_err(bad)?,
            sort: read_sort(sql)?.to_vec(),
        })
    }
}

type Walked = (Vec<(Partition, Row)>, Option<TableCursor>);

/// At most `limit` rows after a place.
pub(crate) async fn walk(
    core: &Arc<Core>,
    table: Table,
    mut place: Place,
    limit: usize,
) -> Result<Walked, StoreError> {
    let mut retry = Retry::new(core.deadline());
    loop {
        if core.is_closed() {
            return Err(closed());
        }
        let routed_by = core.directory().version;
        let Some((mut rows, end)) = page(core, table, &place, limit).await? else {
            retry.pause(core, routed_by).await?;
            continue;
        };
        let next = if rows.len() > limit {
            rows.truncate(limit);
            rows.last().map(|(place, ..)| place.clone())
        } else {
            end
        };
        match next {
            // Nothing but remains and copies.
            Some(next) if rows.is_empty() => place = next,
            next => {
                let rows = rows.into_iter().map(|(_, partition, row)| (partition, row));
                return Ok((rows.collect(), next.map(|place| place.write(table))));
            }
        }
    }
}

type Page = (Vec<(Place, Partition, Row)>, Option<Place>);

/// Rows in order, at most `limit` of each shard, and how far all shards have told, unless to their ends. `None` if the
/// directory that it was read by is too old.
async fn page(
    core: &Arc<Core>,
    table: Table,
    from: &Place,
    limit: usize,
) -> Result<Option<Page>, StoreError> {
    let sql = core.tables.get(table.0)?;
    let (directory, now) = (core.directory(), core.clock().now().millis());
    let wanted = i64::try_from(limit).unwrap_or(i64::MAX);
    let shards = core.shards();
    let reads = shards.iter().map(|shard| async {
        let deadline = core.deadline();
        shard
            .primary
            .read(
                deadline,
                &sql.walk,
                &[&from.tenant, &from.entity, &from.sort, &now, &wanted],
            )
            .await
            .map_err(Trouble::of_read)
    });
    let told = try_join_all(reads).await?;
    let mut rows = Vec::new();
    let mut end: Option<Place> = None;
    for (shard, told) in shards.iter().zip(&told) {
        if fence(told)? > directory.version {
            return Ok(None);
        }
        let mut last = None;
        for sql in told {
            let Some(row) = read_row(sql, read_sort(sql)?)? else {
                continue;
            };
            let place = Place::of(sql)?;
            let tenant =
                Tenant::new(&place.tenant).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let partition = Partition::new(&tenant, unescape(place.entity.clone()));
            last = Some(place.clone());
            let route = core.route(&directory, &partition)?;
            if Arc::ptr_eq(&core.shard(route.entry.shard), shard) {
                rows.push((place, partition, row));
            }
        }
        if told.len() >= limit && last.is_some() && (end.is_none() || last < end) {
            end = last;
        }
    }
    if let Some(end) = &end {
        rows.retain(|(place, ..)| place <= end);
    }
    rows.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    Ok(Some((rows, end)))
}
