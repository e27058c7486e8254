//! Events that were told elsewhere keep their offsets, and the partition goes on after them.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use holon_base::{Clock, Id, IdGenerator, SystemClock, Tenant, Timestamp};
use holon_nats::{Nats, NatsOptions};
use holon_ports::{
    Event, LogError, NewEvent, Position, TopicSpec,
    log::{Bounds, DeadLetter, Rewind},
};
use holon_testkit::{NatsServer, TestHome};
use std::sync::Arc;

const FIRST: u64 = 41;
const TOPIC: TopicSpec = TopicSpec {
    name: "test.events",
    partitions: 1,
    max_age: None,
    max_bytes: None,
};

fn event(offset: u64) -> Event {
    Event {
        position: Position { partition: 0, offset },
        id: Id::from_u64(offset << 22),
        time: Timestamp::from_millis(1_700_000_000_000 + offset as i64),
        tenant: Tenant::default(),
        key: format!("key:{}", offset % 3),
        kind: "test.event.v1".into(),
        subject: format!("number:{offset}"),
        data: Bytes::from(offset.to_string()),
        traceparent: None,
        redelivered: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_events_keep_their_offsets_and_others_come_after_them() {
    let (server, home) = (NatsServer::start().await, TestHome::start().await);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids = IdGenerator::new(1, Arc::clone(&clock));
    let leases = home.context().ports.leases;
    let options = NatsOptions::new(vec![server.url()], "test", clock, ids, leases);
    let nats = Nats::connect(options).await.unwrap();
    let log = nats.log();
    log.create_topics(&[TOPIC]).await.unwrap();
    let events: Vec<Event> = (FIRST..FIRST + 2_000).map(event).collect();

    // Whatever is done twice is done once.
    for _ in 0..2 {
        nats.import_first(TOPIC.name, 0, FIRST).await.unwrap();
    }
    let empty = Bounds {
        first: FIRST,
        next: FIRST,
    };
    assert_eq!(log.bounds(TOPIC.name, 0).await.unwrap(), empty);
    for some in [&events[..700], &events[300..1_000], &events[1_000..]] {
        nats.import_events(TOPIC.name, some).await.unwrap();
    }
    let gap = nats.import_events(TOPIC.name, &[event(FIRST + 2_001)]).await;
    assert!(matches!(gap, Err(LogError::Invalid(_))), "{gap:?}");

    let mut read = Vec::new();
    while read.len() < events.len() {
        let from = FIRST + read.len() as u64;
        read.extend(log.read(TOPIC.name, 0, from, 500).await.unwrap());
    }
    assert_eq!(read, events);

    let place = Position {
        partition: 0,
        offset: FIRST + 1_990,
    };
    log.rewind("test.readers", TOPIC.name, Rewind::Offset(place))
        .await
        .unwrap();
    let new = NewEvent::new(
        TOPIC.name,
        &Tenant::default(),
        "key:1",
        "test.event.v1",
        "new",
        &0,
    );
    let told = log.append(vec![new]).await.unwrap();
    assert_eq!(told[0].offset, FIRST + 2_000);
    let mut member = log.join("test.readers", TOPIC.name).await.unwrap();
    let mut handed = Vec::new();
    while handed.len() < 11 {
        handed.extend(member.poll(100).await.unwrap());
    }
    let offsets: Vec<u64> = handed.iter().map(|event| event.position.offset).collect();
    assert_eq!(offsets, (FIRST + 1_990..=FIRST + 2_000).collect::<Vec<_>>());

    let letter = DeadLetter {
        number: 7,
        event: event(FIRST),
        error: "why".into(),
        attempts: 5,
        at: Timestamp::from_millis(1_700_000_000_000),
    };
    nats.import_dead_letter("test.readers", TOPIC.name, &letter)
        .await
        .unwrap();
    let mut kept = log.dead_letters("test.readers", TOPIC.name, 0, 10).await.unwrap();
    kept[0].number = letter.number;
    assert_eq!(kept, [letter]);
    let groups = nats.dead_letter_groups().await.unwrap();
    assert_eq!(groups, [("test.readers".to_owned(), TOPIC.name.to_owned())]);
}
