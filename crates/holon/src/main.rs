//! Holon: one binary, every system, one data directory.
//!
//! This crate wires engines, blocks and systems together and is the command line; it holds no logic of a system.
//!
//! - [`settings`]: one typed struct from file, environment and flags.
//! - [`node`]: opens a data directory and makes the systems on it; what `serve`, `check` and `openapi` share.
//! - [`cluster`]: whether a node may join the others of its deployment, and how they know it.
//! - [`serve`]: runs a node: routes, consumers, jobs, draining.
//! - [`admin`]: `/v1/admin`, the view of a node from inside.
//! - [`console`]: the web console's files, built in, with their caching.
//! - [`import`]: fills a server over its own API; [`demo`] does so for `--demo`.

mod admin;
mod cli;
mod client;
mod cluster;
mod commands;
mod console;
mod copy;
mod demo;
mod engines;
mod import;
mod jobs;
mod node;
mod serve;
mod settings;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holon: {error}");
            ExitCode::FAILURE
        }
    }
}
