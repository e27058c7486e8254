//! `holon restore`: a home made from a backup.

use super::CommandError;
use crate::{
    cli::RestoreArgs,
    copy::{
        CopyError,
        archive::Manifest,
        directory::Directory,
        home::Home,
        record::{Head, Record, Topic},
        run::{
            self, Progress, Sink, ToHome, common_floors, compare, read_archive, tally_archive, verify_archive,
        },
        servers::Servers,
        tally::Tally,
    },
    engines::still::Still,
    import::grouped,
};
use async_trait::async_trait;
use holon_base::{Clock, ManualClock};
use std::{fs::File, io::BufReader, path::Path, process::ExitCode, sync::Arc, time::Instant};

pub async fn run(arguments: RestoreArgs) -> Result<ExitCode, CommandError> {
    let began = Instant::now();
    let path = arguments.file;
    // All of it is checked before anything is written.
    let (head, manifest) = verify_archive(open(&path)?)
        .map_err(|error| format!("{}: {error}; nothing was restored", path.display()))?;
    if arguments.verify {
        print!("{}", run::report(&manifest.tally));
        println!(
            "{}: {} records of {}, as it was at {}, all in order",
            path.display(),
            grouped(manifest.records as usize),
            head.home,
            head.taken
        );
        return Ok(ExitCode::SUCCESS);
    }
    let settings = arguments.settings.load(Vec::new())?.settings;
    let tally = match settings.postgres.is_empty() {
        true => to_directory(&path, &head, &manifest, &settings.data).await?,
        false => {
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(head.taken));
            let home = Servers {
                still: Still::open(&settings, &clock).await?,
                data: settings.data.clone(),
            };
            let restored = to_servers(&path, &head, &manifest, &home).await;
            home.still.close().await;
            restored?
        }
    };
    print!("{}", run::report(&tally));
    println!(
        "restored {} as it was at {}, in {:.1} s",
        match settings.postgres.is_empty() {
            true => settings.data.display().to_string(),
            false => "the servers".to_owned(),
        },
        head.taken,
        began.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

fn open(path: &Path) -> Result<BufReader<File>, String> {
    let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

async fn to_directory(
    path: &Path,
    head: &Head,
    manifest: &Manifest,
    data: &Path,
) -> Result<Tally, CommandError> {
    let home = Directory::begin(data, head.number, head.taken).await?;
    if let Err(error) = write(path, head, &home).await {
        home.close().await;
        return Err(error);
    }
    let home = home.reopen(head.taken).await?;
    match verify(path, manifest, &home).await {
        Ok(tally) => {
            home.finish(data).await?;
            Ok(tally)
        }
        Err(error) => {
            home.close().await;
            Err(error)
        }
    }
}

async fn to_servers(
    path: &Path,
    head: &Head,
    manifest: &Manifest,
    home: &Servers,
) -> Result<Tally, CommandError> {
    home.begin(head.number).await?;
    write(path, head, home).await?;
    let tally = verify(path, manifest, home).await?;
    home.finish().await?;
    Ok(tally)
}

async fn write(path: &Path, head: &Head, home: &dyn Home) -> Result<(), CommandError> {
    let mut sink = ToHome {
        home,
        number: head.number,
    };
    read_archive(open(path)?, &mut sink, Progress::start("restore")).await?;
    Ok(())
}

/// Compares what is there now with the backup.
async fn verify(path: &Path, manifest: &Manifest, home: &dyn Home) -> Result<Tally, CommandError> {
    let mut apart = Apart::default();
    read_archive(open(path)?, &mut apart, Progress::quiet()).await?;
    let floors = common_floors(&apart.topics, home).await?;
    let expected = match floors.is_empty() {
        true => manifest.tally.clone(),
        false => tally_archive(open(path)?, floors.clone()).await?,
    };
    Ok(compare(&expected, &apart.fences, home, floors).await?)
}

/// What is compared in other ways than by checksum.
#[derive(Default)]
struct Apart {
    topics: Vec<Topic>,
    fences: Vec<(String, u64)>,
}

#[async_trait]
impl Sink for Apart {
    async fn put(&mut self, records: Vec<Record>) -> Result<(), CopyError> {
        for record in records {
            match record {
                Record::Topic(topic) => self.topics.push(topic),
                Record::Fence { name, fence } => self.fences.push((name, fence)),
                _ => {}
            }
        }
        Ok(())
    }
}
