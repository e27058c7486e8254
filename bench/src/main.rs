//! Holon and its peers, measured in turn on the same machine with the same durability.
//!
//! A scenario runs every contender once a round, several rounds, so that whatever the machine does meanwhile falls
//! on all of them. A speed is stated as the ratio of two medians of one run. Results are kept as JSON in
//! `bench/results` and become `docs/benchmarks.md` by `holon-bench report`.

mod commits;
mod events;
mod fanout;
mod footprint;
mod growth;
mod home;
mod homes;
mod load;
mod machine;
mod nats;
mod outcome;
mod postgres;
mod process;
mod reads;
mod report;
mod rows;
mod social;
mod stream;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use machine::Machine;
use outcome::Outcome;
use social::Imported;
use std::path::PathBuf;
use tokio::sync::OnceCell;

/// Measures Holon against its peers.
#[derive(Parser)]
#[command(name = "holon-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Where data is kept meanwhile: on a disk, since durability is measured.
    #[arg(long, global = true, default_value = "target/bench")]
    work: PathBuf,
    /// Where results are kept.
    #[arg(long, global = true, default_value = "bench/results")]
    results: PathBuf,
    /// How often each contender runs.
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a contender runs in one round, in seconds.
    #[arg(long, global = true, default_value_t = 3.0)]
    seconds: f64,
    /// How many times as large as the demo's the graphs of `growth` are.
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [1, 10], value_parser = scale)]
    scales: Vec<usize>,
}

fn scale(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(scale @ 1..=1_000) => Ok(scale),
        _ => Err("expected whole numbers from 1 to 1000, with commas between".into()),
    }
}

#[derive(Debug, Subcommand, Clone, Copy, PartialEq)]
enum Command {
    /// Durable commits of one row by 64 writers, against SQLite
    Commits,
    /// Point reads through the Store port, against bare fjall
    Reads,
    /// Events from commit to consumer, against NATS JetStream
    Events,
    /// Home pages over HTTP, against the classic design on Redis
    Home,
    /// Entries written to timelines, against the classic design on Redis
    Fanout,
    /// Memory, start and import with the demo's data
    Footprint,
    /// Durable commits of one row on PostgreSQL, against pgbench on the same server
    Postgres,
    /// Events told to NATS JetStream, against plain publishing
    Stream,
    /// The feed embedded, on one PostgreSQL, and on a cluster, for each core
    Homes,
    /// Fan-out and home pages with graphs many times the demo's
    Growth,
    /// Everything, and the report
    All,
    /// Makes docs/benchmarks.md from the results
    Report,
}

/// What every scenario needs to know.
pub struct Setting {
    pub work: PathBuf,
    pub rounds: u32,
    pub duration: std::time::Duration,
    pub machine: Machine,
    pub scales: Vec<usize>,
    imported: OnceCell<Imported>,
}

impl Setting {
    /// The demo's data in a directory of Holon's; imported once for all scenarios.
    pub async fn imported(&self) -> Result<&Imported> {
        self.imported.get_or_try_init(|| Imported::make(self)).await
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("HOLON_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        .init();
    if arguments.command == Command::Report {
        return report::write(&arguments.results, "docs/benchmarks.md".as_ref());
    }
    std::fs::create_dir_all(&arguments.work)
        .with_context(|| format!("cannot make {}", arguments.work.display()))?;
    let work = arguments.work.canonicalize()?;
    let setting = Setting {
        machine: Machine::look(&work)?,
        work,
        scales: arguments.scales,
        rounds: arguments.rounds,
        duration: std::time::Duration::from_secs_f64(arguments.seconds),
        imported: OnceCell::new(),
    };
    let measured = async {
        if arguments.command != Command::All {
            return run(arguments.command, &setting)
                .await?
                .publish(&arguments.results);
        }
        let every = [
            Command::Commits,
            Command::Reads,
            Command::Events,
            Command::Footprint,
            Command::Home,
            Command::Fanout,
            Command::Postgres,
            Command::Stream,
            Command::Homes,
            Command::Growth,
        ];
        let mut failed = 0;
        for command in every {
            // One that fails does not take the others' results with it.
            match run(command, &setting).await {
                Ok(outcome) => outcome.publish(&arguments.results)?,
                Err(error) => {
                    failed += 1;
                    eprintln!("{command:?} failed: {error:#}");
                }
            }
        }
        report::write(&arguments.results, "docs/benchmarks.md".as_ref())?;
        anyhow::ensure!(failed == 0, "{failed} scenarios failed");
        Ok(())
    };
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    // When interrupted, whatever was started and made is dropped, and with that stopped and removed.
    tokio::select! {
        done = measured => done,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminated.recv() => anyhow::bail!("terminated"),
    }
}

async fn run(command: Command, setting: &Setting) -> Result<Outcome> {
    match command {
        Command::Commits => commits::run(setting).await,
        Command::Reads => reads::run(setting).await,
        Command::Events => events::run(setting).await,
        Command::Home => home::run(setting).await,
        Command::Fanout => fanout::run(setting).await,
        Command::Footprint => footprint::run(setting).await,
        Command::Postgres => postgres::run(setting).await,
        Command::Stream => stream::run(setting).await,
        Command::Homes => homes::run(setting).await,
        Command::Growth => growth::run(setting).await,
        Command::All | Command::Report => anyhow::bail!("not a scenario"),
    }
}
