//! What is lost, told twice or out of order when servers and processes die: nothing.

#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use bytes::Bytes;
use holon_base::{Clock, Id, IdGenerator, SystemClock, Tenant};
use holon_nats::{Nats, NatsOptions, Relay};
use holon_ports::{
    Event, Lease, LeaseError, Leases, Log, LogError, Member, NewEvent, Outbox, OutboxEvent, StoreError,
    TopicSpec,
};
use holon_testkit::{NatsCluster, NatsServer, PATIENCE, TestHome, eventually};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};

const PARTITIONS: u16 = 4;
const TOPIC: TopicSpec = TopicSpec {
    name: "test.events",
    partitions: PARTITIONS,
    max_age: None,
    max_bytes: None,
};

fn options(servers: Vec<String>, leases: Arc<dyn Leases>) -> NatsOptions {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids = IdGenerator::new(1, Arc::clone(&clock));
    let mut options = NatsOptions::new(servers, "test", clock, ids, leases);
    options.lease_ttl = Duration::from_secs(2);
    options
}

fn event(n: u64, key: u64) -> NewEvent {
    NewEvent::new(
        TOPIC.name,
        &Tenant::default(),
        format!("key:{key}"),
        "test.event.v1",
        format!("number:{n}"),
        &n,
    )
}

/// Everything in the log, partition by partition.
async fn read_all(log: &dyn Log) -> Vec<Event> {
    let mut all = Vec::new();
    for partition in 0..PARTITIONS {
        let mut from = 0;
        loop {
            let read = log.read(TOPIC.name, partition, from, 500).await.unwrap();
            let Some(last) = read.last() else {
                break;
            };
            from = last.position.offset + 1;
            all.extend(read);
        }
    }
    all
}

/// Each number once, and those of a key in order.
fn check_once_and_in_order(events: &[Event], expected: u64) {
    let mut seen = HashSet::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    for event in events {
        let number = event.json::<u64>().unwrap();
        assert!(seen.insert(number), "{number} was told twice");
        if let Some(before) = last.insert(&event.key, number) {
            assert!(before < number, "{number} of {} came after {before}", event.key);
        }
    }
    assert_eq!(seen.len() as u64, expected, "events are missing");
}

/// An outbox in memory.
#[derive(Default)]
struct Script {
    waiting: Mutex<BTreeMap<u64, OutboxEvent>>,
    /// While true, nothing is forgotten.
    is_stuck: AtomicBool,
    came: Notify,
}

impl Script {
    fn tell(&self, ids: &IdGenerator, numbers: std::ops::Range<u64>) {
        let mut waiting = self.waiting.lock();
        for number in numbers {
            let event = OutboxEvent {
                number,
                topic: TOPIC.name.into(),
                id: ids.next(),
                time: SystemClock.now(),
                tenant: Tenant::default(),
                key: format!("key:{}", number % 37),
                kind: "test.event.v1".into(),
                subject: format!("number:{number}"),
                data: Bytes::from(number.to_string()),
                traceparent: None,
            };
            waiting.insert(number, event);
        }
        drop(waiting);
        self.came.notify_one();
    }

    fn left(&self) -> usize {
        self.waiting.lock().len()
    }
}

#[async_trait]
impl Outbox for Script {
    async fn sources(&self) -> Result<Vec<String>, StoreError> {
        Ok(vec!["shard/0".into()])
    }

    async fn read(&self, _source: &str, max: usize) -> Result<Vec<OutboxEvent>, StoreError> {
        Ok(self.waiting.lock().values().take(max).cloned().collect())
    }

    async fn forget(&self, _source: &str, numbers: &[u64]) -> Result<(), StoreError> {
        if self.is_stuck.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the outbox is stuck".into()));
        }
        let mut waiting = self.waiting.lock();
        for number in numbers {
            waiting.remove(number);
        }
        Ok(())
    }

    async fn wait(&self, _source: &str, patience: Duration) {
        let _ = timeout(patience, self.came.notified()).await;
    }
}

