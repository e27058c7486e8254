//! What an operator asks for: written into the directory, and done by whichever node has the mover's lease.

use crate::{
    Postgres,
    core::Core,
    directory::Rule,
    encoding::escape,
    error::PostgresError,
    join::{self, next_version},
    options::ShardOptions,
    schema::{self, refused},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio_postgres::{Client, Transaction, error::Error};

/// Which slots are to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spread {
    /// These.
    Slots(Vec<i32>),
    /// So many of those with the smallest numbers.
    Count(u32),
    /// As many as it takes for the target to have its share: as many as the others have.
    Share,
}

/// A wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    pub to: String,
    /// Only from this shard; else from those that have most.
    pub from: Option<String>,
    pub spread: Spread,
}

/// The shards and where hashed slots are, or will be once all has moved that is on its way.
struct Map {
    /// By name: the state.
    shards: BTreeMap<String, String>,
    /// By slot: where it will be, and whether that can still be changed.
    slots: BTreeMap<i32, (String, bool)>,
    /// Slots of rules.
    ruled: Vec<i32>,
}

impl Map {
    async fn read(transaction: &Transaction<'_>) -> Result<Self, Error> {
        let shards = "SELECT name, state FROM holon.directory_shards";
        let slots = "SELECT s.slot, coalesce(m.target, s.shard), m.slot IS NULL OR m.stage = 'waiting', \
                r.slot IS NOT NULL \
            FROM holon.directory_slots s LEFT JOIN holon.moves m ON m.slot = s.slot \
            LEFT JOIN holon.directory_rules r ON r.slot = s.slot";
        let mut map = Self {
            shards: BTreeMap::new(),
            slots: BTreeMap::new(),
            ruled: Vec::new(),
        };
        for row in transaction.query(shards, &[]).await? {
            map.shards.insert(row.get(0), row.get(1));
        }
        for row in transaction.query(slots, &[]).await? {
            map.slots.insert(row.get(0), (row.get(1), row.get(2)));
            if row.get(3) {
                map.ruled.push(row.get(0));
            }
        }
        Ok(map)
    }

    fn check(&self, name: &str) -> Result<(), PostgresError> {
        if self.shards.get(name).is_some_and(|state| state != "retired") {
            return Ok(());
        }
        let known = self.shards.iter().filter(|(_, state)| *state != "retired");
        let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
        Err(PostgresError::NoShard {
            name: name.to_owned(),
            known: known.join(", "),
        })
    }

    fn check_target(&self, name: &str) -> Result<(), PostgresError> {
        self.check(name)?;
        if self.shards.get(name).is_some_and(|state| state == "active") {
            return Ok(());
        }
        Err(PostgresError::Conflict(format!(
            "shard {name} is being drained, so nothing moves there; add it again to keep it"
        )))
    }

    /// Hashed slots that can be told where to go, by the shard where they will be.
    fn movable(&self) -> BTreeMap<&str, Vec<i32>> {
        let mut movable: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (slot, (shard, is_free)) in &self.slots {
            if *is_free && !self.ruled.contains(slot) {
                movable.entry(shard).or_default().push(*slot);
            }
        }
        movable
    }

    /// Shards that take slots, with how many they will have.
    fn counts(&self) -> BTreeMap<&str, usize> {
        let active = self.shards.iter().filter(|(_, state)| *state == "active");
        active
            .map(|(name, _)| {
                let has = self.slots.values().filter(|(shard, _)| shard == name).count();
                (name.as_str(), has)
            })
            .collect()
    }

    fn chosen(&self, wish: &Moving) -> Result<Vec<i32>, PostgresError> {
        self.check_target(&wish.to)?;
        if let Some(from) = &wish.from {
            self.check(from)?;
        }
        if let Spread::Slots(slots) = &wish.spread {
            for slot in slots {
                let Some((shard, is_free)) = self.slots.get(slot) else {
                    return Err(PostgresError::Options(format!("there is no slot {slot}")));
                };
                if wish.from.as_ref().is_some_and(|from| from != shard) {
                    return Err(PostgresError::Options(format!("slot {slot} is on shard {shard}")));
                }
                if !is_free {
                    return Err(PostgresError::Conflict(format!(
                        "slot {slot} is on its way to {shard}; ask again once it is there"
                    )));
                }
            }
            return Ok(slots.clone());
        }
        let mut movable = self.movable();
        movable.remove(wish.to.as_str());
        if let Some(from) = &wish.from {
            movable.retain(|shard, _| shard == from);
        }
        let counts = self.counts();
        let share = counts.values().sum::<usize>() / counts.len().max(1);
        let has = counts.get(wish.to.as_str()).copied().unwrap_or(0);
        let wanted = match wish.spread {
            Spread::Count(count) => count as usize,
            _ => share.saturating_sub(has),
        };
        let mut chosen = Vec::new();
        while chosen.len() < wanted {
            // One after another from whichever has most left.
            let fullest = movable.values_mut().max_by_key(|slots| slots.len());
            let Some(slot) = fullest.and_then(Vec::pop) else {
                break;
            };
            chosen.push(slot);
        }
        Ok(chosen)
    }
}

