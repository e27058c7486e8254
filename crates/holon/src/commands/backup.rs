//! `holon backup`: everything that a deployment holds, in one file.

use super::CommandError;
use crate::{
    cli::BackupArgs,
    client::{Client, Sending},
    copy::{
        CopyError,
        archive::ArchiveWriter,
        directory::{self, Directory},
        home::Home,
        run::{self, Progress, ToArchive, read_all, verify_archive},
        servers::Servers,
    },
    engines::still::Still,
    import::grouped,
    settings::Settings,
};
use holon_base::{Clock, ManualClock};
use http::Method;
use std::{
    fs::File,
    io::{BufReader, BufWriter, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);

pub async fn run(arguments: BackupArgs) -> Result<ExitCode, CommandError> {
    let began = Instant::now();
    let path = &arguments.file;
    if path.exists() {
        return Err(format!("{} is there already; a backup overwrites nothing", path.display()).into());
    }
    // Under another name until it is whole, and gone if it never is.
    let partial = tempfile::Builder::new()
        .prefix(".holon-backup-")
        .suffix(".partial")
        .tempfile_in(parent(path))
        .map_err(|error| format!("cannot write beside {}: {error}", path.display()))?;
    match &arguments.server {
        Some(server) => download(server, &arguments, partial.as_file()).await?,
        None => of_home(arguments.settings.load(Vec::new())?.settings, partial.as_file()).await?,
    }
    partial.as_file().sync_all()?;
    let (head, manifest) = verify_archive(BufReader::new(File::open(partial.path())?))?;
    partial
        .persist_noclobber(path)
        .map_err(|error| format!("cannot write {}: {}", path.display(), error.error))?;
    File::open(parent(path))?.sync_all()?;
    print!("{}", run::report(&manifest.tally));
    println!(
        "{}: {} records of {}, as it was at {}, {:.1} MB, in {:.1} s",
        path.display(),
        grouped(manifest.records as usize),
        head.home,
        head.taken,
        path.metadata()?.len() as f64 / 1e6,
        began.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

async fn download(server: &str, arguments: &BackupArgs, mut to: &File) -> Result<(), CommandError> {
    let token = arguments.token()?;
    let client = Client::new(server, PATIENCE)?;
    let sending = Sending {
        token: Some(&token),
        ..Sending::default()
    };
    client
        .download(Method::GET, "/v1/admin/backup", sending, &mut to)
        .await?;
    Ok(())
}

/// A home that nobody uses.
async fn of_home(settings: Settings, to: &File) -> Result<(), CommandError> {
    let now = directory::now();
    let out = ArchiveWriter::new(BufWriter::new(to.try_clone()?))?;
    if settings.postgres.is_empty() {
        let home = Directory::open(&settings.data, now).await?;
        let written = write(&home, out).await;
        home.close().await;
        return Ok(written?);
    }
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(now));
    let still = Still::open(&settings, &clock).await?;
    still.empty_outboxes().await?;
    let home = Servers {
        still,
        data: settings.data,
    };
    let written = write(&home, out).await;
    home.still.close().await;
    Ok(written?)
}

async fn write(home: &dyn Home, out: ArchiveWriter<BufWriter<File>>) -> Result<(), CopyError> {
    let mut sink = ToArchive(out);
    read_all(home, None, &mut sink, Progress::start("backup")).await?;
    let (mut file, _) = sink.0.finish()?;
    file.flush().map_err(CopyError::Write)
}
