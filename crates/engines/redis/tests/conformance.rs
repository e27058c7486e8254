//! The Cache keeps the promises of its port, on one server and on a Cluster.

#![allow(clippy::unwrap_used)]

use holon_embedded::bus::EmbeddedBus;
use holon_ports::Cache;
use holon_ports::conformance::{self, drive::Time};
use holon_redis::{RedisCache, RedisOptions};
use holon_testkit::{RedisCluster, RedisServer};
use std::{sync::Arc, time::Duration};
use tokio::runtime::Runtime;

fn run(options: RedisOptions, runtime: &Runtime) {
    let options = RedisOptions {
        // The suite asks what is right, not what is fast on a busy machine.
        timeout: Duration::from_secs(5),
        ..options
    };
    conformance::cache::run(runtime, || async {
        let cache = RedisCache::connect(options.clone()).await.unwrap();
        (cache.cache() as Arc<dyn Cache>, Time::Real)
    });
}

#[test]
fn one_server_keeps_the_promises() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(RedisServer::start());
    run(
        RedisOptions::new([server.url()], Arc::new(EmbeddedBus::default())),
        &runtime,
    );
}

#[test]
fn a_cluster_keeps_the_promises() {
    let runtime = Runtime::new().unwrap();
    let cluster = runtime.block_on(RedisCluster::start(3, 0));
    let options = RedisOptions {
        cluster: true,
        ..RedisOptions::new(cluster.urls(), Arc::new(EmbeddedBus::default()))
    };
    run(options, &runtime);
}

/// Without the node's own memory every answer is the server's.
#[test]
fn the_server_alone_keeps_the_promises() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(RedisServer::start());
    let options = RedisOptions {
        local_fresh: Duration::ZERO,
        ..RedisOptions::new([server.url()], Arc::new(EmbeddedBus::default()))
    };
    run(options, &runtime);
}
