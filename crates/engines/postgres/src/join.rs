//! How shards come to be known: their databases are told which shard they are, the directory how to reach them.
//!
//! Addresses are in the directory so that every node learns of a shard that is added; a node's own settings win for the
//! shards that they name, and are written to the directory when the node starts. They hold passwords, as settings do.

use crate::{
    directory::SLOTS,
    error::PostgresError,
    link::Connector,
    options::{PostgresOptions, Role, ShardOptions},
    schema::{self, refused},
    shard::MOST_SHARDS,
};
use tokio_postgres::{Client, Transaction};

/// Brings all schemas up to date, makes the directory if there is none, and tells new databases what they are.
pub(crate) async fn join(home: &Connector, options: &PostgresOptions) -> Result<(), PostgresError> {
    let mut directory = schema::connect(home).await?;
    schema::migrate(&mut directory, &home.database).await?;
    let mut clients = Vec::new();
    for shard in &options.shards {
        clients.push(reach(shard, options).await?);
    }
    let names: Vec<&str> = options.shards.iter().map(|shard| shard.name.as_str()).collect();
    create_directory(&mut directory, &home.database, &names).await?;
    for (shard, (client, database)) in options.shards.iter().zip(&mut clients) {
        admit(&mut directory, &home.database, shard, client, database).await?;
    }
    Ok(())
}

/// Makes a shard known to all nodes, after looking at its database. It has no slots, unless it had before.
pub(crate) async fn add(
    home: &Connector,
    options: &PostgresOptions,
    shard: &ShardOptions,
) -> Result<(), PostgresError> {
    shard.check()?;
    for url in &shard.replicas {
        let name = format!("a replica of shard {}", shard.name);
        schema::connect(&Connector::new(name, url, Role::Replica, options)?).await?;
    }
    let mut directory = schema::connect(home).await?;
    let (mut client, database) = reach(shard, options).await?;
    copy_tables(&mut directory, &home.database, &mut client, &database).await?;
    admit(&mut directory, &home.database, shard, &mut client, &database).await
}

/// A connection to a shard's database, with the schema up to date.
async fn reach(shard: &ShardOptions, options: &PostgresOptions) -> Result<(Client, String), PostgresError> {
    let database = format!("shard {}", shard.name);
    let connector = Connector::new(database.clone(), &shard.url, Role::Primary, options)?;
    let mut client = schema::connect(&connector).await?;
    schema::migrate(&mut client, &database).await?;
    Ok((client, database))
}

/// Makes the tables that one database has in another.
pub(crate) async fn copy_tables(
    from: &mut Client,
    from_database: &str,
    to: &mut Client,
    to_database: &str,
) -> Result<(), PostgresError> {
    const TABLES: &str = "SELECT name, relation FROM holon.tables";
    let there = from.query(TABLES, &[]).await;
    let there = there.map_err(|error| refused(from_database, &error))?;
    let here = to.query(TABLES, &[]).await;
    let here = here.map_err(|error| refused(to_database, &error))?;
    let known: Vec<&str> = here.iter().map(|row| row.get(0)).collect();
    let missing: Vec<(&str, String)> = there
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .filter(|(name, _)| !known.contains(name))
        .collect();
    schema::create_tables(to, to_database, &missing).await
}

/// Makes the directory if it is not there: each shard gets a run of slots of the same length.
async fn create_directory(client: &mut Client, database: &str, shards: &[&str]) -> Result<(), PostgresError> {
    let done = async {
        let transaction = client.transaction().await?;
        transaction.batch_execute(&schema::lock_directory()).await?;
        let first = "INSERT INTO holon.directory (version) VALUES (1) ON CONFLICT DO NOTHING";
        if transaction.execute(first, &[]).await? == 1 {
            let slots = "INSERT INTO holon.directory_slots (slot, shard, state, version) \
                SELECT slot, ($1::text[])[1 + slot * cardinality($1::text[]) / $2], 'owned', 1 \
                FROM generate_series(0, $2 - 1) slot";
            transaction.execute(slots, &[&shards, &i32::from(SLOTS)]).await?;
        }
        transaction.commit().await
    };
    done.await.map_err(|error| refused(database, &error))
}

