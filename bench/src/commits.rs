//! Durable commits of one row by many writers at a time: Holon's embedded engine through the Store port, and SQLite.
//!
//! A writer commits one new row, waits until it is durable, and goes on with the next.

use crate::{
    Setting,
    machine::crate_version,
    outcome::{Line, Outcome, Sample, Verdict},
    rows::{DOCUMENT_BYTES, Times, documents},
};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use holon_base::{Tenant, Timestamp};
use holon_embedded::{Engine, EngineOptions};
use holon_ports::{Batch, Condition, Consistency, Op, Partition, RowKey, Store, Table, Value};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

pub(crate) const WRITERS: usize = 64;
pub(crate) const TABLE: Table = Table("bench.rows");

pub async fn run(setting: &Setting) -> Result<Outcome> {
    let mut holon = Line::new("Holon, embedded engine", "commits/s");
    let mut shared = Line::new("SQLite, one connection behind a mutex", "commits/s");
    let mut many = Line::new("SQLite, a connection each, busy timeout", "commits/s");
    let mut batched = Line::new("SQLite, one thread that batches what waits", "commits/s");
    for round in 0..setting.rounds {
        tracing::info!(round, "commits");
        let dir = tempfile::tempdir_in(&setting.work)?;
        holon.push(through_the_port(&dir.path().join("holon"), setting.duration).await?);
        for (line, setup) in [
            (&mut shared, Sqlite::Shared),
            (&mut many, Sqlite::Many),
            (&mut batched, Sqlite::Batched),
        ] {
            let path = dir.path().join(format!("{setup:?}.sqlite"));
            let duration = setting.duration;
            line.push(tokio::task::spawn_blocking(move || sqlite(setup, &path, duration)).await??);
        }
    }
    let best = if shared.median() >= many.median() {
        &shared
    } else {
        &many
    };
    let verdicts = vec![Verdict::ratio(
        format!("Holon over {}", best.name),
        &holon,
        best,
        10.0,
    )];
    Ok(Outcome {
        scenario: "commits".into(),
        title: "Durable commits of one row, 64 concurrent writers".into(),
        method: vec![
            format!(
                "{WRITERS} writers each commit one new row at a time, a JSON document of {DOCUMENT_BYTES} bytes under \
                 (partition, number), wait until it is durable, and go on, for {:.1} s a round into an empty database.",
                setting.duration.as_secs_f64()
            ),
            "Holon: tasks that call `Store::commit` of the embedded engine with its default options, which syncs \
             the journal before it answers."
                .into(),
            "SQLite: `journal_mode=WAL`, `synchronous=FULL`, a prepared `INSERT` as a transaction of its own, \
             `WITHOUT ROWID`. The ratio is over the better of one connection that all threads share behind a mutex \
             (`locking_mode=EXCLUSIVE`) and a connection for each thread with a busy timeout."
                .into(),
            "After each run the rows are counted (SQLite), or the database is opened anew and every writer's last \
             row read (Holon)."
                .into(),
        ],
        caveats: vec![
            "The last line is no part of the ratio: it is SQLite behind a thread of the application's own that puts \
             all waiting rows into one transaction, which is what the embedded engine does by itself."
                .into(),
            "Holon runs as a library here; what HTTP, authentication and a system's own work cost is not in it."
                .into(),
        ],
        recorded: now(),
        machine: setting.machine.clone(),
        versions: BTreeMap::from([
            ("fjall".into(), crate_version("fjall")),
            ("SQLite".into(), rusqlite::version().into()),
        ]),
        lines: vec![holon, shared, many, batched],
        verdicts,
    })
}

/// Now, as RFC 3339.
pub fn now() -> String {
    use holon_base::Clock as _;
    let now: Timestamp = holon_base::SystemClock.now();
    now.to_string()
}

pub(crate) fn sample(mut times: Times, elapsed: Duration) -> Sample {
    let rate = times.len() as f64 / elapsed.as_secs_f64();
    Sample::new(rate)
        .with("p50 ms", times.percentile(0.5))
        .with("p99 ms", times.percentile(0.99))
}

fn row_key(writer: usize, number: u64) -> (Partition, Bytes) {
    let partition = Partition::new(&Tenant::default(), format!("writer:{writer}"));
    (partition, Bytes::copy_from_slice(&number.to_be_bytes()))
}

async fn through_the_port(dir: &Path, duration: Duration) -> Result<Sample> {
    let engine = Engine::open(EngineOptions::new(dir)).await?;
    let store = engine.ports().store;
    let (times, written, elapsed) = write_all(&store, duration).await?;
    let stats = engine.stats();
    drop(store);
    engine.close().await;

    let engine = Engine::open(EngineOptions::new(dir)).await?;
    let store = engine.ports().store;
    store.create_tables(&[TABLE]).await?;
    check_last(&*store, &written).await?;
    engine.close().await;
    Ok(sample(times, elapsed)
        .with("commits a sync", stats.group_size)
        .with("sync ms", stats.group_micros / 1_000.0))
}

/// Commits of all writers until a time is over: their times, and how many rows each writer has.
pub(crate) async fn write_all(
    store: &Arc<dyn Store>,
    duration: Duration,
) -> Result<(Times, Vec<u64>, Duration)> {
    store.create_tables(&[TABLE]).await?;
    let start = Instant::now();
    let deadline = start + duration;
    let documents = documents();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(store.clone(), writer, documents.clone(), deadline)))
        .collect();
    let mut times = Times::default();
    let mut written = Vec::new();
    for writer in writers {
        let of_one = writer.await??;
        written.push(of_one.len() as u64);
        times.merge(of_one);
    }
    Ok((times, written, start.elapsed()))
}

