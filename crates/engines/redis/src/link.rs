//! The connection to one server or to a Cluster: commands with a time limit, behind circuit breakers.
//!
//! A connection is made when there is none, with the functions loaded, by whoever finds it missing; a probe makes a
//! new one when the old one does not answer, since a server that was frozen or replaced may leave a connection that
//! looks whole. In a Cluster primaries fail one by one, so the slots are divided into [`GROUPS`] ranges, each with a
//! breaker of its own: keys on other primaries never notice.

use crate::breaker::{Breaker, BreakerState};
use crate::{RedisError, RedisOptions, functions};
use holon_ports::CacheError;
use parking_lot::RwLock;
use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, ResponsePolicy, Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr,
};
use redis::{AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Value};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Breakers of a Cluster, each for a range of its slots.
const GROUPS: usize = 64;
const SLOTS: usize = 16_384;

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

enum Target {
    Single(Box<Client>, AsyncConnectionConfig),
    Cluster(Box<ClusterClient>),
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    WrongShape,
    /// The breaker is open, or the server did not answer as it should.
    Away(String),
}

impl Fault {
    pub(crate) fn of(self, key: &str) -> CacheError {
        match self {
            Self::WrongShape => CacheError::WrongShape(key.to_owned()),
            Self::Away(why) => CacheError::Unavailable(why),
        }
    }
}

/// What happened on the link, since start.
#[derive(Debug, Default)]
pub(crate) struct LinkCounts {
    pub(crate) commands: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) connections: AtomicU64,
}

/// Whether a command may be sent again when it is not known if it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    Yes,
    No,
}

pub(crate) struct Link {
    target: Target,
    prefix: String,
    timeout: Duration,
    probe_every: Duration,
    /// The connection, and a number that no other connection had.
    connection: RwLock<Option<(Connection, u64)>>,
    /// When a connection was last tried for. Held while one is made.
    connecting: Mutex<Option<Instant>>,
    /// Held while functions are loaded; how often they were.
    loading: Mutex<()>,
    loads: AtomicU64,
    breakers: Vec<Breaker>,
    pub(crate) counts: LinkCounts,
    itself: Weak<Link>,
}

