//! What the engine does beyond its ports: the outbox, slots and rules, the schema, and what operators see.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use futures::future::join_all;
use holon_base::Tenant;
use holon_ports::{
    Batch, Condition, Consistency, NewEvent, Op, Partition, RowKey, Scan, StoreError, Table, Value,
};
use holon_postgres::{Postgres, PostgresError, PostgresOptions, Rule, ShardOptions};
use holon_testkit::{PATIENCE, PostgresServer, eventually, postgres::PASSWORD};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

const NOTES: Table = Table("test.notes");
const TAGS: Table = Table("test.tags");

fn partition(entity: &str) -> Partition {
    Partition::new(&Tenant::default(), entity)
}

async fn two_shards(server: &PostgresServer, name: &str) -> PostgresOptions {
    let mut shards = Vec::new();
    for shard in ["east", "west"] {
        let url = server.create_database(&format!("{name}_{shard}")).await;
        shards.push(ShardOptions::new(shard, url));
    }
    PostgresOptions::new(shards)
}

async fn open(options: &PostgresOptions) -> Postgres {
    let engine = Postgres::connect(options.clone()).await.unwrap();
    engine.store().create_tables(&[NOTES, TAGS]).await.unwrap();
    engine
}

/// Waits until nothing is on its way.
async fn moved(engine: &Postgres) {
    eventually("the moves", PATIENCE, || async {
        let moves = engine.status().await.unwrap().moves;
        for trouble in moves.iter().filter_map(|of| of.trouble.as_ref()) {
            eprintln!("{trouble}");
        }
        moves.is_empty().then_some(())
    })
    .await;
}

fn event(partition: &str, number: u32) -> NewEvent {
    NewEvent {
        topic: "test.told",
        tenant: Tenant::default(),
        key: format!("{partition}\0\\"),
        kind: "test.told.v1",
        subject: format!("{partition}:{number}"),
        data: Bytes::from(format!("{{\"n\": {number} }}")),
        traceparent: Some("00-trace".into()),
    }
}

