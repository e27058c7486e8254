//! A snapshot is one moment, and what was imported is what it was.

#![allow(clippy::unwrap_used)]

use holon_base::{Id, ManualClock, Tenant, Timestamp};
use holon_embedded::{Engine, EngineOptions, copy::Mark};
use holon_ports::{
    Batch, Condition, Consistency, NewEvent, Partition, RowKey, Table, TopicSpec,
    log::{Bounds, Rewind},
};
use std::{path::Path, sync::Arc, time::Duration};

const NOTES: Table = Table("test.notes");
const TOPIC: TopicSpec = TopicSpec {
    name: "test.noted",
    partitions: 1,
    max_age: Some(Duration::from_secs(60)),
    max_bytes: None,
};

async fn open(dir: &Path, clock: &ManualClock) -> Engine {
    let options = EngineOptions::new(dir).clock(Arc::new(clock.clone()));
    let engine = Engine::open(options).await.unwrap();
    engine.ports().store.create_tables(&[NOTES]).await.unwrap();
    engine.ports().log.create_topics(&[TOPIC]).await.unwrap();
    engine
}

fn note(number: u64) -> Batch {
    let event = NewEvent::new(TOPIC.name, &Tenant::default(), "k", "noted.v1", "note", &number);
    Batch::new().put(NOTES, "a", &number).event(event)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_where_the_original_was() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let clock = ManualClock::new(Timestamp::parse("2026-01-01T00:00:00Z").unwrap());
    let partition = Partition::new(&Tenant::default(), "user:1");
    let original = open(from.path(), &clock).await;
    let ports = original.ports();
    for number in 0..3 {
        ports.store.commit(&partition, note(number)).await.unwrap();
    }
    let place = holon_ports::Position {
        partition: 0,
        offset: 2,
    };
    ports
        .log
        .rewind("test.readers", TOPIC.name, Rewind::Offset(place))
        .await
        .unwrap();
    // The first events become too old and are dropped.
    clock.advance(Duration::from_secs(61));
    original.housekeep().await.unwrap();
    ports.store.commit(&partition, note(3)).await.unwrap();

    let snapshot = original.snapshot().await.unwrap();
    // What comes after it is not in it.
    let last = ports.store.commit(&partition, note(4)).await.unwrap();
    let bounds = Bounds { first: 3, next: 4 };
    assert_eq!(snapshot.bounds(TOPIC.name, 0).unwrap(), bounds);
    let (rows, _) = snapshot.rows(NOTES.0, None, 10).unwrap();
    assert_eq!(rows[0].1.json::<u64>().unwrap(), 3);
    let events = snapshot.events(TOPIC.name, 0, 3, 10).unwrap();
    assert_eq!(events.len(), 1);
    let groups = snapshot.groups().unwrap();
    assert_eq!(groups[0].offsets, [3], "what it had not handled was dropped");
    let mark = snapshot.mark().unwrap();
    assert_eq!(mark.sequence + 1, last.version);

    let copy = open(to.path(), &clock).await;
    for _ in 0..2 {
        copy.import_topic(&TOPIC, &[3]).await.unwrap();
        copy.import_rows(NOTES.0, &rows).await.unwrap();
        copy.import_events(TOPIC.name, &events).await.unwrap();
    }
    let gap = copy
        .snapshot()
        .await
        .unwrap()
        .events(TOPIC.name, 0, 0, 1)
        .unwrap();
    assert_eq!(gap, events);
    copy.import_lease("test.leader", 41, 1).await.unwrap();
    let ahead = Mark {
        sequence: 1_000,
        last_id: Id::first_at(Timestamp::parse("2030-01-01T00:00:00Z").unwrap()),
    };
    copy.import_mark(ahead).await.unwrap();
    copy.import_secret("cursor", [7; 32]).unwrap();
    assert!(copy.import_secret("../cursor", [7; 32]).is_err());
    copy.close().await;

    let copy = open(to.path(), &clock).await;
    let ports = copy.ports();
    let key = RowKey::new(NOTES, partition.clone(), "a");
    let row = ports.store.get(&key, Consistency::Strong).await.unwrap().unwrap();
    assert_eq!(row, rows[0].1);
    let batch = Batch::new().put_if(NOTES, "a", &9, Condition::Version(row.version));
    let committed = ports
        .store
        .commit(&partition, batch.event(note(5).ops.pop().map(event_of).unwrap()));
    let committed = committed.await.unwrap();
    assert!(committed.version > 1_000);
    assert_eq!(committed.positions[0].offset, 4);
    assert!(copy.ids().next() > ahead.last_id);
    assert_eq!(copy.secret("cursor").unwrap(), [7; 32]);
    let lease = ports
        .leases
        .acquire("test.leader", "me", Duration::from_secs(1))
        .await;
    assert_eq!(lease.unwrap().fence.0, 42);
    copy.close().await;
    original.close().await;
}

fn event_of(op: holon_ports::Op) -> NewEvent {
    match op {
        holon_ports::Op::Event(event) => event,
        other => panic!("{other:?}"),
    }
}
