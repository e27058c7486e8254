//! A shard: a PostgreSQL primary and a standby that streams from it, *synchronously*.
//!
//! A commit is acknowledged when the standby has it on disk (`synchronous_commit = on` with
//! `synchronous_standby_names` set), so a standby that is promoted has every acknowledged commit. While the standby is
//! away commits would wait for it; a keeper looks every half a second, and after [`PATIENCE`] without a standby lets the
//! primary go on alone, and makes it wait again once a standby streams. Meanwhile the shard is not *synchronous*, and
//! [`Shard::fail_over`] refuses to promote: that standby may lack what was acknowledged. (Patroni's synchronous mode
//! does the same.) Nothing is promoted by itself.
//!
//! Nodes know both servers and connect to the one that takes writes. A primary that lost its place must therefore never
//! come back as a primary: it is started again only as a standby, with its database thrown away and copied anew.

use crate::{
    error::{LabError, guarded},
    part::{Held, Part, Server, State},
};
use holon_testkit::{
    Place, PostgresServer,
    postgres::{self, PostgresOptions},
};
use std::{
    cmp::Reverse,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls};
use tokio_util::task::AbortOnDropHandle;

/// How long commits wait for a standby that is away, before the primary goes on alone.
pub const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(2);
/// How long a standby that is started again may take to find its place in the stream.
const CATCH_UP: Duration = Duration::from_secs(15);

/// By this name a standby is known to its primary; what else streams, such as the copying of a database, is none.
const WAIT: &str = "ALTER SYSTEM SET synchronous_standby_names = 'walreceiver'";
const GO_ALONE: &str = "ALTER SYSTEM SET synchronous_standby_names = ''";
const ASK: &str = "SELECT count(*), coalesce(bool_or(sync_state IN ('sync', 'quorum')), false), \
                   current_setting('synchronous_standby_names') <> '', \
                   max(pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn))::bigint \
                   FROM pg_stat_replication WHERE state = 'streaming' AND application_name = 'walreceiver'";
const RELOAD: &str = "SELECT pg_reload_conf()";

/// What is known of who is who.
struct Roles {
    primary: usize,
    /// Whether the standby surely has every acknowledged commit: it was seen to be waited for twice in a row, so that
    /// every session knows of it.
    is_synchronous: bool,
    was_waited_for: bool,
}

/// One shard.
pub struct Shard {
    pub name: String,
    members: Vec<Arc<Part>>,
    /// Held by who kills, starts or promotes; taken before `roles`.
    changing: Mutex<()>,
    roles: Mutex<Roles>,
    /// Where the name of the primary is written down.
    record: PathBuf,
}

/// How a shard is, as its primary says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replication {
    pub is_synchronous: bool,
    /// How many bytes of log the standby has yet to get; none if it does not stream.
    pub lag_bytes: Option<u64>,
}

impl Shard {
    /// Starts the primary and the standby of a shard, if it is to have one, on what was left in their places.
    pub(crate) async fn start(
        name: &str,
        record: PathBuf,
        places: Vec<Place>,
        settings: &[(String, String)],
    ) -> Result<Self, LabError> {
        let names: Vec<String> = (1..=places.len())
            .map(|number| format!("postgres-{name}{number}"))
            .collect();
        let primary = which_is_primary(&record, &names, &places);
        let mut options = PostgresOptions::default()
            .set("wal_sender_timeout", "4s")
            .set("wal_receiver_timeout", "4s")
            .set("wal_keep_size", "512MB");
        options.settings.extend(settings.iter().cloned());
        let mut places: Vec<Option<Place>> = places.into_iter().map(Some).collect();
        let mut servers: Vec<Option<PostgresServer>> = Vec::new();
        servers.resize_with(places.len(), || None);
        if let Some(place) = places[primary].take() {
            let server = guarded(PostgresServer::start_in(place, options.clone())).await?;
            for (number, place) in places.iter_mut().enumerate() {
                let Some(place) = place.take() else { continue };
                let standby = match postgres::is_standby(place.path()) {
                    true => guarded(PostgresServer::start_in(place, options.clone())).await?,
                    false => guarded(server.standby_in(place)).await?,
                };
                servers[number] = Some(standby);
            }
            servers[primary] = Some(server);
        }
        let members = names
            .into_iter()
            .zip(servers)
            .filter_map(|(name, server)| Some(Arc::new(Part::new(name, Server::Postgres(server?)))))
            .collect();
        let shard = Self {
            name: name.to_owned(),
            members,
            changing: Mutex::new(()),
            roles: Mutex::new(Roles {
                primary,
                is_synchronous: false,
                was_waited_for: false,
            }),
            record,
        };
        shard.write_down(primary)?;
        Ok(shard)
    }

