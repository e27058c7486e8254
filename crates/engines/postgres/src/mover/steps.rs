//! The steps of a move, each one transaction on one database, each fenced, each of no further effect if repeated.

use super::{MoveError, session::Batch};
use crate::{core::Core, encoding::escape, join::next_version, link::Connector, schema};
use holon_ports::Lease;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio_postgres::{Client, Transaction, error::SqlState};

/// How long a step may wait for a lock: while it waits for running commits, all later ones wait behind it.
const LOCK_PATIENCE: &str = "SET lock_timeout = '500ms'; SET statement_timeout = '10s'; SET search_path = pg_catalog; \
    SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
    SET jit = off;";
/// An index that is made holds no one up, however long it takes.
const NO_PATIENCE: &str = "SET lock_timeout = 0; SET statement_timeout = 0;";
/// Only one node at a time makes indexes in a database.
const INDEX_LOCK: i32 = 5;
const INDEX_PAUSE: Duration = Duration::from_millis(200);
const LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A connection of the mover, to one database.
pub(super) struct Place {
    pub database: String,
    pub client: Client,
}

impl Place {
    pub async fn open(connector: &Connector) -> Result<Self, MoveError> {
        let place = Self {
            database: connector.database.clone(),
            client: schema::connect(connector).await?,
        };
        place.fail(place.client.batch_execute(LOCK_PATIENCE).await)?;
        Ok(place)
    }

    pub fn fail<T>(&self, outcome: Result<T, tokio_postgres::Error>) -> Result<T, MoveError> {
        outcome.map_err(|error| failed(&self.database, &error))
    }
}

pub(super) fn failed(database: &str, error: &tokio_postgres::Error) -> MoveError {
    let fenced = SqlState::from_code("HL001");
    if error.code() == Some(&fenced) {
        return MoveError::Fenced;
    }
    MoveError::Database {
        database: database.to_owned(),
        detail: crate::error::describe(error),
    }
}

/// How far the commits of a shard have come: the last version and the last number of an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    pub version: i64,
    pub event: i64,
}

pub(super) async fn reached(place: &Place) -> Result<Reached, MoveError> {
    let sql = "SELECT v.last_value, o.last_value FROM holon.versions v, holon.outbox_number_seq o";
    let row = place.fail(place.client.query_one(sql, &[]).await)?;
    Ok(Reached {
        version: row.get(0),
        event: row.get(1),
    })
}

/// Begins a transaction in the directory that nobody else is in, if the lease still is this mover's.
pub(super) async fn in_directory<'a>(
    place: &'a mut Place,
    lease: &Lease,
) -> Result<Transaction<'a>, MoveError> {
    let Place { database, client } = place;
    let fail = |error: tokio_postgres::Error| failed(database, &error);
    let transaction = client.transaction().await.map_err(fail)?;
    transaction
        .batch_execute(&schema::lock_directory())
        .await
        .map_err(fail)?;
    let sql = "SELECT FROM holon.leases WHERE name = $1 AND holder = $2 AND fence = $3 FOR UPDATE";
    let (name, holder, fence) = (escape(&lease.name), escape(&lease.holder), lease.fence.0 as i64);
    let held = transaction
        .query_opt(sql, &[&name, &holder, &fence])
        .await
        .map_err(fail)?;
    match held {
        Some(_) => Ok(transaction),
        None => Err(MoveError::Fenced),
    }
}

/// Writes a new state of a batch's slots and its new stage into the directory; answers the version.
pub(super) async fn tell_directory(
    place: &mut Place,
    lease: &Lease,
    batch: &Batch,
    state: &str,
    stage: &str,
) -> Result<i64, MoveError> {
    let database = place.database.clone();
    let fail = |error: tokio_postgres::Error| failed(&database, &error);
    let transaction = in_directory(place, lease).await?;
    let version = next_version(&transaction).await.map_err(fail)?;
    let slots = "UPDATE holon.directory_slots SET state = $2, version = $3 WHERE slot = ANY ($1)";
    transaction
        .execute(slots, &[&batch.slots, &state, &version])
        .await
        .map_err(fail)?;
    let moves = "UPDATE holon.moves SET stage = $2, trouble = NULL WHERE slot = ANY ($1)";
    transaction
        .execute(moves, &[&batch.slots, &stage])
        .await
        .map_err(fail)?;
    transaction.commit().await.map_err(fail)?;
    Ok(version)
}

