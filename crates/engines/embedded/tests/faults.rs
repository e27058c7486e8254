//! What can go wrong with the machine, and what the engine makes of it: a clear error, and nothing lost.

#![allow(clippy::unwrap_used)]

use holon_base::{Id, ManualClock, Tenant, Timestamp};
use holon_embedded::{Engine, EngineError, EngineOptions, FreeSpace};
use holon_ports::{
    Batch, Condition, Consistency, NewEvent, Partition, RowKey, Scan, Store, StoreError, Table, TopicSpec,
};
use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const ROWS: Table = Table("faults.rows");
const TOPIC: TopicSpec = TopicSpec {
    name: "faults.told",
    partitions: 1,
    max_age: None,
    max_bytes: None,
};

fn partition(entity: &str) -> Partition {
    Partition::new(&Tenant::default(), entity)
}

async fn open(options: EngineOptions) -> Engine {
    let engine = Engine::open(options).await.unwrap();
    engine.ports().store.create_tables(&[ROWS]).await.unwrap();
    engine.ports().log.create_topics(&[TOPIC]).await.unwrap();
    engine
}

fn told(n: u64) -> NewEvent {
    NewEvent::new(
        TOPIC.name,
        &Tenant::default(),
        "key",
        "faults.told.v1",
        "subject",
        &n,
    )
}

async fn count(store: &dyn Store, entity: &str) -> usize {
    let scan = Scan::all(ROWS, partition(entity), 100_000);
    store.scan(&scan).await.unwrap().rows.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(EngineOptions::new(dir.path())).await;
    let second = Engine::open(EngineOptions::new(dir.path())).await.err().unwrap();
    let EngineError::InUse { holder, .. } = &second else {
        panic!("{second}");
    };
    assert_eq!(*holder, std::process::id().to_string());
    assert!(
        second.to_string().contains("stop it, or use another directory"),
        "{second}"
    );
    engine.close().await;
    open(EngineOptions::new(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn near_the_end_of_the_disk_commits_are_refused_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let mut options = EngineOptions::new(dir.path());
    options.reserve_bytes = 1_000;
    let probe = Arc::clone(&free);
    options.free_space = FreeSpace(Arc::new(move |_| Ok(probe.load(Ordering::SeqCst))));
    let engine = open(options).await;
    let store = engine.ports().store;
    let put = |key: &'static str| Batch::new().put(ROWS, key, &1).event(told(1));
    store.commit(&partition("p"), put("before")).await.unwrap();

    free.store(999, Ordering::SeqCst);
    let refused = store.commit(&partition("p"), put("full")).await;
    assert_eq!(refused, Err(StoreError::Full));
    let appended = engine.ports().log.append(vec![told(2)]).await;
    assert_eq!(appended, Err(holon_ports::LogError::Full));
    assert_eq!(count(&*store, "p").await, 1, "reads go on");
    assert_eq!(engine.failure(), None, "nothing is broken");

    free.store(1_000, Ordering::SeqCst);
    store.commit(&partition("p"), put("after")).await.unwrap();
    assert_eq!(count(&*store, "p").await, 2);
    let bounds = engine.ports().log.bounds(TOPIC.name, 0).await.unwrap();
    assert_eq!(bounds.next, 2, "what was refused told nothing");
}

const FULL_DIRECTORY: &str = "HOLON_FULL_DISK_TEST_DIRECTORY";

/// A child whose files may not grow past a limit writes until it fails. The parent opens what it left.
#[test]
fn a_write_that_fails_loses_nothing_that_was_acknowledged() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(dir) = std::env::var_os(FULL_DIRECTORY) {
        runtime.block_on(write_until_it_fails(Path::new(&dir)));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        open(EngineOptions::new(dir.path())).await.close().await;
    });
    // No file may grow past some tens of megabytes (the unit differs between shells): to the journal that is a full
    // disk. The shell ignores the signal that comes with it, and so does what it starts.
    let output = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 66000; exec \"$0\" --exact \"$1\" --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .arg("a_write_that_fails_loses_nothing_that_was_acknowledged")
        .env(FULL_DIRECTORY, dir.path())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{out}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let acknowledged: usize = out
        .lines()
        .find_map(|line| line.strip_prefix("acknowledged "))
        .and_then(|count| count.parse().ok())
        .unwrap_or_else(|| panic!("{out}"));
    assert!(acknowledged > 50, "{acknowledged}");
    runtime.block_on(async {
        let engine = open(EngineOptions::new(dir.path())).await;
        let store = engine.ports().store;
        let rows = count(&*store, "p").await;
        // The commit whose answer was "unknown" may have happened.
        assert!(
            rows == acknowledged || rows == acknowledged + 1,
            "{rows} of {acknowledged}"
        );
        let bounds = engine.ports().log.bounds(TOPIC.name, 0).await.unwrap();
        assert_eq!(
            bounds.next, rows as u64,
            "rows and events of a commit belong together"
        );
        store
            .commit(&partition("p"), Batch::new().put(ROWS, "more", &1))
            .await
            .unwrap();
    });
}

