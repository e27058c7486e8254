//! `holon migrate`: a data directory into servers, and back.

use super::CommandError;
use crate::{
    cli::MigrateArgs,
    copy::{
        directory::{self, Directory},
        home::Home,
        run::{self, Progress, ToHome, common_floors, compare, read_all, tally_of},
        servers::Servers,
        tally::Tally,
    },
    engines::still::Still,
};
use holon_base::{Clock, ManualClock, Timestamp};
use std::{path::Path, process::ExitCode, sync::Arc, time::Instant};

pub async fn run(arguments: MigrateArgs) -> Result<ExitCode, CommandError> {
    let began = Instant::now();
    let settings = arguments.settings.load(Vec::new())?.settings;
    if settings.postgres.is_empty() {
        return Err("which servers? set engines.postgres and the others; see holon help migrate".into());
    }
    for other in [&arguments.from, &arguments.to].into_iter().flatten() {
        if std::path::absolute(other)? == std::path::absolute(&settings.data)? {
            return Err(format!(
                "{} is also the directory of the node on servers; give that another with --data",
                other.display()
            )
            .into());
        }
    }
    let now = directory::now();
    // Before the servers are touched.
    let source = match &arguments.from {
        Some(from) => Some(Directory::open(from, now).await?),
        None => None,
    };
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(now));
    let servers = Servers {
        still: Still::open(&settings, &clock).await?,
        data: settings.data.clone(),
    };
    let done = match (&source, &arguments.to) {
        (Some(source), _) => into_servers(source, &servers).await,
        (None, Some(to)) => into_directory(&servers, to, now).await,
        // The command line has one of the two.
        (None, None) => Err("say --from or --to".into()),
    };
    servers.still.close().await;
    if let Some(source) = source {
        source.close().await;
    }
    print!("{}", run::report(&done?));
    println!(
        "copied in {:.1} s, the same on both sides; what it was copied from is as it was. Never serve both",
        began.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

async fn into_servers(source: &Directory, servers: &Servers) -> Result<Tally, CommandError> {
    let head = source.head().await?;
    servers.begin(head.number).await?;
    copy(source, head.number, servers).await?;
    let tally = verify(source, servers).await?;
    servers.finish().await?;
    Ok(tally)
}

async fn into_directory(servers: &Servers, to: &Path, now: Timestamp) -> Result<Tally, CommandError> {
    servers.still.empty_outboxes().await?;
    let head = servers.head().await?;
    let home = Directory::begin(to, head.number, now).await?;
    if let Err(error) = copy(servers, head.number, &home).await {
        home.close().await;
        return Err(error);
    }
    let home = home.reopen(now).await?;
    match verify(servers, &home).await {
        Ok(tally) => {
            home.finish(to).await?;
            Ok(tally)
        }
        Err(error) => {
            home.close().await;
            Err(error)
        }
    }
}

async fn copy(source: &dyn Home, number: u64, target: &dyn Home) -> Result<(), CommandError> {
    let checkpoint = target.checkpoint().await?;
    if let Some(table) = checkpoint
        .as_ref()
        .and_then(|checkpoint| checkpoint.table.as_ref())
    {
        eprintln!("going on with an unfinished copy, at {table}");
    }
    let mut sink = ToHome { home: target, number };
    let progress = Progress::start("copying");
    Ok(read_all(source, checkpoint.as_ref(), &mut sink, progress).await?)
}

/// Reads both and compares.
async fn verify(source: &dyn Home, target: &dyn Home) -> Result<Tally, CommandError> {
    let floors = common_floors(&source.topics().await?, target).await?;
    let expected = tally_of(source, floors.clone(), "reading the source again").await?;
    let fences = source.fences().await?;
    Ok(compare(&expected, &fences, target, floors).await?)
}
