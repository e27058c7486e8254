//! The Store and the Log keep the promises of their ports.

#![allow(clippy::unwrap_used)]

use holon_base::{ManualClock, Timestamp};
use holon_embedded::{Engine, EngineOptions};
use holon_ports::conformance::{self, Fixture};
use std::{sync::Arc, time::Duration};

fn make() -> futures::future::BoxFuture<'static, Fixture> {
    Box::pin(async {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::parse("2026-01-01T00:00:00Z").unwrap());
        let mut options = EngineOptions::new(dir.path()).clock(Arc::new(clock.clone()));
        // Often, so that the housekeeper gets in the way of everything.
        options.housekeeping = Duration::from_millis(5);
        let engine = Engine::open(options).await.unwrap();
        let ports = engine.ports();
        Fixture {
            store: ports.store,
            log: Some(ports.log),
            clock,
            guard: Box::new((engine, dir)),
        }
    })
}

#[test]
fn the_store_keeps_its_promises() {
    conformance::store::check_all(&make);
}

#[test]
fn the_log_keeps_its_promises() {
    conformance::log::check_all(&make);
}
