//! How every part is, and what it can be told.

use crate::{
    cluster::{CUT, Cluster},
    control::Deeds,
    error::LabError,
    link::Condition,
    node::Node,
    part::{Kind, Part, State},
    shard::Replication,
};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How much later what is said to a slow server arrives.
pub const SLOW: Duration = Duration::from_millis(500);
/// How long a server may take to say what it is.
const ANSWER: Duration = Duration::from_millis(300);
/// How long a node may take to say that it is ready.
const READY: Duration = Duration::from_secs(1);
/// How long it may take to find out about a server that somebody does something to.
const HELD: Duration = Duration::from_millis(50);

/// What a part can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// Start it again on what it left.
    Start,
    /// SIGSTOP.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// A node: off everything. A server: off all nodes.
    Cut,
    /// Let what is said to a server arrive later.
    Slow,
    /// Take back what was cut or slowed.
    Heal,
    /// Kill a PostgreSQL primary and promote its standby.
    FailOver,
}

impl Action {
    /// As it is written in paths and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Start => "start",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Cut => "cut",
            Self::Slow => "slow",
            Self::Heal => "heal",
            Self::FailOver => "failOver",
        }
    }
}

/// How much of what goes to and from a part is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reach {
    Whole,
    Partly,
    CutOff,
}

/// One part.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartReport {
    pub name: String,
    pub kind: Kind,
    pub state: State,
    /// Where it listens.
    pub address: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<u32>,
    /// What it is among its like, such as primary or standby.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<String>,
    pub reach: Reach,
    /// How much later what is said to it arrives.
    pub delay_ms: u64,
    /// What is being done to it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub doing: Option<Action>,
    /// Why what was done last did not succeed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
    pub actions: Vec<Action>,
}

impl Cluster {
    /// Everything, nodes first.
    pub async fn report(&self) -> Vec<PartReport> {
        let replications = join_all(self.shards().iter().map(|shard| shard.replication())).await;
        let replication_of = |part: &Part| {
            let shard = self.shard_of(part)?;
            let number = self.shards().iter().position(|each| each.name == shard.name)?;
            Some(replications[number])
        };
        let nodes = join_all(self.nodes().iter().map(|node| self.report_node(node))).await;
        let servers = self
            .servers()
            .map(|part| self.report_server(part, replication_of(part)));
        nodes.into_iter().chain(join_all(servers).await).collect()
    }

    /// One part by its name.
    ///
    /// # Errors
    /// [`LabError::NoPart`].
    pub async fn report_of(&self, name: &str) -> Result<PartReport, LabError> {
        if let Some(node) = self.nodes().iter().find(|node| node.name == name) {
            return Ok(self.report_node(node).await);
        }
        let part = self.server(name)?;
        let replication = match self.shard_of(part) {
            Some(shard) => Some(shard.replication().await),
            None => None,
        };
        Ok(self.report_server(part, replication).await)
    }

    async fn report_node(&self, node: &Node) -> PartReport {
        let state = node.state().await;
        let role = match state {
            State::Running if timeout(READY, node.is_ready()).await != Ok(true) => {
                Some("not ready".to_owned())
            }
            _ => None,
        };
        let process = node.process().await;
        let conditions = self
            .network()
            .map(|network| network.around(node.number))
            .unwrap_or_default();
        self.report_part(
            PartReport {
                name: node.name.clone(),
                kind: Kind::Node,
                state,
                address: node.address.to_string(),
                process,
                role,
                reach: Reach::Whole,
                delay_ms: 0,
                doing: None,
                failure: None,
                actions: Vec::new(),
            },
            &conditions,
            &[Action::Cut],
        )
    }

    async fn report_server(&self, part: &Arc<Part>, replication: Option<Replication>) -> PartReport {
        // Whoever holds it starts it.
        let state = timeout(HELD, part.state()).await.unwrap_or(State::Stopped);
        let mut ways = vec![Action::Cut, Action::Slow];
        let role = match (part.kind, replication) {
            (Kind::Postgres, Some(replication)) => {
                let (role, can_fail_over) = self.postgres_role(part, replication).await;
                if can_fail_over {
                    ways.push(Action::FailOver);
                }
                Some(role)
            }
            (Kind::Redis, _) if state == State::Running => redis_role(part.port).await,
            _ => None,
        };
        let process = timeout(HELD, part.process()).await.unwrap_or(None);
        let conditions = self
            .network()
            .map(|network| network.before(&part.name))
            .unwrap_or_default();
        self.report_part(
            PartReport {
                name: part.name.clone(),
                kind: part.kind,
                state,
                address: format!("127.0.0.1:{}", part.port),
                process,
                role,
                reach: Reach::Whole,
                delay_ms: 0,
                doing: None,
                failure: None,
                actions: Vec::new(),
            },
            &conditions,
            &ways,
        )
    }