/// Gives the slots to the target.
pub(super) async fn hand_over(place: &mut Place, lease: &Lease, batch: &Batch) -> Result<i64, MoveError> {
    let database = place.database.clone();
    let fail = |error: tokio_postgres::Error| failed(&database, &error);
    let transaction = in_directory(place, lease).await?;
    let version = next_version(&transaction).await.map_err(fail)?;
    let slots = "UPDATE holon.directory_slots SET state = 'owned', shard = $2, version = $3, arrived = $3 \
        WHERE slot = ANY ($1)";
    transaction
        .execute(slots, &[&batch.slots, &batch.target, &version])
        .await
        .map_err(fail)?;
    for sql in [
        "UPDATE holon.directory_rules SET active = true WHERE slot = ANY ($1)",
        "UPDATE holon.moves SET stage = 'opening', trouble = NULL WHERE slot = ANY ($1)",
    ] {
        transaction.execute(sql, &[&batch.slots]).await.map_err(fail)?;
    }
    transaction.commit().await.map_err(fail)?;
    Ok(version)
}

type Statement<'a> = (&'a str, &'a [&'a (dyn tokio_postgres::types::ToSql + Sync)]);

/// Runs a statement in one transaction with a fence, after waiting for the commits that run and before those that come;
/// answers how many rows it changed. Where that takes long, commits are let through before another attempt.
async fn between_commits(
    place: &mut Place,
    fence: i64,
    statement: Option<Statement<'_>>,
) -> Result<u64, MoveError> {
    let Place { database, client } = place;
    for attempt in 1.. {
        let done = async {
            let transaction = client.transaction().await?;
            transaction
                .execute("SELECT holon.raise_fence($1)", &[&fence])
                .await?;
            let changed = match statement {
                Some((sql, params)) => transaction.execute(sql, params).await?,
                None => 0,
            };
            transaction.commit().await?;
            Ok(changed)
        };
        match done.await {
            Ok(changed) => return Ok(changed),
            Err(error) if attempt < LOCK_ATTEMPTS && is_locked(&error) => {
                tokio::time::sleep(LOCK_PAUSE).await
            }
            Err(error) => return Err(failed(database, &error)),
        }
    }
    Err(MoveError::Late(database.clone()))
}

