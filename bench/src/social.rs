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
pub const PATIENCE: Duration = Duration::from_secs(120);
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
        Self::of(setting, EDGES.as_ref(), POSTS.as_ref()).await
    }

    /// Imports a graph and posts into an empty directory.
    pub async fn of(setting: &Setting, edges: &Path, posts: &Path) -> Result<Self> {
        let graph = Graph::read(edges, posts)?;
        let dir = tempfile::tempdir_in(&setting.work)?;
        let data = dir.path().join("data");
        let holon = Holon::start(&data).await?;
        let import = holon
            .site
            .import(edges, posts, &dir.path().join("import.log"))
            .await?;
        // What was allocated for the last batches is given back shortly after.
        sleep(Duration::from_secs(2)).await;
        let resident = holon.resident()?;
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

/// A running `holon serve` on a data directory.
pub struct Holon {
    server: Server,
    pub site: Site,
    /// From starting the process to the first success of `/readyz`.
    pub ready: Duration,
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
            .context("Holon left no administrator's token")?;
        Ok(Self {
            server,
            site: Site::new(vec![address], administrator.trim()),
            ready,
        })
    }

    pub fn pid(&self) -> Result<u32> {
        self.server.pid()
    }

    pub fn resident(&self) -> Result<u64> {
        crate::machine::resident(self.pid()?)
    }

    pub async fn stop(self) -> Result<()> {
        self.server.stop().await
    }
}

/// One node or several that serve the same feed.
pub struct Site {
    pub addresses: Vec<SocketAddr>,
    administrator: String,
}

/// What `/v1/feed/inspect` says of the fan-out.
#[derive(Debug, Clone, Copy)]
pub struct Fanout {
    /// Events that wait for the group.
    pub lag: u64,
    /// Since the start of the servers, by all of them.
    pub entries_written: u64,
}

impl Site {
    pub fn new(addresses: Vec<SocketAddr>, administrator: &str) -> Self {
        Self {
            addresses,
            administrator: administrator.to_owned(),
        }
    }

    pub fn administrator(&self) -> &str {
        &self.administrator
    }

    /// Imports a graph and posts through the first node; answers how long it took until the fan-out had caught up.
    pub async fn import(&self, edges: &Path, posts: &Path, log: &Path) -> Result<Duration> {
        let start = Instant::now();
        let status = Command::new(holon_binary()?)
            .args(["import", "social", "--wait", "--server"])
            .arg(format!("http://{}", self.addresses[0]))
            .arg("--edges")
            .arg(edges)
            .arg("--posts")
            .arg(posts)
            .env("HOLON_TOKEN", &self.administrator)
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(log)?)
            .status()
            .await?;
        if !status.success() {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            bail!("the import failed: {}", log.lines().last().unwrap_or_default());
        }
        Ok(start.elapsed())
    }

    /// Access tokens of accounts `u<number>`, valid for an hour.
    pub async fn tokens(&self, accounts: &[usize]) -> Result<Vec<String>> {
        let mut connection = Connection::open(self.addresses[0]).await?;
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

    pub async fn fanout(&self) -> Result<Fanout> {
        let mut fanout = Fanout {
            lag: 0,
            entries_written: 0,
        };
        for address in &self.addresses {
            let mut connection = Connection::open(*address).await?;
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
            fanout.lag = fanout.lag.max(lags.iter().sum());
            fanout.entries_written += number(&inspect["fanout"]["entriesWritten"])
                .context("the feed does not show how many entries it wrote")?;
        }
        Ok(fanout)
    }

    /// Waits until nothing lags.
    pub async fn caught_up(&self) -> Result<Fanout> {
        let start = Instant::now();
        loop {
            let fanout = self.fanout().await?;
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