    /// What a PostgreSQL server is in its shard, and whether it can be replaced.
    async fn postgres_role(&self, part: &Part, replication: Replication) -> (String, bool) {
        let Some(shard) = self.shard_of(part) else {
            return (String::new(), false);
        };
        let is_primary = shard.primary().await.name == part.name;
        let has_standby = shard.standby().await.is_some();
        let role = match (is_primary, replication) {
            (true, _) if !has_standby => "primary".to_owned(),
            (
                true,
                Replication {
                    is_synchronous: true, ..
                },
            ) => "primary, synchronous".to_owned(),
            (true, _) => "primary, alone".to_owned(),
            (
                false,
                Replication {
                    lag_bytes: Some(lag), ..
                },
            ) => format!("standby, {lag} bytes behind"),
            (false, _) => "standby, away".to_owned(),
        };
        (role, is_primary && replication.is_synchronous)
    }

    /// Adds what is known of the ways to it, and what can be done.
    fn report_part(&self, mut report: PartReport, conditions: &[Condition], ways: &[Action]) -> PartReport {
        let cut = conditions.iter().filter(|condition| condition.is_cut).count();
        report.reach = match cut {
            0 => Reach::Whole,
            some if some < conditions.len() => Reach::Partly,
            _ => Reach::CutOff,
        };
        let delay = conditions.iter().map(|condition| condition.delay).max();
        report.delay_ms = delay.unwrap_or_default().as_millis() as u64;
        if let Some(deed) = self.deeds().of(&report.name) {
            match deed.outcome {
                None => report.doing = Some(deed.action),
                Some(outcome) => report.failure = outcome.err(),
            }
        }
        report.actions = match report.state {
            State::Running => vec![Action::Kill, Action::Freeze],
            State::Frozen => vec![Action::Thaw, Action::Kill],
            State::Stopped => vec![Action::Start],
        };
        let has_links = !conditions.is_empty();
        let is_touched = report.reach != Reach::Whole || report.delay_ms > 0;
        report
            .actions
            .extend(ways.iter().copied().filter(|way| match way {
                Action::Cut => has_links && report.reach != Reach::CutOff,
                Action::Slow => has_links && report.reach == Reach::Whole && report.delay_ms == 0,
                _ => true,
            }));
        if is_touched {
            report.actions.push(Action::Heal);
        }
        report
    }

    /// Does to a part what it is told.
    pub async fn perform(&self, name: &str, action: Action) -> Result<(), LabError> {
        if let Some(node) = self.nodes().iter().find(|node| node.name == name) {
            return match action {
                Action::Kill => node.kill().await,
                Action::Start => self.restart_node(node.number).await,
                Action::Freeze => node.freeze().await,
                Action::Thaw => node.thaw().await,
                Action::Cut => self.cut_off(node.number),
                Action::Heal => self.heal_node(node.number),
                Action::Slow | Action::FailOver => Err(self.cannot(name, action).await),
            };
        }
        let part = self.server(name)?;
        match action {
            Action::Kill => part.kill().await,
            Action::Start => self.restart_server(name).await,
            Action::Freeze => part.freeze().await,
            Action::Thaw => part.thaw().await,
            Action::Cut => self.set_before(name, CUT),
            Action::Slow => self.set_before(
                name,
                Condition {
                    is_cut: false,
                    delay: SLOW,
                },
            ),
            Action::Heal => self.set_before(name, Condition::default()),
            Action::FailOver => match self.shard_of(part) {
                Some(shard) => shard.fail_over().await,
                None => Err(self.cannot(name, action).await),
            },
        }
    }

    async fn cannot(&self, name: &str, action: Action) -> LabError {
        let known = match self.report_of(name).await {
            Ok(report) => report.actions.iter().map(|action| action.name()).collect(),
            Err(error) => return error,
        };
        let known: Vec<&str> = known;
        LabError::NoAction {
            action: action.name().to_owned(),
            name: name.to_owned(),
            known: known.join(", "),
        }
    }

    pub(crate) fn deeds(&self) -> &Arc<Deeds> {
        &self.control().deeds
    }
}

/// Whether a Redis server is a primary or a replica, by its own word.
async fn redis_role(port: u16) -> Option<String> {
    let ask = async {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        connection.write_all(b"ROLE\r\n").await.ok()?;
        let mut answer = [0; 64];
        let length = connection.read(&mut answer).await.ok()?;
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        if answer.contains("master") {
            return Some("primary".to_owned());
        }
        answer.contains("slave").then(|| "replica".to_owned())
    };
    timeout(ANSWER, ask).await.ok()?
}
