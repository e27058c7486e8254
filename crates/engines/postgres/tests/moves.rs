//! Slots that move while everybody writes: nothing is lost, nothing happens twice, events keep their order; whoever
//! moves dies at every stage; shards come, go, and get what is pinned to them.

#![allow(clippy::unwrap_used)]

mod writers;

use futures::future::join_all;
use holon_ports::{Batch, Consistency, Partition, RowKey};
use holon_postgres::{Moving, Postgres, PostgresError, PostgresOptions, Rule, ShardOptions, Spread};
use holon_testkit::{PATIENCE, PostgresServer, eventually};
use std::{sync::Arc, time::Duration};
use writers::{NOTES, TAGS, Writers, partition};

async fn shards(server: &PostgresServer, names: &[&str]) -> PostgresOptions {
    let mut shards = Vec::new();
    for name in names {
        shards.push(ShardOptions::new(*name, server.create_database(name).await));
    }
    PostgresOptions::new(shards)
}

async fn open(options: &PostgresOptions) -> Arc<Postgres> {
    let engine = Postgres::connect(options.clone()).await.unwrap();
    engine.store().create_tables(&[NOTES, TAGS]).await.unwrap();
    Arc::new(engine)
}

/// What a database answers: one text.
async fn ask(url: &str, sql: &str) -> String {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = client.query_one(sql, &[]).await.unwrap().get(0);
    connection.abort();
    answer
}

/// Waits until nothing is on its way.
async fn settled(engine: &Postgres) {
    eventually("the moves", PATIENCE, || async {
        let moves = engine.status().await.unwrap().moves;
        for trouble in moves.iter().filter_map(|of| of.trouble.as_ref()) {
            eprintln!("{trouble}");
        }
        moves.is_empty().then_some(())
    })
    .await;
}

fn wish(to: &str, spread: Spread) -> Moving {
    Moving {
        to: to.into(),
        from: None,
        spread,
    }
}

fn slots_of(engine: &Postgres, shard: &str) -> usize {
    let slots = engine.slots();
    slots
        .iter()
        .find(|(name, _)| name == shard)
        .map_or(0, |(_, slots)| *slots)
}

/// Two nodes write; slots go back and forth between three shards, of which one is added meanwhile and one is drained.
#[tokio::test(flavor = "multi_thread")]
async fn slots_move_under_writers_who_lose_nothing() {
    let server = PostgresServer::start().await;
    let options = shards(&server, &["east", "west"]).await;
    let (one, two) = (open(&options).await, open(&options).await);
    let writers = Writers::start(&[Arc::clone(&one), Arc::clone(&two)], 12);
    writers.quiet(Duration::from_secs(1)).await;

    // Everything that the writers touch goes west and comes back: slots by name, so that it is these.
    let busy = writers.slots();
    let back_and_forth = async {
        for to in ["west", "east", "west"] {
            one.move_slots(&wish(to, Spread::Slots(busy.clone())))
                .await
                .unwrap();
            settled(&one).await;
        }

        // A shard that both nodes learn of. Its share comes from those that have most.
        let north = ShardOptions::new("north", server.create_database("north").await);
        two.add_shard(&north).await.unwrap();
        two.add_shard(&north).await.unwrap();
        one.move_slots(&wish("north", Spread::Slots(busy.clone())))
            .await
            .unwrap();
        settled(&one).await;

        // What has rows gets a slot of its own, wherever they are.
        let prefix = Rule::Prefix {
            tenant: None,
            prefix: "writer:1".into(),
        };
        two.pin(&prefix, "east").await.unwrap();
        settled(&two).await;
        let single = Rule::Partition(partition("writer:11"));
        one.pin(&single, "west").await.unwrap();
        settled(&two).await;
        one.pin(&prefix, "north").await.unwrap();
        settled(&one).await;
    };
    back_and_forth.await;
    eventually("the directory", PATIENCE, || async {
        let placed =
            ["writer:1", "writer:10", "writer:11"].map(|name| one.shard_of(&partition(name)).unwrap());
        (placed == ["north", "north", "west"]).then_some(())
    })
    .await;

    writers.stop_and_compare("moving").await;
    // Nothing is left where it no longer belongs.
    for shard in ["east", "west", "north"] {
        let url = format!("{}/{shard}", server.url().strip_suffix("/postgres").unwrap());
        let left = "SELECT count(*)::text FROM holon.\"test.notes\" r JOIN holon.slots s USING (slot) \
            WHERE s.state <> 'owned'";
        assert_eq!(ask(&url, left).await, "0", "{shard} keeps rows of others");
    }
}

/// The node that moves is stopped in the middle, again and again; the other carries on.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_moves_may_die_at_any_stage() {
    let server = PostgresServer::start().await;
    let mut options = shards(&server, &["east", "west"]).await;
    options.patience = Duration::from_secs(20);
    let survivor = open(&options).await;
    let writers = Writers::start(&[Arc::clone(&survivor)], 8);
    let busy = writers.slots();
    let mut stages = std::collections::BTreeSet::new();
    for round in 0..14 {
        let to = ["west", "east"][round % 2];
        let doomed = open(&options).await;
        doomed
            .move_slots(&wish(to, Spread::Slots(busy.clone())))
            .await
            .unwrap();
        // Dropped after a time that differs from round to round, or once a stage is seen that was not seen yet.
        let until = tokio::time::Instant::now() + Duration::from_millis(20 + 35 * round as u64);
        while tokio::time::Instant::now() < until {
            let stage = ask(
                &options.shards[0].url,
                "SELECT coalesce(min(stage), '') FROM holon.moves WHERE stage <> 'waiting'",
            )
            .await;
            if !stage.is_empty() && stages.insert(stage) {
                break;
            }
        }
        drop(doomed);
        settled(&survivor).await;
    }
    eprintln!("movers died in {stages:?}");
    writers.stop_and_compare("movers die").await;
}

