//! The schema: numbered migrations, each run once in a transaction of its own, by one node at a time.
//!
//! A node takes an advisory lock before it looks, so that of many that start at once one migrates and the others find
//! it done. A migration waits only for moments for the locks it needs (`lock_timeout`), and tries again: while it
//! waits in the queue of a table's lock, every writer would wait behind it. A database whose schema is newer than
//! this program knows is refused.

use crate::{
    error::{PostgresError, Trouble, describe},
    link::Connector,
};
use std::time::Duration;
use tokio_postgres::{Client, error::SqlState};

/// In order; what was released is never changed.
const MIGRATIONS: [&str; 2] = [
    include_str!("schema/0001_base.sql"),
    include_str!("schema/0002_moves.sql"),
];
/// The schema that this program knows.
pub const VERSION: i32 = MIGRATIONS.len() as i32;

const OLDEST_SERVER: i32 = 130_000;
const LOCK_ATTEMPTS: u32 = 60;
const LOCK_PAUSE: Duration = Duration::from_millis(250);

/// The first part of every advisory lock of Holon that is not a partition's; "HOLN".
pub(crate) const LOCKS: i32 = 0x484f_4c4e;
const MIGRATION_LOCK: i32 = 2;
const DIRECTORY_LOCK: i32 = 4;

/// Locks the directory until the transaction ends.
pub(crate) fn lock_directory() -> String {
    format!("SELECT pg_advisory_xact_lock({LOCKS}, {DIRECTORY_LOCK})")
}

pub(crate) fn refused(database: &str, error: &tokio_postgres::Error) -> PostgresError {
    PostgresError::Refused {
        database: database.to_owned(),
        detail: describe(error),
    }
}

/// Connects, and checks that the server keeps what a store promises.
pub(crate) async fn connect(connector: &Connector) -> Result<Client, PostgresError> {
    let database = &connector.database;
    let (client, _) = connector.open().await.map_err(|detail| PostgresError::Connect {
        database: database.clone(),
        detail,
    })?;
    let settings = "SELECT current_setting('server_version_num')::int, current_setting('fsync'), \
                    current_setting('server_encoding')";
    let row = client
        .query_one(settings, &[])
        .await
        .map_err(|error| refused(database, &error))?;
    let (version, fsync, encoding): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
    let unsuitable = |detail: String| {
        Err(PostgresError::Unsuitable {
            database: database.clone(),
            detail,
        })
    };
    if version < OLDEST_SERVER {
        return unsuitable(format!("PostgreSQL 13 or newer is needed, this is {version}"));
    }
    if fsync != "on" {
        return unsuitable("fsync is off, so that an acknowledged commit could be lost".into());
    }
    if encoding != "UTF8" {
        return unsuitable(format!("its encoding is {encoding}, not UTF8"));
    }
    Ok(client)
}

/// Brings the schema of a database up to date.
pub(crate) async fn migrate(client: &mut Client, database: &str) -> Result<(), PostgresError> {
    let fail = |error: tokio_postgres::Error| refused(database, &error);
    client
        .execute("SELECT pg_advisory_lock($1, $2)", &[&LOCKS, &MIGRATION_LOCK])
        .await
        .map_err(fail)?;
    let outcome = migrate_alone(client, database).await;
    // A failed connection gives the lock back as well.
    let _ = client
        .execute("SELECT pg_advisory_unlock($1, $2)", &[&LOCKS, &MIGRATION_LOCK])
        .await;
    outcome
}

async fn migrate_alone(client: &mut Client, database: &str) -> Result<(), PostgresError> {
    let fail = |error: tokio_postgres::Error| refused(database, &error);
    let is_there = client
        .query_one("SELECT to_regclass('holon.migrations') IS NOT NULL", &[])
        .await
        .map_err(fail)?;
    if !is_there.get::<_, bool>(0) {
        let first = "CREATE SCHEMA IF NOT EXISTS holon; CREATE TABLE IF NOT EXISTS holon.migrations \
                     (version int PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())";
        client.batch_execute(first).await.map_err(fail)?;
    }
    let found = client
        .query_one("SELECT coalesce(max(version), 0) FROM holon.migrations", &[])
        .await
        .map_err(fail)?
        .get(0);
    if found > VERSION {
        return Err(PostgresError::SchemaTooNew {
            database: database.to_owned(),
            found,
            known: VERSION,
        });
    }
    for version in found + 1..=VERSION {
        let sql = MIGRATIONS[version as usize - 1];
        let record = format!("INSERT INTO holon.migrations (version) VALUES ({version})");
        run_without_blocking(client, database, &format!("{sql};\n{record}")).await?;
        tracing::info!(database, version, "schema migrated");
    }
    Ok(())
}

/// Runs statements in one transaction that waits for no lock for long.
async fn run_without_blocking(client: &mut Client, database: &str, sql: &str) -> Result<(), PostgresError> {
    let mut attempt = 0;
    loop {
        let outcome = async {
            let transaction = client.transaction().await?;
            transaction
                .batch_execute("SET LOCAL lock_timeout = '500ms'")
                .await?;
            transaction.batch_execute(sql).await?;
            transaction.commit().await
        }
        .await;
        let Err(error) = outcome else {
            return Ok(());
        };
        attempt += 1;
        let is_locked = matches!(Trouble::of(&error), Trouble::Refused { code, .. } if code == SqlState::LOCK_NOT_AVAILABLE);
        if !is_locked || attempt == LOCK_ATTEMPTS {
            return Err(refused(database, &error));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// Makes tables of Holon that are not there yet, and answers all that are.
pub(crate) async fn create_tables(
    client: &mut Client,
    database: &str,
    tables: &[(&str, String)],
) -> Result<(), PostgresError> {
    if tables.is_empty() {
        return Ok(());
    }
    let fail = |error: tokio_postgres::Error| refused(database, &error);
    let lock = "SELECT pg_advisory_lock($1, $2)";
    client
        .execute(lock, &[&LOCKS, &MIGRATION_LOCK])
        .await
        .map_err(fail)?;
    for (name, relation) in tables {
        // Both names are plain: see `tables::is_name`.
        let sql = format!("SELECT holon.create_table('{name}', '{relation}')");
        run_without_blocking(client, database, &sql).await?;
    }
    let unlock = "SELECT pg_advisory_unlock($1, $2)";
    client
        .execute(unlock, &[&LOCKS, &MIGRATION_LOCK])
        .await
        .map_err(fail)?;
    Ok(())
}