fn is_locked(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// The target refuses commits to the slots and takes copies.
pub(super) async fn await_arrival(place: &Place, batch: &Batch, mover: i64) -> Result<(), MoveError> {
    let sql = "INSERT INTO holon.slots AS s (slot, state, version, mover) \
        SELECT u, 'arriving', 0, $2 FROM unnest($1::int[]) u \
        ON CONFLICT (slot) DO UPDATE SET state = 'arriving', mover = excluded.mover \
        WHERE s.mover <= excluded.mover AND s.state <> 'owned'";
    let told = place.fail(place.client.execute(sql, &[&batch.slots, &mover]).await)?;
    all(told, batch)
}

/// Takes the batch over from a mover before, at one shard.
pub(super) async fn take_over(place: &Place, batch: &Batch, mover: i64) -> Result<(), MoveError> {
    for table in ["slots", "pins"] {
        let sql = format!("UPDATE holon.{table} SET mover = $2 WHERE slot = ANY ($1) AND mover < $2");
        place.fail(place.client.execute(&sql, &[&batch.slots, &mover]).await)?;
    }
    Ok(())
}

/// From here on, the source writes down what changes.
pub(super) async fn log_changes(place: &mut Place, batch: &Batch, mover: i64) -> Result<(), MoveError> {
    let Some(rule) = &batch.rule else {
        let sql = "UPDATE holon.slots SET logged = true, mover = $2 \
            WHERE slot = ANY ($1) AND state = 'owned' AND mover <= $2";
        let told = between_commits(place, 0, Some((sql, &[&batch.slots, &mover]))).await?;
        return all(told, batch);
    };
    let (kind, tenant, low, high) = rule.row();
    let (low, high) = (low.map(escape), high.map(escape));
    let sql = "INSERT INTO holon.pins AS p (slot, kind, tenant, low, high, state, mover) \
        VALUES ($1, $2, $3, $4, $5, 'logged', $6) \
        ON CONFLICT (slot) DO UPDATE SET mover = excluded.mover WHERE p.mover <= excluded.mover";
    let slot = batch.slots[0];
    let told = between_commits(
        place,
        0,
        Some((sql, &[&slot, &kind, &tenant, &low, &high, &mover])),
    )
    .await?;
    all(told, batch)
}

/// From here on, the source takes no commits to the slots. Of a pin: none that does not know of it.
pub(super) async fn freeze(
    place: &mut Place,
    batch: &Batch,
    mover: i64,
    version: i64,
) -> Result<(), MoveError> {
    if batch.rule.is_some() {
        return between_commits(place, version, None).await.map(drop);
    }
    let sql =
        "UPDATE holon.slots SET state = 'frozen' WHERE slot = ANY ($1) AND state = 'owned' AND mover = $2";
    let told = between_commits(place, 0, Some((sql, &[&batch.slots, &mover]))).await?;
    all(told, batch)
}

/// Undoes [`freeze`].
pub(super) async fn thaw(place: &Place, batch: &Batch, mover: i64) -> Result<(), MoveError> {
    let sql =
        "UPDATE holon.slots SET state = 'owned' WHERE slot = ANY ($1) AND state = 'frozen' AND mover = $2";
    place.fail(place.client.execute(sql, &[&batch.slots, &mover]).await)?;
    Ok(())
}

/// What the target must know before it opens: how far versions and events of a source have come.
pub(super) async fn hold_events(
    source: &Place,
    name: &str,
    reached: Reached,
    target: &Place,
    batch: &Batch,
) -> Result<(), MoveError> {
    let pass = "SELECT holon.pass_version($1)";
    target.fail(target.client.execute(pass, &[&reached.version]).await)?;
    let is_whole = batch.rule.is_some();
    let waiting = "SELECT EXISTS (SELECT FROM holon.outbox \
        WHERE number <= $1 AND ($2 OR slot IS NULL OR slot = ANY ($3)))";
    let row = source
        .client
        .query_one(waiting, &[&reached.event, &is_whole, &batch.slots])
        .await;
    if !source.fail(row)?.get::<_, bool>(0) {
        return Ok(());
    }
    // Whatever the target tells of the slots from now on has a larger number than all it has told so far.
    let hold = "INSERT INTO holon.outbox_holds AS h (slot, after, source, upto, whole) \
        SELECT u, o.last_value, $2, $3, $4 FROM unnest($1::int[]) u, holon.outbox_number_seq o \
        ON CONFLICT (slot, after, source) DO UPDATE SET \
            upto = greatest(h.upto, excluded.upto), whole = h.whole OR excluded.whole";
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&batch.slots, &name, &reached.event, &is_whole];
    target.fail(target.client.execute(hold, &params).await)?;
    Ok(())
}

/// The source answers no one any more whose directory does not name the target.
pub(super) async fn close_source(
    place: &mut Place,
    batch: &Batch,
    mover: i64,
    version: i64,
) -> Result<(), MoveError> {
    let table = if batch.rule.is_some() { "pins" } else { "slots" };
    let logged = if batch.rule.is_some() {
        ""
    } else {
        ", logged = false"
    };
    let sql =
        format!("UPDATE holon.{table} SET state = 'moved'{logged} WHERE slot = ANY ($1) AND mover = $2");
    let told = between_commits(place, version, Some((&sql, &[&batch.slots, &mover]))).await?;
    all(told, batch)
}

