//! The command line, as `--help` shows it.

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(
    name = "holon",
    version,
    about = "Backends that large products are made of, in one program",
    long_about = "Holon serves the systems that large products are made of, as real software: accounts and sign-in, a \
                  social feed, live updates and what they stand on. One process, one data directory, nothing else to \
                  run; a web console at / to use it and to look inside.",
    after_help = "Start here:  holon serve --demo        then open the address that it prints",
    after_long_help = "EXAMPLES\n  \
        holon serve --demo\n      \
            Serve on 127.0.0.1:8080 with a social network of 4,039 people; the console is at /.\n  \
        holon serve --data /var/lib/holon --listen 0.0.0.0:80 --config /etc/holon.toml\n      \
            Serve for real.\n  \
        holon config --format toml > holon.toml\n      \
            A settings file to start from.\n  \
        HOLON_TOKEN=$(cat data/admin.token) holon rebuild feed.home\n      \
            Make every home timeline anew from its rows, while the server serves.\n\n\
        ENVIRONMENT\n  \
        HOLON_TOKEN    the administrator's token, for commands that call a server\n  \
        HOLON_CONFIG   the settings file\n  \
        HOLON_...      any setting: `holon config` names them\n\n\
        FILES\n  \
        DATA/admin.token     the administrator's token, made at first start; keep it to yourself\n  \
        DATA/demo.password   the demo's password, if there is a demo\n\n\
        EXIT STATUS\n  \
        0 done; 1 it failed, or `check` found something; 2 the command line is wrong"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve systems from a data directory until told to stop.
    #[command(
        long_about = "Serves systems from a data directory until SIGTERM or SIGINT; then requests in hand are finished \
                      and live connections told to come back later. A second signal ends at once.\n\n\
                      The first line on standard output is `listening on http://ADDRESS:PORT`. At the first start an \
                      administrator is made; its token is printed once and kept in DATA/admin.token.",
        after_long_help = "EXAMPLES\n  \
            holon serve --demo\n  \
            holon serve --listen 127.0.0.1:0 --data $(mktemp -d)\n  \
            holon serve --set feed.push_below=1000 --set log.filter=info\n  \
            HOLON_LISTEN=0.0.0.0:80 holon serve --config /etc/holon.toml"
    )]
    Serve(ServeArgs),

    /// Bring data into a running server.
    #[command(subcommand)]
    Import(ImportCommand),

    /// Verify a data directory that no server uses.
    #[command(
        long_about = "Verifies a data directory: what is stored reads back with its checksums, references lead \
                      somewhere, and projections agree with the rows they are made of. Prints a line for each thing \
                      that is wrong, and ends with status 1 if there is any. The directory must not be in use.",
        after_long_help = "EXAMPLES\n  holon check --data /var/lib/holon"
    )]
    Check(SettingsArgs),

    /// Write everything that a deployment holds to one file.
    #[command(
        long_about = "Writes everything that a deployment holds to one new file: rows with their versions, events and how \
                      far each consumer is, dead letters, blobs, secrets, the administrator's token. The file is \
                      compressed and checked from end to end, and gets its name only once it was read back whole.\n\n\
                      With --server, a running server on a data directory is asked for it, and goes on serving: every \
                      write that was acknowledged before is in it, and each commit is in it whole, with its events, or \
                      not at all. That needs the permission admin.backup. Without, the data directory (or the servers) of the settings is \
                      read, which no server may use meanwhile.\n\n\
                      The file holds the secrets of the deployment: whoever has it can act as anybody. It is made \
                      readable by its owner alone; keep it like a password. The secrets of servers (engines.secret and \
                      passwords) are not in it.",
        after_long_help = "EXAMPLES\n  \
            holon backup monday.holon --server http://127.0.0.1:8080 --token-file data/admin.token\n  \
            holon backup monday.holon --data /var/lib/holon\n  \
            holon backup monday.holon --config /etc/holon.toml\n      \
                Of servers, if the settings name them; all nodes must be stopped. docs/backup.md says how\n      \
                servers are backed up while they serve.\n\n\
            EXIT STATUS\n  \
            0 the file is there and whole; 1 there is no file; 2 the command line is wrong"
    )]
    Backup(BackupArgs),

    /// Make a data directory, or fill servers, from a backup.
    #[command(
        long_about = "Makes a data directory from a backup, or fills the servers that the settings name. The backup is \
                      read to its end before anything is written: one that was cut off or altered is refused, with \
                      where. The directory must be empty or not there; it is made beside its place, as DIR.partial, \
                      read back, compared by checksum, and only then put into its place. What is interrupted is \
                      begun again by the same command.",
        after_long_help = "EXAMPLES\n  \
            holon restore monday.holon --data /var/lib/holon\n  \
            holon restore monday.holon --verify\n      \
                Only read it, and say what is in it.\n  \
            holon restore monday.holon --config /etc/holon.toml\n      \
                Into servers, if the settings name them; they must be empty.\n\n\
            EXIT STATUS\n  \
            0 everything is there; 1 nothing is served; 2 the command line is wrong"
    )]
    Restore(RestoreArgs),

    /// Copy a data directory into servers, or back.
    #[command(
        long_about = "Copies everything that a data directory holds into the servers that the settings name, or back, \
                      and compares both by checksum. Rows keep their versions and events their offsets, so that \
                      ETags, tokens, sessions and cursors go on being good and consumers go on where they were.\n\n\
                      Nothing may serve either meanwhile. What is copied into must be empty. A copy that was \
                      interrupted is gone on with by the same command; until it is finished nothing serves what is \
                      there. What is copied from stays as it is: keep it until you are content, and never serve both.\n\n\
                      --data names the directory of a node on servers: it gets the administrator's token and, without \
                      S3, the blobs.",
        after_long_help = "EXAMPLES\n  \
            holon migrate --from /var/lib/holon --config /etc/holon-servers.toml --data /var/lib/holon-node\n  \
            holon migrate --to /var/lib/holon --config /etc/holon-servers.toml --data /var/lib/holon-node\n\n\
            EXIT STATUS\n  \
            0 copied, and the same on both sides; 1 not, and it says why; 2 the command line is wrong"
    )]
    Migrate(MigrateArgs),

    /// Make a projection anew on a running server.
    #[command(
        long_about = "Throws a projection away on a running server and makes it anew from rows or the log, while the \
                      server serves, and waits until that is done. Needs the permission admin.rebuild.",
        after_long_help = "EXAMPLES\n  \
            HOLON_TOKEN=$(cat data/admin.token) holon rebuild feed.home\n  \
            holon rebuild feed.home --server http://10.0.0.7:8080 --token-file admin.token"
    )]
    Rebuild {
        /// Its name, such as feed.home; /v1/admin/rebuild lists them.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },

    /// See where slots are on a running server, and move them.
    #[command(
        subcommand,
        long_about = "On PostgreSQL, partitions hash to 4,096 slots, and each shard has some of them. Slots move from shard \
                      to shard while the servers serve; docs/sharding.md tells how. What changes something needs the \
                      permission admin.rebuild.",
        after_long_help = "EXAMPLES\n  \
            holon shards list\n  \
            holon shards add west postgres://holon:secret@10.0.0.8/holon\n  \
            holon shards move --to west --wait\n  \
            holon shards drain east --wait\n  \
            holon shards pin west --tenant shop"
    )]
    Shards(ShardsCommand),

    /// Show every setting: what it does, its default, its name in the environment, and its present value.
    #[command(after_long_help = "EXAMPLES\n  \
        holon config --config /etc/holon.toml\n  \
        holon config --format toml > holon.toml")]
    Config {
        #[command(flatten)]
        settings: SettingsArgs,
        /// A table for people, or a settings file to start from.
        #[arg(long, value_enum, default_value_t = ConfigFormat::Table)]
        format: ConfigFormat,
    },

    /// Print the OpenAPI 3.1 document of all systems. No data directory is needed.
    Openapi,

    /// Print a completion script for a shell.
    #[command(after_long_help = "EXAMPLES\n  \
        holon completions bash > /etc/bash_completion.d/holon\n  \
        holon completions zsh > ~/.zfunc/_holon\n  \
        holon completions fish > ~/.config/fish/completions/holon.fish")]
    Completions { shell: clap_complete::Shell },

    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub settings: SettingsArgs,

    /// Address and port to listen on [default: 127.0.0.1:8080]. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,

    /// The systems to run, with commas between [default: identity,feed].
    #[arg(long, value_name = "LIST")]
    pub systems: Option<String>,

    /// What this node does, with commas between [default: api,workers,relay]; `holon config` says what each is. Only on
    /// servers can a node do less than all.
    #[arg(long, value_name = "LIST")]
    pub roles: Option<String>,

    /// Fill the data directory with a social network of 4,039 people if it is empty. The server answers meanwhile;
    /// if it is stopped, the next start with --demo goes on.
    #[arg(long)]
    pub demo: bool,
}

