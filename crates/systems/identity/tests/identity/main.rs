//! Identity through its HTTP interface.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]

mod accounts;
mod administration;
mod credentials;
mod privacy;
mod routes;
mod sign_in;
mod world;

#[test]
fn all_of_this_on_servers() {
    holon_testkit::again_on_servers(&[]);
}
