//! A NATS server with JetStream of the bench's own.

use crate::{machine::version_of, process};
use anyhow::{Context as _, Result, bail};
use std::{path::Path, process::Command};

/// When JetStream calls a message stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on the disk, as Holon does.
    Synced,
    /// Once the operating system has it; the disk has it some time later. NATS's default.
    Later,
}

/// A running server; killed when dropped.
pub struct Nats {
    pub url: String,
    _server: process::Server,
}

/// How [`Durability::Synced`] is brought about, which depends on the server's version.
pub enum AlwaysBy {
    /// `sync_interval: always`, which NATS has from version 2.10 on.
    Setting,
    /// The store's directory carries the attribute `S` (see `chattr(1)`), so that the kernel syncs every write.
    Attribute,
}

impl AlwaysBy {
    pub fn of_this_server() -> Result<Self> {
        let version = version()?;
        let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
        let (major, minor) = (
            numbers.next().context("NATS tells no version")?,
            numbers.next().context("NATS tells no version")?,
        );
        Ok(if (major, minor) >= (2, 10) {
            Self::Setting
        } else {
            Self::Attribute
        })
    }

    pub fn describe(&self) -> &'static str {
        match self {
            Self::Setting => "`sync_interval: always`",
            Self::Attribute => {
                "this version has no `sync_interval`, so its store is a directory with the attribute `S` \
                 (`chattr +S`), with which the kernel syncs every write before it returns"
            }
        }
    }
}

/// The server's version, such as `2.10.1`.
pub fn version() -> Result<String> {
    let line = version_of("nats-server", "--version")?;
    let number = line.rsplit(' ').next().unwrap_or_default();
    Ok(number.trim_start_matches('v').to_owned())
}

/// Starts a server with an empty store in `dir`.
pub async fn start(dir: &Path, durability: Durability) -> Result<Nats> {
    let store = dir.join("jetstream");
    std::fs::create_dir_all(&store)?;
    let setting = match (durability, AlwaysBy::of_this_server()?) {
        (Durability::Later, _) => "",
        (Durability::Synced, AlwaysBy::Setting) => "sync_interval: always",
        (Durability::Synced, AlwaysBy::Attribute) => {
            let status = Command::new("chattr")
                .arg("+S")
                .arg(&store)
                .status()
                .context("cannot run chattr")?;
            if !status.success() {
                bail!(
                    "the file system of {} cannot mark a directory as synchronous",
                    store.display()
                );
            }
            ""
        }
    };
    let port = process::free_port()?;
    let config = dir.join("nats.conf");
    let text = format!(
        "host: \"127.0.0.1\"\nport: {port}\nmax_payload: 2MB\njetstream {{\n  store_dir: {:?}\n  {setting}\n}}\n",
        store.display().to_string()
    );
    std::fs::write(&config, text)?;
    let server = process::Server::on_port(
        "nats-server",
        [std::ffi::OsStr::new("--config"), config.as_os_str()],
        port,
        &dir.join("nats.log"),
    )
    .await?;
    Ok(Nats {
        url: format!("nats://127.0.0.1:{port}"),
        _server: server,
    })
}