/// Writes a shard into the directory and the shard's name into its database, if they do not contradict each other.
async fn admit(
    directory: &mut Client,
    home: &str,
    shard: &ShardOptions,
    client: &mut Client,
    database: &str,
) -> Result<(), PostgresError> {
    let fail = |error: tokio_postgres::Error| refused(home, &error);
    let of_shard = |error: tokio_postgres::Error| refused(database, &error);
    // Held to the end, so that nodes that start together do this one after another.
    let transaction = directory.transaction().await.map_err(fail)?;
    transaction
        .batch_execute(&schema::lock_directory())
        .await
        .map_err(fail)?;
    let named = client
        .query_opt("SELECT name FROM holon.shard", &[])
        .await
        .map_err(of_shard)?;
    let named: Option<String> = named.map(|row| row.get(0));
    let known = transaction
        .query_opt(
            "SELECT claimed FROM holon.directory_shards WHERE name = $1",
            &[&shard.name],
        )
        .await
        .map_err(fail)?;
    let was_claimed = known.is_some_and(|row| row.get(0));
    match &named {
        Some(found) if *found != shard.name => {
            return Err(PostgresError::WrongShard {
                database: database.to_owned(),
                found: found.clone(),
                expected: shard.name.clone(),
            });
        }
        None if was_claimed && has_slots(&transaction, &shard.name).await.map_err(fail)? => {
            return Err(PostgresError::Emptied {
                database: database.to_owned(),
            });
        }
        _ => {}
    }
    if named.is_none() {
        claim(client, &transaction, shard).await.map_err(of_shard)?;
    }
    let number = write(&transaction, shard).await.map_err(fail)?;
    if number > MOST_SHARDS {
        return Err(PostgresError::Options(format!(
            "there can be {MOST_SHARDS} shards at most"
        )));
    }
    transaction.commit().await.map_err(fail)
}

async fn has_slots(transaction: &Transaction<'_>, shard: &str) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT EXISTS (SELECT FROM holon.directory_slots WHERE shard = $1)";
    Ok(transaction.query_one(sql, &[&shard]).await?.get(0))
}

/// Tells a new database which shard it is and which slots it has.
async fn claim(
    client: &mut Client,
    directory: &Transaction<'_>,
    shard: &ShardOptions,
) -> Result<(), tokio_postgres::Error> {
    let sql = "SELECT slot, version FROM holon.directory_slots WHERE shard = $1 AND state = 'owned'";
    let slots = directory.query(sql, &[&shard.name]).await?;
    let (numbers, versions): (Vec<i32>, Vec<i64>) = slots
        .iter()
        .map(|row| (row.get::<_, i32>(0), row.get::<_, i64>(1)))
        .unzip();
    let transaction = client.transaction().await?;
    transaction
        .execute("INSERT INTO holon.shard (name) VALUES ($1)", &[&shard.name])
        .await?;
    let own = "INSERT INTO holon.slots (slot, state, version) \
        SELECT u.slot, 'owned', u.version FROM unnest($1::int[], $2::bigint[]) u (slot, version)";
    transaction.execute(own, &[&numbers, &versions]).await?;
    transaction.commit().await
}

/// Answers its number.
async fn write(transaction: &Transaction<'_>, shard: &ShardOptions) -> Result<i32, tokio_postgres::Error> {
    let known = "SELECT number FROM holon.directory_shards \
        WHERE name = $1 AND url = $2 AND replicas = $3 AND claimed AND state <> 'retired'";
    let known = transaction
        .query_opt(known, &[&shard.name, &shard.url, &shard.replicas])
        .await?;
    if let Some(row) = known {
        return Ok(row.get(0));
    }
    let insert = "INSERT INTO holon.directory_shards AS s (name, url, replicas, state, claimed) \
        VALUES ($1, $2, $3, 'active', true) \
        ON CONFLICT (name) DO UPDATE SET url = excluded.url, replicas = excluded.replicas, claimed = true, \
            state = CASE WHEN s.state = 'retired' THEN 'active' ELSE s.state END \
        RETURNING number";
    let row = transaction
        .query_one(insert, &[&shard.name, &shard.url, &shard.replicas])
        .await?;
    next_version(transaction).await?;
    Ok(row.get(0))
}

pub(crate) async fn next_version(transaction: &Transaction<'_>) -> Result<i64, tokio_postgres::Error> {
    let sql = "UPDATE holon.directory SET version = version + 1 RETURNING version";
    Ok(transaction.query_one(sql, &[]).await?.get(0))
}
