//! Writers, each with a partition of its own and a model of what was acknowledged, and a relay that keeps what is told.

use bytes::Bytes;
use holon_base::{Clock as _, SystemClock, Tenant};
use holon_ports::{
    Batch, Condition, Consistency, NewEvent, Op, Partition, RowKey, Scan, StoreError, Table, Value,
};
use holon_postgres::{Postgres, directory::slot_of};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

pub const NOTES: Table = Table("test.notes");
pub const TAGS: Table = Table("test.tags");
/// A writer's rows are few, so that they are written over, deleted and made again.
const ROWS: u64 = 12;

pub fn partition(entity: &str) -> Partition {
    Partition::new(&Tenant::default(), entity)
}

/// What a writer knows to be there.
#[derive(Default)]
struct Model {
    notes: BTreeMap<Vec<u8>, Value>,
    versions: BTreeMap<Vec<u8>, u64>,
    count: i64,
    told: Vec<String>,
    /// Of the last acknowledged commit.
    version: u64,
}

pub struct Writers {
    nodes: Vec<Arc<Postgres>>,
    stop: Arc<AtomicBool>,
    /// Nothing is committed any more.
    ended: Arc<AtomicBool>,
    writers: Vec<JoinHandle<(String, Model)>>,
    relay: JoinHandle<Vec<(String, String)>>,
    latencies: Arc<Mutex<Vec<Duration>>>,
    count: usize,
}

fn name(writer: usize) -> String {
    format!("writer:{writer}")
}

impl Writers {
    pub fn start(nodes: &[Arc<Postgres>], count: usize) -> Self {
        let (stop, latencies) = (
            Arc::<AtomicBool>::default(),
            Arc::<Mutex<Vec<Duration>>>::default(),
        );
        let ended = Arc::<AtomicBool>::default();
        let writers = (0..count).map(|writer| {
            let node = Arc::clone(&nodes[writer % nodes.len()]);
            let (stop, latencies) = (Arc::clone(&stop), Arc::clone(&latencies));
            tokio::spawn(async move {
                let mut model = Model::default();
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    write(&node, &name(writer), n, &mut model).await;
                    latencies.lock().push(began.elapsed());
                    n += 1;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (name(writer), model)
            })
        });
        Self {
            writers: writers.collect(),
            relay: tokio::spawn(relay(Arc::clone(&nodes[0]), Arc::clone(&ended))),
            nodes: nodes.to_vec(),
            stop,
            ended,
            latencies,
            count,
        }
    }

    pub fn slots(&self) -> Vec<i32> {
        let slots = (0..self.count).map(|writer| i32::from(slot_of(&partition(&name(writer)))));
        let slots: HashSet<i32> = slots.collect();
        slots.into_iter().collect()
    }

    /// Lets them write for a while, and says how fast commits are.
    pub async fn quiet(&self, time: Duration) {
        tokio::time::sleep(time).await;
        self.report("quiet");
    }

    fn report(&self, when: &str) {
        let mut latencies = std::mem::take(&mut *self.latencies.lock());
        latencies.sort();
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize].as_millis();
        eprintln!(
            "{when}: {} commits, p50 {} ms, p99 {} ms, longest {} ms",
            latencies.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }

