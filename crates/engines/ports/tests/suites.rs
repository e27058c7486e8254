//! The suites themselves: the model passes, and whatever is broken on purpose is found.

#![allow(clippy::unwrap_used)]

use holon_base::{ManualClock, Timestamp};
use holon_ports::conformance::{
    self, Fixture,
    model::{Broken, ModelStore},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

fn make(broken: Option<Broken>) -> futures::future::BoxFuture<'static, Fixture> {
    Box::pin(async move {
        let clock = ManualClock::new(Timestamp::parse("2026-01-01T00:00:00Z").unwrap());
        Fixture {
            store: Arc::new(ModelStore::new(Arc::new(clock.clone()), broken)),
            log: None,
            clock,
            guard: Box::new(()),
        }
    })
}

#[test]
fn the_model_passes() {
    conformance::store::check_all(&|| make(None));
}

#[test]
fn every_broken_promise_of_the_store_is_found() {
    for broken in [
        Broken::Conditions,
        Broken::Atomicity,
        Broken::Expiry,
        Broken::Versions,
        Broken::More,
        Broken::Isolation,
        Broken::Saturation,
    ] {
        let suite = || conformance::store::check_all(&|| make(Some(broken)));
        let outcome = catch_unwind(AssertUnwindSafe(suite));
        assert!(outcome.is_err(), "the suite did not notice broken {broken:?}");
    }
}
