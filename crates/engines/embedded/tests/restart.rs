//! The engine as a system uses it.

#![allow(clippy::unwrap_used)]

use holon_base::Tenant;
use holon_embedded::{Engine, EngineOptions};
use holon_ports::{Batch, Condition, Consistency, NewEvent, Partition, RowKey, Scan, Table, TopicSpec};

const NOTES: Table = Table("test.notes");
const TOPIC: TopicSpec = TopicSpec {
    name: "test.noted",
    partitions: 2,
    max_age: None,
    max_bytes: None,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = Tenant::default();
    let partition = Partition::new(&tenant, "user:1");
    for start in 0..3_u64 {
        let engine = Engine::open(EngineOptions::new(dir.path())).await.unwrap();
        let ports = engine.ports();
        ports.store.create_tables(&[NOTES]).await.unwrap();
        ports.log.create_topics(&[TOPIC]).await.unwrap();
        let key = RowKey::new(NOTES, partition.clone(), "a");
        let before = ports.store.get(&key, Consistency::Strong).await.unwrap();
        assert_eq!(before.is_some(), start > 0);
        let condition = before.map_or(Condition::Absent, |row| Condition::Version(row.version));
        let batch = Batch::new()
            .put_if(NOTES, "a", &start, condition)
            .add(NOTES, "starts", 1)
            .event(NewEvent::new(
                TOPIC.name, &tenant, "user:1", "noted.v1", "note:a", &start,
            ));
        ports.store.commit(&partition, batch).await.unwrap();
        let page = ports
            .store
            .scan(&Scan::all(NOTES, partition.clone(), 10))
            .await
            .unwrap();
        assert_eq!(page.rows.len(), 2);
        assert_eq!(page.rows[0].json::<u64>().unwrap(), start);
        assert_eq!(page.rows[1].counter(), start as i64 + 1);

        let mut member = ports.log.join("test.readers", TOPIC.name).await.unwrap();
        let events = member.poll(10).await.unwrap();
        assert_eq!(events.len(), 1, "the group goes on where it was");
        assert_eq!(events[0].json::<u64>().unwrap(), start);
        assert_eq!(events[0].position.offset, start);
        member
            .commit(events[0].position.partition, start + 1)
            .await
            .unwrap();
        engine.close().await;
        assert!(ports.store.get(&key, Consistency::Strong).await.is_err());
        assert!(member.poll(1).await.is_err());
    }
}

/// Bytes of all journals in a data directory.
fn journal_bytes(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir.join("db")).unwrap();
    let journals = entries.map(|entry| entry.unwrap()).filter(|entry| {
        entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "jnl")
    });
    journals.map(|journal| journal.metadata().unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_leaves_nothing_to_replay_and_a_sudden_one_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let partition = Partition::new(&Tenant::default(), "user:1");
    let mut last_version = 0;
    for start in 0..6_u64 {
        let engine = Engine::open(EngineOptions::new(dir.path())).await.unwrap();
        let store = engine.ports().store;
        store.create_tables(&[NOTES]).await.unwrap();
        let page = store
            .scan(&Scan::all(NOTES, partition.clone(), 1_000))
            .await
            .unwrap();
        assert_eq!(
            page.rows.len() as u64,
            start * 100,
            "every row is there after start {start}"
        );
        for number in 0..100_u64 {
            let sort = (start * 100 + number).to_be_bytes().to_vec();
            let batch = Batch::new().put(NOTES, sort, &number);
            let committed = store.commit(&partition, batch).await.unwrap();
            assert!(committed.version > last_version, "versions go on growing");
            last_version = committed.version;
        }
        drop(store);
        if start % 2 == 0 {
            engine.close().await;
            assert_eq!(journal_bytes(dir.path()), 0);
        } else {
            // Dropped without being closed: memory is not written to tables.
            drop(engine);
            assert!(journal_bytes(dir.path()) > 0);
        }
    }
}
