//! Links: connections that are shared, pipelined, and made anew when they break.
//!
//! `tokio-postgres` sends the statements of concurrent callers down one connection one after another without waiting
//! for answers in between (pipelining), so a few links carry what a pool would need a connection per caller for. A
//! statement is prepared once per link.

use crate::{
    error::{PostgresError, Trouble, describe},
    options::{PostgresOptions, Role, config},
};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_postgres::{Client, Config, NoTls, Row, Statement, types::ToSql};

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Knows how to reach one database.
pub(crate) struct Connector {
    /// For errors: the shard's name, never its address.
    pub database: String,
    config: Config,
    role: Role,
    connect_timeout: Duration,
    statement_timeout: Duration,
}

impl Connector {
    pub fn new(
        database: String,
        url: &str,
        role: Role,
        options: &PostgresOptions,
    ) -> Result<Self, PostgresError> {
        Ok(Self {
            config: config(&database, url, role, options)?,
            database,
            role,
            connect_timeout: options.connect_timeout,
            statement_timeout: options.statement_timeout,
        })
    }

    /// A connection of one's own.
    pub async fn open(&self) -> Result<(Client, AbortHandle), String> {
        // The client's own timeout covers the TCP handshake with one host; this covers a server that then says nothing.
        let hosts = self.config.get_hosts().len().max(1) as u32;
        let opening = timeout(self.connect_timeout * (hosts + 1), self.config.connect(NoTls));
        let (client, connection) = match opening.await {
            Ok(opened) => opened.map_err(|error| describe(&error))?,
            Err(_) => return Err(format!("no answer within {:?}", self.connect_timeout)),
        };
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer is told; there is nobody else to tell.
            let _ = connection.await;
        });
        Ok((client, driver.abort_handle()))
    }

    async fn link(&self) -> Result<Arc<Link>, String> {
        let (client, driver) = self.open().await?;
        let link = Link {
            client,
            driver,
            statements: Mutex::default(),
            patience: self.statement_timeout + Duration::from_secs(2),
            busy: AtomicUsize::new(0),
        };
        let mut settings = format!(
            // Every statement is a search by key or a range of one: a plan that reads more is a wrong guess, made
            // while a table was still small.
            "SET search_path = pg_catalog; SET default_transaction_isolation = 'read committed'; \
             SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; \
             SET enable_mergejoin = off; SET enable_sort = off; SET jit = off; SET statement_timeout = {};",
            self.statement_timeout.as_millis()
        );
        if self.role == Role::Primary {
            settings.push_str(
                "SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') = 'off';",
            );
        }
        let set_up = timeout(self.connect_timeout, link.client.batch_execute(&settings));
        match set_up.await {
            Ok(Ok(())) => Ok(Arc::new(link)),
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(format!("no answer within {:?}", self.connect_timeout)),
        }
    }
}

/// A connection that many use at once.
pub(crate) struct Link {
    client: Client,
    driver: AbortHandle,
    statements: Mutex<HashMap<Box<str>, Statement>>,
    patience: Duration,
    busy: AtomicUsize,
}

impl Link {
    pub fn is_closed(&self) -> bool {
        self.client.is_closed() || self.driver.is_finished()
    }

    /// Closes the connection; what waits for an answer is told that it is lost.
    pub fn discard(&self) {
        self.driver.abort();
    }

    /// The statement, prepared at its first use.
    pub async fn prepare(&self, sql: &str) -> Result<Statement, Trouble> {
        if let Some(statement) = self.statements.lock().get(sql) {
            return Ok(statement.clone());
        }
        let preparing = self.client.prepare(sql);
        let statement = match timeout(self.patience, preparing).await {
            Ok(prepared) => prepared.map_err(|error| match Trouble::of(&error) {
                // Preparing changes nothing.
                Trouble::Lost(detail) => Trouble::Away(detail),
                other => other,
            })?,
            Err(_) => {
                self.discard();
                return Err(Trouble::Away("the server does not answer".into()));
            }
        };
        self.statements.lock().insert(sql.into(), statement.clone());
        Ok(statement)
    }