    /// Both servers, in a fixed order that says nothing about who is the primary.
    pub fn members(&self) -> &[Arc<Part>] {
        &self.members
    }

    pub async fn primary(&self) -> Arc<Part> {
        Arc::clone(&self.members[self.roles.lock().await.primary])
    }

    pub async fn standby(&self) -> Option<Arc<Part>> {
        let primary = self.roles.lock().await.primary;
        self.other(primary)
            .map(|number| Arc::clone(&self.members[number]))
    }

    /// Whether the standby surely has every commit that was acknowledged.
    pub async fn is_synchronous(&self) -> bool {
        self.roles.lock().await.is_synchronous
    }

    /// Waits until the standby surely has every acknowledged commit.
    ///
    /// # Errors
    /// If that takes longer.
    pub async fn synchronous(&self, patience: Duration) -> Result<(), LabError> {
        let end = Instant::now() + patience;
        while !self.is_synchronous().await {
            if Instant::now() > end {
                return Err(LabError::NotSynchronous(self.name.clone()));
            }
            tokio::time::sleep(LOOK / 10).await;
        }
        Ok(())
    }

    /// Kills the primary if it still runs, and promotes the standby, which takes writes on return. The old primary stays
    /// down; [`Self::start_again`] makes it the standby.
    ///
    /// # Errors
    /// [`LabError::NotSynchronous`], and then nothing was done; [`LabError::NoStandby`].
    pub async fn fail_over(&self) -> Result<(), LabError> {
        let _changing = self.changing.lock().await;
        let mut roles = self.roles.lock().await;
        let no_standby = || LabError::NoStandby(self.name.clone());
        let next = self.other(roles.primary).ok_or_else(no_standby)?;
        let mut standby = self.members[next].hold().await;
        if !roles.is_synchronous || standby.state() != State::Running {
            return Err(LabError::NotSynchronous(self.name.clone()));
        }
        // It may be frozen, and must not wake as a primary.
        self.members[roles.primary].kill().await?;
        // The new one has no standby yet, and must not wait for it.
        self.tell(&mut standby, &[GO_ALONE, RELOAD]).await?;
        let server = standby.postgres()?;
        guarded(server.promote()).await?;
        self.write_down(next)?;
        roles.primary = next;
        roles.is_synchronous = false;
        roles.was_waited_for = false;
        Ok(())
    }

    /// Starts a server again: the primary as what it is, another as the standby of the primary, with its database thrown
    /// away if it was the primary once or cannot find its place in the stream.
    pub async fn start_again(&self, part: &Part) -> Result<(), LabError> {
        let _changing = self.changing.lock().await;
        let primary = self.roles.lock().await.primary;
        if self.members[primary].name == part.name {
            return part.start_again().await;
        }
        // Commits are not to wait while a whole database is copied.
        let mut roles = self.roles.lock().await;
        roles.go_alone(&self.url(primary)).await;
        drop(roles);
        let mut held = part.hold().await;
        held.kill().await?;
        if postgres::is_standby(&part.directory) {
            held.start_again().await?;
            if streams_within(&self.url(primary), CATCH_UP).await {
                return Ok(());
            }
        }
        guarded(held.postgres()?.follow(self.members[primary].port)).await
    }