/// Refuses a store that lacks any writer's last row.
pub(crate) async fn check_last(store: &dyn Store, written: &[u64]) -> Result<()> {
    for (writer, count) in written.iter().enumerate() {
        let (partition, sort) = row_key(writer, count - 1);
        let key = RowKey::new(TABLE, partition, sort);
        let last = store.get(&key, Consistency::Strong).await?;
        ensure!(last.is_some(), "writer {writer}'s last row is lost");
    }
    Ok(())
}

async fn write(
    store: Arc<dyn Store>,
    writer: usize,
    documents: Arc<[Bytes]>,
    deadline: Instant,
) -> Result<Times> {
    let mut times = Times::default();
    for (number, document) in (0..).zip(documents.iter().cycle()) {
        let start = Instant::now();
        if start >= deadline {
            break;
        }
        let (partition, sort) = row_key(writer, number);
        let put = Op::Put {
            table: TABLE,
            sort,
            value: Value::Json(document.clone()),
            condition: Condition::Any,
            expires: None,
        };
        store.commit(&partition, Batch::new().op(put)).await?;
        times.add(start);
    }
    Ok(times)
}

/// How SQLite is used.
#[derive(Debug, Clone, Copy)]
enum Sqlite {
    Shared,
    Many,
    Batched,
}

const INSERT: &str = "INSERT INTO rows (partition, number, document) VALUES (?1, ?2, ?3)";

fn open(path: &Path, alone: bool) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    if alone {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS rows (
           partition TEXT NOT NULL, number INTEGER NOT NULL, document TEXT NOT NULL, PRIMARY KEY (partition, number)
         ) WITHOUT ROWID",
    )?;
    Ok(connection)
}

fn insert(connection: &Connection, partition: &str, number: u64, document: &Bytes) -> Result<()> {
    let text = std::str::from_utf8(document)?;
    connection
        .prepare_cached(INSERT)?
        .execute((partition, number as i64, text))?;
    Ok(())
}

fn sqlite(setup: Sqlite, path: &Path, duration: Duration) -> Result<Sample> {
    let (times, elapsed) = match setup {
        Sqlite::Shared => {
            let connection = Mutex::new(open(path, true)?);
            threads(duration, |_| {
                |partition: &str, number, document: &Bytes| {
                    insert(&connection.lock(), partition, number, document)
                }
            })?
        }
        Sqlite::Many => {
            let mut connections = Vec::new();
            for _ in 0..WRITERS {
                connections.push(Mutex::new(open(path, false)?));
            }
            threads(duration, |writer| {
                let connection = &connections[writer];
                move |partition: &str, number, document: &Bytes| {
                    insert(&connection.lock(), partition, number, document)
                }
            })?
        }
        Sqlite::Batched => batched(path, duration)?,
    };
    let rows: i64 = open(path, false)?.query_row("SELECT count(*) FROM rows", (), |row| row.get(0))?;
    ensure!(
        rows as usize == times.len(),
        "SQLite acknowledged {} rows and has {rows}",
        times.len()
    );
    Ok(sample(times, elapsed))
}

/// Runs a thread for each writer, which commits rows with what `committer` makes for it.
fn threads<C>(duration: Duration, committer: impl Fn(usize) -> C + Sync) -> Result<(Times, Duration)>
where
    C: Fn(&str, u64, &Bytes) -> Result<()>,
{
    let documents = documents();
    let start = Instant::now();
    let deadline = start + duration;
    let one = |writer: usize| -> Result<Times> {
        let commit = committer(writer);
        let partition = format!("writer:{writer}");
        let mut times = Times::default();
        for (number, document) in (0..).zip(documents.iter().cycle()) {
            let start = Instant::now();
            if start >= deadline {
                break;
            }
            commit(&partition, number, document)?;
            times.add(start);
        }
        Ok(times)
    };
    let all = std::thread::scope(|scope| {
        let one = &one;
        let handles: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || one(writer)))
            .collect();
        let mut all = Times::default();
        for handle in handles {
            all.merge(handle.join().ok().context("a writer panicked")??);
        }
        anyhow::Ok(all)
    })?;
    Ok((all, start.elapsed()))
}

/// A row for the batching thread, and where to say that it is durable.
struct Waiting {
    partition: String,
    number: u64,
    document: Bytes,
    done: mpsc::SyncSender<()>,
}

fn batched(path: &Path, duration: Duration) -> Result<(Times, Duration)> {
    let mut connection = open(path, true)?;
    let (queue, waiting) = mpsc::channel::<Waiting>();
    let committer = std::thread::spawn(move || -> Result<()> {
        while let Ok(first) = waiting.recv() {
            let rows: Vec<Waiting> = std::iter::once(first).chain(waiting.try_iter()).collect();
            let transaction = connection.transaction()?;
            for row in &rows {
                insert(&transaction, &row.partition, row.number, &row.document)?;
            }
            transaction.commit()?;
            for row in rows {
                // A writer waits for its answer, so there is one to take it.
                row.done.send(()).ok();
            }
        }
        Ok(())
    });
    let result = threads(duration, |_| {
        let queue = queue.clone();
        let (done, answer) = mpsc::sync_channel(1);
        move |partition: &str, number, document: &Bytes| {
            queue
                .send(Waiting {
                    partition: partition.to_owned(),
                    number,
                    document: document.clone(),
                    done: done.clone(),
                })
                .context("the committer is gone")?;
            answer.recv().context("the committer is gone")
        }
    });
    drop(queue);
    committer.join().ok().context("the committer panicked")??;
    result
}