    /// Runs statements one right after the other, in one round trip, each a transaction of its own; the answer to
    /// each. The first must be known to the link by [`Self::prepare`] for the round trip to be one.
    pub async fn query_both(
        &self,
        first: (&str, Params<'_>),
        second: (&str, Params<'_>),
    ) -> Result<(Vec<Row>, Vec<Row>), Trouble> {
        let (one, two) = (self.prepare(first.0).await?, self.prepare(second.0).await?);
        let both = futures::future::join(
            self.client.query(&one, first.1),
            self.client.query(&two, second.1),
        );
        let (one, two) = self.within(both).await?;
        let of = |rows: Result<Vec<Row>, tokio_postgres::Error>| rows.map_err(|error| Trouble::of(&error));
        let (one, two) = (of(one), of(two));
        if let Err(trouble) = &one
            && trouble.spoils_link()
        {
            self.discard();
        }
        // What the first did stands, whatever became of the second.
        let two = two.map_err(|trouble| Trouble::Lost(trouble.of_read().to_string()));
        Ok((one?, two?))
    }

    pub async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Trouble> {
        let statement = self.prepare(sql).await?;
        let rows = self.within(self.client.query(&statement, params)).await?;
        rows.map_err(|error| {
            let trouble = Trouble::of(&error);
            if trouble.spoils_link() {
                self.discard();
            }
            trouble
        })
    }

    async fn within<F: Future>(&self, answer: F) -> Result<F::Output, Trouble> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        // Also when the caller no longer waits.
        let _busy = Busy(&self.busy);
        timeout(self.patience, answer).await.map_err(|_| {
            self.discard();
            Trouble::Lost("the server does not answer".into())
        })
    }
}

struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A place for one link, filled anew when it breaks.
pub(crate) struct Socket {
    connector: Arc<Connector>,
    link: RwLock<Option<Arc<Link>>>,
    /// Held by the one that connects.
    attempts: tokio::sync::Mutex<Attempts>,
    jitter: RandomState,
}

struct Attempts {
    failed: u32,
    not_before: Instant,
    last: String,
}

impl Socket {
    pub fn new(connector: Arc<Connector>) -> Self {
        Self {
            connector,
            link: RwLock::new(None),
            attempts: tokio::sync::Mutex::new(Attempts {
                failed: 0,
                not_before: Instant::now(),
                last: String::new(),
            }),
            jitter: RandomState::new(),
        }
    }

    fn current(&self) -> Option<Arc<Link>> {
        self.link
            .read()
            .as_ref()
            .filter(|link| !link.is_closed())
            .cloned()
    }

    fn load(&self) -> usize {
        self.current()
            .map_or(usize::MAX, |link| link.busy.load(Ordering::Relaxed))
    }

    /// The link, made if need be. Attempts are made until the deadline, with growing pauses; at least one if the last
    /// one is long enough ago.
    pub async fn link(&self, deadline: Instant) -> Result<Arc<Link>, Trouble> {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let away = |detail: &str| Trouble::Away(format!("{}: {detail}", self.connector.database));
        let Ok(mut attempts) = tokio::time::timeout_at(deadline, self.attempts.lock()).await else {
            return Err(away("cannot connect in time"));
        };
        loop {
            if let Some(link) = self.current() {
                return Ok(link);
            }
            if attempts.not_before > deadline {
                return Err(away(&attempts.last));
            }
            sleep_until(attempts.not_before).await;
            match self.connector.link().await {
                Ok(link) => {
                    attempts.failed = 0;
                    *self.link.write() = Some(Arc::clone(&link));
                    return Ok(link);
                }
                Err(detail) => {
                    let pause = (FIRST_PAUSE * (1 << attempts.failed.min(8))).min(LONGEST_PAUSE);
                    // Up to half of it at random, so that nodes do not come back all at once.
                    let share = self.jitter.hash_one(Instant::now()) % 512;
                    attempts.failed += 1;
                    attempts.not_before = Instant::now() + pause - pause * share as u32 / 1024;
                    attempts.last = detail;
                }
            }
        }
    }
}

/// Some sockets to one database.
pub(crate) struct Sockets(Vec<Socket>);

impl Sockets {
    pub fn new(connector: &Arc<Connector>, count: usize) -> Self {
        Self((0..count).map(|_| Socket::new(Arc::clone(connector))).collect())
    }

    /// A link of the socket with the fewest statements under way.
    pub async fn link(&self, deadline: Instant) -> Result<Arc<Link>, Trouble> {
        let idlest = self.0.iter().min_by_key(|socket| match socket.load() {
            // Not connected: used once the connected ones have something to do.
            usize::MAX => 1,
            load => load * 2,
        });
        match idlest {
            Some(socket) => socket.link(deadline).await,
            None => Err(Trouble::Away("no connections are configured".into())),
        }
    }

    /// Runs a statement that changes nothing; it is asked again when its connection breaks, until the deadline.
    pub async fn read(&self, deadline: Instant, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Trouble> {
        loop {
            let link = self.link(deadline).await?;
            match link.query(sql, params).await {
                Err(trouble) if is_worth_another_try(&trouble) && Instant::now() < deadline => {
                    // A server that takes connections and drops them must not be asked in a tight loop.
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    pub fn discard(&self) {
        for socket in &self.0 {
            if let Some(link) = socket.link.write().take() {
                link.discard();
            }
        }
    }
}

fn is_worth_another_try(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Away(_) | Trouble::Lost(_) => true,
        refused @ Trouble::Refused { .. } => refused.spoils_link(),
    }
}