/// Where settings come from: the file, then the environment, then these flags; later wins.
#[derive(Debug, Clone, Default, Args)]
pub struct SettingsArgs {
    /// The data directory [default: data].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<String>,

    /// A settings file (TOML); `holon config --format toml` prints one to start from.
    #[arg(long, value_name = "FILE", env = "HOLON_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// Set any setting, such as feed.push_below=1000. Can be given more than once.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The server's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_hint = ValueHint::Url)]
    pub server: String,

    /// A file with an administrator's token; without it, HOLON_TOKEN is taken.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to write; it must not be there yet.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Ask the server at this address, which goes on serving.
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub server: Option<String>,

    /// A file with an administrator's token; without it, HOLON_TOKEN is taken.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "server")]
    pub token_file: Option<PathBuf>,

    #[command(flatten)]
    pub settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Read the backup to its end and say what is in it; write nothing.
    #[arg(long)]
    pub verify: bool,

    #[command(flatten)]
    pub settings: SettingsArgs,
}

#[derive(Debug, Args)]
#[group(id = "direction", required = true, multiple = false, args = ["from", "to"])]
pub struct MigrateArgs {
    /// Copy this data directory into the servers.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub from: Option<PathBuf>,

    /// Copy the servers into this data directory.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub to: Option<PathBuf>,

