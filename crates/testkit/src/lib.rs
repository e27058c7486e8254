//! What tests are made with: a [`TestHome`] with every port, on the embedded engine and ([`again_on_servers`]) on
//! servers, the servers themselves, child processes that never outlive their test, and waiting for a condition instead
//! of for a time.
//!
//! For tests, the cluster lab and benchmarks, never for what ships: whatever goes wrong here panics with what went
//! wrong, as a failing test should.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test that cannot be set up must fail"
)]

mod home;
mod nats;
mod place;
mod ports;
pub mod postgres;
mod process;
pub mod recovery;
mod redis;
mod s3;
mod serve;
mod wait;

pub use home::{Running, TestHome, again_on_servers};
pub use nats::{NatsCluster, NatsServer};
pub use place::Place;
pub use ports::free_port;
pub use postgres::{PostgresOptions, PostgresServer};
pub use process::{MissingProgram, Process, find_program};
pub use redis::{RedisCluster, RedisServer, signal, try_signal};
pub use s3::S3Server;
pub use serve::{Server, serve};
pub use wait::{PATIENCE, ask, eventually, exchange};
