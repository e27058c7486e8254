//! Identity through its HTTP interface, on the embedded engine.

mod accounts;
mod administration;
mod credentials;
mod privacy;
mod routes;
mod sign_in;
mod world;