    #[command(flatten)]
    pub settings: SettingsArgs,
}

#[derive(Debug, Subcommand)]
pub enum ShardsCommand {
    /// Show shards with their slots, rules, and what is on its way.
    List {
        #[command(flatten)]
        server: ServerArgs,
    },

    /// Make a shard known to all nodes. It has no slots until some are moved to it.
    Add {
        /// Its name, for good: 1 to 32 of a-z, 0-9 and '-'.
        name: String,
        /// postgres://user:password@host:5432/database, as nodes reach it; `-` reads it from standard input.
        #[arg(value_name = "URL", value_hint = ValueHint::Url)]
        url: String,
        /// A hot standby for reads that may lag. Can be given more than once.
        #[arg(long, value_name = "URL")]
        replica: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },

    /// Move slots to a shard; without --count or --slot, as many as it takes for it to have its share.
    Move {
        /// The shard where they go.
        #[arg(long, value_name = "SHARD")]
        to: String,
        /// Only from this shard; otherwise from those that have most.
        #[arg(long, value_name = "SHARD")]
        from: Option<String>,
        /// How many.
        #[arg(long, value_name = "N", conflicts_with = "slot", value_parser = clap::value_parser!(u32).range(1..))]
        count: Option<u32>,
        /// This slot. Can be given more than once.
        #[arg(long, value_name = "SLOT")]
        slot: Vec<i32>,
        /// Return only when nothing is on its way any more, and show progress.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        server: ServerArgs,
    },

    /// Move everything off a shard, so that it can be shut down.
    Drain {
        /// The shard.
        name: String,
        /// All to this shard; otherwise evenly to all others.
        #[arg(long, value_name = "SHARD")]
        to: Option<String>,
        /// Return only when nothing is on its way any more, and show progress.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        server: ServerArgs,
    },

    /// Give partitions a slot of their own on a shard; rows that are there move.
    Pin {
        /// The shard.
        shard: String,
        /// One partition, such as user:42; of the tenant main, unless --tenant says another.
        #[arg(long, value_name = "PARTITION", conflicts_with_all = ["prefix", "low", "high"])]
        partition: Option<String>,
        /// All of a tenant, or what else is said, only of that tenant.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// Partitions that begin so, such as eu:.
        #[arg(long, value_name = "PREFIX", conflicts_with_all = ["low", "high"])]
        prefix: Option<String>,
        /// Partitions from here on, in the order of their bytes.
        #[arg(long, value_name = "PARTITION")]
        low: Option<String>,
        /// Up to here, and without it.
        #[arg(long, value_name = "PARTITION", requires = "low")]
        high: Option<String>,
        /// Return only when nothing is on its way any more, and show progress.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// A graph and texts, as accounts, follows and posts.
    #[command(
        long_about = "Makes accounts u0, u1, ... of a graph's people, a follow both ways of each friendship, and posts of \
                      texts, dealt out to the accounts in a fixed order: text number i is posted by account \
                      (i * 2654435761) mod n. Names and bios are made up.\n\n\
                      It can be stopped anywhere and run again, also after the server was killed: what is there is \
                      found, nothing is lost or doubled. While the server is away it waits, up to --patience.",
        after_long_help = "FILES\n  \
            EDGES   `a b` a line: two numbers from 0, a friendship. `#` starts a comment.\n  \
            POSTS   {\"topic\":\"...\",\"text\":\"...\"} a line.\n  \
            Both may be compressed with gzip.\n\n\
            EXAMPLES\n  \
            HOLON_TOKEN=$(cat data/admin.token) \\\n  \
            holon import social --edges demo/facebook_edges.txt.gz --posts demo/posts.jsonl.gz --wait"
    )]
    Social(SocialArgs),
}