/// A connection to the directory, and how to tell of its errors.
struct Desk<'a> {
    client: Client,
    database: &'a str,
}

impl<'a> Desk<'a> {
    async fn open(core: &'a Core) -> Result<Self, PostgresError> {
        Ok(Self {
            client: schema::connect(&core.home_connector).await?,
            database: &core.home_connector.database,
        })
    }

    async fn begin(&mut self) -> Result<(Transaction<'_>, Map), PostgresError> {
        let database = self.database;
        let begun = async {
            let transaction = self.client.transaction().await?;
            transaction.batch_execute(&schema::lock_directory()).await?;
            let map = Map::read(&transaction).await?;
            Ok((transaction, map))
        };
        begun.await.map_err(|error: Error| refused(database, &error))
    }
}

/// Writes down that slots are to go to a shard, and answers how many that are not there already. Those that are
/// waiting to go elsewhere go there instead.
async fn send(transaction: &Transaction<'_>, slots: &[i32], to: &str) -> Result<u64, Error> {
    let stay = "DELETE FROM holon.moves m USING holon.directory_slots s \
        WHERE m.slot = ANY ($1) AND m.stage = 'waiting' AND s.slot = m.slot AND s.shard = $2 AND m.source IS NOT NULL";
    transaction.execute(stay, &[&slots, &to]).await?;
    let go = "INSERT INTO holon.moves AS m (slot, source, target) \
        SELECT s.slot, s.shard, $2 FROM holon.directory_slots s WHERE s.slot = ANY ($1) AND s.shard <> $2 \
        ON CONFLICT (slot) DO UPDATE SET target = excluded.target \
        WHERE m.stage = 'waiting' AND m.source IS NOT NULL";
    transaction.execute(go, &[&slots, &to]).await
}

impl Postgres {
    /// Makes a shard known to all nodes; it gets no slots yet. Its database gets the schema and the tables. For a
    /// shard that is there already, its addresses are replaced, which nodes take up when they start.
    ///
    /// # Errors
    /// If the database cannot be reached, is not suitable, or is another shard's.
    pub async fn add_shard(&self, shard: &ShardOptions) -> Result<(), PostgresError> {
        let core = &self.core;
        join::add(&core.home_connector, &core.options, shard).await?;
        let mut desk = Desk::open(core).await?;
        let database = desk.database;
        let done = async {
            let (transaction, _) = desk.begin().await?;
            let stay = "UPDATE holon.directory_shards SET state = 'active' WHERE name = $1";
            let fail = |error: Error| refused(database, &error);
            transaction.execute(stay, &[&shard.name]).await.map_err(fail)?;
            transaction.commit().await.map_err(fail)
        };
        done.await?;
        self.catch_up().await
    }

    /// Asks for slots to move; answers how many will.
    ///
    /// # Errors
    /// If there are no such slots or shards, or the slots are on their way already.
    pub async fn move_slots(&self, wish: &Moving) -> Result<u64, PostgresError> {
        let mut desk = Desk::open(&self.core).await?;
        let database = desk.database;
        let (transaction, map) = desk.begin().await?;
        let slots = map.chosen(wish)?;
        let fail = |error: Error| refused(database, &error);
        let asked = send(&transaction, &slots, &wish.to).await.map_err(fail)?;
        transaction.commit().await.map_err(fail)?;
        self.core.asked.notify_one();
        Ok(asked)
    }