/// The target takes commits.
pub(super) async fn open_target(
    place: &mut Place,
    batch: &Batch,
    mover: i64,
    version: i64,
) -> Result<(), MoveError> {
    let sql = "UPDATE holon.slots SET state = 'owned', version = $3 \
        WHERE slot = ANY ($1) AND state IN ('arriving', 'owned') AND mover = $2";
    let told = between_commits(place, version, Some((sql, &[&batch.slots, &mover, &version]))).await?;
    all(told, batch)
}

fn all(told: u64, batch: &Batch) -> Result<(), MoveError> {
    if told == batch.slots.len() as u64 {
        return Ok(());
    }
    Err(MoveError::Fenced)
}

/// Makes the indexes by which the rows of a slot are found, where they are not: without holding up writers, and
/// by one node at a time. Those that were left half done are made anew.
pub(super) async fn index(place: &Place, relations: &[String]) -> Result<(), MoveError> {
    let sql = "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'holon' AND c.relname LIKE '%!slot'";
    let began = Instant::now();
    loop {
        let found = place.fail(place.client.query(sql, &[]).await)?;
        let found: HashMap<String, bool> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
        let is_missing = |relation: &&String| found.get(&format!("{relation}!slot")) != Some(&true);
        let missing: Vec<&String> = relations.iter().filter(is_missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        // Whoever waits for a lock in a statement holds a snapshot, for which an index that is being made would wait.
        let lock = format!("SELECT pg_try_advisory_lock({}, {INDEX_LOCK})", schema::LOCKS);
        let locked = place.fail(place.client.query_one(&lock, &[]).await)?;
        if !locked.get::<_, bool>(0) {
            tokio::time::sleep(INDEX_PAUSE).await;
            continue;
        }
        place.fail(place.client.batch_execute(NO_PATIENCE).await)?;
        for relation in missing {
            if found.contains_key(&format!("{relation}!slot")) {
                let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS holon.\"{relation}!slot\"");
                place.fail(place.client.batch_execute(&drop).await)?;
            }
            let create = format!(
                "CREATE INDEX CONCURRENTLY IF NOT EXISTS \"{relation}!slot\" \
                 ON holon.\"{relation}\" (slot, tenant, entity, sort)"
            );
            place.fail(place.client.batch_execute(&create).await)?;
        }
        let unlock = format!("SELECT pg_advisory_unlock({}, {INDEX_LOCK})", schema::LOCKS);
        place.fail(place.client.batch_execute(&unlock).await)?;
        place.fail(place.client.batch_execute(LOCK_PATIENCE).await)?;
        tracing::info!(
            database = place.database,
            seconds = began.elapsed().as_secs_f64(),
            "indexes of slots made"
        );
    }
}

/// Takes note that shards that were to be drained have been: they have no slots, and nothing to tell.
pub(super) async fn retire(
    core: &Core,
    place: &mut Place,
    lease: &Lease,
    name: &str,
) -> Result<bool, MoveError> {
    let Some(shard) = core.shard_named(name) else {
        return Ok(false);
    };
    let at_shard = Place::open(&shard.connector).await?;
    let empty = "SELECT NOT EXISTS (SELECT FROM holon.outbox)";
    if !at_shard
        .fail(at_shard.client.query_one(empty, &[]).await)?
        .get::<_, bool>(0)
    {
        return Ok(false);
    }
    let database = place.database.clone();
    let fail = |error: tokio_postgres::Error| failed(&database, &error);
    let transaction = in_directory(place, lease).await?;
    let sql = "UPDATE holon.directory_shards s SET state = 'retired' WHERE name = $1 AND state = 'draining' \
        AND NOT EXISTS (SELECT FROM holon.directory_slots d WHERE d.shard = s.name) \
        AND NOT EXISTS (SELECT FROM holon.moves m WHERE m.target = s.name OR m.source = s.name)";
    if transaction.execute(sql, &[&name]).await.map_err(fail)? == 0 {
        return Ok(false);
    }
    next_version(&transaction).await.map_err(fail)?;
    transaction.commit().await.map_err(fail)?;
    Ok(true)
}
