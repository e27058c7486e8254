//! The Log and the Bus keep the promises of their ports.

#![allow(clippy::unwrap_used)]

use futures::future::BoxFuture;
use holon_base::{IdGenerator, ManualClock, Timestamp};
use holon_nats::{Nats, NatsOptions};
use holon_ports::{
    Bus,
    conformance::{self, Fixture},
};
use holon_testkit::{NatsServer, TestHome};
use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Engines on one server, each with names of its own.
fn make_on(url: String) -> impl Fn() -> BoxFuture<'static, Fixture> + Sync {
    static NUMBER: LazyLock<AtomicU64> = LazyLock::new(AtomicU64::default);
    move || {
        let url = url.clone();
        Box::pin(async move {
            // Behind the machine's clock, as an event is always told before it arrives.
            let clock = ManualClock::new(Timestamp::parse("2024-06-01T00:00:00Z").unwrap());
            let home = TestHome::with_clock(clock.clone()).await;
            let ports = home.context().ports;
            let prefix = format!("suite{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            let ids = IdGenerator::new(0, Arc::new(clock.clone()));
            let options = NatsOptions::new(vec![url], prefix, Arc::new(clock.clone()), ids, ports.leases);
            let nats = Nats::connect(options).await.unwrap();
            Fixture {
                store: ports.store,
                log: Some(nats.log()),
                clock,
                guard: Box::new((nats, home)),
            }
        })
    }
}

#[test]
fn the_log_keeps_its_promises() {
    let runtime = runtime();
    let server = runtime.block_on(NatsServer::start());
    conformance::log::check_all_in_real_time(&make_on(server.url()));
}

#[test]
fn the_bus_keeps_its_promises() {
    let runtime = runtime();
    let server = runtime.block_on(NatsServer::start());
    let home = runtime.block_on(TestHome::start());
    let make = || async {
        let clock = home.clock();
        let ids = IdGenerator::new(0, Arc::clone(&clock));
        let leases = home.context().ports.leases;
        let options = NatsOptions::new(vec![server.url()], "suite", clock, ids, leases);
        let nats = Nats::connect(options).await.unwrap();
        Arc::clone(&nats.bus()) as Arc<dyn Bus>
    };
    conformance::bus::run(&runtime, make);
}
