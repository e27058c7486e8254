//! Servers that die, fall behind and are replaced.

#![allow(clippy::unwrap_used)]

use holon_base::Tenant;
use holon_ports::{Batch, Consistency, Partition, RowKey, Store, StoreError, Table, store::WriteToken};
use holon_postgres::{Postgres, PostgresOptions, ShardOptions};
use holon_testkit::{PATIENCE, PostgresServer, eventually};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

const NOTES: Table = Table("test.notes");
const TAGS: Table = Table("test.tags");

fn partition(entity: &str) -> Partition {
    Partition::new(&Tenant::default(), entity)
}

async fn open(options: PostgresOptions) -> Postgres {
    let engine = Postgres::connect(options).await.unwrap();
    engine.store().create_tables(&[NOTES, TAGS]).await.unwrap();
    engine
}

async fn number(store: &dyn Store, table: Table, place: &Partition, consistency: Consistency) -> u64 {
    let key = RowKey::new(table, place.clone(), "n");
    let row = store.get(&key, consistency).await.unwrap();
    row.map_or(0, |row| row.json().unwrap())
}

/// Where in the log of its shard.
fn position(token: WriteToken) -> u64 {
    token.0 & ((1 << 52) - 1)
}

/// How one writer ended: the last commit that was acknowledged, and whether the next may have happened.
struct Ended {
    acknowledged: u64,
    is_next_unknown: bool,
}

/// The server is killed with commits under way: what was acknowledged is there, and every commit is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_has_every_acknowledged_commit_and_none_by_half() {
    const WRITERS: u64 = 24;
    let mut server = PostgresServer::start().await;
    let options = PostgresOptions::new(vec![ShardOptions::new("one", server.url())]);
    let engine = Arc::new(open(options).await);
    let mut was_cut_off = 0;
    // The server may also die between commits, which shows less.
    for round in 0.. {
        if was_cut_off == 2 {
            return;
        }
        assert!(round < 10, "the server always dies between commits");
        let total = Arc::new(AtomicU64::new(0));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, total) = (engine.store(), Arc::clone(&total));
                tokio::spawn(async move {
                    let place = partition(&format!("round:{round}:{writer}"));
                    let mut acknowledged: u64 = 0;
                    loop {
                        let n = acknowledged + 1;
                        let batch = Batch::new()
                            .put(NOTES, "n", &n)
                            .put(TAGS, "n", &n)
                            .add(TAGS, "count", 1)
                            .put(NOTES, n.to_be_bytes().to_vec(), &n);
                        match store.commit(&place, batch).await {
                            Ok(_) => acknowledged = n,
                            Err(error) => {
                                let is_next_unknown = matches!(error, StoreError::Unknown(_));
                                assert!(
                                    is_next_unknown || matches!(error, StoreError::Unavailable(_)),
                                    "{error:?}"
                                );
                                return Ended {
                                    acknowledged,
                                    is_next_unknown,
                                };
                            }
                        }
                        total.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        eventually("commits", PATIENCE, || async {
            (total.load(Ordering::Relaxed) > 400).then_some(())
        })
        .await;
        server.kill().await;
        let mut ended = Vec::new();
        for writer in writers {
            ended.push(writer.await.unwrap());
        }
        was_cut_off += u32::from(ended.iter().any(|ended| ended.is_next_unknown));
        server = server.restart().await;
        let store = engine.store();
        for (writer, ended) in (0..).zip(ended) {
            let place = partition(&format!("round:{round}:{writer}"));
            let n = number(&*store, NOTES, &place, Consistency::Strong).await;
            let most = ended.acknowledged + u64::from(ended.is_next_unknown);
            assert!(
                (ended.acknowledged..=most).contains(&n),
                "{n} is there, {} was acknowledged",
                ended.acknowledged
            );
            assert_eq!(number(&*store, TAGS, &place, Consistency::Strong).await, n);
            let count = RowKey::new(TAGS, place.clone(), "count");
            let count = store.get(&count, Consistency::Strong).await.unwrap();
            assert_eq!(count.map_or(0, |row| row.counter()), n as i64);
            let notes = store
                .scan(&holon_ports::Scan::all(NOTES, place.clone(), usize::MAX))
                .await
                .unwrap();
            assert_eq!(notes.rows.len() as u64, n + u64::from(n > 0));
            // And it takes commits again.
            store
                .commit(&place, Batch::new().put(NOTES, "n", &(n + 1)))
                .await
                .unwrap();
        }
    }
}

/// A replica serves readers who may be behind, and those who may not once it has what they wrote; when it is gone, the
/// primary does. When the primary is gone, the promoted standby takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_serves_reads_and_takes_over() {
    let mut primary = PostgresServer::start().await;
    let standby = primary.standby().await;
    let both = primary.url().replace(
        &format!("127.0.0.1:{}", primary.port()),
        &format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port()),
    );
    let shard = ShardOptions::new("one", both).replica(standby.url());
    let mut options = PostgresOptions::new(vec![shard]);
    options.patience = std::time::Duration::from_secs(30);
    let engine = open(options).await;
    let store = engine.store();
    let place = partition("user:1");
    let write = async |n: u64| {
        let batch = Batch::new().put(NOTES, "n", &n);
        store.commit(&place, batch).await.unwrap().token
    };
    let mut token = write(1).await;
    for n in 2..60 {
        token = write(n).await;
        let seen = number(&*store, NOTES, &place, Consistency::Eventual(Some(token))).await;
        assert_eq!(seen, n, "a writer does not see what it wrote");
    }
    // The replica has all of it before it stands still, so that what it answers from then on is known.
    eventually("the replica", PATIENCE, || async {
        let replayed = "SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn";
        let replayed: u64 = standby.query(replayed).await.parse().unwrap();
        (replayed >= position(token)).then_some(())
    })
    .await;
    standby.query("SELECT pg_wal_replay_pause()").await;
    eventually("the pause", PATIENCE, || async {
        let state = standby.query("SELECT pg_get_wal_replay_pause_state()").await;
        (state == "paused").then_some(())
    })
    .await;
    let newer = write(100).await;
    assert_eq!(number(&*store, NOTES, &place, Consistency::Strong).await, 100);
    assert_eq!(
        number(&*store, NOTES, &place, Consistency::Eventual(Some(newer))).await,
        100
    );
    assert_eq!(
        number(&*store, NOTES, &place, Consistency::Eventual(Some(token))).await,
        59
    );
    assert_eq!(
        number(&*store, NOTES, &place, Consistency::Eventual(None)).await,
        59
    );
    // A replica that does not answer holds nobody up for long.
    standby.freeze().await;
    assert_eq!(
        number(&*store, NOTES, &place, Consistency::Eventual(None)).await,
        100
    );
    standby.thaw().await;
    standby.query("SELECT pg_wal_replay_resume()").await;
    eventually("the replica", PATIENCE, || async {
        let replayed = "SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn";
        let replayed: u64 = standby.query(replayed).await.parse().unwrap();
        (replayed >= position(newer)).then_some(())
    })
    .await;

    primary.kill().await;
    standby.promote().await;
    // A commit may find the old connection first, and is then told that nobody knows.
    eventually("the new primary", PATIENCE, || async {
        let batch = Batch::new().put(NOTES, "n", &200);
        match store.commit(&place, batch).await {
            Ok(_) => Some(()),
            Err(StoreError::Unknown(_) | StoreError::Unavailable(_)) => None,
            Err(error) => panic!("{error:?}"),
        }
    })
    .await;
    assert_eq!(number(&*store, NOTES, &place, Consistency::Strong).await, 200);
}
