//! The Store and the Leases keep the promises of their ports, on one shard and on two.

#![allow(clippy::unwrap_used)]

use futures::future::BoxFuture;
use holon_base::{Clock, ManualClock, Tenant, Timestamp};
use holon_ports::conformance::{self, Fixture, drive::Time};
use holon_ports::{Batch, Consistency, Op, Partition, RowKey, Table};
use holon_postgres::{LeaseTime, Postgres, PostgresOptions, ShardOptions};
use holon_testkit::PostgresServer;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::parse("2026-01-01T00:00:00Z").unwrap())
}

/// One server; each engine gets databases of its own.
struct Home {
    server: Arc<PostgresServer>,
    databases: Arc<AtomicU32>,
    shards: u32,
}

impl Home {
    fn start(runtime: &tokio::runtime::Runtime, shards: u32) -> Self {
        Self {
            server: Arc::new(runtime.block_on(PostgresServer::start())),
            databases: Arc::default(),
            shards,
        }
    }

    fn make(&self) -> BoxFuture<'static, Fixture> {
        let (server, databases, shards) =
            (Arc::clone(&self.server), Arc::clone(&self.databases), self.shards);
        Box::pin(async move {
            let number = databases.fetch_add(1, Ordering::Relaxed);
            let mut options = Vec::new();
            for shard in 0..shards {
                let url = server.create_database(&format!("home{number}_{shard}")).await;
                options.push(ShardOptions::new(format!("shard-{shard}"), url));
            }
            let clock = clock();
            let mut options = PostgresOptions::new(options).clock(Arc::new(clock.clone()));
            // Often, so that the sweep gets in the way of everything.
            options.housekeeping = Duration::from_millis(20);
            let engine = Postgres::connect(options).await.unwrap();
            Fixture {
                store: engine.store(),
                log: None,
                clock,
                guard: Box::new((engine, server)),
            }
        })
    }
}

#[test]
fn the_store_keeps_its_promises_on_one_shard() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = Home::start(&runtime, 1);
    conformance::store::check_all(&|| home.make());
}

#[test]
fn the_store_keeps_its_promises_on_two_shards() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = Home::start(&runtime, 2);
    conformance::store::check_all(&|| home.make());
}

/// Of an addition that is over before its commit nothing counts for the next, whatever the row held before.
#[test]
fn an_addition_that_expired_within_its_commit_counts_for_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = Home::start(&runtime, 1);
    runtime.block_on(async {
        let Fixture {
            store, clock, guard, ..
        } = home.make().await;
        let table = Table("test.counts");
        store.create_tables(&[table]).await.unwrap();
        let partition = Partition::new(&Tenant::default(), "counter:1");
        let add = |delta, expires| Op::Add {
            table,
            sort: "count".into(),
            delta,
            expires,
        };
        let (over, later) = (clock.now(), clock.now().plus(Duration::from_secs(60)));
        let cases = [
            (vec![add(5, Some(over)), add(3, None)], Some(3)),
            (vec![add(5, Some(over))], None),
            (
                vec![add(5, Some(over)), add(3, Some(later)), add(1, None)],
                Some(4),
            ),
            (
                vec![add(5, Some(later)), add(3, Some(over)), add(1, None)],
                Some(1),
            ),
        ];
        for held in [false, true] {
            for (steps, expected) in cases.clone() {
                let clear = Batch::new().delete(table, "count");
                store.commit(&partition, clear).await.unwrap();
                if held {
                    let before = Batch::new().add(table, "count", 100);
                    store.commit(&partition, before).await.unwrap();
                }
                let said = format!("{steps:?}, held: {held}");
                store.commit(&partition, Batch { ops: steps }).await.unwrap();
                let key = RowKey::new(table, partition.clone(), "count");
                let row = store.get(&key, Consistency::Strong).await.unwrap();
                assert_eq!(row.map(|row| row.counter()), expected, "{said}");
            }
        }
        drop(guard);
    });
}

#[test]
fn the_leases_keep_their_promises() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(PostgresServer::start());
    for (lease_time, clock) in [(LeaseTime::Clock, Some(clock())), (LeaseTime::Database, None)] {
        let mut options = PostgresOptions::new(vec![ShardOptions::new("one", server.url())]);
        options.lease_time = lease_time;
        if let Some(clock) = &clock {
            options = options.clock(Arc::new(clock.clone()));
        }
        let engine = runtime.block_on(Postgres::connect(options)).unwrap();
        let time = clock.map_or(Time::Real, Time::Manual);
        conformance::leases::run(&runtime, || async { (engine.leases(), time.clone()) });
    }
}