fn run(relay: Relay) -> (watch::Sender<bool>, JoinHandle<()>) {
    let (stop, stopped) = watch::channel(false);
    (stop, tokio::spawn(async move { relay.run(stopped).await }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_tells_each_event_once_whoever_dies() {
    const EVENTS: u64 = 12_000;
    let mut server = NatsServer::start().await;
    let home = TestHome::start().await;
    let leases = home.context().ports.leases;
    let outbox = Arc::new(Script::default());
    let ids = IdGenerator::new(2, Arc::new(SystemClock));
    let mut of_first = options(vec![server.url()], Arc::clone(&leases));
    of_first.deadline = Duration::from_secs(2);
    of_first.deduplication = Duration::from_secs(4);
    let first = Nats::connect(of_first).await.unwrap();
    first.log().create_topics(&[TOPIC]).await.unwrap();

    outbox.tell(&ids, 0..EVENTS);
    let relay = first.relay(outbox.clone());
    let (_stop, running) = run(relay);
    eventually("some events to be told", PATIENCE, || async {
        (outbox.left() < EVENTS as usize * 3 / 4).then_some(())
    })
    .await;
    server.kill().await;
    let asked = Instant::now();
    let away = first.log().append(vec![event(0, 0)]).await;
    assert!(matches!(away, Err(LogError::Unavailable(_))), "{away:?}");
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        asked.elapsed()
    );
    server.restart().await;
    eventually("the relay to go on", PATIENCE, || async {
        (outbox.left() < EVENTS as usize / 2).then_some(())
    })
    .await;
    // The relay dies too, in the midst of it and with its lease.
    running.abort();
    drop(first);

    let second = Nats::connect(options(vec![server.url()], leases)).await.unwrap();
    let (stop, running) = run(second.relay(outbox.clone()));
    outbox.tell(&ids, EVENTS..EVENTS + 100);
    eventually("everything to be told", PATIENCE, || async {
        (outbox.left() == 0).then_some(())
    })
    .await;
    stop.send_replace(true);
    running.await.unwrap();
    check_once_and_in_order(&read_all(&*second.log()).await, EVENTS + 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_knows_what_it_told_longer_ago_than_the_servers_do() {
    const EVENTS: u64 = 1_500;
    let server = NatsServer::start().await;
    let home = TestHome::start().await;
    let outbox = Arc::new(Script::default());
    outbox.is_stuck.store(true, Ordering::Relaxed);
    let ids = IdGenerator::new(2, Arc::new(SystemClock));
    let mut options = options(vec![server.url()], home.context().ports.leases);
    options.deadline = Duration::from_secs(1);
    options.deduplication = Duration::from_secs(2);
    let nats = Nats::connect(options).await.unwrap();
    let log = nats.log();
    log.create_topics(&[TOPIC]).await.unwrap();
    outbox.tell(&ids, 0..EVENTS);
    let relay = nats.relay(outbox.clone());
    let (stop, running) = run(relay.clone());
    eventually("the relay to be stuck", PATIENCE, || async {
        let lags = relay.lags();
        let lag = lags.first()?;
        lag.error
            .as_ref()
            .filter(|error| error.contains("stuck"))
            .map(|_| ())
    })
    .await;
    // The servers remember ids for two seconds.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    outbox.is_stuck.store(false, Ordering::Relaxed);
    eventually("everything to be told", PATIENCE, || async {
        (outbox.left() == 0).then_some(())
    })
    .await;
    stop.send_replace(true);
    running.await.unwrap();
    let lag = relay.lags().remove(0);
    assert!(lag.found > 0, "{lag:?}");
    assert_eq!(lag.told + lag.found, EVENTS, "{lag:?}");
    check_once_and_in_order(&read_all(&*log).await, EVENTS);
}

/// Partitions of which a member was handed an event within a time.
async fn partitions_of(member: &mut Box<dyn Member>, quiet: Duration) -> BTreeSet<u16> {
    let mut partitions = BTreeSet::new();
    while let Ok(events) = timeout(quiet, member.poll(1)).await {
        let events = events.unwrap();
        partitions.insert(events[0].position.partition);
    }
    partitions
}

/// Tells an event in each partition.
async fn tell_everywhere(log: &dyn Log) {
    let mut missing: BTreeSet<u16> = (0..PARTITIONS).collect();
    for key in 0.. {
        let event = event(key, key);
        if missing.remove(&holon_ports::log::partition_of(
            &event.tenant,
            &event.key,
            PARTITIONS,
        )) {
            log.append(vec![event]).await.unwrap();
        }
        if missing.is_empty() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_divide_partitions_and_hand_them_on() {
    let server = NatsServer::start().await;
    let home = TestHome::start().await;
    let mut logs = Vec::new();
    for _ in 0..2 {
        let mut options = options(vec![server.url()], home.context().ports.leases);
        // So long that nothing here can happen because a lease has run out.
        options.lease_ttl = Duration::from_secs(120);
        logs.push(Nats::connect(options).await.unwrap().log());
    }
    logs[0].create_topics(&[TOPIC]).await.unwrap();
    let mut first = logs[0].join("test.readers", TOPIC.name).await.unwrap();
    tell_everywhere(&*logs[0]).await;
    let mut seen = BTreeSet::new();
    while seen.len() < usize::from(PARTITIONS) {
        let events = timeout(PATIENCE, first.poll(1)).await.unwrap().unwrap();
        let position = events[0].position;
        first
            .commit(position.partition, position.offset + 1)
            .await
            .unwrap();
        seen.insert(position.partition);
    }

    let mut second = logs[1].join("test.readers", TOPIC.name).await.unwrap();
    let quiet = Duration::from_millis(300);
    let deadline = Instant::now() + PATIENCE;
    loop {
        tell_everywhere(&*logs[1]).await;
        let of_first = partitions_of(&mut first, quiet).await;
        let of_second = partitions_of(&mut second, quiet).await;
        if of_first.len() == 2 && of_second.len() == 2 && of_first.is_disjoint(&of_second) {
            break;
        }
        assert!(Instant::now() < deadline, "{of_first:?} {of_second:?}");
    }
    // What was handed to the first and not committed goes to the second, long before a lease runs out.
    drop(first);
    tell_everywhere(&*logs[1]).await;
    loop {
        let events = timeout(PATIENCE, second.poll(100)).await.unwrap().unwrap();
        let last = events.last().unwrap().position;
        second.commit(last.partition, last.offset + 1).await.unwrap();
        let progress = logs[0].progress("test.readers", TOPIC.name).await.unwrap();
        if progress
            .iter()
            .all(|partition| partition.committed == partition.next)
        {
            break;
        }
    }
    assert_eq!(
        logs[0].groups().await.unwrap(),
        [("test.readers".into(), TOPIC.name.into())]
    );
}

/// Leases that end sooner than their holder was told.
struct Shorter(Arc<dyn Leases>);

const REAL_TTL: Duration = Duration::from_secs(2);

#[async_trait]
impl Leases for Shorter {
    async fn acquire(&self, name: &str, holder: &str, _ttl: Duration) -> Result<Lease, LeaseError> {
        self.0.acquire(name, holder, REAL_TTL).await
    }

    async fn renew(&self, lease: &Lease, _ttl: Duration) -> Result<Lease, LeaseError> {
        self.0.renew(lease, REAL_TTL).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.0.release(lease).await
    }

    async fn current(&self, name: &str) -> Result<Option<Lease>, LeaseError> {
        self.0.current(name).await
    }
}

/// A process that sleeps through the end of its leases. `believed` is how long it thinks they are: with the true
/// length it knows by its own clock that it is too late; with a longer one only the fence is in its way.
async fn a_sleeper_is_fenced_off(believed: Duration) {
    let server = NatsServer::start().await;
    let home = TestHome::start().await;
    let leases = home.context().ports.leases;
    let awake = Nats::connect(options(vec![server.url()], Arc::clone(&leases)))
        .await
        .unwrap();
    let log = awake.log();
    log.create_topics(&[TOPIC]).await.unwrap();
    tell_everywhere(&*log).await;

    let mut of_sleeper = options(vec![server.url()], Arc::new(Shorter(leases)));
    of_sleeper.lease_ttl = believed;
    let (falls_asleep, asleep) = tokio::sync::oneshot::channel();
    let (wake, woken) = std::sync::mpsc::channel::<()>();
    // A runtime with one thread, which stands still when that thread does.
    let sleeper = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let log = Nats::connect(of_sleeper).await.unwrap().log();
            let mut member = log.join("test.sleepers", TOPIC.name).await.unwrap();
            let handed = timeout(PATIENCE, member.poll(10)).await.unwrap().unwrap();
            let position = handed.last().unwrap().position;
            falls_asleep.send(()).unwrap();
            woken.recv().unwrap();
            let late = member.commit(position.partition, position.offset + 1).await;
            (position, late)
        })
    });
    asleep.await.unwrap();
    let mut member = log.join("test.sleepers", TOPIC.name).await.unwrap();
    let mut taken_over = HashMap::new();
    while taken_over.len() < usize::from(PARTITIONS) {
        let events = timeout(PATIENCE, member.poll(10)).await.unwrap().unwrap();
        let first = events[0].position;
        taken_over.insert(first.partition, first.offset);
    }
    wake.send(()).unwrap();
    let (position, late) = tokio::task::spawn_blocking(|| sleeper.join().unwrap())
        .await
        .unwrap();
    assert_eq!(late, Err(LogError::Fenced));
    assert_eq!(
        taken_over[&position.partition], 0,
        "nothing was committed, so all is handed out again"
    );
    let progress = log.progress("test.sleepers", TOPIC.name).await.unwrap();
    assert!(
        progress.iter().all(|partition| partition.committed == 0),
        "{progress:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sleeps_through_the_end_of_a_lease_is_fenced_off() {
    tokio::join!(
        a_sleeper_is_fenced_off(REAL_TTL),
        a_sleeper_is_fenced_off(Duration::from_secs(600))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_with_the_leader_of_a_stream() {
    let mut cluster = NatsCluster::start(3).await;
    let home = TestHome::start().await;
    let mut options = options(cluster.urls(), home.context().ports.leases);
    options.replicas = 3;
    options.deadline = Duration::from_secs(30);
    let nats = Nats::connect(options).await.unwrap();
    let log = nats.log();
    log.create_topics(&[TOPIC]).await.unwrap();
    let mut member = log.join("test.readers", TOPIC.name).await.unwrap();

    let appended: Arc<Mutex<Vec<(u64, u16, u64)>>> = Arc::default();
    let (stop, stopped) = watch::channel(false);
    let appending = tokio::spawn({
        let (log, appended) = (nats.log(), Arc::clone(&appended));
        async move {
            let mut number = 0;
            while !*stopped.borrow() {
                let batch: Vec<NewEvent> = (0..10).map(|n| event(number + n, n % 7)).collect();
                let positions = log.append(batch).await.unwrap();
                let mut appended = appended.lock();
                for position in positions {
                    appended.push((number, position.partition, position.offset));
                    number += 1;
                }
            }
            number
        }
    });
    let count = |least: usize| {
        let appended = Arc::clone(&appended);
        eventually("appends to go on", PATIENCE, move || {
            let enough = appended.lock().len() >= least;
            async move { enough.then_some(()) }
        })
    };
    count(200).await;
    let client = async_nats::connect(cluster.urls()).await.unwrap();
    let js = async_nats::jetstream::new(client);
    let info = js
        .get_stream("test-log-test-events-0")
        .await
        .unwrap()
        .get_info()
        .await
        .unwrap();
    assert_eq!(info.config.num_replicas, 3);
    let leader = info.cluster.unwrap().leader.unwrap();
    cluster.server(&leader).kill().await;
    let before = appended.lock().len();
    count(before + 300).await;
    stop.send_replace(true);
    let total = appending.await.unwrap();

    let events = read_all(&*log).await;
    check_once_and_in_order(&events, total);
    let places: HashMap<u64, (u16, u64)> = events
        .iter()
        .map(|event| {
            (
                event.json::<u64>().unwrap(),
                (event.position.partition, event.position.offset),
            )
        })
        .collect();
    for (number, partition, offset) in appended.lock().iter() {
        assert_eq!(places[number], (*partition, *offset));
    }
    // And the group reads on.
    let mut seen: HashSet<Id> = HashSet::new();
    while (seen.len() as u64) < total {
        let events = timeout(PATIENCE, member.poll(100)).await.unwrap().unwrap();
        let last = events.last().unwrap().position;
        seen.extend(events.iter().map(|event| event.id));
        let _ = member.commit(last.partition, last.offset + 1).await;
    }
}
