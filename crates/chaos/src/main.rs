//! `holon-chaos`: the long version. Starts a cluster, strikes it with each fault several times in random order under a
//! steady load, checks after each, and keeps what it saw.

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use holon_chaos::{
    disk::Disk,
    faults::Fault,
    load::LoadOptions,
    results::{self, Results},
    round::{Cohort, Round, Stage},
};
use holon_lab::{Cluster, ClusterOptions, binary_beside};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use std::{path::PathBuf, time::Duration};

/// Whatever is being done when this is over is done before the next fault.
const BEFORE: Duration = Duration::from_secs(15);

/// Breaks a cluster under load, and checks that it kept its promises.
#[derive(Parser)]
#[command(name = "holon-chaos", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Where results are kept.
    #[arg(long, global = true, default_value = "crates/chaos/results.json")]
    results: PathBuf,
    /// Where the table goes.
    #[arg(long, global = true, default_value = "docs/reliability.md")]
    report: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Strikes with each fault in random order, then writes the table
    Run(Run),
    /// Writes the table from the results
    Report,
}

#[derive(clap::Args)]
struct Run {
    /// How often each fault strikes.
    #[arg(long, default_value_t = 3)]
    times: usize,
    /// Decides the order of faults, what they hit, and what people do; a random one that is printed if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these faults.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Not these.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Fault>,
    /// Requests a second of all clients together.
    #[arg(long, default_value_t = 25.0)]
    rate: f64,
    /// People who take part in a round.
    #[arg(long, default_value_t = 24)]
    people: usize,
    /// The `holon` that nodes run; the one beside this program if not given.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where the cluster and the journals are kept, and left if something is wrong.
    #[arg(long, default_value = "target/chaos")]
    work: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let run = match arguments.command {
        Command::Report => return results::report(&arguments.results, &arguments.report),
        Command::Run(run) => run,
    };
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    // When interrupted, whatever was started is dropped, and with that ended.
    let results = tokio::select! {
        results = play(&run) => results?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminated.recv() => anyhow::bail!("terminated"),
    };
    results.write(&arguments.results)?;
    results::report(&arguments.results, &arguments.report)?;
    let wrong: usize = results.rounds.iter().map(|round| round.complaints.len()).sum();
    ensure!(
        wrong == 0 && results.complaints.is_empty(),
        "{} things are wrong, seed {}",
        wrong + results.complaints.len(),
        results.seed
    );
    Ok(())
}

async fn play(run: &Run) -> Result<Results> {
    let seed = run.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let wanted: Vec<Fault> = Fault::ALL
        .into_iter()
        .filter(|fault| run.faults.is_empty() || run.faults.contains(fault))
        .filter(|fault| !run.without.contains(fault))
        .collect();
    ensure!(!wanted.is_empty(), "no fault is left to strike with");
    let mut plan: Vec<Fault> = Vec::new();
    for _ in 0..run.times {
        let mut some = wanted.clone();
        some.shuffle(&mut random);
        plan.extend(some);
    }
    std::fs::create_dir_all(&run.work).with_context(|| format!("cannot make {}", run.work.display()))?;
    let work = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(run.work.canonicalize()?)?;
    let directory = work.path().join("cluster");
    let disk = match wanted.contains(&Fault::DiskFull) {
        true => Some(Disk::mount(&directory, "b")?),
        false => None,
    };
    let binary = match &run.binary {
        Some(binary) => binary.clone(),
        None => binary_beside()?,
    };
    let options = holon_chaos::cluster(ClusterOptions::new(binary));
    let cluster = Cluster::start(&options, &directory).await?;
    println!("{} nodes run in {}", cluster.nodes().len(), directory.display());
    let admin = cluster.admin_token()?;
    let mut stage = Stage::new(cluster, disk, admin, work.path()).await?;
    let mut results = Results::new(seed, run.rate, run.people);
    let mut cohorts: Vec<Cohort> = Vec::new();
    for (number, fault) in (1..).zip(&plan) {
        let load = LoadOptions {
            people: run.people,
            clients: run.people / 2,
            rate: run.rate,
            seed: seed.wrapping_add(number),
            name: format!("r{number}"),
        };
        println!("{number} of {}: {fault}", plan.len());
        let (round, cohort) = stage.round(*fault, &load, BEFORE, &mut random).await?;
        tell(&round);
        results.rounds.push(round);
        cohorts.push(cohort);
    }
    println!("everybody of all rounds once more");
    for cohort in &mut cohorts {
        for complaint in stage.check_again(cohort).await? {
            let complaint = format!("{}, at the end: {complaint}", cohort.name);
            println!("  WRONG {complaint}");
            results.complaints.push(complaint);
        }
    }
    let is_right =
        results.complaints.is_empty() && results.rounds.iter().all(|round| round.complaints.is_empty());
    stage.cluster.stop().await?;
    drop(stage);
    if !is_right {
        println!("what happened is left in {}", work.keep().display());
    }
    Ok(results)
}

fn tell(round: &Round) {
    println!(
        "  {}: {} requests, {} errors, {} told to wait, {} given up; without errors after {:.1} s, homes right {:.1} s \
         and counts {:.1} s after the load; p99 {:.0} ms, before {:.0} ms; slowest {:.1} s",
        round.hit,
        round.requests,
        round.errors,
        round.told_to_wait,
        round.given_up,
        round.recovered,
        round.homes_right,
        round.all_right,
        round.fault_p99,
        round.quiet_p99,
        round.slowest
    );
    for complaint in &round.complaints {
        println!("  WRONG {complaint}");
    }
}
