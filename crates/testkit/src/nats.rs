//! NATS servers with JetStream, each in a place of its own.

use crate::{
    place::Place,
    process::{Process, find_program},
    wait::{PATIENCE, ask, eventually},
};
use std::{fmt::Write as _, path::PathBuf, time::Duration};

/// One NATS server, which keeps its port and its directory when it is killed and started again.
pub struct NatsServer {
    name: String,
    program: PathBuf,
    port: u16,
    monitor: u16,
    process: Option<Process>,
    place: Place,
}

impl NatsServer {
    /// Starts a server by itself. It accepts connections on return.
    pub async fn start() -> Self {
        let mut server = Self::new("n0", Place::temporary());
        server.configure("");
        server.restart().await;
        server.healthy().await;
        server
    }

    fn new(name: &str, place: Place) -> Self {
        let program =
            find_program("nats-server", "nats-server").unwrap_or_else(|missing| panic!("{missing}"));
        Self {
            name: name.to_owned(),
            program,
            port: place.port("clients"),
            monitor: place.port("monitor"),
            process: None,
            place,
        }
    }

    fn configure(&self, more: &str) {
        let (name, port, monitor) = (&self.name, self.port, self.monitor);
        let store = self.place.path().join("store");
        let configuration = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
             max_payload: 2MB\njetstream {{ store_dir: \"{}\", max_memory_store: 256MB, max_file_store: 64TB }}\n{more}",
            store.display()
        );
        std::fs::write(self.configuration(), configuration).expect("a file in a temporary directory");
    }

    fn configuration(&self) -> PathBuf {
        self.place.path().join("nats.conf")
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Such as `nats://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Starts the server, again if it was killed, on what it left. It accepts connections on return.
    pub async fn restart(&mut self) {
        self.kill().await;
        let mut process = Process::start_in(&self.place, &self.program, ["-c".into(), self.configuration()]);
        process.listening(self.port, PATIENCE).await;
        self.process = Some(process);
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

    /// The id of its process.
    ///
    /// # Panics
    /// If it was killed.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("a server that runs").id()
    }

    /// Waits until it says that it is well: in a cluster, that it has a leader and is up to date.
    pub async fn healthy(&self) {
        let what = format!("nats server {} to be healthy", self.name);
        eventually(&what, PATIENCE, || async {
            let answer = ask(self.monitor, "/healthz").await.ok()?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
    }
}

/// NATS servers that form a cluster.
pub struct NatsCluster {
    servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts some servers. On return they have a leader.
    pub async fn start(servers: usize) -> Self {
        Self::start_in((0..servers).map(|_| Place::temporary()).collect()).await
    }

    /// Starts a server in each place, on what was left there. On return they have a leader.
    pub async fn start_in(places: Vec<Place>) -> Self {
        let members: Vec<NatsServer> = (0..)
            .zip(places)
            .map(|(n, place)| NatsServer::new(&format!("n{n}"), place))
            .collect();
        let routes: Vec<u16> = members.iter().map(|member| member.place.port("routes")).collect();
        let mut all = String::new();
        for route in &routes {
            let _ = write!(all, "\"nats-route://127.0.0.1:{route}\", ");
        }
        let mut cluster = Self { servers: members };
        let is_alone = cluster.servers.len() == 1;
        for (server, route) in cluster.servers.iter_mut().zip(&routes) {
            if is_alone {
                // Of a cluster it would wait for the others.
                server.configure("");
                server.restart().await;
                continue;
            }
            // Clients know all servers, and not always by the addresses that the servers have among themselves.
            server.configure(&format!(
                "cluster {{ name: holon, listen: \"127.0.0.1:{route}\", no_advertise: true, routes: [{all}] }}\n"
            ));
            server.restart().await;
        }
        for server in &cluster.servers {
            server.healthy().await;
        }
        cluster
    }

    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    pub fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    /// The servers one by one, for who looks after each by itself.
    pub fn into_servers(self) -> Vec<NatsServer> {
        self.servers
    }

    /// The server of a name: `n0`, `n1` and so on.
    ///
    /// # Panics
    /// If there is none.
    pub fn server(&mut self, name: &str) -> &mut NatsServer {
        self.servers
            .iter_mut()
            .find(|server| server.name == name)
            .unwrap_or_else(|| panic!("no nats server is called {name}"))
    }
}
