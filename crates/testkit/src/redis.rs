//! Redis servers of a test, single ones and a Cluster.

use crate::{PATIENCE, Place, Process, eventually, find_program};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const PACKAGE: &str = "redis-server";
/// Where a member of a Cluster keeps what it knows of the others.
const NODES: &str = "nodes.conf";

/// A Redis server on a port of its own, with nothing kept on disk.
pub struct RedisServer {
    process: Option<Process>,
    program: PathBuf,
    port: u16,
    place: Place,
    arguments: Vec<String>,
}

impl RedisServer {
    /// Answers once the server does.
    pub async fn start() -> Self {
        Self::start_with(Place::temporary(), &[]).await
    }

    /// A single server in a place.
    pub async fn start_in(place: Place) -> Self {
        Self::start_with(place, &[]).await
    }

    async fn start_with(place: Place, arguments: &[&str]) -> Self {
        let program = find_program("redis-server", PACKAGE).unwrap_or_else(|error| panic!("{error}"));
        let mut server = Self {
            process: None,
            program,
            port: place.port("clients"),
            place,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        };
        server.restart().await;
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The id of its process, to freeze it with.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("a server that runs").id()
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Ends it in good order.
    pub async fn stop(&mut self, patience: Duration) {
        if let Some(process) = self.process.take() {
            process.stop(patience).await;
        }
    }

    /// Whether its process is there.
    pub fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.ended().is_none())
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Starts it anew on the same port, empty; kills it before if it runs.
    pub async fn restart(&mut self) {
        self.kill().await;
        let port = self.port.to_string();
        let directory = self.place.path().display().to_string();
        let fixed = ["--port", &port, "--bind", "127.0.0.1", "--dir", &directory];
        let memory = ["--save", "", "--appendonly", "no"];
        let all = fixed
            .into_iter()
            .chain(memory)
            .chain(self.arguments.iter().map(String::as_str));
        let mut process = Process::start_in(&self.place, &self.program, all);
        process.listening(self.port, PATIENCE).await;
        self.process = Some(process);
    }

    /// Runs a command through `redis-cli` and answers what it says.
    pub async fn command(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments).await
    }
}

async fn cli(port: u16, arguments: &[&str]) -> String {
    let program = find_program("redis-cli", "redis-tools").unwrap_or_else(|error| panic!("{error}"));
    let output = Command::new(&program)
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A Redis Cluster that answers for all slots: primaries first, then their replicas.
pub struct RedisCluster {
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts primaries, at least three, with so many replicas each; answers once all slots are served and every
    /// replica has caught up.
    pub async fn start(primaries: usize, replicas: usize) -> Self {
        let places = (0..primaries * (1 + replicas)).map(|_| Place::temporary());
        Self::start_in(places.collect(), replicas).await
    }

    /// Starts a server in each place. If they were a Cluster before they are one again, empty; otherwise they become
    /// one, with so many replicas for each primary.
    pub async fn start_in(places: Vec<Place>, replicas: usize) -> Self {
        let count = places.len();
        let was_cluster = places.iter().all(|place| place.path().join(NODES).is_file());
        let mut servers = Vec::with_capacity(count);
        for place in places {
            servers.push(start_member(place).await);
        }
        if !was_cluster {
            let mut create = vec!["--cluster".to_owned(), "create".to_owned()];
            create.extend(servers.iter().map(|server| format!("127.0.0.1:{}", server.port)));
            create.extend(["--cluster-replicas".to_owned(), replicas.to_string()]);
            create.push("--cluster-yes".to_owned());
            let create: Vec<&str> = create.iter().map(String::as_str).collect();
            let said = cli(servers[0].port, &create).await;
            assert!(said.contains("All 16384 slots covered"), "{said}");
        }
        for server in &servers {
            eventually("a server to know the whole cluster", PATIENCE, || async {
                let info = server.command(&["cluster", "info"]).await;
                let nodes = format!("cluster_known_nodes:{count}\r");
                let is_whole = info.contains("cluster_state:ok") && info.contains(&nodes);
                let replication = server.command(&["info", "replication"]).await;
                let is_linked =
                    !replication.contains("role:slave") || replication.contains("master_link_status:up");
                (is_whole && is_linked).then_some(())
            })
            .await;
        }
        Self { servers }
    }

    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(RedisServer::url).collect()
    }
}

/// A server that may join a cluster. Its second port is chosen too: by custom it is the first one plus 10,000, which
/// may be taken or be no port at all.
///
/// It names no host where it tells clients of the others: they then take the one at which they reached it. So a client
/// that comes through proxies at one address finds all servers through them.
async fn start_member(place: Place) -> RedisServer {
    let bus_port = place.port("bus").to_string();
    let arguments = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus_port,
        "--cluster-node-timeout",
        "1000",
        "--cluster-config-file",
        NODES,
        "--cluster-preferred-endpoint-type",
        "unknown-endpoint",
    ];
    RedisServer::start_with(place, &arguments).await
}

/// Sends a process a signal, such as `STOP` to freeze it and `CONT` to thaw it.
///
/// # Panics
/// If the signal cannot be sent.
pub async fn signal(process: u32, signal: &str) {
    assert!(
        try_signal(process, signal).await,
        "cannot send {signal} to {process}"
    );
}

/// Sends a process a signal; false if it is not there.
pub async fn try_signal(process: u32, signal: &str) -> bool {
    let kill = find_program("kill", "procps").unwrap_or_else(|_| Path::new("/bin/kill").to_owned());
    let status = Command::new(kill)
        .args([format!("-{signal}"), process.to_string()])
        .stderr(Stdio::null())
        .status()
        .await
        .expect("kill can be run");
    status.success()
}