async fn write_until_it_fails(dir: &Path) {
    let engine = open(EngineOptions::new(dir)).await;
    let store = engine.ports().store;
    // Hard to compress, as the journal would.
    let noise: Vec<u8> = (0..500_000_u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    for n in 0..10_000_u64 {
        let batch = Batch::new()
            .put_binary(ROWS, n.to_be_bytes().to_vec(), noise.clone())
            .event(told(n));
        let Err(error) = store.commit(&partition("p"), batch).await else {
            continue;
        };
        // Whether the journal or a table met the limit first is a matter of luck.
        let why = error.to_string();
        match error {
            StoreError::Unknown(_) => assert!(why.contains("no space left"), "{why}"),
            StoreError::Unavailable(_) => assert!(why.contains("a write in the background failed"), "{why}"),
            other => panic!("{other}"),
        }
        println!("acknowledged {n}");
        assert!(engine.failure().is_some());
        let next = store
            .commit(&partition("p"), Batch::new().put(ROWS, "k", &1))
            .await;
        let Err(StoreError::Unavailable(why)) = next else {
            panic!("{next:?}");
        };
        assert!(why.contains("open the engine again"), "{why}");
        assert_eq!(count(&*store, "p").await, n as usize, "reads go on");
        engine.close().await;
        return;
    }
    panic!("the disk was never full");
}

/// The files below a directory with this ending, the largest last.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| fs::metadata(path).unwrap().len());
    found
}

/// Turns one byte of a file around.
fn flip(path: &Path, at: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0xff]).unwrap();
}

/// Where the written part of a journal ends.
fn end_of(journal: &Path) -> u64 {
    let bytes = fs::read(journal).unwrap();
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last as u64 + 1)
}