    /// Stops them, and compares what is there and what was told with what was acknowledged.
    pub async fn stop_and_compare(self, when: &str) {
        self.report(when);
        self.stop.store(true, Ordering::Relaxed);
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut models = Vec::new();
        for writer in self.writers {
            models.push(writer.await.unwrap());
        }
        self.ended.store(true, Ordering::Relaxed);
        for (key, subject) in self.relay.await.unwrap() {
            told.entry(key).or_default().push(subject);
        }
        let mut all = 0;
        for (name, model) in &models {
            assert!(model.count > 0, "{name} wrote nothing");
            let place = partition(name);
            for node in &self.nodes {
                let scan = Scan::all(NOTES, place.clone(), 1_000);
                let rows = node.store().scan(&scan).await.unwrap().rows;
                let found: BTreeMap<Vec<u8>, Value> = rows
                    .iter()
                    .map(|row| (row.sort.to_vec(), row.value.clone()))
                    .collect();
                assert_eq!(found, model.notes, "the rows of {name}");
                for row in &rows {
                    assert_eq!(
                        model.versions.get(row.sort.as_ref()),
                        Some(&row.version),
                        "a version of {name}"
                    );
                }
                let key = RowKey::new(TAGS, place.clone(), "count");
                let count = node.store().get(&key, Consistency::Strong).await.unwrap();
                assert_eq!(count.unwrap().counter(), model.count, "the count of {name}");
            }
            let told = told.remove(name).unwrap_or_default();
            assert_eq!(told, model.told, "the events of {name}");
            all += model.notes.len();
        }
        assert!(told.is_empty(), "events of nobody");
        let (mut walked, mut cursor) = (0, None);
        loop {
            let (rows, next) = self.nodes[0].store().walk(NOTES, cursor, 7).await.unwrap();
            walked += rows.len();
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(walked, all, "a walk");
    }
}

/// One commit of each kind in turn. None may fail, but where its condition does not hold.
async fn write(node: &Postgres, name: &str, n: u64, model: &mut Model) {
    let place = partition(name);
    let sort = (n * 7 % ROWS).to_be_bytes().to_vec();
    let value = match n % 3 {
        0 => Value::Binary(Bytes::from(vec![0, 159, n as u8])),
        1 => Value::Json(Bytes::from(format!("{{ \"n\":  {n}, \"z\":1.0 }}"))),
        // What jsonb cannot hold.
        _ => Value::Json(Bytes::from(format!("\"\\u0000{n}\""))),
    };
    let is_there = model.notes.contains_key(&sort);
    let condition = match (n % 5, model.versions.get(&sort)) {
        (0, Some(version)) if is_there => Condition::Version(*version),
        (1, _) if !is_there => Condition::Absent,
        (2, _) => Condition::Absent,
        _ => Condition::Any,
    };
    let holds = condition != Condition::Absent || !is_there;
    let deletes = n % 4 == 3;
    let step = match deletes {
        true => Op::Delete {
            table: NOTES,
            sort: sort.clone().into(),
            condition,
        },
        false => Op::Put {
            table: NOTES,
            sort: sort.clone().into(),
            value: value.clone(),
            condition,
            expires: (n % 11 == 0).then(|| SystemClock.now().plus(Duration::from_secs(3_600))),
        },
    };
    let subject = format!("{name}:{n}");
    let batch = Batch::new().op(step).add(TAGS, "count", 1).event(NewEvent {
        topic: "test.told",
        tenant: Tenant::default(),
        key: name.to_owned(),
        kind: "test.told.v1",
        subject: subject.clone(),
        data: Bytes::from_static(b"{}"),
        traceparent: None,
    });
    match node.store().commit(&place, batch).await {
        Ok(committed) => {
            assert!(holds, "{name} {n}: a condition that does not hold held");
            assert!(committed.version > model.version, "{name} {n}: versions go back");
            model.version = committed.version;
            model.count += 1;
            model.told.push(subject);
            if deletes {
                model.notes.remove(&sort);
            } else {
                model.notes.insert(sort.clone(), value);
                model.versions.insert(sort.clone(), committed.version);
            }
        }
        Err(StoreError::ConditionFailed { .. }) => {
            assert!(!holds, "{name} {n}: a condition that holds failed")
        }
        Err(error) => panic!("{name} {n}: {error}"),
    }
    // What was acknowledged is seen at once.
    let key = RowKey::new(NOTES, place, sort.clone());
    let row = node.store().get(&key, Consistency::Strong).await.unwrap();
    assert_eq!(
        row.map(|row| row.value),
        model.notes.get(&sort).cloned(),
        "{name} {n}: a read"
    );
}

/// Tells every event of every shard, some of them late, until there are no more.
async fn relay(node: Arc<Postgres>, ended: Arc<AtomicBool>) -> Vec<(String, String)> {
    let outbox = node.outbox();
    let mut told = Vec::new();
    let mut quiet = 0;
    while quiet < 3 {
        let has_ended = ended.load(Ordering::Relaxed);
        let mut is_quiet = true;
        for source in outbox.sources().await.unwrap() {
            let events = outbox.read(&source, 200).await.unwrap();
            is_quiet &= events.is_empty();
            let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
            told.extend(events.into_iter().map(|event| (event.key, event.subject)));
            // Late, so that moves find events that wait.
            tokio::time::sleep(Duration::from_millis(60)).await;
            outbox.forget(&source, &numbers).await.unwrap();
        }
        quiet = if has_ended && is_quiet { quiet + 1 } else { 0 };
        if is_quiet {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    told
}