/// A shard is drained until it can be switched off.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_shard_can_be_switched_off() {
    let server = PostgresServer::start().await;
    let mut gone = PostgresServer::start().await;
    let mut options = shards(&server, &["east"]).await;
    options.shards.push(ShardOptions::new("west", gone.url()));
    options.move_bytes_per_second = 64 << 20;
    let engine = open(&options).await;
    let store = engine.store();
    let place = |n: u32| partition(&format!("p:{n}"));
    let writes = (0..2_000).map(|n| (place(n), Batch::new().put(NOTES, "k", &n)));
    for answer in store.commit_many(writes.collect()).await {
        answer.unwrap();
    }
    let nowhere = engine.drain_shard("nowhere", None).await;
    assert!(
        matches!(nowhere, Err(PostgresError::NoShard { .. })),
        "{nowhere:?}"
    );
    assert_eq!(engine.drain_shard("west", None).await.unwrap(), 2_048);
    let refused = engine.drain_shard("east", None).await;
    assert!(matches!(refused, Err(PostgresError::Conflict(_))), "{refused:?}");
    let refused = engine.move_slots(&wish("west", Spread::Share)).await;
    assert!(matches!(refused, Err(PostgresError::Conflict(_))), "{refused:?}");
    eventually("the drain", PATIENCE * 2, || async {
        let status = engine.status().await.unwrap();
        (status.shards[1].state == "retired").then_some(())
    })
    .await;
    assert_eq!(slots_of(&engine, "east"), 4_096);
    gone.kill().await;
    // Nobody needs it any more: not writers, walks, nor new tables and nodes.
    let walk_all = async |engine: &Postgres| {
        let (mut found, mut cursor) = (0, None);
        loop {
            let (rows, next) = engine.store().walk(NOTES, cursor, 300).await.unwrap();
            found += rows.len();
            cursor = next;
            if cursor.is_none() {
                return found;
            }
        }
    };
    assert_eq!(walk_all(&engine).await, 2_000);
    store
        .commit(&place(0), Batch::new().put(NOTES, "k", &1))
        .await
        .unwrap();
    store
        .create_tables(&[holon_ports::Table("test.later")])
        .await
        .unwrap();
    options.shards.truncate(1);
    let later = open(&options).await;
    assert_eq!(walk_all(&later).await, 2_000);
}

/// A reader of replicas sees what it wrote, and nothing vanishes, while what it reads moves.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_do_not_answer_for_what_they_do_not_have_yet() {
    let (east, west) = tokio::join!(PostgresServer::start(), PostgresServer::start());
    let (of_east, of_west) = tokio::join!(east.standby(), west.standby());
    let options = PostgresOptions::new(vec![
        ShardOptions::new("east", east.url()).replica(of_east.url()),
        ShardOptions::new("west", west.url()).replica(of_west.url()),
    ]);
    let (engine, reader) = (open(&options).await, open(&options).await);
    let places: Vec<Partition> = (0..20).map(|n| partition(&format!("reader:{n}"))).collect();
    let slots: Vec<i32> = places
        .iter()
        .map(|place| i32::from(holon_postgres::directory::slot_of(place)))
        .collect();
    let written = join_all(places.iter().map(|place| async {
        let batch = Batch::new().put(NOTES, "n", &0);
        engine.store().commit(place, batch).await.unwrap().token
    }))
    .await;
    for to in ["west", "east"] {
        // The standby of where they go stands still: it has nothing of them.
        let behind = if to == "west" { &of_west } else { &of_east };
        behind.query("SELECT pg_wal_replay_pause()").await;
        engine
            .move_slots(&wish(to, Spread::Slots(slots.clone())))
            .await
            .unwrap();
        settled(&engine).await;
        for (place, token) in places.iter().zip(&written) {
            let key = RowKey::new(NOTES, place.clone(), "n");
            for consistency in [Consistency::Eventual(None), Consistency::Eventual(Some(*token))] {
                for node in [&engine, &reader] {
                    let row = node.store().get(&key, consistency).await.unwrap();
                    assert!(row.is_some(), "{place:?} vanished on its way to {to}");
                }
            }
            let batch = Batch::new().put(NOTES, "n", &1);
            let token = engine.store().commit(place, batch).await.unwrap().token;
            let row = reader
                .store()
                .get(&key, Consistency::Eventual(Some(token)))
                .await
                .unwrap();
            assert_eq!(
                row.unwrap().json::<u32>().unwrap(),
                1,
                "a writer does not see what it wrote"
            );
        }
        behind.query("SELECT pg_wal_replay_resume()").await;
    }
    // They do answer once they have it.
    let asked = "SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_tables WHERE relname = 'test.notes'";
    let before: f64 = of_east.query(asked).await.parse().unwrap();
    eventually("an answer of the standby", PATIENCE, || async {
        for place in &places {
            let key = RowKey::new(NOTES, place.clone(), "n");
            reader
                .store()
                .get(&key, Consistency::Eventual(None))
                .await
                .unwrap();
        }
        let after: f64 = of_east.query(asked).await.parse().unwrap();
        (after > before).then_some(())
    })
    .await;
}