impl Link {
    /// Does not connect yet.
    pub(crate) fn new(options: &RedisOptions) -> Result<Arc<Self>, RedisError> {
        let invalid = |_| RedisError::Url;
        let Some(first) = options.urls.first() else {
            return Err(RedisError::Url);
        };
        let target = if options.cluster {
            let urls = options
                .urls
                .iter()
                .map(|url| url.as_str().into_connection_info().map_err(invalid))
                .collect::<Result<Vec<_>, _>>()?;
            let client = ClusterClientBuilder::new(urls)
                .connection_timeout(options.timeout)
                .response_timeout(options.timeout)
                .retries(2)
                .min_retry_wait(5)
                .max_retry_wait(50)
                .build()
                .map_err(invalid)?;
            Target::Cluster(Box::new(client))
        } else {
            if options.urls.len() > 1 {
                return Err(RedisError::ManyUrls);
            }
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(options.timeout))
                .set_response_timeout(None);
            let client = Client::open(first.as_str()).map_err(invalid)?;
            Target::Single(Box::new(client), config)
        };
        let groups = if options.cluster { GROUPS } else { 1 };
        Ok(Arc::new_cyclic(|itself| Self {
            target,
            prefix: options.prefix.clone(),
            timeout: options.timeout,
            probe_every: options.probe_every,
            connection: RwLock::new(None),
            connecting: Mutex::new(None),
            loading: Mutex::new(()),
            loads: AtomicU64::new(0),
            breakers: (0..groups).map(|_| Breaker::new(options.failures)).collect(),
            counts: LinkCounts::default(),
            itself: Weak::clone(itself),
        }))
    }

    /// Connects, or opens the breakers, behind which connecting goes on.
    pub(crate) async fn start(&self) {
        let connected = tokio::time::timeout(self.timeout * 4, self.connect(None)).await;
        if !matches!(connected, Ok(Ok(_))) {
            tracing::warn!("redis cannot be reached; starting without it");
            for group in 0..self.breakers.len() {
                self.trip(group);
            }
        }
    }

    pub(crate) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(crate) fn breaker_states(&self) -> impl Iterator<Item = BreakerState> {
        self.breakers.iter().map(Breaker::state)
    }

    pub(crate) fn owed(&self) -> usize {
        self.breakers.iter().map(Breaker::owed_count).sum()
    }

    fn group(&self, key: &str) -> usize {
        usize::from(slot_of(key)) * self.breakers.len() / SLOTS
    }

    /// Does a command on one key, which has its prefix already.
    pub(crate) async fn call(&self, key: &str, command: Cmd, repeat: Repeat) -> Result<Value, Fault> {
        let group = self.group(key);
        let breaker = &self.breakers[group];
        if !breaker.is_closed() {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Fault::Away("redis is away, its circuit breaker is open".into()));
        }
        self.counts.commands.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::time::timeout(self.timeout, self.attempt(key, &command, repeat)).await;
        let failure = match answer {
            Ok(Ok(value)) => {
                breaker.succeeded();
                return Ok(value);
            }
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => {
                breaker.succeeded();
                return Err(Fault::WrongShape);
            }
            // The server is well and full; it should evict (maxmemory-policy), but that is its operator's choice.
            Ok(Err(error)) if error.code() == Some("OOM") => {
                breaker.succeeded();
                return Err(Fault::Away("redis is out of memory".into()));
            }
            Ok(Err(error)) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, "redis did not do a command");
                // Its own words may hold addresses or credentials.
                format!("redis failed: {}", error.category())
            }
            Err(_) => {
                self.counts.timeouts.fetch_add(1, Ordering::Relaxed);
                format!("redis did not answer within {} ms", self.timeout.as_millis())
            }
        };
        if breaker.failed() {
            self.opened(group);
        }
        Err(Fault::Away(failure))
    }

    async fn attempt(&self, key: &str, command: &Cmd, repeat: Repeat) -> redis::RedisResult<Value> {
        let (connection, number) = self.connection().await?;
        let loads = self.loads.load(Ordering::Acquire);
        match connection.clone().send(key, command).await {
            Err(error) if is_unknown_function(&error) => {
                self.load_functions(&connection, Some(loads)).await?;
                connection.send(key, command).await
            }
            Err(error) if self.is_over(&connection, &error) => {
                let connected = self.connect(Some(number)).await?;
                match repeat {
                    Repeat::Yes => connected.0.send(key, command).await,
                    Repeat::No => Err(error),
                }
            }
            answer => answer,
        }
    }

    /// Whether a connection is of no more use. That of a Cluster mends itself.
    fn is_over(&self, connection: &Connection, error: &redis::RedisError) -> bool {
        matches!(connection, Connection::Single(_)) && error.is_unrecoverable_error()
    }

    async fn connection(&self) -> redis::RedisResult<(Connection, u64)> {
        let connected = self.connection.read().clone();
        match connected {
            Some(connected) => Ok(connected),
            None => self.connect(None).await,
        }
    }

    /// Makes a connection in place of the one with this number, unless another did already. A server that refused
    /// a moment ago is not asked again.
    async fn connect(&self, instead_of: Option<u64>) -> redis::RedisResult<(Connection, u64)> {
        let mut tried = self.connecting.lock().await;
        if let Some(connected) = self.connection.read().clone()
            && Some(connected.1) != instead_of
        {
            return Ok(connected);
        }
        *self.connection.write() = None;
        if tried.is_some_and(|at| at.elapsed() < self.probe_every / 4) {
            return Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into());
        }
        *tried = Some(Instant::now());
        let connection = match &self.target {
            Target::Single(client, config) => Connection::Single(
                client
                    .get_multiplexed_async_connection_with_config(config)
                    .await?,
            ),
            Target::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        };
        let loaded = self.load_functions(&connection, None).await;
        // In a Cluster one primary may be away; those that are there can be used.
        if let (Err(error), Connection::Single(_)) = (loaded, &connection) {
            return Err(error);
        }
        let number = self.counts.connections.fetch_add(1, Ordering::Relaxed) + 1;
        *self.connection.write() = Some((connection.clone(), number));
        *tried = None;
        tracing::info!(connections = number, "connected to redis");
        Ok((connection, number))
    }

    /// Loads the functions on every primary, unless that was done since a number of loads was seen.
    async fn load_functions(&self, connection: &Connection, seen: Option<u64>) -> redis::RedisResult<()> {
        let _one_at_a_time = self.loading.lock().await;
        if seen.is_some_and(|seen| self.loads.load(Ordering::Acquire) != seen) {
            return Ok(());
        }
        let loaded = match connection.clone() {
            Connection::Single(mut single) => single.send_packed_command(&functions::load()).await,
            Connection::Cluster(mut cluster) => {
                let primaries = RoutingInfo::MultiNode((
                    MultipleNodeRoutingInfo::AllMasters,
                    Some(ResponsePolicy::AllSucceeded),
                ));
                cluster.route_command(functions::load(), primaries).await
            }
        };
        loaded.and_then(Value::extract_error)?;
        self.loads.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn trip(&self, group: usize) {
        if self.breakers[group].open() {
            self.opened(group);
        }
    }

    /// A breaker opened: sees to it that it is closed one day.
    fn opened(&self, group: usize) {
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(group, "redis is away, the circuit breaker opens");
        let (link, every) = (Weak::clone(&self.itself), self.probe_every);
        tokio::spawn(async move {
            loop {
                // Not all groups of a Cluster, and not all nodes, at the same moment.
                tokio::time::sleep(every.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
                let Some(link) = link.upgrade() else {
                    return;
                };
                let breaker = &link.breakers[group];
                breaker.probing(true);
                if link.probe(group).await {
                    breaker.close();
                    tracing::info!(group, "redis is back, the circuit breaker closes");
                    return;
                }
                breaker.probing(false);
            }
        });
    }

    /// Asks for a key of the group, on a new connection if the old one fails; then deletes what could not be deleted
    /// while it was away, so that nobody reads it from here.
    async fn probe(&self, group: usize) -> bool {
        let key = self.key_of(group);
        if !self.answers(&key).await {
            let number = self.connection.read().as_ref().map(|(_, number)| *number);
            let connected = tokio::time::timeout(self.timeout * 4, self.connect(number)).await;
            if !matches!(connected, Ok(Ok(_))) || !self.answers(&key).await {
                return false;
            }
        }
        self.pay(group).await
    }

    async fn answers(&self, key: &str) -> bool {
        let command = functions::read("get", key);
        let answer = tokio::time::timeout(self.timeout, self.attempt(key, &command, Repeat::Yes)).await;
        match answer {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.code() == Some("WRONGTYPE"),
            Err(_) => false,
        }
    }

    /// Some key whose slot is in the group.
    fn key_of(&self, group: usize) -> String {
        (0_u64..)
            .map(|i| format!("{}probe:{i}", self.prefix))
            .find(|key| self.group(key) == group)
            .unwrap_or_default()
    }

    /// Notes that the server may have an old value of a key, to be deleted as soon as it can be.
    pub(crate) fn owe(&self, key: &str) {
        let group = self.group(key);
        let breaker = &self.breakers[group];
        if !breaker.owe(key) {
            tracing::warn!("too many keys to delete when redis is back; some may be old until they expire");
            return;
        }
        if !breaker.is_closed() {
            return;
        }
        let link = Weak::clone(&self.itself);
        let pause = self.timeout;
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(link) = link.upgrade()
                && link.breakers[group].is_closed()
            {
                link.pay(group).await;
            }
        });
    }

    /// Deletes what is owed; false if that did not go to the end.
    async fn pay(&self, group: usize) -> bool {
        let breaker = &self.breakers[group];
        for key in breaker.owed() {
            let mut command = redis::cmd("DEL");
            command.arg(&key);
            let paid = tokio::time::timeout(self.timeout, self.attempt(&key, &command, Repeat::Yes)).await;
            if !matches!(paid, Ok(Ok(_))) {
                return false;
            }
            breaker.paid(&key);
        }
        true
    }
}

