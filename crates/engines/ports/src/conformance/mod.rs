//! The promises of the ports, as tests that any engine runs.
//!
//! Each suite takes a way to make a fresh engine, drives it with random commands, and compares every answer with a
//! plain model that is obviously right. An engine is right when it passes; a promise that no suite tries is no promise.
//!
//! ```text
//! #[test]
//! fn the_store_keeps_its_promises() {
//!     conformance::store::check_all(&|| Box::pin(async { Fixture { store, log: Some(log), clock, guard } }));
//! }
//! ```

// A suite is test code that happens to live in a library.
#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

pub mod blobs;
pub mod bus;
pub mod cache;
pub mod drive;
pub mod leases;
pub mod log;
pub mod model;
pub mod store;

use crate::{Log, Store};
use futures::future::BoxFuture;
use holon_base::ManualClock;
use std::{any::Any, sync::Arc};

/// A fresh, empty engine under test.
pub struct Fixture {
    pub store: Arc<dyn Store>,
    /// `None` for an engine that is a store and nothing else: then no events are told.
    pub log: Option<Arc<dyn Log>>,
    /// The clock that the engine was opened with; the suite moves it.
    pub clock: ManualClock,
    /// What must live as long as the engine is used: the engine itself, its directory.
    pub guard: Box<dyn Any + Send>,
}

/// Makes a fresh, empty engine.
pub type Make<'a> = dyn Fn() -> BoxFuture<'static, Fixture> + Sync + 'a;

fn block_on() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}