/// Events come with their commits and only with them, in the order of each partition, until they are forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_tells_what_was_committed_in_order() {
    const WRITERS: u32 = 12;
    const COMMITS: u32 = 15;
    let server = PostgresServer::start().await;
    let options = two_shards(&server, "outbox").await;
    let engine = Arc::new(open(&options).await);
    let outbox = engine.outbox();
    let sources = outbox.sources().await.unwrap();
    assert_eq!(sources, ["east", "west"]);
    let writers = (0..WRITERS).map(|writer| {
        let store = engine.store();
        tokio::spawn(async move {
            let name = format!("writer:{writer}");
            for n in 0..COMMITS {
                let told = Batch::new()
                    .put(NOTES, "n", &n)
                    .event(event(&name, 2 * n))
                    .event(event(&name, 2 * n + 1));
                let refused = Batch::new()
                    .put_if(NOTES, "n", &n, Condition::Absent)
                    .event(event(&name, 999));
                let both = vec![(partition(&name), told), (partition(&name), refused)];
                let answers = store.commit_many(both).await;
                assert!(answers[0].is_ok(), "{answers:?}");
                assert_eq!(answers[1], Err(StoreError::ConditionFailed { op: 0 }));
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for source in &sources {
        let all = outbox.read(source, usize::MAX).await.unwrap();
        assert!(!all.is_empty(), "no partition on {source}");
        assert!(all.is_sorted_by(|a, b| a.number < b.number));
        assert_eq!(outbox.read(source, 3).await.unwrap(), all[..3]);
        for event in &all {
            assert_eq!(
                (event.topic.as_str(), event.kind.as_str()),
                ("test.told", "test.told.v1")
            );
            assert_eq!(event.traceparent.as_deref(), Some("00-trace"));
            assert!(event.data.starts_with(b"{\"n\": "), "data is rewritten");
            assert!(ids.insert(event.id));
            let key = event.key.strip_suffix("\0\\").unwrap();
            told.entry(key.to_owned())
                .or_default()
                .push(event.subject.clone());
        }
        // What is forgotten is gone, the rest is told again.
        let first: Vec<u64> = all[..2].iter().map(|event| event.number).collect();
        outbox.forget(source, &first).await.unwrap();
        outbox.forget(source, &first).await.unwrap();
        assert_eq!(outbox.read(source, usize::MAX).await.unwrap(), all[2..]);
        let rest: Vec<u64> = all.iter().map(|event| event.number).collect();
        outbox.forget(source, &rest).await.unwrap();
    }
    assert_eq!(told.len(), WRITERS as usize);
    for (name, subjects) in told {
        let expected: Vec<String> = (0..2 * COMMITS).map(|n| format!("{name}:{n}")).collect();
        assert_eq!(subjects, expected);
    }
    // A relay that waits learns of events of another node.
    let other = open(&options).await;
    let waits = async {
        for source in &sources {
            // It may also wake in vain.
            while outbox.read(source, 9).await.unwrap().is_empty() {
                outbox.wait(source, Duration::from_secs(60)).await;
            }
        }
    };
    let tells = async {
        for shard in &sources {
            let on_shard = |p: &Partition| other.shard_of(p).unwrap() == *shard;
            let there = (0..)
                .map(|n| partition(&format!("p:{n}")))
                .find(on_shard)
                .unwrap();
            let batch = Batch::new().event(event(&there.entity, 0));
            other.store().commit(&there, batch).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(waits, tells) })
        .await
        .unwrap();
}

/// Rules give partitions a shard of their own; a node with an older directory is sent back and finds its way.
#[tokio::test(flavor = "multi_thread")]
async fn rules_place_partitions_and_stale_nodes_find_them() {
    let server = PostgresServer::start().await;
    let options = two_shards(&server, "rules").await;
    let (engine, stale) = (open(&options).await, open(&options).await);
    let slots: Vec<usize> = engine.slots().into_iter().map(|(_, slots)| slots).collect();
    assert_eq!(slots, [2_048, 2_048]);

    // A customer whose partitions would be on both shards goes to one; so do a celebrity and a region.
    let customer = Tenant::new("customer").unwrap();
    let celebrity = (0..).map(|n| partition(&format!("user:{n}")));
    let celebrity = celebrity
        .into_iter()
        .find(|p| engine.shard_of(p).unwrap() == "east")
        .unwrap();
    let rules = [
        Rule::Tenant(customer.clone()),
        Rule::Partition(celebrity.clone()),
        Rule::Prefix {
            tenant: None,
            prefix: "eu:".into(),
        },
        Rule::Range {
            tenant: None,
            low: "x".into(),
            high: Some("z".into()),
        },
    ];
    // Under load, so that fences are raised between commits.
    let load = {
        let store = stale.store();
        tokio::spawn(async move {
            for n in 0..300 {
                let place = partition(&format!("load:{}", n % 7));
                store
                    .commit(&place, Batch::new().add(NOTES, "n", 1))
                    .await
                    .unwrap();
            }
        })
    };
    for rule in &rules {
        let slot = engine.pin(rule, "west").await.unwrap();
        assert_eq!(engine.pin(rule, "west").await.unwrap(), slot);
        let nowhere = engine.pin(rule, "nowhere").await;
        assert!(
            matches!(nowhere, Err(PostgresError::NoShard { .. })),
            "{nowhere:?}"
        );
    }
    moved(&engine).await;
    load.await.unwrap();
    assert_eq!(engine.rules().len(), 4);
    let placed: Vec<Partition> = (0..8)
        .map(|n| Partition::new(&customer, format!("user:{n}")))
        .chain([celebrity.clone(), partition("eu:1"), partition("yacht")])
        .collect();
    let writes = placed
        .iter()
        .map(|p| (p.clone(), Batch::new().put(NOTES, "k", &p.entity)));
    for answer in stale.store().commit_many(writes.collect()).await {
        answer.unwrap();
    }
    for place in &placed {
        assert_eq!(engine.shard_of(place).unwrap(), "west");
        let key = RowKey::new(NOTES, place.clone(), "k");
        assert!(
            engine
                .store()
                .get(&key, Consistency::Strong)
                .await
                .unwrap()
                .is_some()
        );
    }
    // A reader whose directory is older than a rule is sent on as well.
    for shard in ["east", "west"] {
        let reader = open(&options).await;
        let rule = Rule::Prefix {
            tenant: None,
            prefix: format!("late:{shard}:"),
        };
        engine.pin(&rule, shard).await.unwrap();
        moved(&engine).await;
        let keys: Vec<RowKey> = (0..20)
            .map(|n| RowKey::new(NOTES, partition(&format!("late:{shard}:{n}")), "k"))
            .collect();
        for key in &keys {
            let batch = Batch::new().put(NOTES, "k", &1);
            engine.store().commit(&key.partition, batch).await.unwrap();
        }
        let rows = reader.store().get_many(&keys, Consistency::Strong).await.unwrap();
        assert!(rows.iter().all(Option::is_some));
        let scan = Scan::all(NOTES, keys[0].partition.clone(), 9);
        assert_eq!(reader.store().scan(&scan).await.unwrap().rows.len(), 1);
    }
    // A shard whose address is another's is noticed.
    let mut swapped = options.clone();
    let first = swapped.shards[0].url.clone();
    swapped.shards[0].url = std::mem::replace(&mut swapped.shards[1].url, first);
    swapped.directory = Some(options.shards[0].url.clone());
    let refused = Postgres::connect(swapped).await.err().unwrap();
    assert!(matches!(refused, PostgresError::WrongShard { .. }), "{refused}");
}

/// Documents are answered as they were put, and an operator can ask for them; what cannot be told to jsonb is kept.
#[tokio::test(flavor = "multi_thread")]
async fn documents_are_kept_to_the_byte_and_can_be_queried() {
    let server = PostgresServer::start().await;
    let options = PostgresOptions::new(vec![ShardOptions::new("one", server.url())]);
    let engine = open(&options).await;
    let store = engine.store();
    let json = |text: &str| Value::Json(Bytes::copy_from_slice(text.as_bytes()));
    let put = |value: Value| {
        Batch::new().op(Op::Put {
            table: NOTES,
            sort: Bytes::from_static(b"k"),
            value,
            condition: Condition::Any,
            expires: None,
        })
    };
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    let awkward = [
        "{\"b\": 1 ,\"a\":[1.0,1e2], \"lang\":\"en\"}",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "1e999999",
        "1e-99999",
        "\"\u{1f600} \\ud83d\\ude00\"",
        &"9".repeat(200_000),
        &deep,
        "{\"a\":1,\"a\":2}",
        " null ",
    ];
    // Together, so that one which the server would refuse would spoil the others.
    let writes = awkward.iter().enumerate();
    let writes = writes.map(|(n, text)| (partition(&format!("doc:{n}")), put(json(text))));
    for (answer, text) in store.commit_many(writes.collect()).await.into_iter().zip(awkward) {
        assert!(answer.is_ok(), "{:.50}: {answer:?}", text);
    }
    for (n, text) in awkward.iter().enumerate() {
        let key = RowKey::new(NOTES, partition(&format!("doc:{n}")), "k");
        let row = store.get(&key, Consistency::Strong).await.unwrap().unwrap();
        assert_eq!(row.value, json(text));
    }
    let found = "SELECT entity FROM holon.\"test.notes\" WHERE json @> '{\"lang\": \"en\"}'";
    assert_eq!(server.query(found).await, "doc:0");
    for no_json in ["", "{", "{\"a\":}", "\"\n\""] {
        let refused = store.commit(&partition("doc:0"), put(json(no_json))).await;
        assert!(
            matches!(refused, Err(StoreError::Invalid(_))),
            "{no_json:?}: {refused:?}"
        );
    }
    let no_text = Value::Json(Bytes::from_static(b"\"\xff\""));
    let refused = store.commit(&partition("doc:0"), put(no_text)).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
}

/// A fan-out to hundreds of partitions is a few transactions, and so is a crowd of single commits.
#[tokio::test(flavor = "multi_thread")]
async fn commits_share_transactions() {
    let server = PostgresServer::start().await;
    let options = PostgresOptions::new(vec![ShardOptions::new("one", server.url())]);
    let engine = Arc::new(open(&options).await);
    let transactions = async || {
        server
            .query("SELECT txid_current()")
            .await
            .parse::<u64>()
            .unwrap()
    };
    let before = transactions().await;
    let fan_out = (0..512).map(|n| (partition(&format!("home:{n}")), Batch::new().put(NOTES, "k", &n)));
    for answer in engine.store().commit_many(fan_out.collect()).await {
        answer.unwrap();
    }
    let between = transactions().await;
    assert!(between - before < 64, "{} transactions", between - before);
    let crowd = (0..512).map(|n| {
        let store = engine.store();
        tokio::spawn(async move {
            let batch = Batch::new().add(NOTES, "count", 1);
            store
                .commit(&partition(&format!("home:{}", n % 5)), batch)
                .await
                .unwrap();
        })
    });
    join_all(crowd).await;
    let after = transactions().await;
    assert!(after - between < 256, "{} transactions", after - between);
    let mut counted = 0;
    for n in 0..5 {
        let key = RowKey::new(NOTES, partition(&format!("home:{n}")), "count");
        counted += engine
            .store()
            .get(&key, Consistency::Strong)
            .await
            .unwrap()
            .unwrap()
            .counter();
    }
    assert_eq!(counted, 512);
}

/// Many nodes that start at once find one schema; a newer one is refused; no error holds a password.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_start_together_and_refuse_what_they_do_not_know() {
    let server = PostgresServer::start().await;
    let options = two_shards(&server, "start").await;
    let nodes = join_all((0..6).map(|_| Postgres::connect(options.clone()))).await;
    let mut tables = Vec::new();
    for node in &nodes {
        tables.push(node.as_ref().unwrap().store());
    }
    for created in join_all(tables.iter().map(|store| store.create_tables(&[NOTES, TAGS]))).await {
        created.unwrap();
    }
    let batch = Batch::new().put(NOTES, "k", &1);
    nodes[5]
        .as_ref()
        .unwrap()
        .store()
        .commit(&partition("p"), batch)
        .await
        .unwrap();

    let url = server.create_database("newer").await;
    let newer = PostgresOptions::new(vec![ShardOptions::new("one", &url)]);
    Postgres::connect(newer.clone()).await.unwrap().close().await;
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("INSERT INTO holon.migrations (version) VALUES (1000)")
        .await
        .unwrap();
    let refused = Postgres::connect(newer).await.err().unwrap();
    assert!(
        matches!(refused, PostgresError::SchemaTooNew { found: 1000, .. }),
        "{refused}"
    );

    let away = server.url().replace(&server.port().to_string(), "1");
    let wrong = server.url().replace(PASSWORD, "wrong-password");
    for url in [
        &away,
        &wrong,
        "postgres://u:a-secret-of-the-test@h:x/",
        "host=a password=a-secret-of-the-test b",
    ] {
        let options = PostgresOptions::new(vec![ShardOptions::new("one", url)]);
        let told = format!(
            "{options:?} {}",
            Postgres::connect(options.clone()).await.err().unwrap()
        );
        assert!(
            !told.contains(PASSWORD) && !told.contains("wrong-password"),
            "{told}"
        );
    }
    let closed = nodes[0].as_ref().unwrap();
    closed.close().await;
    let answer = closed
        .store()
        .commit(&partition("p"), Batch::new().put(NOTES, "k", &1))
        .await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
}
