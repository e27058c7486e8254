//! A writer is killed with SIGKILL at random moments, fifty times over the same directory. Whatever it was told is
//! done must be there whole, and nothing may be there by half.
//!
//! The writer is this test's own binary, started again with an environment variable. Four tasks each write to a
//! partition of their own: commit `n` puts three rows that all say `n`, adds 1 to a counter, and tells two events
//! `n`; all on the condition that the rows said `n - 1`. Each acknowledgement is a line on a pipe. A consumer writes
//! down each event that it was handed (in a row, durable) before it commits its offset.

#![allow(clippy::unwrap_used)]

use holon_base::Tenant;
use holon_embedded::{Engine, EngineOptions};
use holon_ports::{
    Batch, Condition, Consistency, NewEvent, Partition, Ports, RowKey, Scan, Store, Table, TopicSpec,
    log::Rewind,
};
use rand::RngExt as _;
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

const KILLS: usize = 50;
const WRITERS: u64 = 4;
const ROWS: Table = Table("crash.rows");
const DONE: Table = Table("crash.done");
const TOPIC: TopicSpec = TopicSpec {
    name: "crash.told",
    partitions: 2,
    max_age: None,
    max_bytes: None,
};
const GROUP: &str = "crash.readers";
const DIRECTORY: &str = "HOLON_CRASH_TEST_DIRECTORY";

fn options(dir: &Path) -> EngineOptions {
    let mut options = EngineOptions::new(dir);
    // Small, so that tables are written and merged while the killer is about.
    options.memtable_bytes = 256 << 10;
    options.housekeeping = Duration::from_millis(20);
    options
}

async fn open(dir: &Path) -> (Engine, Ports) {
    let engine = Engine::open(options(dir)).await.unwrap();
    let ports = engine.ports();
    ports.store.create_tables(&[ROWS, DONE]).await.unwrap();
    ports.log.create_topics(&[TOPIC]).await.unwrap();
    (engine, ports)
}

fn partition(writer: u64) -> Partition {
    Partition::new(&Tenant::default(), format!("writer:{writer}"))
}

async fn number(store: &dyn Store, key: &RowKey) -> (u64, Condition) {
    match store.get(key, Consistency::Strong).await.unwrap() {
        Some(row) => (row.json().unwrap(), Condition::Version(row.version)),
        None => (0, Condition::Absent),
    }
}

/// What the child does until it is killed.
async fn write_for_ever(dir: &Path) {
    let (_engine, ports) = open(dir).await;
    for writer in 0..WRITERS {
        let store = Arc::clone(&ports.store);
        tokio::spawn(async move {
            let tenant = Tenant::default();
            let partition = partition(writer);
            let key = RowKey::new(ROWS, partition.clone(), "0");
            let (mut n, mut condition) = number(&*store, &key).await;
            loop {
                n += 1;
                let told = |half: &str| {
                    let key = format!("{writer}{half}");
                    NewEvent::new(TOPIC.name, &tenant, key, "crash.told.v1", half, &(writer, n))
                };
                // Something to chew on, so that journals and tables turn over.
                let bulk = vec![n as u8; 200 + (n as usize * 97) % 3_000];
                let batch = Batch::new()
                    .put_if(ROWS, "0", &n, condition)
                    .put(ROWS, "1", &n)
                    .put(ROWS, "2", &n)
                    .add(ROWS, "count", 1)
                    .put_binary(DONE, (n % 50).to_be_bytes().to_vec(), bulk)
                    .event(told("a"))
                    .event(told("b"));
                let committed = store.commit(&partition, batch).await.unwrap();
                condition = Condition::Version(committed.version);
                let mut out = std::io::stdout().lock();
                writeln!(out, "{writer} {n}").unwrap();
            }
        });
    }
    let mut member = ports.log.join(GROUP, TOPIC.name).await.unwrap();
    loop {
        let events = member.poll(16).await.unwrap();
        let position = events.last().unwrap().position;
        let handled = Partition::new(&Tenant::default(), format!("handled:{}", position.partition));
        let batch = events.iter().fold(Batch::new(), |batch, event| {
            batch.put(DONE, event.position.offset.to_be_bytes().to_vec(), &event.subject)
        });
        ports.store.commit(&handled, batch).await.unwrap();
        member
            .commit(position.partition, position.offset + 1)
            .await
            .unwrap();
    }
}

/// Runs the child for a while, kills it, and answers the last number that each writer was told is done.
fn run_and_kill(dir: &Path) -> HashMap<u64, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "what_was_acknowledged_survives_fifty_kills",
            "--nocapture",
        ])
        .env(DIRECTORY, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || {
        let mut acknowledged = HashMap::new();
        // A line is written at once, so the kill cuts none in two. What the test harness prints is no pair of numbers.
        for line in lines.map_while(Result::ok) {
            if let Some((writer, n)) = line.split_once(' ')
                && let (Ok(writer), Ok(n)) = (writer.parse::<u64>(), n.parse::<u64>())
            {
                acknowledged.insert(writer, n);
            }
        }
        acknowledged
    });
    // From before it is ready (so in the middle of a recovery) to well into its work.
    let lifetime = Duration::from_micros(rand::rng().random_range(5_000..400_000));
    std::thread::sleep(lifetime);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[derive(Default)]
