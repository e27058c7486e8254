//! Point reads through the Store port, and of bare fjall: what the port costs.

use crate::{
    Setting,
    commits::now,
    machine::crate_version,
    outcome::{Line, Outcome, Sample, Verdict},
    rows::{Choice, DOCUMENT_BYTES, choose, documents},
};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use holon_base::{KeyWriter, Tenant};
use holon_embedded::{Engine, EngineOptions};
use holon_ports::{Batch, Condition, Consistency, Op, Partition, RowKey, Store, Table, Value};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

const ROWS: usize = 1_000_000;
const ROWS_PER_PARTITION: usize = 10;
/// Rows chosen before the clock runs; read over and over.
const CHOSEN: usize = 200_000;
const TABLE: Table = Table("bench.rows");

pub async fn run(setting: &Setting) -> Result<Outcome> {
    let dir = tempfile::tempdir_in(&setting.work)?;
    let store_dir = dir.path().join("holon");
    let bare_dir = dir.path().join("fjall");
    let documents = documents();
    load_store(&store_dir, &documents).await?;
    let options = EngineOptions::new(&store_dir);
    let bare = Bare {
        cache_bytes: options.cache_bytes,
        memtable_bytes: options.memtable_bytes,
    };
    tokio::task::block_in_place(|| bare.load(&bare_dir, &documents))?;

    let engine = Engine::open(options).await?;
    let store = engine.ports().store;
    store.create_tables(&[TABLE]).await?;
    let (_database, keyspace) = bare.open(&bare_dir)?;

    // A run needs no time to settle here, so many short ones, in turn, see more of the machine's moods than few long ones.
    let rounds = setting.rounds * 3;
    let duration = setting.duration.mul_f64(0.1);
    let mut lines = Vec::new();
    let mut verdicts = Vec::new();
    for choice in [Choice::Uniform, Choice::Zipf, Choice::Hot] {
        for threads in [1, 2] {
            let name = format!(
                "{}, {threads} thread{}",
                choice_name(choice),
                if threads == 1 { "" } else { "s" }
            );
            let mut port = Line::new(format!("Store port, {name}"), "reads/s");
            let mut direct = Line::new(format!("bare fjall, {name}"), "reads/s");
            for round in 0..rounds {
                let seed = u64::from(round) * 10;
                port.push(read_store(&store, choice, threads, seed, duration)?);
                direct.push(read_bare(&keyspace, choice, threads, seed, duration)?);
            }
            verdicts.push(Verdict::ratio(
                format!("port over bare fjall, {name}"),
                &port,
                &direct,
                0.8,
            ));
            lines.extend([port, direct]);
        }
    }
    drop(store);
    engine.close().await;
    Ok(Outcome {
        scenario: "reads".into(),
        title: "Point reads through the Store port, against bare fjall".into(),
        method: vec![
            format!(
                "1,000,000 rows of {DOCUMENT_BYTES} bytes are loaded into the embedded engine and into a bare fjall keyspace in the \
                 same order and batches, with the same keys and the same sizes of block cache and memtable; both are closed and \
                 opened again."
            ),
            format!(
                "200,000 rows are chosen (uniformly; by Zipf's law with exponent 0.99; or, for `hot`, uniformly among the first 20,000, which fit the block cache) and their keys made before the clock \
                 runs; then each thread reads them in turn for {:.1} s a round and checks the length of every value.",
                duration.as_secs_f64()
            ),
            "Holon: `Store::get`, strong, through `Arc<dyn Store>`: the future, the lookup of the table, the encoding of the \
             key, the row's header and the check of its expiry are all counted. Bare: `Keyspace::get` with the encoded key."
                .into(),
        ],
        caveats: vec![
            "All data fits the operating system's page cache: this measures processor time, not the disk.".into(),
            "A stored row carries a header of 17 bytes (kind, version, expiry) that the bare value does not.".into(),
        ],
        recorded: now(),
        machine: setting.machine.clone(),
        versions: BTreeMap::from([("fjall".into(), crate_version("fjall"))]),
        lines,
        verdicts,
    })
}

fn choice_name(choice: Choice) -> &'static str {
    match choice {
        Choice::Uniform => "uniform",
        Choice::Zipf => "Zipf",
        Choice::Hot => "hot",
    }
}

fn partition(number: usize) -> Partition {
    Partition::new(&Tenant::default(), format!("user:{number}"))
}

fn sort(row: usize) -> [u8; 8] {
    ((row % ROWS_PER_PARTITION) as u64).to_be_bytes()
}

fn store_key(row: usize) -> RowKey {
    RowKey::new(
        TABLE,
        partition(row / ROWS_PER_PARTITION),
        Bytes::copy_from_slice(&sort(row)),
    )
}