impl Connection {
    async fn send(self, key: &str, command: &Cmd) -> redis::RedisResult<Value> {
        let answer = match self {
            Self::Single(mut single) => single.send_packed_command(command).await?,
            Self::Cluster(mut cluster) => {
                let route = Route::with_slot(Slot::for_key(key), SlotAddr::Master);
                let routing = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
                cluster.route_command(command.clone(), routing).await?
            }
        };
        answer.extract_error()
    }
}

fn is_unknown_function(error: &redis::RedisError) -> bool {
    error
        .detail()
        .is_some_and(|detail| detail.contains("Function not found"))
}

/// The slot of a key, as the Cluster specification has it: CRC-16 (XMODEM) of the key, or of what is between its
/// first braces if that is not empty.
fn slot_of(key: &str) -> u16 {
    let tagged = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    let crc = tagged.unwrap_or(key).bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1021
            }
        })
    });
    crc % SLOTS as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_client() {
        for key in [
            "123456789",
            "",
            "a{b}c",
            "a{}c",
            "a{b",
            "}{x}{y}",
            "holon:limit:account:main:42",
        ] {
            let slot = Slot::new(slot_of(key)).unwrap();
            assert_eq!(format!("{slot:?}"), format!("{:?}", Slot::for_key(key)), "{key}");
        }
    }
}
