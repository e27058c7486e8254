//! The same tests on the other home.
//!
//! A binary of tests that has one more test,
//!
//! ```text
//! #[test]
//! fn all_of_this_on_servers() {
//!     holon_testkit::again_on_servers(&[("a_test_that_is_left_out", "why")]);
//! }
//! ```
//!
//! runs all its tests twice: itself, with every [`super::TestHome`] on the embedded engine, and once more as a child of
//! that test, with every home on servers. These start once, belong to the test, and end with it. To run only some on
//! servers, name a part of their names: `ON_SERVERS=home cargo test -p holon-feed on_servers`.

use super::servers::ADDRESSES;
use crate::{NatsServer, PostgresOptions, PostgresServer, RedisServer, S3Server};
use std::process::Command;

const ONLY: &str = "ON_SERVERS";
/// Tests that run at once. They wait for servers most of the time.
const AT_ONCE: &str = "4";

/// Runs the tests of this binary in a process whose homes are on servers, but those that are left out, each with the
/// reason.
///
/// # Panics
/// If one of them fails, with what it said.
pub fn again_on_servers(left_out: &[(&str, &str)]) {
    if std::env::var_os(ADDRESSES).is_some() {
        // This is the child.
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (postgres, nats, redis, s3) = runtime.block_on(async {
        let options = PostgresOptions::default().set("max_connections", "400");
        tokio::join!(
            PostgresServer::start_with(options),
            NatsServer::start(),
            RedisServer::start(),
            S3Server::start()
        )
    });
    let addresses = [postgres.url(), nats.url(), redis.url(), s3.endpoint()].join(" ");
    let mut tests = Command::new(std::env::current_exe().expect("this program"));
    tests.env(ADDRESSES, addresses).args(["--test-threads", AT_ONCE]);
    for (test, _) in left_out {
        tests.args(["--skip", test]);
    }
    if let Ok(only) = std::env::var(ONLY) {
        tests.arg(only);
    }
    let done = tests.output().expect("this program can be run");
    let said = String::from_utf8_lossy(&done.stdout);
    print!("{said}");
    eprint!("{}", String::from_utf8_lossy(&done.stderr));
    assert!(
        done.status.success(),
        "on servers, tests failed that are named above"
    );
}
