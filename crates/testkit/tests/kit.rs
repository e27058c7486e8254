//! The test kit does what tests rely on.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use async_trait::async_trait;
use axum::{Router, routing::get};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use holon_base::{Clock, ManualClock, Tenant, Timestamp};
use holon_ports::store::{Batch, Consistency};
use holon_ports::{
    Consumer, Event, Handler, HandlerError, NewEvent, Partition, Ports, RowKey, StoreError, Table, TopicSpec,
};
use holon_testkit::{PATIENCE, Process, TestHome, eventually, find_program, free_port, serve};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NOTES: Table = Table("test.notes");
const FIRST: &str = "test.first";
const SECOND: &str = "test.second";

fn topic(name: &'static str) -> TopicSpec {
    TopicSpec {
        name,
        partitions: 2,
        max_age: None,
        max_bytes: None,
    }
}

fn event(topic: &'static str, number: u32) -> NewEvent {
    let key = number.to_string();
    NewEvent::new(
        topic,
        &Tenant::default(),
        key,
        "test.happened.v1",
        "test:1",
        &number,
    )
}

fn partition() -> Partition {
    Partition::new(&Tenant::default(), "notes:1")
}

async fn handled(ports: &Ports) -> i64 {
    let key = RowKey::new(NOTES, partition(), "handled");
    let row = ports.store.get(&key, Consistency::Strong).await.unwrap();
    row.map_or(0, |row| row.counter())
}

/// Tells what it hears on, or counts it.
struct Step {
    ports: Ports,
    on: Option<&'static str>,
}

#[async_trait]
impl Handler for Step {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        for heard in events {
            let batch = match self.on {
                Some(topic) => Batch::new().event(event(topic, heard.json()?)),
                None => Batch::new().add(NOTES, "handled", 1),
            };
            self.ports.store.commit(&partition(), batch).await?;
        }
        Ok(())
    }
}

fn consumers(ports: &Ports) -> Vec<Consumer> {
    let step = |on| {
        Arc::new(Step {
            ports: ports.clone(),
            on,
        })
    };
    vec![
        Consumer::new("test.counting", SECOND, step(None)),
        Consumer::new("test.passing", FIRST, step(Some(SECOND))).members(2),
    ]
}

#[tokio::test]
async fn a_home_runs_consumers_and_knows_when_they_are_done_also_after_a_restart() {
    let clock = ManualClock::new(Timestamp::from_millis(1_800_000_000_000));
    let mut home = TestHome::with_clock(clock.clone()).await;
    home.create(&[NOTES], &[topic(FIRST), topic(SECOND)]).await;
    let ports = home.context().ports;
    home.run(consumers(&ports));
    ports
        .log
        .append((0..100).map(|i| event(FIRST, i)).collect())
        .await
        .unwrap();
    home.caught_up(&consumers(&ports)).await;
    assert_eq!(handled(&ports).await, 100);

    let mut home = home.restart().await;
    home.create(&[NOTES], &[topic(FIRST), topic(SECOND)]).await;
    let ports = home.context().ports;
    assert_eq!(handled(&ports).await, 100);
    home.run(consumers(&ports));
    ports.log.append(vec![event(FIRST, 100)]).await.unwrap();
    home.caught_up(&consumers(&ports)).await;
    assert_eq!(handled(&ports).await, 101);
    assert_eq!(home.context().clock.now(), clock.now());

    let tenant = Tenant::default();
    let content = stream::once(async { Ok(Bytes::from_static(b"bytes")) }).boxed();
    let blob = ports.blobs.put(&tenant, content).await.unwrap();
    let read = ports.blobs.read(&tenant, &blob.id, None).await.unwrap();
    let read: Vec<Bytes> = read.try_collect().await.unwrap();
    assert_eq!(read.concat(), b"bytes");
}

/// Handles nothing while what it needs is away; one event is poison.
struct Needy {
    is_away: AtomicBool,
    tries: AtomicU32,
    handled: AtomicU32,
}

const POISON: u32 = 3;

#[async_trait]
impl Handler for Needy {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StoreError::Full.into());
        }
        for event in events {
            if event.json::<u32>()? == POISON {
                return Err(HandlerError::new("this one is never handled"));
            }
        }
        self.handled.fetch_add(events.len() as u32, Ordering::SeqCst);
        Ok(())
    }
}

/// An event is buried for what is wrong with it, not because a store was full or away for longer than its tries.
#[tokio::test]
async fn what_needs_a_store_that_is_away_waits_and_only_poison_is_buried() {
    let mut home = TestHome::start().await;
    home.create(&[], &[topic(FIRST)]).await;
    let log = home.context().ports.log;
    let needy = Arc::new(Needy {
        is_away: AtomicBool::new(true),
        tries: AtomicU32::new(0),
        handled: AtomicU32::new(0),
    });
    let mut consumer = Consumer::new("test.needy", FIRST, needy.clone());
    consumer.attempts = 2;
    consumer.backoff = Duration::from_millis(1);
    home.run(vec![consumer.clone()]);
    log.append((0..6).map(|i| event(FIRST, i)).collect())
        .await
        .unwrap();
    eventually("more tries than an event has", PATIENCE, || async {
        (needy.tries.load(Ordering::SeqCst) > 8).then_some(())
    })
    .await;
    let buried = || log.dead_letters("test.needy", FIRST, 0, 10);
    assert!(buried().await.unwrap().is_empty());
    needy.is_away.store(false, Ordering::SeqCst);
    home.caught_up(&[consumer]).await;
    assert_eq!(needy.handled.load(Ordering::SeqCst), 5);
    let buried = buried().await.unwrap();
    assert_eq!(buried.len(), 1, "{buried:?}");
    assert_eq!(buried[0].event.json::<u32>().unwrap(), POISON);
}

#[tokio::test]
async fn a_server_answers_until_it_is_dropped() {
    let server = serve(Router::new().route("/", get(|| async { "hello" }))).await;
    let address = server.address();
    assert_eq!(server.url("/x"), format!("http://{address}/x"));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
        "{answer}"
    );
    drop(server);
    eventually("the port to be closed", PATIENCE, || async {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_process_ends_with_its_test() {
    let program = find_program("sleep", "coreutils").unwrap();
    let is_there = |id: u32| std::path::Path::new(&format!("/proc/{id}/stat")).exists();
    let killed = Process::start(&program, ["1000"]);
    let id = killed.id();
    assert!(is_there(id));
    killed.kill().await;
    assert!(!is_there(id));
}

#[tokio::test]
#[should_panic(expected = "ended with")]
async fn a_server_that_ends_before_it_listens_is_a_failure() {
    let program = find_program("true", "coreutils").unwrap();
    let mut process = Process::start(&program, [""; 0]);
    process.listening(free_port(), PATIENCE).await;
}

#[tokio::test]
#[should_panic(expected = "waited 5ms in vain for: a miracle")]
async fn waiting_in_vain_says_for_what() {
    let never = || async { None::<()> };
    eventually("a miracle", Duration::from_millis(5), never).await;
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    let missing = find_program("no-such-server", "no-such-package").unwrap_err();
    assert_eq!(
        missing.to_string(),
        "program no-such-server is not installed; on Debian: apt-get install no-such-package"
    );
}

#[test]
fn all_of_this_on_servers() {
    holon_testkit::again_on_servers(&[]);
}
