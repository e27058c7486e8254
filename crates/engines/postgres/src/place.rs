//! Who has what: the first map of slots, what each shard claims of it, and rules for partitions that are to come.

use crate::{
    core::Core,
    directory::{Rule, SLOTS},
    encoding::escape,
    error::PostgresError,
    schema::{self, refused},
};
use tokio_postgres::{Client, Transaction};

/// Makes the directory if it is not there: each shard gets a run of slots of the same length.
pub(crate) async fn create_directory(
    client: &mut Client,
    database: &str,
    shards: &[&str],
) -> Result<(), PostgresError> {
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

/// What the directory gives to a shard.
pub(crate) async fn slots_of(
    client: &Client,
    database: &str,
    shard: &str,
) -> Result<Vec<(i32, i64)>, PostgresError> {
    let sql = "SELECT slot, version FROM holon.directory_slots WHERE shard = $1 AND state = 'owned'";
    let rows = client
        .query(sql, &[&shard])
        .await
        .map_err(|error| refused(database, &error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Tells a new database which shard it is and which slots it has; for any other, checks that it is this shard.
pub(crate) async fn claim(
    client: &mut Client,
    database: &str,
    shard: &str,
    slots: &[(i32, i64)],
) -> Result<(), PostgresError> {
    let claimed = async {
        let transaction = client.transaction().await?;
        let name = "INSERT INTO holon.shard (name) VALUES ($1) ON CONFLICT DO NOTHING";
        if transaction.execute(name, &[&shard]).await? == 1 {
            let (numbers, versions): (Vec<i32>, Vec<i64>) = slots.iter().copied().unzip();
            let own = "INSERT INTO holon.slots (slot, state, version) \
                SELECT u.slot, 'owned', u.version FROM unnest($1::int[], $2::bigint[]) u (slot, version)";
            transaction.execute(own, &[&numbers, &versions]).await?;
        }
        let found: String = transaction
            .query_one("SELECT name FROM holon.shard", &[])
            .await?
            .get(0);
        transaction.commit().await?;
        Ok(found)
    };
    let found = claimed.await.map_err(|error| refused(database, &error))?;
    if found != shard {
        return Err(PostgresError::WrongShard {
            database: database.to_owned(),
            found,
            expected: shard.to_owned(),
        });
    }
    Ok(())
}

/// A rule on its way.
struct Placing {
    slot: i32,
    version: i64,
    is_done: bool,
}

/// Gives the partitions of a rule a slot of their own on a shard. They must have no rows yet; see
/// [`crate::directory`]. One that was cut short is taken up again where it was.
pub(crate) async fn place(core: &Core, rule: &Rule, shard: &str) -> Result<(), PostgresError> {
    let target = core
        .shard_index(shard)
        .ok_or_else(|| PostgresError::Options(format!("there is no shard {shard:?}")))?;
    let home = &core.home_connector.database;
    let mut directory = schema::connect(&core.home_connector).await?;
    let fail = |error: tokio_postgres::Error| refused(home, &error);

    let placing = begin(&mut directory, rule, shard).await.map_err(fail)?;
    let placing = placing
        .ok_or_else(|| PostgresError::Options("the rule is there already, for another shard".into()))?;
    if !placing.is_done {
        for (index, of) in core.shards.iter().enumerate() {
            let mut client = schema::connect(&of.connector).await?;
            let is_free = fence(&mut client, rule, &placing, index == target).await;
            if !is_free.map_err(|error| refused(&of.connector.database, &error))? {
                undo(&mut directory, &placing).await.map_err(fail)?;
                return Err(PostgresError::Occupied {
                    shard: of.name.clone(),
                });
            }
        }
        finish(&mut directory, &placing).await.map_err(fail)?;
    }
    core.refresh(placing.version)
        .await
        .map_err(|error| PostgresError::Refused {
            database: home.clone(),
            detail: error.to_string(),
        })
}

async fn next_version(transaction: &Transaction<'_>) -> Result<i64, tokio_postgres::Error> {
    let sql = "UPDATE holon.directory SET version = version + 1 RETURNING version";
    Ok(transaction.query_one(sql, &[]).await?.get(0))
}

/// Writes the rule, with a slot that takes no commits yet. `None` if it is there for another shard.
async fn begin(
    client: &mut Client,
    rule: &Rule,
    shard: &str,
) -> Result<Option<Placing>, tokio_postgres::Error> {
    let (kind, tenant, low, high) = rule.row();
    let (low, high) = (low.map(escape), high.map(escape));
    let transaction = client.transaction().await?;
    transaction.batch_execute(&schema::lock_directory()).await?;
    let same = "SELECT s.slot, s.version, s.state = 'owned', s.shard \
        FROM holon.directory_rules r JOIN holon.directory_slots s ON s.slot = r.slot \
        WHERE r.kind = $1 AND r.tenant IS NOT DISTINCT FROM $2 AND r.low IS NOT DISTINCT FROM $3 \
            AND r.high IS NOT DISTINCT FROM $4";
    let found = transaction
        .query_opt(same, &[&kind, &tenant, &low, &high])
        .await?;
    if let Some(row) = found {
        let placing = Placing {
            slot: row.get(0),
            version: row.get(1),
            is_done: row.get(2),
        };
        return Ok((row.get::<_, &str>(3) == shard).then_some(placing));
    }
    let version = next_version(&transaction).await?;
    let add = "INSERT INTO holon.directory_slots (slot, shard, state, version) \
        SELECT max(slot) + 1, $1, 'frozen', $2 FROM holon.directory_slots RETURNING slot";
    let slot: i32 = transaction.query_one(add, &[&shard, &version]).await?.get(0);
    let write =
        "INSERT INTO holon.directory_rules (slot, kind, tenant, low, high) VALUES ($1, $2, $3, $4, $5)";
    transaction
        .execute(write, &[&slot, &kind, &tenant, &low, &high])
        .await?;
    transaction.commit().await?;
    Ok(Some(Placing {
        slot,
        version,
        is_done: false,
    }))
}

/// Sees to it that a shard takes no commit that does not know the rule, and that no earlier one has left rows; true
/// if so.
async fn fence(
    client: &mut Client,
    rule: &Rule,
    placing: &Placing,
    is_target: bool,
) -> Result<bool, tokio_postgres::Error> {
    let (kind, tenant, low, high) = rule.row();
    let (low, high) = (low.map(escape), high.map(escape));
    let transaction = client.transaction().await?;
    transaction
        .execute("SELECT holon.raise_fence($1)", &[&placing.version])
        .await?;
    let covered = "SELECT holon.is_covered($1, $2, $3, $4)";
    let row = transaction
        .query_one(covered, &[&kind, &tenant, &low, &high])
        .await?;
    if row.get(0) {
        return Ok(false);
    }
    if is_target {
        let own = "INSERT INTO holon.slots (slot, state, version) VALUES ($1, 'owned', $2) \
            ON CONFLICT (slot) DO UPDATE SET state = 'owned', version = excluded.version";
        transaction
            .execute(own, &[&placing.slot, &placing.version])
            .await?;
    }
    transaction.commit().await?;
    Ok(true)
}

async fn finish(client: &mut Client, placing: &Placing) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(&schema::lock_directory()).await?;
    let version = next_version(&transaction).await?;
    let open = "UPDATE holon.directory_slots SET state = 'owned', version = $2 WHERE slot = $1";
    transaction.execute(open, &[&placing.slot, &version]).await?;
    transaction.commit().await
}

async fn undo(client: &mut Client, placing: &Placing) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(&schema::lock_directory()).await?;
    next_version(&transaction).await?;
    for table in ["directory_rules", "directory_slots"] {
        let sql = format!("DELETE FROM holon.{table} WHERE slot = $1");
        transaction.execute(&sql, &[&placing.slot]).await?;
    }
    transaction.commit().await
}