/// The key as the embedded engine encodes it.
fn bare_key(row: usize) -> Vec<u8> {
    let mut key = KeyWriter::new()
        .u16(1)
        .str(Tenant::default().as_str())
        .str(&format!("user:{}", row / ROWS_PER_PARTITION))
        .into_vec();
    key.extend(sort(row));
    key
}

async fn load_store(dir: &Path, documents: &[Bytes]) -> Result<()> {
    let engine = Engine::open(EngineOptions::new(dir)).await?;
    let store = engine.ports().store;
    store.create_tables(&[TABLE]).await?;
    let partitions: Vec<usize> = (0..ROWS / ROWS_PER_PARTITION).collect();
    for chunk in partitions.chunks(200) {
        let commit = |number: &usize| {
            let rows = number * ROWS_PER_PARTITION..(number + 1) * ROWS_PER_PARTITION;
            let put = |row: usize| Op::Put {
                table: TABLE,
                sort: Bytes::copy_from_slice(&sort(row)),
                value: Value::Json(documents[row % documents.len()].clone()),
                condition: Condition::Any,
                expires: None,
            };
            let batch = Batch {
                ops: rows.map(put).collect(),
            };
            (partition(*number), batch)
        };
        for committed in store.commit_many(chunk.iter().map(commit).collect()).await {
            committed?;
        }
    }
    drop(store);
    engine.close().await;
    Ok(())
}

/// fjall without Holon, with the same memory.
struct Bare {
    cache_bytes: u64,
    memtable_bytes: u64,
}

impl Bare {
    fn open(&self, dir: &Path) -> Result<(Database, Keyspace)> {
        let database = Database::builder(dir).cache_size(self.cache_bytes).open()?;
        let keyspace = database.keyspace("rows", || {
            KeyspaceCreateOptions::default().max_memtable_size(self.memtable_bytes)
        })?;
        Ok((database, keyspace))
    }

    fn load(&self, dir: &Path, documents: &[Bytes]) -> Result<()> {
        let (database, keyspace) = self.open(dir)?;
        let rows: Vec<usize> = (0..ROWS).collect();
        for chunk in rows.chunks(200 * ROWS_PER_PARTITION) {
            let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
            for row in chunk {
                batch.insert(
                    &keyspace,
                    bare_key(*row),
                    documents[row % documents.len()].clone(),
                );
            }
            batch.commit()?;
        }
        Ok(())
    }
}

/// Reads a thread's share over and over until time is up; `read` reads some keys.
fn measure<K: Sync>(
    keys: &[Vec<K>],
    duration: Duration,
    read: impl Fn(&[K]) -> Result<()> + Sync,
) -> Result<Sample> {
    let start = Instant::now();
    let deadline = start + duration;
    let one = |keys: &[K]| -> Result<u64> {
        let mut reads = 0;
        for chunk in keys.chunks(256).cycle() {
            if Instant::now() >= deadline {
                break;
            }
            read(chunk)?;
            reads += chunk.len() as u64;
        }
        Ok(reads)
    };
    let reads = std::thread::scope(|scope| {
        let one = &one;
        let handles: Vec<_> = keys.iter().map(|keys| scope.spawn(move || one(keys))).collect();
        let mut reads = 0;
        for handle in handles {
            reads += handle.join().ok().context("a reader panicked")??;
        }
        anyhow::Ok(reads)
    })?;
    Ok(Sample::new(reads as f64 / start.elapsed().as_secs_f64()))
}

fn check(length: usize) -> Result<()> {
    ensure!(length == DOCUMENT_BYTES, "a row of {length} bytes");
    Ok(())
}

fn keys_of<K>(choice: Choice, threads: u64, seed: u64, key: impl Fn(usize) -> K) -> Vec<Vec<K>> {
    (0..threads)
        .map(|thread| {
            let rows = choose(choice, ROWS, CHOSEN, seed + thread);
            rows.into_iter().map(&key).collect()
        })
        .collect()
}

fn read_store(
    store: &Arc<dyn Store>,
    choice: Choice,
    threads: u64,
    seed: u64,
    duration: Duration,
) -> Result<Sample> {
    let keys = keys_of(choice, threads, seed, store_key);
    let runtime = tokio::runtime::Handle::current();
    measure(&keys, duration, |keys: &[RowKey]| {
        runtime.block_on(async {
            for key in keys {
                let row = store.get(key, Consistency::Strong).await?;
                check(row.context("a row is missing")?.value.size())?;
            }
            Ok(())
        })
    })
}

fn read_bare(
    keyspace: &Keyspace,
    choice: Choice,
    threads: u64,
    seed: u64,
    duration: Duration,
) -> Result<Sample> {
    let keys = keys_of(choice, threads, seed, bare_key);
    measure(&keys, duration, |keys: &[Vec<u8>]| {
        for key in keys {
            check(keyspace.get(key)?.context("a row is missing")?.len())?;
        }
        Ok(())
    })
}
