//! One round: people, load, a fault, recovery, and the check. What it showed is kept.

use crate::{
    client::{Clients, Person},
    disk::Disk,
    expected::Expected,
    faults::{Fault, FaultError, Target, strike},
    http::Http,
    journal::{self, Entry, Journal},
    judge::{Complaints, judge},
    load::{self, Load, LoadError, LoadOptions},
    observe::look,
    sessions::Sessions,
};
use holon_lab::Cluster;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Recovered is who made no error for so long.
pub const QUIET: Duration = Duration::from_secs(5);
/// How long recovery may take, from the end of the fault.
const RECOVERY: Duration = Duration::from_secs(120);
/// How long the nodes may take until they show what they must. Counts beside posts may be half a minute old.
const CATCH_UP: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    #[error("the fault could not be struck or healed: {0}")]
    Fault(#[from] FaultError),
    #[error("the load could not be driven: {0}")]
    Load(#[from] LoadError),
    #[error("the journal cannot be kept: {0}")]
    Journal(#[from] std::io::Error),
    #[error("nobody could sign in: {0}")]
    Sessions(String),
}

/// What a round showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    pub fault: Fault,
    /// What was hit.
    pub hit: String,
    pub seed: u64,
    /// From the first request to the last.
    pub seconds: f64,
    pub requests: usize,
    pub writes_acknowledged: usize,
    /// Attempts that got no answer or a server's error, from the fault on.
    pub errors: usize,
    /// Attempts that were told to come back: 429, or a request with the same key still running.
    pub told_to_wait: usize,
    /// Requests that a client gave up on.
    pub given_up: usize,
    /// From the fault to the first five seconds without an error, in seconds.
    pub recovered: f64,
    /// From the end of the load until every list and home on every node was right, in seconds.
    pub homes_right: f64,
    /// The same, and every count beside posts and people.
    pub all_right: f64,
    /// Of requests that began before the fault, retries included, in milliseconds.
    pub quiet_p99: f64,
    /// Of those that began while it lasted.
    pub fault_p99: f64,
    /// The longest that one request took, retries included, in seconds.
    pub slowest: f64,
    /// What is wrong.
    pub complaints: Vec<String>,
}

/// Everybody of one round, who is looked at again at the end of all rounds.
pub struct Cohort {
    pub name: String,
    journal: PathBuf,
    people: Vec<Person>,
}

/// Where rounds take place.
pub struct Stage {
    pub cluster: Arc<Cluster>,
    pub disk: Option<Disk>,
    pub admin: String,
    pub sessions: Sessions,
    http: Http,
    /// Journals go here.
    work: PathBuf,
    nodes: Vec<String>,
}

impl Stage {
    /// # Errors
    /// [`RoundError::Sessions`] if the cluster does not let anybody in.
    pub async fn new(
        cluster: Arc<Cluster>,
        disk: Option<Disk>,
        admin: String,
        work: &Path,
    ) -> Result<Self, RoundError> {
        let http = Http::default();
        let nodes: Vec<String> = cluster.nodes().iter().map(holon_lab::Node::url).collect();
        let clients = Clients {
            http: http.clone(),
            nodes: nodes.clone(),
            journal: Arc::new(Journal::create(&work.join("sessions.jsonl"))?),
        };
        let sessions = Sessions::begin(&clients, "guest", 3)
            .await
            .map_err(RoundError::Sessions)?;
        Ok(Self {
            cluster,
            disk,
            admin,
            sessions,
            http,
            work: work.to_owned(),
            nodes,
        })
    }

    /// Plays one round with people of its own.
    ///
    /// # Errors
    /// What kept the round from being played, which says nothing about Holon.
    pub async fn round(
        &mut self,
        fault: Fault,
        options: &LoadOptions,
        before: Duration,
        random: &mut StdRng,
    ) -> Result<(Round, Cohort), RoundError> {
        let path = self.work.join(format!("{}.jsonl", options.name));
        let clients = Arc::new(Clients {
            http: self.http.clone(),
            nodes: self.nodes.clone(),
            journal: Arc::new(Journal::create(&path)?),
        });
        let people = load::people(&clients, &self.admin, options).await?;
        let load = Load::start(&clients, &people, options);
        tokio::time::sleep(before).await;
        let struck = clients.journal.now();
        let target = Target {
            cluster: &self.cluster,
            disk: self.disk.as_ref(),
            http: &self.http,
            admin: &self.admin,
        };
        let outcome = strike(fault, &target, random).await;
        let healed = clients.journal.now();
        let hit = match outcome {
            Ok(hit) => hit,
            Err(error) => {
                load.stop().await?;
                return Err(error.into());
            }
        };
        until_quiet(&path, &clients.journal, healed).await?;
        load.stop().await?;
        let entries = journal::read(&path)?;
        let cohort = Cohort {
            name: options.name.clone(),
            journal: path,
            people,
        };
        let check = self.check(&cohort).await?;
        let mut complaints = check.complaints;
        complaints.extend(self.sessions.complaints(&clients).await);
        let attempts = || entries.iter().flat_map(|entry| &entry.attempts);
        let since_fault = || attempts().filter(|attempt| attempt.ended >= struck);
        let began = entries.iter().map(Entry::started).min().unwrap_or(0);
        let last = entries.iter().map(Entry::ended).max().unwrap_or(0);
        let longest = entries.iter().map(|entry| entry.ended() - entry.started()).max();
        let round = Round {
            fault,
            hit,
            seed: options.seed,
            seconds: seconds(last - began),
            requests: entries.len(),
            writes_acknowledged: entries.iter().filter(|entry| is_acknowledged(entry)).count(),
            errors: since_fault().filter(|attempt| attempt.is_error()).count(),
            told_to_wait: since_fault()
                .filter(|attempt| matches!(attempt.status, Some(429)) || attempt.error == "still-running")
                .count(),
            given_up: entries
                .iter()
                .filter(|entry| entry.outcome == journal::Outcome::Unknown)
                .count(),
            recovered: seconds(recovered(&entries, struck) - struck),
            homes_right: check.homes_right.as_secs_f64(),
            all_right: check.all_right.as_secs_f64(),
            quiet_p99: p99(&entries, 0, struck),
            fault_p99: p99(&entries, struck, healed),
            slowest: seconds(longest.unwrap_or(0)),
            complaints,
        };
        Ok((round, cohort))
    }

    /// Looks at the people of earlier rounds again: what was acknowledged then is there now.
    ///
    /// # Errors
    /// Those of their journals.
    pub async fn check_again(&self, cohort: &mut Cohort) -> Result<Vec<String>, RoundError> {
        let clients = Clients {
            http: self.http.clone(),
            nodes: self.nodes.clone(),
            journal: Arc::new(Journal::create(&self.work.join("again.jsonl"))?),
        };
        for person in &mut cohort.people {
            person.token = load::token_for(&clients, &self.admin, &person.handle).await?;
        }
        Ok(self.check(cohort).await?.complaints)
    }

    /// Compares what the nodes show with the journal until it is right, or for as long as may be waited for.
    async fn check(&self, cohort: &Cohort) -> Result<Check, RoundError> {
        let entries = journal::read(&cohort.journal)?;
        let handles: Vec<String> = cohort.people.iter().map(|person| person.handle.clone()).collect();
        let expected = Expected::of(&handles, &entries);
        let likes: BTreeSet<u64> = expected.likes.keys().map(|(post, _)| *post).collect();
        let began = Instant::now();
        let mut homes_right = None;
        loop {
            let found = self.compare(&expected, cohort, &likes).await;
            if found.lists.is_empty() {
                homes_right.get_or_insert(began.elapsed());
            } else {
                homes_right = None;
            }
            let is_over = began.elapsed() > CATCH_UP;
            if found.is_empty() || is_over {
                let mut complaints = expected.complaints;
                complaints.extend(found.into_all());
                return Ok(Check {
                    homes_right: homes_right.unwrap_or(began.elapsed()),
                    all_right: began.elapsed(),
                    complaints,
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn compare(&self, expected: &Expected, cohort: &Cohort, likes: &BTreeSet<u64>) -> Complaints {
        let none = BTreeSet::new();
        let mut seen = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let likes = if number == 0 { likes } else { &none };
            match look(&self.http, node, &cohort.people, likes).await {
                Ok(node) => seen.push(node),
                Err(error) => {
                    return Complaints {
                        lists: vec![format!("cannot be read: {error}")],
                        counts: Vec::new(),
                    };
                }
            }
        }
        judge(expected, &seen)
    }
}

struct Check {
    homes_right: Duration,
    all_right: Duration,
    complaints: Vec<String>,
}

/// Waits until no client has had an error for a while, or for as long as recovery may take.
async fn until_quiet(path: &Path, journal: &Journal, healed: u64) -> Result<(), RoundError> {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let entries = journal::read(path)?;
        let errors = entries.iter().flat_map(|entry| &entry.attempts);
        let last_error = errors
            .filter(|attempt| attempt.is_error())
            .map(|attempt| attempt.ended)
            .max();
        let quiet_since = healed.max(last_error.unwrap_or(0));
        let now = journal.now();
        let is_quiet = now.saturating_sub(quiet_since) > micros(QUIET);
        if is_quiet || now.saturating_sub(healed) > micros(RECOVERY) {
            return Ok(());
        }
    }
}

fn is_acknowledged(entry: &Entry) -> bool {
    let is_done = matches!(
        entry.outcome,
        journal::Outcome::Done | journal::Outcome::Posted { .. }
    );
    entry.action.is_write() && is_done
}

/// When the first stretch without an error began that was long enough. An attempt that comes to nothing is an error from
/// its start on, since its client waits.
fn recovered(entries: &[Entry], struck: u64) -> u64 {
    let attempts = entries.iter().flat_map(|entry| &entry.attempts);
    let mut errors: Vec<(u64, u64)> = attempts
        .filter(|attempt| attempt.is_error() && attempt.ended >= struck)
        .map(|attempt| (attempt.started, attempt.ended))
        .collect();
    errors.sort_unstable();
    let Some((_, mut quiet_since)) = errors.first().copied() else {
        return struck;
    };
    for (started, ended) in errors {
        if started.saturating_sub(quiet_since) > micros(QUIET) {
            break;
        }
        quiet_since = quiet_since.max(ended);
    }
    quiet_since
}

/// The 99th percentile of the time that requests took which began in a stretch, in milliseconds; 0 if there were none.
fn p99(entries: &[Entry], from: u64, to: u64) -> f64 {
    let mut took: Vec<u64> = entries
        .iter()
        .filter(|entry| (from..to).contains(&entry.started()))
        .map(|entry| entry.ended() - entry.started())
        .collect();
    took.sort_unstable();
    let place = (took.len() * 99).div_ceil(100).saturating_sub(1);
    took.get(place).map_or(0.0, |micros| *micros as f64 / 1_000.0)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Action, Attempt, Outcome};

    fn failed(started: f64, ended: f64) -> Entry {
        let micros = |seconds: f64| (seconds * 1e6) as u64;
        Entry {
            person: "ann".into(),
            action: Action::Home,
            attempts: vec![Attempt {
                node: 0,
                started: micros(started),
                ended: micros(ended),
                status: None,
                error: "no answer".into(),
            }],
            outcome: Outcome::Unknown,
        }
    }

    #[test]
    fn who_waits_in_vain_has_not_recovered() {
        let struck = 10_000_000;
        let after = |entries: &[Entry]| seconds(recovered(entries, struck) - struck);
        assert_eq!(after(&[]), 0.0);
        assert_eq!(after(&[failed(2.0, 3.0)]), 0.0);
        assert_eq!(after(&[failed(10.0, 20.0)]), 10.0);
        assert_eq!(after(&[failed(10.0, 20.0), failed(24.0, 34.0)]), 24.0);
        assert_eq!(after(&[failed(10.0, 11.0), failed(20.0, 21.0)]), 1.0);
    }
}
