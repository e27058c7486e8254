//! A part of the cluster that is a server: it can be killed, frozen, thawed and started again.

use crate::error::{LabError, guarded};
use holon_testkit::{NatsServer, PostgresServer, RedisServer, S3Server, signal};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};
use tokio::sync::Mutex;

/// How long a server may take to end in good order.
const STOP: Duration = Duration::from_secs(5);

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    Node,
    Postgres,
    Nats,
    Redis,
    S3,
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    Running,
    /// Its process is there and stopped: connections stay open, and nothing answers.
    Frozen,
    Stopped,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Stopped => "stopped",
        }
    }
}

pub enum Server {
    Postgres(PostgresServer),
    Nats(NatsServer),
    Redis(RedisServer),
    S3(S3Server),
}

impl Server {
    pub fn port(&self) -> u16 {
        match self {
            Self::Postgres(server) => server.port(),
            Self::Nats(server) => server.port(),
            Self::Redis(server) => server.port(),
            Self::S3(server) => server.port(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Postgres(_) => Kind::Postgres,
            Self::Nats(_) => Kind::Nats,
            Self::Redis(_) => Kind::Redis,
            Self::S3(_) => Kind::S3,
        }
    }

    fn directory(&self) -> PathBuf {
        let place = match self {
            Self::Postgres(server) => server.place(),
            Self::Nats(server) => server.place(),
            Self::Redis(server) => server.place(),
            Self::S3(server) => server.place(),
        };
        place.path().to_owned()
    }

    fn is_running(&mut self) -> bool {
        match self {
            Self::Postgres(server) => server.is_running(),
            Self::Nats(server) => server.is_running(),
            Self::Redis(server) => server.is_running(),
            Self::S3(server) => server.is_running(),
        }
    }

    fn process(&mut self) -> Option<u32> {
        if !self.is_running() {
            return None;
        }
        match self {
            Self::Postgres(server) => server.id(),
            Self::Nats(server) => Some(server.id()),
            Self::Redis(server) => Some(server.id()),
            Self::S3(server) => Some(server.id()),
        }
    }
}

/// A server, and whether it is frozen.
pub(crate) struct Held {
    pub server: Server,
    is_frozen: bool,
}

/// A server under its name.
pub struct Part {
    pub name: String,
    pub kind: Kind,
    pub port: u16,
    /// What it keeps, and its log.
    pub directory: PathBuf,
    held: Mutex<Held>,
}

impl Part {
    pub(crate) fn new(name: impl Into<String>, server: Server) -> Self {
        Self {
            name: name.into(),
            kind: server.kind(),
            port: server.port(),
            directory: server.directory(),
            held: Mutex::new(Held {
                server,
                is_frozen: false,
            }),
        }
    }

    /// The server, for as long as nobody else may do anything to it.
    pub(crate) async fn hold(&self) -> tokio::sync::MutexGuard<'_, Held> {
        self.held.lock().await
    }

    pub async fn state(&self) -> State {
        self.held.lock().await.state()
    }

    /// The id of its process, while there is one.
    pub async fn process(&self) -> Option<u32> {
        self.held.lock().await.server.process()
    }

    /// Kills it (SIGKILL), with all its processes.
    pub async fn kill(&self) -> Result<(), LabError> {
        self.held.lock().await.kill().await
    }

    /// Stops its processes (SIGSTOP).
    pub async fn freeze(&self) -> Result<(), LabError> {
        let mut held = self.held.lock().await;
        self.must_be(State::Running, &mut held, "freeze")?;
        held.signal("STOP").await?;
        held.is_frozen = true;
        Ok(())
    }

    /// Lets a frozen one go on (SIGCONT).
    pub async fn thaw(&self) -> Result<(), LabError> {
        let mut held = self.held.lock().await;
        self.must_be(State::Frozen, &mut held, "thaw")?;
        held.signal("CONT").await?;
        held.is_frozen = false;
        Ok(())
    }

    /// Starts it on what it left; kills it before if it runs. It accepts connections on return.
    pub async fn start_again(&self) -> Result<(), LabError> {
        self.held.lock().await.start_again().await
    }

    /// Ends it in good order.
    pub async fn stop(&self) -> Result<(), LabError> {
        let mut held = self.held.lock().await;
        held.is_frozen = false;
        guarded(async {
            match &mut held.server {
                Server::Postgres(server) => server.stop().await,
                Server::Nats(server) => server.stop(STOP).await,
                Server::Redis(server) => server.stop(STOP).await,
                Server::S3(server) => server.stop(STOP).await,
            }
        })
        .await
    }

    fn must_be(&self, wanted: State, held: &mut Held, action: &'static str) -> Result<(), LabError> {
        let state = held.state();
        if state == wanted {
            return Ok(());
        }
        Err(LabError::State {
            name: self.name.clone(),
            state: state.name(),
            action,
        })
    }
}

impl Held {
    pub fn state(&mut self) -> State {
        match (self.server.is_running(), self.is_frozen) {
            (false, _) => State::Stopped,
            (true, true) => State::Frozen,
            (true, false) => State::Running,
        }
    }

    pub async fn kill(&mut self) -> Result<(), LabError> {
        self.is_frozen = false;
        guarded(async {
            match &mut self.server {
                Server::Postgres(server) => server.kill().await,
                Server::Nats(server) => server.kill().await,
                Server::Redis(server) => server.kill().await,
                Server::S3(server) => server.kill().await,
            }
        })
        .await
    }

    pub async fn start_again(&mut self) -> Result<(), LabError> {
        self.is_frozen = false;
        guarded(async {
            match &mut self.server {
                Server::Postgres(server) => server.start_again().await,
                Server::Nats(server) => server.restart().await,
                Server::Redis(server) => server.restart().await,
                Server::S3(server) => server.restart().await,
            }
        })
        .await
    }

    /// The server of a part that is PostgreSQL.
    pub fn postgres(&mut self) -> Result<&mut PostgresServer, LabError> {
        match &mut self.server {
            Server::Postgres(server) => Ok(server),
            other => Err(LabError::Server(format!("{:?} is no PostgreSQL", other.kind()))),
        }
    }

    async fn signal(&mut self, name: &'static str) -> Result<(), LabError> {
        let process = self.server.process();
        guarded(async {
            match (&self.server, name) {
                (Server::Postgres(server), "STOP") => server.freeze().await,
                (Server::Postgres(server), _) => server.thaw().await,
                (_, name) => {
                    if let Some(process) = process {
                        signal(process, name).await;
                    }
                }
            }
        })
        .await
    }
}