    /// Looks after the standby until this is dropped.
    pub(crate) fn keep(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let shard = Arc::clone(self);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut missed_since = None;
            loop {
                tokio::time::sleep(LOOK).await;
                shard.look(&mut missed_since).await;
            }
        }))
    }

    async fn look(&self, missed_since: &mut Option<Instant>) {
        let mut roles = self.roles.lock().await;
        let primary = &self.members[roles.primary];
        if self.other(roles.primary).is_none() || primary.state().await != State::Running {
            *missed_since = None;
            return;
        }
        let Some(seen) = ask(&self.url(roles.primary)).await else {
            return;
        };
        if seen.streams {
            *missed_since = None;
            let is_waited_for = seen.waits && seen.is_synchronous;
            roles.is_synchronous = is_waited_for && roles.was_waited_for;
            roles.was_waited_for = is_waited_for;
            if !seen.waits {
                execute(&self.url(roles.primary), &[WAIT, RELOAD]).await;
            }
            return;
        }
        let since = *missed_since.get_or_insert_with(Instant::now);
        if seen.waits && since.elapsed() >= PATIENCE {
            let url = self.url(roles.primary);
            roles.go_alone(&url).await;
        }
    }

    /// What the primary says about its standby.
    pub async fn replication(&self) -> Replication {
        let (primary, is_synchronous) = {
            let roles = self.roles.lock().await;
            (roles.primary, roles.is_synchronous)
        };
        let seen = ask(&self.url(primary)).await;
        Replication {
            is_synchronous,
            lag_bytes: seen.and_then(|seen| seen.lag_bytes),
        }
    }

    async fn tell(&self, held: &mut Held, statements: &[&str]) -> Result<(), LabError> {
        let server = held.postgres()?;
        for statement in statements {
            guarded(server.query(statement)).await?;
        }
        Ok(())
    }

    fn other(&self, member: usize) -> Option<usize> {
        (0..self.members.len()).find(|number| *number != member)
    }

    fn url(&self, member: usize) -> String {
        postgres::url(self.members[member].port)
    }

    fn write_down(&self, primary: usize) -> Result<(), LabError> {
        std::fs::write(&self.record, &self.members[primary].name).map_err(|error| LabError::File {
            what: "cannot write",
            path: self.record.clone(),
            error,
        })
    }
}

/// Which of the servers that were left is the primary: the one that is no standby. After a promotion that was cut short
/// there may be two; the one that was promoted is on a later timeline.
fn which_is_primary(record: &Path, names: &[String], places: &[Place]) -> usize {
    let recorded = std::fs::read_to_string(record).unwrap_or_default();
    let was_primary = |number: usize| names[number] == recorded.trim();
    (0..places.len())
        .filter(|number| !postgres::is_standby(places[*number].path()))
        .max_by_key(|number| {
            let timeline = postgres::timeline(places[*number].path());
            (timeline, was_primary(*number), Reverse(*number))
        })
        .unwrap_or(0)
}

/// What a primary says about who streams from it.
struct Seen {
    streams: bool,
    /// Whether commits wait for the standby.
    waits: bool,
    is_synchronous: bool,
    lag_bytes: Option<u64>,
}

impl Roles {
    /// Lets the primary acknowledge commits that no standby has. From here on none is promoted, whatever becomes of the
    /// statements.
    async fn go_alone(&mut self, primary: &str) {
        self.is_synchronous = false;
        self.was_waited_for = false;
        execute(primary, &[GO_ALONE, RELOAD]).await;
    }
}

async fn streams_within(primary: &str, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        if ask(primary).await.is_some_and(|seen| seen.streams) {
            return true;
        }
        tokio::time::sleep(LOOK / 5).await;
    }
    false
}

/// Asks a primary; nothing if it does not answer in time.
async fn ask(url: &str) -> Option<Seen> {
    tokio::time::timeout(ANSWER, async {
        let client = connect(url).await?;
        let row = client.query_one(ASK, &[]).await.ok()?;
        let lag: Option<i64> = row.get(3);
        Some(Seen {
            streams: row.get::<_, i64>(0) > 0,
            is_synchronous: row.get(1),
            waits: row.get(2),
            lag_bytes: lag.and_then(|lag| u64::try_from(lag).ok()),
        })
    })
    .await
    .ok()?
}

/// Tells a primary, if it can be told; who tells looks again later.
async fn execute(url: &str, statements: &[&str]) {
    let tell = async {
        let Some(client) = connect(url).await else { return };
        for statement in statements {
            if client.batch_execute(statement).await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(ANSWER, tell).await;
}

async fn connect(url: &str) -> Option<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Some(client)
}
