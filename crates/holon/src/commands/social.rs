//! `holon import social`.

use super::CommandError;
use crate::{
    cli::SocialArgs,
    import::{Done, Import, ImportError, Options, Source, grouped},
};
use std::process::ExitCode;

pub async fn run(arguments: SocialArgs) -> Result<ExitCode, CommandError> {
    let import = Import::prepare(Options {
        token: arguments.server.token()?,
        server: arguments.server.server,
        edges: Source::disk(&arguments.edges),
        posts: Source::disk(&arguments.posts),
        concurrency: arguments.concurrency.into(),
        hashtags: arguments.hashtags,
        likes: arguments.likes,
        reposts: arguments.reposts,
        wait: arguments.wait,
        patience: arguments.patience,
        password: None,
    })?;
    match import.run().await {
        Ok(done) => {
            println!("{}", summary(&done));
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ ImportError::Client(_)) => {
            Err(format!("{error}\nrun the same command again: it goes on where it stopped").into())
        }
        Err(error) => Err(error.into()),
    }
}

/// What was done, for people.
pub fn summary(done: &Done) -> String {
    let mut text = format!(
        "imported {} accounts, {} follows and {} posts in {:.1} s",
        grouped(done.accounts),
        grouped(done.follows),
        grouped(done.posts),
        done.took.as_secs_f64(),
    );
    let found = done.accounts_found + done.follows_found + done.posts_found;
    if found > 0 {
        text += &format!(
            " ({} accounts, {} follows and {} posts were there already)",
            grouped(done.accounts_found),
            grouped(done.follows_found),
            grouped(done.posts_found)
        );
    }
    for line in &done.refused {
        text += &format!("\nrefused: {line}");
    }
    text
}
