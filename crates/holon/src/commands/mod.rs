//! The commands: each reads its arguments, does its work on a runtime if it needs one, and says what came of it.

mod backup;
mod check;
mod migrate;
mod openapi;
mod rebuild;
mod restore;
mod shards;
mod social;

use crate::{
    cli::{Cli, Command, ConfigFormat, ImportCommand},
    settings::{self, Settings},
};
use clap::CommandFactory as _;
use std::{io::Write as _, process::ExitCode};

/// Why a command failed; its text is for whoever typed it.
pub type CommandError = Box<dyn std::error::Error + Send + Sync>;

/// Runs a command to its end.
pub fn run(command: Command) -> Result<ExitCode, CommandError> {
    match command {
        Command::Import(ImportCommand::Social(arguments)) => on_runtime(social::run(arguments)),
        Command::Config { settings, format } => {
            let loaded = settings.load(Vec::new())?;
            print(&match format {
                ConfigFormat::Table => settings::table(&loaded),
                ConfigFormat::Toml => settings::toml_file(&loaded),
            })
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "holon", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Version => print(concat!("holon ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Serve(arguments) => {
            let settings = arguments.load()?.settings;
            on_runtime(async {
                crate::serve::run(settings).await?;
                Ok(ExitCode::SUCCESS)
            })
        }
        Command::Check(arguments) => {
            let settings = arguments.load(Vec::new())?.settings;
            on_runtime(check::run(settings))
        }
        Command::Backup(arguments) => on_runtime(backup::run(arguments)),
        Command::Restore(arguments) => on_runtime(restore::run(arguments)),
        Command::Migrate(arguments) => on_runtime(migrate::run(arguments)),
        Command::Rebuild { name, server } => on_runtime(rebuild::run(&name, server)),
        Command::Shards(command) => on_runtime(shards::run(command)),
        Command::Openapi => {
            let document = on_runtime(openapi::document(Settings::default()))?;
            print(&document)
        }
    }
}

fn on_runtime<T>(work: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Prints to standard output; that somebody stopped reading (`holon config | head`) is no failure.
fn print(text: &str) -> Result<ExitCode, CommandError> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
