//! The two feeds that hold the same graph and posts: `holon serve`, and the classic design on Redis.

use crate::{
    Setting,
    load::{Connection, request},
    process::{Server, free_port, own_binary},
};
use anyhow::{Context as _, Result, bail, ensure};
use holon_bench::graph::{EDGES, Graph, POSTS};
use serde_json::{Value, json};
use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{process::Command, time::sleep};

/// How long a fan-out may take to catch up.
const PATIENCE: Duration = Duration::from_secs(120);
/// The consumer group that writes timelines.
const FANOUT: &str = "feed.fanout";

/// The graph, and a data directory of Holon's into which it was imported.
pub struct Imported {
    pub graph: Graph,
    dir: TempDir,
    /// How long `holon import social --wait` took.
    pub import: Duration,
    /// Of the server once the import had caught up, in bytes.
    pub resident: u64,
}

impl Imported {
    /// Imports the demo's graph and posts into an empty directory.
    pub async fn make(setting: &Setting) -> Result<Self> {
        let graph = Graph::read(EDGES.as_ref(), POSTS.as_ref())?;
        let dir = tempfile::tempdir_in(&setting.work)?;
        let data = dir.path().join("data");
        let log = dir.path().join("import.log");
        let holon = Holon::start(&data).await?;
        let start = Instant::now();
        let status = Command::new(holon_binary()?)
            .args(["import", "social", "--wait", "--server"])
            .arg(format!("http://{}", holon.address))
            .args(["--edges", EDGES, "--posts", POSTS, "--token-file"])
            .arg(data.join("admin.token"))
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .status()
            .await?;
        let import = start.elapsed();
        if !status.success() {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("the import failed: {}", log.lines().last().unwrap_or_default());
        }
        // What was allocated for the last batches is given back shortly after.
        sleep(Duration::from_secs(2)).await;
        let resident = crate::machine::resident(holon.server.pid()?)?;
        holon.stop().await?;
        Ok(Self {
            graph,
            dir,
            import,
            resident,
        })
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

pub fn holon_binary() -> Result<PathBuf> {
    own_binary("HOLON_BIN", "holon")
}

/// A running `holon serve`.
pub struct Holon {
    server: Server,
    pub address: SocketAddr,
    /// From starting the process to the first success of `/readyz`.
    pub ready: Duration,
    administrator: String,
}

/// What `/v1/feed/inspect` says of the fan-out.
#[derive(Debug, Clone, Copy)]
pub struct Fanout {
    /// Events that wait for the group.
    pub lag: u64,
    /// Since the server's start.
    pub entries_written: u64,
}

impl Holon {
    /// Starts it on a data directory, and waits until it is ready. Its log is beside the directory.
    pub async fn start(data: &Path) -> Result<Self> {
        let mut command = Command::new(holon_binary()?);
        command.args([OsStr::new("serve"), OsStr::new("--data"), data.as_os_str()]);
        command.args(["--listen", "127.0.0.1:0"]);
        let start = Instant::now();
        let (server, address) = Server::announced(command, &data.with_extension("log")).await?;
        let mut connection = Connection::open(address).await?;
        let ready = request("GET", "/readyz", None, None);
        while connection.call(&ready).await?.status != 200 {
            ensure!(start.elapsed() < PATIENCE, "Holon does not get ready");
            sleep(Duration::from_millis(2)).await;
        }
        let ready = start.elapsed();
        let administrator = std::fs::read_to_string(data.join("admin.token"))
            .context("Holon left no administrator's token")?
            .trim()
            .to_owned();
        Ok(Self {
            server,
            address,
            ready,
            administrator,
        })
    }

    pub fn resident(&self) -> Result<u64> {
        crate::machine::resident(self.server.pid()?)
    }

    pub async fn stop(self) -> Result<()> {
        self.server.stop().await
    }

    /// Access tokens of accounts `u<number>`, valid for an hour.
    pub async fn tokens(&self, accounts: &[usize]) -> Result<Vec<String>> {
        let mut connection = Connection::open(self.address).await?;
        let mut tokens = Vec::with_capacity(accounts.len());
        for account in accounts {
            let path = format!("/v1/identity/accounts/u{account}/tokens");
            let body = json!({"expiresIn": 3600});
            let answer = connection
                .json("POST", &path, &self.administrator, Some(&body))
                .await?;
            let token = answer["accessToken"].as_str().context("no token was minted")?;
            tokens.push(token.to_owned());
        }
        Ok(tokens)
    }

    pub async fn fanout(&self, connection: &mut Connection) -> Result<Fanout> {
        let inspect = connection
            .json("GET", "/v1/feed/inspect", &self.administrator, None)
            .await?;
        let groups = inspect["consumers"]
            .as_array()
            .context("the feed shows no consumers")?;
        let lags = groups.iter().filter(|group| group["group"] == FANOUT);
        let lags: Option<Vec<u64>> = lags.map(|group| group["lag"].as_u64()).collect();
        let lags = lags
            .filter(|lags| !lags.is_empty())
            .context("the feed shows no lag of its fan-out")?;
        Ok(Fanout {
            lag: lags.iter().sum(),
            entries_written: number(&inspect["fanout"]["entriesWritten"])
                .context("the feed does not show how many entries it wrote")?,
        })
    }

    /// Waits until the fan-out has caught up.
    pub async fn caught_up(&self) -> Result<Fanout> {
        let mut connection = Connection::open(self.address).await?;
        let start = Instant::now();
        loop {
            let fanout = self.fanout(&mut connection).await?;
            if fanout.lag == 0 {
                return Ok(fanout);
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "the fan-out lags by {} events",
                fanout.lag
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A number that may be written as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Redis with the classic design in front of it, filled with the same graph and posts.
pub struct Classic {
    /// One service for each number of connections to Redis.
    services: Vec<(Server, SocketAddr)>,
    _redis: Server,
    _dir: TempDir,
}

impl Classic {
    /// Starts Redis and a service for each number of connections to it.
    pub async fn start(setting: &Setting, connections: &[usize]) -> Result<Self> {
        let dir = tempfile::tempdir_in(&setting.work)?;
        let port = free_port()?;
        let redis = Server::on_port(
            "redis-server",
            [
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--dir",
                &dir.path().display().to_string(),
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "everysec",
            ],
            port,
            &dir.path().join("redis.log"),
        )
        .await?;
        let mut services = Vec::new();
        for (index, connections) in connections.iter().enumerate() {
            let mut command = Command::new(own_binary("CLASSIC_FEED_BIN", "classic-feed")?);
            command
                .arg(format!("--redis=redis://127.0.0.1:{port}/"))
                .arg(format!("--connections={connections}"))
                .args(["--edges", EDGES, "--posts", POSTS]);
            if index == 0 {
                command.arg("--load");
            }
            let log = dir.path().join(format!("classic-{connections}.log"));
            services.push(Server::announced(command, &log).await?);
        }
        Ok(Self {
            services,
            _redis: redis,
            _dir: dir,
        })
    }

    /// The address of the service made with the given number of connections, by its place.
    pub fn address(&self, place: usize) -> SocketAddr {
        self.services[place].1
    }

    /// The classic service looks tokens up in memory; an account's token is this.
    pub fn token(account: usize) -> String {
        format!("classic-token-of-u{account}")
    }
}

/// How many items a page has.
pub fn items(page: &[u8]) -> Result<usize> {
    let page: Value = serde_json::from_slice(page)?;
    Ok(page["items"].as_array().context("a page without items")?.len())
}
