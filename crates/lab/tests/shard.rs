//! A shard loses its primary, then its standby, and keeps what it acknowledged.
#![allow(clippy::unwrap_used, reason = "a failing test should fail")]

use holon_lab::{Cluster, ClusterOptions, LabError, PATIENCE, Shard};
use holon_testkit::postgres;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tokio_postgres::{Client, NoTls};

const LONG: Duration = Duration::from_secs(60);

async fn start(directory: &Path) -> std::sync::Arc<Cluster> {
    // No node is started here, so any program will do.
    let mut options = ClusterOptions::new(std::env::current_exe().unwrap());
    options.nodes.truncate(1);
    options.shards = 1;
    options.nats = 1;
    options.redis_primaries = 1;
    options.s3 = false;
    Cluster::start_servers(&options, directory).await.unwrap()
}

/// As a node connects: to whichever server takes writes, through its links.
async fn connect(shard: &Shard) -> Client {
    let ports: Vec<u16> = shard.members().iter().map(|member| member.port).collect();
    let url = postgres::url_of_any("127.0.1.1", &ports);
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn numbers(client: &Client) -> Vec<i32> {
    let rows = client
        .query("SELECT n FROM numbers ORDER BY n", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_with_all_that_was_acknowledged_and_never_without() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(directory.path()).await;
    let shard = cluster.shard("a").unwrap();
    shard.synchronous(LONG).await.unwrap();
    let client = connect(shard).await;
    client
        .batch_execute("CREATE TABLE numbers (n int); INSERT INTO numbers VALUES (1)")
        .await
        .unwrap();

    let first = shard.primary().await;
    shard.fail_over().await.unwrap();
    assert_ne!(shard.primary().await.name, first.name);
    let client = connect(shard).await;
    assert_eq!(numbers(&client).await, [1]);
    client
        .batch_execute("INSERT INTO numbers VALUES (2)")
        .await
        .unwrap();

    // The old one comes back as a standby, and then stands in again.
    cluster.restart_server(&first.name).await.unwrap();
    shard.synchronous(LONG).await.unwrap();
    client
        .batch_execute("INSERT INTO numbers VALUES (3)")
        .await
        .unwrap();
    shard.fail_over().await.unwrap();
    assert_eq!(shard.primary().await.name, first.name);
    let second = shard.standby().await.unwrap();
    cluster.restart_server(&second.name).await.unwrap();
    shard.synchronous(LONG).await.unwrap();
    let client = connect(shard).await;
    assert_eq!(numbers(&client).await, [1, 2, 3]);

    // Without a standby commits wait a little, and from then on nothing is promoted.
    second.kill().await.unwrap();
    let began = Instant::now();
    client
        .batch_execute("INSERT INTO numbers VALUES (4)")
        .await
        .unwrap();
    assert!(began.elapsed() < PATIENCE * 4, "{:?}", began.elapsed());
    assert!(!shard.is_synchronous().await);
    assert!(matches!(
        shard.fail_over().await,
        Err(LabError::NotSynchronous(_))
    ));
    cluster.stop().await.unwrap();
    drop(cluster);

    // Everything is found again, and the primary is who it was.
    let cluster = start(directory.path()).await;
    let shard = cluster.shard("a").unwrap();
    assert_eq!(shard.primary().await.name, first.name);
    assert_eq!(numbers(&connect(shard).await).await, [1, 2, 3, 4]);
    shard.synchronous(LONG).await.unwrap();
}
