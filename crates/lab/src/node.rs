//! A node: `holon serve` with a settings file of its own, in a directory of its own.

use crate::{
    error::{LabError, guarded},
    part::State,
};
use holon_testkit::{Place, Process, ask, signal};
use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// How long a node may take to end in good order: longer than it gives requests in hand.
const STOP: Duration = Duration::from_secs(15);
/// The node's settings file in its directory.
const SETTINGS: &str = "holon.toml";

/// How a node is started.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// What it does, such as `api` and `workers`; everything if empty.
    pub roles: Vec<String>,
    /// More settings, which win over those of the cluster.
    pub settings: Vec<(String, String)>,
}

/// A node that runs, or did.
pub struct Node {
    pub number: u16,
    /// `node-1` and so on.
    pub name: String,
    /// Where it serves clients.
    pub address: SocketAddr,
    binary: PathBuf,
    place: Place,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    process: Option<Process>,
    is_frozen: bool,
}

impl Node {
    /// A node that is not started yet; its settings are written down.
    pub(crate) fn new(
        number: u16,
        address: SocketAddr,
        binary: &Path,
        place: Place,
        settings: &[(String, String)],
    ) -> Result<Self, LabError> {
        let node = Self {
            number,
            name: name(number),
            address,
            binary: binary.to_owned(),
            place,
            running: Mutex::default(),
        };
        node.configure(settings)?;
        Ok(node)
    }

    /// Writes its settings anew, for its next start. Later ones win.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn configure(&self, settings: &[(String, String)]) -> Result<(), LabError> {
        let mut text = String::from("# Written by holon-lab at each start.\n");
        let is_last = |index: usize, key: &str| !settings[index + 1..].iter().any(|(later, _)| later == key);
        for (index, (key, value)) in settings.iter().enumerate() {
            if is_last(index, key) {
                // A literal string of TOML; no setting has a quote in it.
                let _ = writeln!(text, "{key} = '{value}'");
            }
        }
        let path = self.directory().join(SETTINGS);
        // It holds passwords.
        crate::write_private(&path, &text).map_err(|error| LabError::File {
            what: "cannot write",
            path,
            error,
        })
    }

    /// Its data, its settings and its log.
    pub fn directory(&self) -> &Path {
        self.place.path()
    }

    /// What it said since it was started first.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.place.log_path()).unwrap_or_default()
    }

    /// Such as `http://127.0.0.1:8081`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn state(&self) -> State {
        self.running.lock().await.state()
    }

    /// The id of its process, while there is one.
    pub async fn process(&self) -> Option<u32> {
        let mut running = self.running.lock().await;
        match running.state() {
            State::Stopped => None,
            _ => running.process.as_ref().map(Process::id),
        }
    }

    /// Starts it; kills it before if it runs. Nothing is waited for, since a node may wait for others.
    pub async fn start(&self) -> Result<(), LabError> {
        let mut running = self.running.lock().await;
        running.kill().await?;
        let process = async {
            let path = self.directory().display().to_string();
            let settings = format!("{path}/{SETTINGS}");
            Process::start_in(
                &self.place,
                &self.binary,
                ["serve", "--data", &path, "--config", &settings],
            )
        };
        running.process = Some(guarded(process).await?);
        Ok(())
    }

    /// Whether it says that it is ready for requests.
    pub async fn is_ready(&self) -> bool {
        let answer = tokio::time::timeout(Duration::from_secs(5), ask(self.address.port(), "/readyz")).await;
        matches!(answer, Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200"))
    }

    /// Waits until it is ready for requests.
    ///
    /// # Errors
    /// [`LabError::NotReady`] if it ended, or takes longer.
    pub async fn ready(&self, patience: Duration) -> Result<(), LabError> {
        let end = Instant::now() + patience;
        while !self.is_ready().await {
            if self.state().await == State::Stopped || Instant::now() > end {
                let log = self.log();
                let last: Vec<&str> = log.lines().rev().take(12).collect();
                return Err(LabError::NotReady {
                    node: self.number,
                    seconds: patience.as_secs(),
                    said: last.into_iter().rev().collect::<Vec<_>>().join("\n"),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Kills it (SIGKILL).
    pub async fn kill(&self) -> Result<(), LabError> {
        self.running.lock().await.kill().await
    }

    /// Ends it in good order.
    pub async fn stop(&self) -> Result<(), LabError> {
        let mut running = self.running.lock().await;
        running.is_frozen = false;
        match running.process.take() {
            Some(process) => guarded(process.stop(STOP)).await,
            None => Ok(()),
        }
    }

    /// Stops its process (SIGSTOP).
    pub async fn freeze(&self) -> Result<(), LabError> {
        self.signal(State::Running, "STOP", "freeze").await
    }

    /// Lets it go on (SIGCONT).
    pub async fn thaw(&self) -> Result<(), LabError> {
        self.signal(State::Frozen, "CONT", "thaw").await
    }

    async fn signal(&self, wanted: State, name: &str, action: &'static str) -> Result<(), LabError> {
        let mut running = self.running.lock().await;
        let state = running.state();
        let process = running.process.as_ref().map(Process::id);
        let (Some(process), true) = (process, state == wanted) else {
            return Err(LabError::State {
                name: self.name.clone(),
                state: state.name(),
                action,
            });
        };
        guarded(signal(process, name)).await?;
        running.is_frozen = wanted == State::Running;
        Ok(())
    }
}

impl Running {
    fn state(&mut self) -> State {
        let runs = self
            .process
            .as_mut()
            .is_some_and(|process| process.ended().is_none());
        match (runs, self.is_frozen) {
            (false, _) => State::Stopped,
            (true, true) => State::Frozen,
            (true, false) => State::Running,
        }
    }

    async fn kill(&mut self) -> Result<(), LabError> {
        self.is_frozen = false;
        match self.process.take() {
            Some(process) => guarded(process.kill()).await,
            None => Ok(()),
        }
    }
}

/// What a node is called.
pub fn name(number: u16) -> String {
    format!("node-{number}")
}