struct Seen {
    /// The highest number that each writer was ever told is done.
    acknowledged: HashMap<u64, u64>,
    commits: u64,
    highest_version: u64,
}

async fn check(dir: &Path, seen: &mut Seen) {
    let (engine, ports) = open(dir).await;
    let mut written = HashMap::new();
    for writer in 0..WRITERS {
        let page = ports
            .store
            .scan(&Scan::all(ROWS, partition(writer), 10))
            .await
            .unwrap();
        let acknowledged = seen.acknowledged.get(&writer).copied().unwrap_or(0);
        if page.rows.is_empty() {
            assert_eq!(acknowledged, 0, "writer {writer} lost everything");
            written.insert(writer, 0);
            continue;
        }
        let n: u64 = page.rows[0].json().unwrap();
        assert!(
            n >= acknowledged,
            "writer {writer} was told {acknowledged} and has {n}"
        );
        for row in &page.rows[..3] {
            assert_eq!(row.json::<u64>().unwrap(), n, "a commit is there by half");
            assert_eq!(row.version, page.rows[0].version);
        }
        assert_eq!(
            page.rows[3].counter(),
            n as i64,
            "a commit was applied twice or not at all"
        );
        seen.highest_version = seen.highest_version.max(page.rows[0].version);
        written.insert(writer, n);
    }
    seen.commits = written.values().sum();

    // Each commit told its two events once, in order, and offsets have no gaps.
    let mut told: HashMap<String, Vec<u64>> = HashMap::new();
    for partition in 0..TOPIC.partitions {
        let bounds = ports.log.bounds(TOPIC.name, partition).await.unwrap();
        let mut offset = 0;
        let mut last_id = holon_base::Id::MIN;
        while offset < bounds.next {
            let events = ports
                .log
                .read(TOPIC.name, partition, offset, 1_000)
                .await
                .unwrap();
            for event in events {
                assert_eq!(
                    event.position.offset, offset,
                    "a gap or a duplicate among the offsets"
                );
                assert!(event.id > last_id, "an id was made twice or went back");
                last_id = event.id;
                let (_, n): (u64, u64) = event.json().unwrap();
                told.entry(event.key.clone()).or_default().push(n);
                offset += 1;
            }
        }
        let progress = &ports.log.progress(GROUP, TOPIC.name).await.unwrap()[usize::from(partition)];
        assert!(
            progress.committed <= bounds.next,
            "a consumer is ahead of the log"
        );
        let handled = Partition::new(&Tenant::default(), format!("handled:{partition}"));
        let mut scan = Scan::all(DONE, handled, 10_000);
        let mut handled = 0;
        loop {
            let page = ports.store.scan(&scan).await.unwrap();
            handled += page.rows.len() as u64;
            match page.rows.last().map(|row| row.sort.clone()) {
                Some(last) if page.more => scan = scan.after(last),
                _ => break,
            }
        }
        assert!(
            progress.committed <= handled,
            "the committed offset {} is ahead of the work, {handled}",
            progress.committed
        );
    }
    for (writer, n) in written {
        for half in ["a", "b"] {
            let numbers = told.remove(&format!("{writer}{half}")).unwrap_or_default();
            assert_eq!(numbers, (1..=n).collect::<Vec<_>>(), "events of writer {writer}");
        }
    }
    let fresh = Partition::new(&Tenant::default(), "fresh");
    let version = ports
        .store
        .commit(&fresh, Batch::new().put(ROWS, "k", &1))
        .await
        .unwrap()
        .version;
    assert!(version > seen.highest_version, "a version was given out twice");
    seen.highest_version = version;
    engine.close().await;
}

#[test]
fn what_was_acknowledged_survives_fifty_kills() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(dir) = std::env::var_os(DIRECTORY) {
        runtime.block_on(write_for_ever(Path::new(&dir)));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Seen::default();
    for kill in 0..KILLS {
        for (writer, n) in run_and_kill(dir.path()) {
            let highest = seen.acknowledged.entry(writer).or_default();
            assert!(n > *highest, "writer {writer} went back from {highest} to {n}");
            *highest = n;
        }
        // Most restarts are recoveries of recoveries; the looks in between are enough to say when it went wrong.
        if kill % 5 == 4 || kill < 5 {
            runtime.block_on(check(dir.path(), &mut seen));
        }
    }
    runtime.block_on(check(dir.path(), &mut seen));
    let acknowledged: u64 = seen.acknowledged.values().sum();
    assert!(acknowledged > 100, "the writers hardly wrote: {acknowledged}");
    assert!(seen.commits >= acknowledged);

    // In the end the group is still handed everything, from the start if it is asked to.
    runtime.block_on(async {
        let (engine, ports) = open(dir.path()).await;
        ports.log.rewind(GROUP, TOPIC.name, Rewind::Start).await.unwrap();
        let mut member = ports.log.join(GROUP, TOPIC.name).await.unwrap();
        let mut handed = 0;
        while handed < 2 * seen.commits {
            let events = member.poll(1_000).await.unwrap();
            let last = events.last().unwrap().position;
            handed += events.len() as u64;
            member.commit(last.partition, last.offset + 1).await.unwrap();
        }
        engine.close().await;
    });
}
