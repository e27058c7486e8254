//! Commits and reads of single partitions through the PostgreSQL engine's Store are linearisable while its primary
//! freezes, is cut off, is killed, and is replaced by its standby.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use holon_base::Tenant;
use holon_chaos::linear::{PartitionModel, Verdict, Witness, check, describe};
use holon_lab::{Cluster, ClusterOptions, Condition, NodeOptions, binary_beside};
use holon_ports::{Batch, Condition as If, Partition, RowKey, Scan, Store, StoreError, Table};
use holon_postgres::{Postgres, PostgresOptions, ShardOptions};
use holon_testkit::postgres;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;

const ROWS: Table = Table("test.rows");
const COUNTS: Table = Table("test.counts");
const PARTITIONS: usize = 3;
const CLIENTS: usize = 6;
const SORTS: [&str; 3] = ["a", "b", "c"];
const BETWEEN: Duration = Duration::from_millis(15);
const CALM: Duration = Duration::from_secs(2);
const BUDGET: usize = 3_000_000;
const SYNCHRONOUS: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum Trouble {
    Frozen,
    CutOff,
    KilledAndReplaced,
}

/// What befalls the primary, and its end.
async fn befall(trouble: Trouble, cluster: &Cluster) {
    let shard = &cluster.shards()[0];
    shard.synchronous(SYNCHRONOUS).await.unwrap();
    let primary = shard.primary().await;
    match trouble {
        Trouble::Frozen => {
            primary.freeze().await.unwrap();
            sleep(Duration::from_secs(3)).await;
            primary.thaw().await.unwrap();
        }
        Trouble::CutOff => {
            let cut = Condition {
                is_cut: true,
                ..Condition::default()
            };
            cluster.set_before(&primary.name, cut).unwrap();
            sleep(Duration::from_secs(3)).await;
            cluster.set_before(&primary.name, Condition::default()).unwrap();
        }
        Trouble::KilledAndReplaced => {
            shard.fail_over().await.unwrap();
            sleep(CALM).await;
            cluster.restart_server(&primary.name).await.unwrap();
        }
    }
}

async fn open(host: &str, cluster: &Cluster) -> Postgres {
    let ports: Vec<u16> = cluster.shards()[0]
        .members()
        .iter()
        .map(|member| member.port)
        .collect();
    let shard = ShardOptions::new("a", postgres::url_of_any(host, &ports));
    let engine = Postgres::connect(PostgresOptions::new(vec![shard]))
        .await
        .unwrap();
    engine.store().create_tables(&[ROWS, COUNTS]).await.unwrap();
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_and_reads_are_linearisable_whatever_befalls_the_primary() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let work = tempfile::tempdir().unwrap();
    let options = ClusterOptions {
        nodes: vec![NodeOptions::default()],
        shards: 1,
        nats: 3,
        redis_primaries: 1,
        redis_replicas: 0,
        s3: false,
        ..ClusterOptions::new(binary_beside().unwrap())
    };
    let cluster = Cluster::start_servers(&options, work.path()).await.unwrap();
    // One as a node sees the servers, through what can be cut; one beside it.
    let engines = [
        open("127.0.1.1", &cluster).await,
        open("127.0.0.1", &cluster).await,
    ];
    let witness = Arc::new(Witness::default());
    let stop = Arc::new(AtomicBool::new(false));
    let texts = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let one = Client {
                store: engines[client % engines.len()].store(),
                witness: witness.clone(),
                texts: texts.clone(),
                random: StdRng::seed_from_u64(random.random()),
                lost: 0,
            };
            tokio::spawn(one.run(stop.clone()))
        })
        .collect();
    let mut troubles = [
        Trouble::Frozen,
        Trouble::CutOff,
        Trouble::KilledAndReplaced,
        Trouble::KilledAndReplaced,
    ];
    troubles.shuffle(&mut random);
    for trouble in troubles {
        println!("{trouble:?}");
        sleep(CALM).await;
        befall(trouble, &cluster).await;
    }
    sleep(CALM).await;
    stop.store(true, Ordering::Relaxed);
    let mut lost = 0;
    for client in clients {
        lost += client.await.unwrap();
    }
    let Ok(witness) = Arc::try_unwrap(witness) else {
        panic!("a client still runs");
    };
    let mut operations = 0;
    for (partition, history) in witness.histories() {
        operations += history.len();
        match check(&PartitionModel, &history, BUDGET) {
            Verdict::Linearisable => {}
            Verdict::Broken(breach) => {
                panic!(
                    "{}, seed {seed}: {}",
                    partition.entity,
                    describe(&history, &breach)
                )
            }
            Verdict::Undecided => panic!("{}, seed {seed}: the history is too tangled", partition.entity),
        }
    }
    println!("{operations} operations, {lost} of them with lost answers");
    assert!(operations > 500, "only {operations} operations");
    cluster.stop().await.unwrap();
}

struct Client {
    store: Arc<dyn Store>,
    witness: Arc<Witness>,
    texts: Arc<AtomicU64>,
    random: StdRng,
    lost: u64,
}

impl Client {
    /// Answers how many commits had an unknown end.
    async fn run(mut self, stop: Arc<AtomicBool>) -> u64 {
        while !stop.load(Ordering::Relaxed) {
            self.act().await;
            sleep(BETWEEN).await;
        }
        self.lost
    }

    async fn act(&mut self) {
        let entity = format!("p{}", self.random.random_range(0..PARTITIONS));
        let place = Partition::new(&Tenant::default(), entity);
        let sort = SORTS[self.random.random_range(0..SORTS.len())];
        let text = format!("{}", self.texts.fetch_add(1, Ordering::Relaxed));
        let (store, witness) = (&*self.store, &self.witness);
        let row = RowKey::new(ROWS, place.clone(), sort);
        let batch = match self.random.random_range(0..12) {
            0..3 => {
                let _ = witness.get(store, &row).await;
                return;
            }
            3 => {
                let count = RowKey::new(COUNTS, place.clone(), "n");
                let _ = witness.get(store, &count).await;
                return;
            }
            4 => {
                let _ = witness.scan(store, &Scan::all(ROWS, place, 10)).await;
                return;
            }
            5..7 => Batch::new().put(ROWS, sort, &text),
            7 => Batch::new()
                .put(ROWS, "a", &text)
                .put(ROWS, "b", &text)
                .add(COUNTS, "n", 1),
            8 => Batch::new().put_if_absent(ROWS, sort, &text),
            9 => Batch::new().delete(ROWS, sort),
            10 => Batch::new().add(COUNTS, "n", 1),
            _ => {
                let Ok(Some(seen)) = witness.get(store, &row).await else {
                    return;
                };
                Batch::new()
                    .put_if(ROWS, sort, &text, If::Version(seen.version))
                    .add(COUNTS, "n", 1)
            }
        };
        if let Err(error) = witness.commit(store, &place, batch).await {
            self.lost += u64::from(matches!(error, StoreError::Unknown(_)));
        }
    }
}