    /// Asks for everything to leave a shard, for one shard or evenly for all others; answers how many slots will go.
    /// Once nothing is left, and all its events have been told, it is asked for nothing any more.
    ///
    /// # Errors
    /// If there is nowhere to go.
    pub async fn drain_shard(&self, name: &str, to: Option<&str>) -> Result<u64, PostgresError> {
        let mut desk = Desk::open(&self.core).await?;
        let database = desk.database;
        let (transaction, map) = desk.begin().await?;
        map.check(name)?;
        if to == Some(name) {
            return Err(PostgresError::Options(
                "a shard is not drained into itself".into(),
            ));
        }
        let mut counts = map.counts();
        counts.remove(name);
        if let Some(to) = to {
            map.check_target(to)?;
            counts.retain(|shard, _| *shard == to);
        }
        if counts.is_empty() {
            return Err(PostgresError::Conflict(
                "there is no other shard for its slots; add one first".into(),
            ));
        }
        let mut parts: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (slot, (shard, is_free)) in &map.slots {
            if shard != name {
                continue;
            }
            if !is_free {
                return Err(PostgresError::Conflict(format!(
                    "slots are on their way to {name}; drain it once they are there"
                )));
            }
            let emptiest = counts.iter_mut().min_by_key(|(_, count)| **count);
            if let Some((shard, count)) = emptiest {
                *count += 1;
                parts.entry(shard).or_default().push(*slot);
            }
        }
        let fail = |error: Error| refused(database, &error);
        let mut asked = 0;
        for (shard, slots) in parts {
            asked += send(&transaction, &slots, shard).await.map_err(fail)?;
        }
        let state =
            "UPDATE holon.directory_shards SET state = 'draining' WHERE name = $1 AND state = 'active'";
        transaction.execute(state, &[&name]).await.map_err(fail)?;
        transaction.commit().await.map_err(fail)?;
        self.core.asked.notify_one();
        Ok(asked)
    }

    /// Asks for the partitions of a rule to have a slot of their own, on a shard of choice; rows that are there move.
    /// If the rule is there already, its slot moves. Answers the slot.
    ///
    /// # Errors
    /// If there is no such shard, or the slot is on its way elsewhere.
    pub async fn pin(&self, rule: &Rule, shard: &str) -> Result<i32, PostgresError> {
        let mut desk = Desk::open(&self.core).await?;
        let database = desk.database;
        let (transaction, map) = desk.begin().await?;
        map.check_target(shard)?;
        let fail = |error: Error| refused(database, &error);
        let slot = match slot_of_rule(&transaction, rule).await.map_err(fail)? {
            Some(slot) => {
                let (on, is_free) = map.slots.get(&slot).cloned().unwrap_or_default();
                if on != shard && !is_free {
                    return Err(PostgresError::Conflict(format!(
                        "slot {slot} of this rule is on its way to {on}; ask again once it is there"
                    )));
                }
                send(&transaction, &[slot], shard).await.map_err(fail)?;
                slot
            }
            None => write_rule(&transaction, rule, shard).await.map_err(fail)?,
        };
        transaction.commit().await.map_err(fail)?;
        self.core.asked.notify_one();
        Ok(slot)
    }

    /// Reads the directory anew.
    async fn catch_up(&self) -> Result<(), PostgresError> {
        let refreshed = Core::refresh(&Arc::clone(&self.core), i64::MAX).await;
        refreshed.map_err(|error| PostgresError::Refused {
            database: self.core.home_connector.database.clone(),
            detail: error.to_string(),
        })
    }
}

async fn slot_of_rule(transaction: &Transaction<'_>, rule: &Rule) -> Result<Option<i32>, Error> {
    let (kind, tenant, low, high) = rule.row();
    let (low, high) = (low.map(escape), high.map(escape));
    let sql = "SELECT slot FROM holon.directory_rules \
        WHERE kind = $1 AND tenant IS NOT DISTINCT FROM $2 AND low IS NOT DISTINCT FROM $3 \
            AND high IS NOT DISTINCT FROM $4";
    let found = transaction.query_opt(sql, &[&kind, &tenant, &low, &high]).await?;
    Ok(found.map(|row| row.get(0)))
}

/// A rule that decides nothing until its rows have been moved.
async fn write_rule(transaction: &Transaction<'_>, rule: &Rule, shard: &str) -> Result<i32, Error> {
    let (kind, tenant, low, high) = rule.row();
    let (low, high) = (low.map(escape), high.map(escape));
    let version = next_version(transaction).await?;
    let add = "INSERT INTO holon.directory_slots (slot, shard, state, version) \
        SELECT max(slot) + 1, $1, 'pending', $2 FROM holon.directory_slots RETURNING slot";
    let slot: i32 = transaction.query_one(add, &[&shard, &version]).await?.get(0);
    let write = "INSERT INTO holon.directory_rules (slot, kind, tenant, low, high, active) \
        VALUES ($1, $2, $3, $4, $5, false)";
    transaction
        .execute(write, &[&slot, &kind, &tenant, &low, &high])
        .await?;
    let go = "INSERT INTO holon.moves (slot, target) VALUES ($1, $2)";
    transaction.execute(go, &[&slot, &shard]).await?;
    Ok(slot)
}