async fn write_rows(dir: &Path, rows: u64) -> Engine {
    let engine = open(EngineOptions::new(dir)).await;
    for n in 0..rows {
        let batch = Batch::new()
            .put(ROWS, n.to_be_bytes().to_vec(), &"x".repeat(500))
            .event(told(n));
        engine.ports().store.commit(&partition("p"), batch).await.unwrap();
    }
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_was_cut_off_keeps_what_is_whole() {
    for cut in [1, 9, 100, 700] {
        let dir = tempfile::tempdir().unwrap();
        // Dropped and not closed, so that the rows are in the journal only.
        drop(write_rows(dir.path(), 20).await);
        let journal = files(dir.path(), ".jnl").pop().unwrap();
        let file = File::options().write(true).open(&journal).unwrap();
        let end = end_of(&journal);
        // What a machine that lost power in the middle of a write leaves: the start of the last batches, then nothing.
        file.set_len(end - cut).unwrap();
        let engine = open(EngineOptions::new(dir.path())).await;
        let rows = count(&*engine.ports().store, "p").await;
        assert!((17..=20).contains(&rows), "{rows} rows are left");
        let bounds = engine.ports().log.bounds(TOPIC.name, 0).await.unwrap();
        assert_eq!(bounds.next, rows as u64, "a commit is there by half");
        engine
            .ports()
            .store
            .commit(&partition("p"), Batch::new().put(ROWS, "new", &1).event(told(99)))
            .await
            .unwrap();
        drop(engine);
        let engine = open(EngineOptions::new(dir.path())).await;
        assert_eq!(count(&*engine.ports().store, "p").await, rows + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_named_and_not_served() {
    let dir = tempfile::tempdir().unwrap();
    drop(write_rows(dir.path(), 20).await);
    let journal = files(dir.path(), ".jnl").pop().unwrap();
    flip(&journal, end_of(&journal) / 2);
    match Engine::open(EngineOptions::new(dir.path())).await {
        Err(error @ EngineError::Corrupt { .. }) => {
            assert!(error.to_string().contains(".jnl"), "{error}");
            assert!(error.to_string().contains("restore it from a backup"), "{error}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a damaged journal was taken for whole"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_is_an_error_and_never_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    write_rows(dir.path(), 200).await.close().await;
    let rows_folder = |path: &PathBuf| path.to_string_lossy().contains("/tables/");
    let tables: Vec<_> = files(&dir.path().join("db"), "")
        .into_iter()
        .filter(rows_folder)
        .collect();
    let largest = tables.last().unwrap();
    let whole = fs::read(largest).unwrap();
    let mut noticed = 0;
    for at in (0..whole.len() as u64).step_by(whole.len() / 12) {
        flip(largest, at);
        // Closed without a write, so that the next round finds the same files.
        if let Ok(engine) = Engine::open(EngineOptions::new(dir.path())).await {
            let store = engine.ports().store;
            for n in 0..200_u64 {
                let key = RowKey::new(ROWS, partition("p"), n.to_be_bytes().to_vec());
                match store.get(&key, Consistency::Strong).await {
                    Ok(Some(row)) => assert_eq!(row.json::<String>().unwrap(), "x".repeat(500)),
                    Ok(None) => panic!("row {n} is gone without an error, byte {at}"),
                    Err(error) => {
                        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
                        noticed += 1;
                    }
                }
            }
        } else {
            noticed += 1;
        }
        fs::write(largest, &whole).unwrap();
    }
    assert!(noticed > 0, "no damage was noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_back_makes_no_id_or_version_twice() {
    let dir = tempfile::tempdir().unwrap();
    let noon = Timestamp::parse("2026-01-01T12:00:00Z").unwrap();
    let mut last = (Id::MIN, 0);
    for hours_back in 0..4 {
        let clock = ManualClock::new(noon.minus(Duration::from_secs(3_600 * hours_back)));
        let options = EngineOptions::new(dir.path()).clock(Arc::new(clock.clone()));
        let engine = open(options).await;
        for _ in 0..10 {
            clock.set(clock_back(&clock));
            let id = engine.ids().next();
            assert!(id > last.0, "an id was made twice");
            let batch = Batch::new().put(ROWS, "k", &id).event(told(1));
            let version = engine
                .ports()
                .store
                .commit(&partition("p"), batch)
                .await
                .unwrap()
                .version;
            assert!(version > last.1);
            last = (id, version);
        }
        // Killed, as far as the next engine can tell.
        drop(engine);
    }
    let engine = open(EngineOptions::new(dir.path())).await;
    let events = engine.ports().log.read(TOPIC.name, 0, 0, 100).await.unwrap();
    assert_eq!(events.len(), 40);
    for pair in events.windows(2) {
        assert!(pair[0].id < pair[1].id);
        assert!(
            pair[0].time <= pair[1].time,
            "the times of a partition never go back"
        );
    }
}

fn clock_back(clock: &ManualClock) -> Timestamp {
    use holon_base::Clock as _;
    clock.now().minus(Duration::from_secs(7))
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_rows_are_swept_and_renewed_ones_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let start = Timestamp::parse("2026-01-01T12:00:00Z").unwrap();
    let clock = ManualClock::new(start);
    let mut options = EngineOptions::new(dir.path()).clock(Arc::new(clock.clone()));
    options.housekeeping = Duration::from_secs(3_600);
    let engine = open(options.clone()).await;
    let store = engine.ports().store;
    let soon = start.plus(Duration::from_secs(10));
    let later = start.plus(Duration::from_secs(100));
    let until = |key: String, expires| Batch::new().put_until(ROWS, key, &1, Condition::Any, expires);
    for n in 0..5_000 {
        store
            .commit_many(vec![(partition("p"), until(format!("{n:04}"), soon))])
            .await;
        if n >= 10 {
            // In bulk from here on; one by one was only to have several groups.
            let rest: Vec<_> = (n + 1..5_000)
                .map(|n| (partition("p"), until(format!("{n:04}"), soon)))
                .collect();
            store.commit_many(rest).await;
            break;
        }
    }
    store
        .commit(&partition("p"), until("0001".into(), later))
        .await
        .unwrap();
    store
        .commit(&partition("p"), Batch::new().put(ROWS, "0002", &2))
        .await
        .unwrap();
    clock.set(soon);
    assert_eq!(
        count(&*store, "p").await,
        2,
        "what is expired is invisible at once"
    );
    let mut swept = 0;
    loop {
        let round = engine.housekeep().await.unwrap();
        assert!(round.rows_swept <= 2_000, "a round is bounded");
        swept += round.rows_swept;
        if round.rows_swept == 0 {
            break;
        }
    }
    assert_eq!(swept, 4_998);
    assert_eq!(count(&*store, "p").await, 2);
    // A row that comes with an expiry in the past of the sweeper is swept too.
    store
        .commit(&partition("p"), until("early".into(), start))
        .await
        .unwrap();
    assert_eq!(engine.housekeep().await.unwrap().rows_swept, 1);
    engine.close().await;
    clock.set(later);
    let engine = open(options).await;
    assert_eq!(count(&*engine.ports().store, "p").await, 1);
    assert_eq!(
        engine.housekeep().await.unwrap().rows_swept,
        1,
        "the sweeper goes on after a restart"
    );
}