#[derive(Debug, Args)]
pub struct SocialArgs {
    #[command(flatten)]
    pub server: ServerArgs,

    /// Friendships.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub edges: PathBuf,

    /// Texts to post.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub posts: PathBuf,

    /// Return only when every consumer of feed has caught up.
    #[arg(long)]
    pub wait: bool,

    /// Requests in flight.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

    /// Append each text's topic as a hashtag where there is room; otherwise texts are posted as they are.
    #[arg(long)]
    pub hashtags: bool,

    /// Let each account like up to so many posts of friends.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub likes: usize,

    /// Let accounts repost about so many posts of friends, in all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub reposts: usize,

    /// Give up when the server has answered nothing for so long.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    pub patience: std::time::Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConfigFormat {
    Table,
    Toml,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

fn time(text: &str) -> Result<std::time::Duration, String> {
    crate::settings::SettingValue::read(text)
}

impl SettingsArgs {
    /// What was given on the command line, as settings.
    fn flags(&self) -> Vec<(String, String)> {
        let mut flags = self.set.clone();
        if let Some(data) = &self.data {
            flags.push(("data".into(), data.clone()));
        }
        flags
    }

    /// Settings from the file, the environment and these flags.
    pub fn load(
        &self,
        more: Vec<(String, String)>,
    ) -> Result<crate::settings::Loaded, crate::settings::SettingsError> {
        let flags: Vec<(String, String)> = self.flags().into_iter().chain(more).collect();
        let environment = |name: &str| std::env::var(name).ok();
        crate::settings::Loaded::load(self.config.as_deref(), environment, &flags)
    }
}

impl ServeArgs {
    pub fn load(&self) -> Result<crate::settings::Loaded, crate::settings::SettingsError> {
        let mut flags = Vec::new();
        if let Some(listen) = &self.listen {
            flags.push(("listen".into(), listen.clone()));
        }
        if let Some(systems) = &self.systems {
            flags.push(("systems".into(), systems.clone()));
        }
        if let Some(roles) = &self.roles {
            flags.push(("roles".into(), roles.clone()));
        }
        if self.demo {
            flags.push(("demo".into(), "true".into()));
        }
        self.settings.load(flags)
    }
}

impl ServerArgs {
    /// The token from the file or the environment.
    pub fn token(&self) -> Result<String, String> {
        read_token(self.token_file.as_deref())
    }
}

impl BackupArgs {
    /// The token from the file or the environment.
    pub fn token(&self) -> Result<String, String> {
        read_token(self.token_file.as_deref())
    }
}

fn read_token(file: Option<&std::path::Path>) -> Result<String, String> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read the token file {}: {error}", path.display()))?;
        return Ok(text.trim().to_owned());
    }
    match std::env::var("HOLON_TOKEN") {
        Ok(token) if !token.trim().is_empty() => Ok(token.trim().to_owned()),
        _ => Err(
            "an administrator's token is needed: set HOLON_TOKEN or give --token-file; \
                 the server keeps one in its data directory as admin.token"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_says_what_it_does() {
        fn walk(command: &clap::Command) {
            for inner in command.get_subcommands() {
                assert!(inner.get_about().is_some(), "{}", inner.get_name());
                walk(inner);
            }
            for argument in command.get_arguments() {
                let positional_shell = argument.get_id() == "shell";
                assert!(
                    positional_shell || argument.get_help().is_some(),
                    "{}",
                    argument.get_id()
                );
            }
        }
        walk(&Cli::command());
    }
}
