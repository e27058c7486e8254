//! What the engine can be told at its start.

use crate::error::PostgresError;
use holon_base::{Clock, SystemClock};
use std::{collections::HashSet, fmt, str::FromStr, sync::Arc, time::Duration};
use tokio_postgres::config::{Config, SslMode, TargetSessionAttrs};

/// How to reach one shard.
#[derive(Clone)]
pub struct ShardOptions {
    /// Its name in the directory, once and for all: 1 to 32 of `a-z`, `0-9` and `-`.
    pub name: String,
    /// A connection string (`postgres://user:password@host:port/database`, or `key=value` pairs). With several hosts
    /// (`postgres://user@one:5432,two:5432/holon`) the one that takes writes is found, also after a failover.
    pub url: String,
    /// Connection strings of hot standbys, for `Eventual` reads.
    pub replicas: Vec<String>,
}

impl ShardOptions {
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            replicas: Vec::new(),
        }
    }

    #[must_use]
    pub fn replica(mut self, url: impl Into<String>) -> Self {
        self.replicas.push(url.into());
        self
    }

    pub(crate) fn check(&self) -> Result<(), PostgresError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=32).contains(&self.name.len()) && self.name.bytes().all(plain) {
            return Ok(());
        }
        Err(PostgresError::Options(format!(
            "a shard's name is 1 to 32 of a-z, 0-9 and '-'; got {:?}",
            self.name
        )))
    }
}

impl fmt::Debug for ShardOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Connection strings hold passwords.
        f.debug_struct("ShardOptions")
            .field("name", &self.name)
            .field("replicas", &self.replicas.len())
            .finish_non_exhaustive()
    }
}

/// Whose time leases are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeaseTime {
    /// The database's: one clock for all nodes, however theirs differ.
    #[default]
    Database,
    /// [`PostgresOptions::clock`], for tests that drive time.
    Clock,
}

/// How the engine is opened.
#[derive(Clone)]
pub struct PostgresOptions {
    pub shards: Vec<ShardOptions>,
    /// The database that holds the directory and the leases; that of the first shard when nothing is said. The same
    /// for all nodes, and for good.
    pub directory: Option<String>,
    /// The number of this node in the ids of events, 0 to 1,023.
    pub node: u16,
    /// Decides what is expired.
    pub clock: Arc<dyn Clock>,
    pub lease_time: LeaseTime,
    /// Connections for commits to each shard. Each carries one call at a time, and a call carries all commits that
    /// wait for it: more lanes mean more calls side by side, and fewer commits in each.
    pub lanes: usize,
    /// Connections for reads from each shard and each replica. Reads are pipelined, so a few are enough.
    pub readers: usize,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long a caller waits for a server that is away, for a failover, or for a slot that moves.
    pub patience: Duration,
    /// How long a server may take for one statement.
    pub statement_timeout: Duration,
    /// How often expired rows are swept.
    pub housekeeping: Duration,
    /// Rows of each table that one sweep deletes at most.
    pub sweep_rows: u32,
    /// How many bytes a second are copied, or deleted where they were, when slots move.
    pub move_bytes_per_second: u64,
}

impl PostgresOptions {
    /// Options for some shards, with defaults for all else.
    pub fn new(shards: Vec<ShardOptions>) -> Self {
        Self {
            shards,
            directory: None,
            node: 0,
            clock: Arc::new(SystemClock),
            lease_time: LeaseTime::default(),
            lanes: 2,
            readers: 4,
            connect_timeout: Duration::from_secs(3),
            patience: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            housekeeping: Duration::from_secs(1),
            sweep_rows: 1_000,
            move_bytes_per_second: 8 << 20,
        }
    }

    #[must_use]
    pub fn node(mut self, node: u16) -> Self {
        self.node = node;
        self
    }

    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn check(&self) -> Result<(), PostgresError> {
        let invalid = |why: String| Err(PostgresError::Options(why));
        if self.shards.is_empty() {
            return invalid("there must be at least one shard".into());
        }
        let mut names = HashSet::new();
        for shard in &self.shards {
            shard.check()?;
            if !names.insert(&shard.name) {
                return invalid(format!("shard {} is there twice", shard.name));
            }
        }
        if self.node > holon_base::id::MAX_NODE {
            return invalid(format!("a node's number is at most {}", holon_base::id::MAX_NODE));
        }
        let counts = [
            self.lanes,
            self.readers,
            self.sweep_rows as usize,
            self.move_bytes_per_second as usize,
        ];
        let times = [self.connect_timeout, self.statement_timeout, self.housekeeping];
        if counts.contains(&0) || times.iter().any(|time| time.as_millis() == 0) {
            return invalid("numbers of connections, rows and times must not be zero".into());
        }
        Ok(())
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("shards", &self.shards)
            .field("has_directory", &self.directory.is_some())
            .field("node", &self.node)
            .field("lanes", &self.lanes)
            .field("readers", &self.readers)
            .finish_non_exhaustive()
    }
}

/// What kind of server a connection string must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    Replica,
}

/// Reads a connection string. What is wrong with it is not told in its own words, since they may hold the password.
pub(crate) fn config(
    database: &str,
    url: &str,
    role: Role,
    options: &PostgresOptions,
) -> Result<Config, PostgresError> {
    let mut config = Config::from_str(url).map_err(|_| {
        PostgresError::Options(format!(
            "the connection string of {database} is malformed; it looks like postgres://user:password@host:port/database"
        ))
    })?;
    if config.get_hosts().is_empty() {
        return Err(PostgresError::Options(format!(
            "the connection string of {database} names no host"
        )));
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err(PostgresError::Options(format!(
            "the connection string of {database} requires TLS, which this engine does not speak"
        )));
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(options.connect_timeout);
    }
    if role == Role::Primary {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if config.get_application_name().is_none() {
        config.application_name(format!("holon-{}", options.node));
    }
    config.keepalives_idle(Duration::from_secs(10));
    config.keepalives_interval(Duration::from_secs(5));
    config.keepalives_retries(3);
    config.tcp_user_timeout(options.statement_timeout + Duration::from_secs(5));
    Ok(config)
}
