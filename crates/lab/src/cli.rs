//! The command line, as `--help` shows it.

use clap::{Args, Parser, Subcommand, ValueHint};
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(
    name = "holon-lab",
    version,
    about = "A whole Holon cluster on this machine, and what breaks it",
    long_about = "Starts three nodes of Holon with all that they stand on: two PostgreSQL shards with a standby each, \
                  three NATS servers, a Redis Cluster and an S3 server, all in one directory and on the loopback \
                  interface. Parts can be killed, frozen, cut off and slowed, here or in the console.",
    after_help = "Start here:  make cluster",
    after_long_help = "EXAMPLES\n  \
        holon-lab up\n      \
            Start it and stay; Ctrl-C ends everything.\n  \
        holon-lab status\n      \
            Every part, and how it is.\n  \
        holon-lab tell node-2 kill\n  \
        holon-lab tell postgres-a1 failOver\n  \
        holon-lab down\n\n\
        FILES\n  \
        DIRECTORY/PART/log               what a part says\n  \
        DIRECTORY/node-1/admin.token     the administrator's token\n\n\
        EXIT STATUS\n  \
        0 done; 1 it failed; 2 the command line is wrong"
)]
pub struct Cli {
    /// Where everything is kept. If this runs as root, PostgreSQL runs as another user, who must be able to enter it.
    #[arg(long, global = true, value_name = "DIRECTORY", default_value = ".holon/cluster", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the cluster, on what it held, and stay until Ctrl-C or `down`.
    Up(UpArgs),
    /// Say how every part is.
    Status,
    /// End the cluster; what it holds stays. Also ends what a killed run left behind.
    Down,
    /// Kill, freeze, cut off, slow or heal a part, or start it again.
    #[command(after_help = format!("ACTIONS\n  {}", crate::actions()))]
    Tell {
        /// Its name, such as node-2 or postgres-a1; `status` lists them.
        part: String,
        /// What it is told.
        action: String,
    },
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// The holon that nodes run [default: the one beside this program].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub holon: Option<PathBuf>,
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,
    /// The port of the first node; the others have the next ones.
    #[arg(long, value_name = "PORT", default_value_t = 8081, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub first_port: u16,
    /// Let nodes reach servers and each other directly: faster, and nothing can be cut or slowed.
    #[arg(long)]
    pub no_links: bool,
    /// Do not tell nodes where chaos can be asked for: the console has no chaos panel then.
    #[arg(long)]
    pub no_chaos: bool,
    /// A setting of every node, such as feed.push_below=1000. Can be given more than once.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((_, value)) if value.contains('\'') || value.contains('\n') => {
            Err("a value may hold no quote and no line break".into())
        }
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".into()),
    }
}
