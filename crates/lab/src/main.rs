//! `holon-lab`: starts the cluster of the lab, says how it is, breaks it, and ends it.

mod cli;
mod leftovers;

use clap::Parser as _;
use cli::{Cli, Command, UpArgs};
use holon_lab::{
    Action, Cluster, ClusterOptions, LabError, NodeOptions, PartReport, Parts, Reach, Refusal, guarded,
};
use holon_testkit::exchange;
use leftovers::{Running, end_leftovers};
use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};

/// How long a cluster may take to end in good order.
const DOWN: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    // Servers that cannot be handled panic with what went wrong; it is told as an error, once, by who asked.
    std::panic::set_hook(Box::new(|_| {}));
    match guarded(run(Cli::parse())).await.flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holon-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), LabError> {
    match cli.command {
        Command::Up(arguments) => up(&cli.directory, arguments).await,
        Command::Status => status(&cli.directory).await,
        Command::Down => down(&cli.directory).await,
        Command::Tell { part, action } => tell(&cli.directory, &part, &action).await,
    }
}

async fn up(directory: &Path, arguments: UpArgs) -> Result<(), LabError> {
    if Running::find(directory).is_some() {
        return Err(LabError::Setup(format!(
            "the cluster in {} runs already; `holon-lab down` ends it",
            directory.display()
        )));
    }
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let ended = end_leftovers(directory).await;
    if ended > 0 {
        eprintln!("ended {ended} processes that an earlier run had left");
    }
    let binary = match arguments.holon {
        Some(binary) => std::path::absolute(&binary).unwrap_or(binary),
        None => holon_lab::binary_beside()?,
    };
    let mut options = ClusterOptions::new(binary);
    options.nodes = vec![NodeOptions::default(); arguments.nodes.into()];
    options.first_port = Some(arguments.first_port);
    options.links = !arguments.no_links;
    options.settings = arguments.set;
    options.chaos = !arguments.no_chaos;

    let began = Instant::now();
    eprintln!(
        "starting PostgreSQL, NATS, Redis and S3 in {}",
        directory.display()
    );
    let starting = async {
        let cluster = Cluster::start_servers(&options, directory).await?;
        eprintln!(
            "servers run after {:.0} s; starting nodes",
            began.elapsed().as_secs_f64()
        );
        cluster.start_nodes().await?;
        Ok(cluster)
    };
    let cluster = tokio::select! {
        cluster = starting => cluster?,
        _ = interrupt.recv() => return Err(LabError::Setup("ended before it was up".into())),
        _ = terminate.recv() => return Err(LabError::Setup("ended before it was up".into())),
    };
    let running = Running::write(directory, &cluster.control_url())?;
    announce(&cluster, began.elapsed(), &options);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("ending nodes, then servers; once more to kill them");
    tokio::select! {
        stopped = cluster.stop() => stopped?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    drop(running);
    Ok(())
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, LabError> {
    signal(kind).map_err(|error| LabError::Setup(format!("cannot listen for signals: {error}")))
}

fn announce(cluster: &Cluster, took: Duration, options: &ClusterOptions) {
    let first = &cluster.nodes()[0];
    println!("the cluster is up after {:.0} s", took.as_secs_f64());
    for node in cluster.nodes() {
        println!("  {}    {}/", node.name, node.url());
    }
    println!(
        "  sign in   at {}/signin: choose \"Sign in with a token\" and give the one in\n            {}/admin.token",
        first.url(),
        first.directory().display()
    );
    println!("  cluster   {}/admin/cluster", first.url());
    if options.chaos {
        println!("  chaos     {}/admin/chaos", first.url());
    }
    println!("  logs      {}/*/log", cluster.directory().display());
    println!(
        "  people    HOLON_TOKEN=$(cat {}/admin.token) {} import social --server {} \\\n              \
         --edges demo/facebook_edges.txt.gz --posts demo/posts.jsonl.gz",
        first.directory().display(),
        options.binary.display(),
        first.url()
    );
    println!("Ctrl-C, or `make cluster-down` elsewhere, ends all of it; what it holds stays");
}

async fn status(directory: &Path) -> Result<(), LabError> {
    let running = Running::needed(directory)?;
    let parts: Parts = ask(&running, "GET", "/parts").await?;
    for part in &parts.parts {
        println!("{}", line(part));
    }
    Ok(())
}

fn line(part: &PartReport) -> String {
    let mut line = format!(
        "{:<12} {:<8} {:<16} {}",
        part.name,
        part.state.name(),
        part.address,
        part.role.as_deref().unwrap_or_default()
    );
    match part.reach {
        Reach::Whole => {}
        Reach::Partly => line += "  cut off in part",
        Reach::CutOff => line += "  cut off",
    }
    if part.delay_ms > 0 {
        line += &format!("  {} ms slower", part.delay_ms);
    }
    if let Some(doing) = part.doing {
        line += &format!("  ({} under way)", doing.name());
    }
    if let Some(failure) = &part.failure {
        line += &format!("  failed: {failure}");
    }
    line.trim_end().to_owned()
}

async fn down(directory: &Path) -> Result<(), LabError> {
    let Some(running) = Running::find(directory) else {
        match end_leftovers(directory).await {
            0 => println!("nothing runs in {}", directory.display()),
            ended => println!("ended {ended} processes that an earlier run had left"),
        }
        return Ok(());
    };
    running.terminate().await;
    let end = Instant::now() + DOWN;
    while Running::find(directory).is_some() {
        if Instant::now() > end {
            return Err(LabError::Setup(format!(
                "process {} does not end; kill it and try again, which ends what it leaves",
                running.process
            )));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("the cluster in {} is down", directory.display());
    Ok(())
}

async fn tell(directory: &Path, part: &str, action: &str) -> Result<(), LabError> {
    let running = Running::needed(directory)?;
    let _: PartReport = ask(&running, "POST", &format!("/parts/{part}/{action}")).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let parts: Parts = ask(&running, "GET", "/parts").await?;
        let Some(report) = parts.parts.into_iter().find(|report| report.name == part) else {
            return Ok(());
        };
        if report.doing.is_none() {
            println!("{}", line(&report));
            return match report.failure {
                Some(failure) => Err(LabError::Setup(failure)),
                None => Ok(()),
            };
        }
    }
}

/// Asks the process that runs the cluster.
async fn ask<T: serde::de::DeserializeOwned>(
    running: &Running,
    method: &str,
    path: &str,
) -> Result<T, LabError> {
    let away = |error: String| {
        LabError::Setup(format!(
            "process {} that runs the cluster gives no answer: {error}",
            running.process
        ))
    };
    let (port, secret) = running
        .control()
        .ok_or_else(|| away("its address cannot be read".into()))?;
    let answer = exchange(port, method, &format!("/{secret}{path}"))
        .await
        .map_err(|error| away(error.to_string()))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let is_success = head
        .split(' ')
        .nth(1)
        .is_some_and(|status| status.starts_with('2'));
    if !is_success {
        let refusal: Result<Refusal, _> = serde_json::from_str(body);
        return Err(match refusal {
            Ok(refusal) => LabError::Setup(refusal.error),
            Err(_) => away(head.lines().next().unwrap_or_default().to_owned()),
        });
    }
    serde_json::from_str(body).map_err(|error| away(error.to_string()))
}

/// For the help text.
pub(crate) fn actions() -> String {
    use Action::{Cut, FailOver, Freeze, Heal, Kill, Slow, Start, Thaw};
    let all = [Kill, Start, Freeze, Thaw, Cut, Slow, Heal, FailOver];
    all.map(Action::name).join(", ")
}
