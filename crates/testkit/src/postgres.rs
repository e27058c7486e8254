//! PostgreSQL servers of a test's own: the programs of the Debian package `postgresql`, on a port that the system
//! chose, in a temporary directory, with `fsync` on. They are stopped when they are dropped.
//!
//! The server refuses to run as root. A test that runs as root gives the directory to the user `postgres` (or
//! `nobody`) and starts the server as that one.

use crate::{Place, find_program};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PACKAGE: &str = "postgresql";
const USER: &str = "holon";
/// The password of the only user; tests look for it where no password may be.
pub const PASSWORD: &str = "a-secret-of-the-test";
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Settings beside those of the kit, such as `("max_connections", "20")`.
    pub settings: Vec<(String, String)>,
    /// What the server itself may change later (`ALTER SYSTEM`) is written into the file of a new database.
    pub initial: Vec<(String, String)>,
}

impl PostgresOptions {
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running server, or one that a test has killed.
pub struct PostgresServer {
    server: Option<Child>,
    database: Arc<Database>,
}

/// What a server is started on.
struct Database {
    port: u16,
    settings: Vec<(String, String)>,
    place: Place,
}

impl PostgresServer {
    /// A new server with an empty database; it answers on return.
    ///
    /// # Panics
    /// If the programs are not installed, or the server does not start.
    pub async fn start() -> Self {
        Self::start_with(PostgresOptions::default()).await
    }

    pub async fn start_with(options: PostgresOptions) -> Self {
        Self::start_in(Place::temporary(), options).await
    }

    /// A server on what was left in a place, or with an empty database; it answers on return. What was a standby
    /// when it was stopped is one again.
    pub async fn start_in(place: Place, options: PostgresOptions) -> Self {
        blocking(move || {
            give_away(place.path());
            if !is_database(place.path()) {
                initialise(&place, &options);
            }
            Self::launch(place, options.settings)
        })
        .await
    }

    /// A hot standby that streams from this server, with a database of its own to read from.
    pub async fn standby(&self) -> Self {
        self.standby_in(Place::temporary()).await
    }

    /// A hot standby in a place whose database, if there is one, is thrown away: after a failover, it may hold
    /// commits that the new primary never saw.
    pub async fn standby_in(&self, place: Place) -> Self {
        let (primary, settings) = (self.port(), self.database.settings.clone());
        blocking(move || {
            give_away(place.path());
            clone_from(primary, &place, &["--write-recovery-conf"]);
            Self::launch(place, settings)
        })
        .await
    }

    /// A copy of its files, as `pg_basebackup` makes it while the server runs.
    pub(crate) async fn base_backup(&self) -> Place {
        let (port, place) = (self.port(), Place::temporary());
        blocking(move || {
            give_away(place.path());
            clone_from(port, &place, &[]);
            place
        })
        .await
    }

    /// Waits until recovery is over.
    pub(crate) async fn until_writable(&self) {
        crate::eventually("a restored server to take writes", START, || async {
            let is_recovering = self.query("SELECT pg_is_in_recovery()").await;
            (is_recovering == "f").then_some(())
        })
        .await;
    }

    /// Makes this server a standby of the one at a port; its own database is thrown away.
    pub async fn follow(&mut self, primary: u16) {
        self.kill().await;
        let database = Arc::clone(&self.database);
        let server = blocking(move || {
            clone_from(primary, &database.place, &["--write-recovery-conf"]);
            database.spawn()
        });
        self.server = Some(server.await);
    }

    fn launch(place: Place, settings: Vec<(String, String)>) -> Self {
        let database = Database {
            port: place.port("clients"),
            settings,
            place,
        };
        Self {
            server: Some(database.spawn()),
            database: Arc::new(database),
        }
    }

    /// For `tokio-postgres`; holds the password.
    pub fn url(&self) -> String {
        url(self.port())
    }

    pub fn port(&self) -> u16 {
        self.database.port
    }

    /// Runs a statement with `psql` and answers what it says, one row a line, columns divided by `|`.
    ///
    /// # Panics
    /// If the statement fails.
    pub async fn query(&self, sql: &str) -> String {
        psql(&self.url(), [sql.to_owned()]).await
    }

    /// Makes another database in this server and answers how to connect to it.
    pub async fn create_database(&self, name: &str) -> String {
        let [url] = create_databases(&self.url(), &[name.to_owned()]).await;
        url
    }

    /// Turns a standby into a primary; it takes writes on return.
    pub async fn promote(&self) {
        self.query("SELECT pg_promote(true, 60)").await;
    }

    /// Kills the server and each of its processes (SIGKILL), as a power cut would end them. The directory stays.
    pub async fn kill(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        blocking(move || {
            let postmaster = server.id();
            // Its children first would make it restart them.
            let children = children_of(postmaster);
            signal("KILL", &[postmaster]);
            signal("KILL", &children);
            let _ = server.wait();
            let end = Instant::now() + STOP;
            while children.iter().any(|child| is_alive(*child)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        })
        .await;
    }

    /// Stops every process of the server (SIGSTOP): connections stay open, and nothing answers.
    pub async fn freeze(&self) {
        self.signal_all("STOP").await;
    }

    /// Lets a frozen server go on.
    pub async fn thaw(&self) {
        self.signal_all("CONT").await;
    }

    async fn signal_all(&self, name: &'static str) {
        let Some(server) = &self.server else { return };
        let postmaster = server.id();
        blocking(move || {
            signal(name, &[postmaster]);
            signal(name, &children_of(postmaster));
        })
        .await;
    }

    /// Starts a killed server again, on the same port and directory; it answers on return.
    pub async fn restart(mut self) -> Self {
        self.start_again().await;
        self
    }

    /// Like [`Self::restart`], in its place.
    pub async fn start_again(&mut self) {
        self.kill().await;
        let database = Arc::clone(&self.database);
        self.server = Some(blocking(move || database.spawn()).await);
    }

    /// Ends it in good order, with a checkpoint: what is connected is told so.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            blocking(move || shut_down(server, "INT")).await;
        }
    }

    /// Whether its process is there.
    pub fn is_running(&mut self) -> bool {
        self.server
            .as_mut()
            .is_some_and(|server| matches!(server.try_wait(), Ok(None)))
    }

    /// The id of its first process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    pub fn place(&self) -> &Place {
        &self.database.place
    }

    /// What the server has said since it was started last; in a lasting place, since the first time.
    pub fn log(&self) -> String {
        self.database.log()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // An immediate shutdown ends the children too, and leaves no shared memory behind.
        if let Some(server) = self.server.take() {
            shut_down(server, "QUIT");
        }
    }
}

impl Database {
    fn log(&self) -> String {
        std::fs::read_to_string(self.place.log_path()).unwrap_or_default()
    }

    /// Starts the server and waits until it answers.
    fn spawn(&self) -> Child {
        let end = Instant::now() + START;
        loop {
            let mut child = self.spawn_once();
            loop {
                if is_ready(self.port, self.place.path()) {
                    return child;
                }
                // It also ends when processes of a server that was killed are not gone yet: try again.
                if child.try_wait().expect("a child can be waited for").is_some() {
                    break;
                }
                assert!(Instant::now() < end, "PostgreSQL does not answer: {}", self.log());
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(Instant::now() < end, "PostgreSQL does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn spawn_once(&self) -> Child {
        let log_path = self.place.log_path();
        let log = match self.place.is_lasting() {
            true => self.place.log(),
            false => std::fs::File::create(log_path).expect("a log"),
        };
        let mut postgres = command("postgres", self.place.path());
        postgres
            .arg("-D")
            .arg(data(self.place.path()))
            .arg("-p")
            .arg(self.port.to_string());
        let of_the_kit = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("wal_level", "replica"),
            ("hot_standby", "on"),
            ("max_wal_senders", "4"),
            ("wal_retrieve_retry_interval", "200ms"),
            ("shared_buffers", "64MB"),
            ("logging_collector", "off"),
        ];
        for (name, value) in of_the_kit {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, value) in &self.settings {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        if self.place.is_lasting() {
            postgres.process_group(0);
        }
        let child = postgres
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start PostgreSQL: {error}"));
        self.place.served_by(child.id());
        child
    }
}

/// Sends the first process a signal that ends the server, and waits for its end.
fn shut_down(mut server: Child, name: &str) {
    let processes = children_of(server.id());
    signal("CONT", &processes);
    signal("CONT", &[server.id()]);
    signal(name, &[server.id()]);
    let end = Instant::now() + STOP;
    while Instant::now() < end {
        if matches!(server.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = server.kill();
    let _ = server.wait();
}

/// Where a server of the kit is, by its port; holds the password.
pub fn url(port: u16) -> String {
    format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres")
}

/// One database that several servers may have, of which one takes writes, at an address of this machine.
pub fn url_of_any(host: &str, ports: &[u16]) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("{host}:{port}")).collect();
    format!(
        "postgres://{USER}:{PASSWORD}@{}/postgres?target_session_attrs=read-write",
        hosts.join(",")
    )
}

/// Whether what is in the place of a server is a standby, running or not.
pub fn is_standby(place: &Path) -> bool {
    data(place).join("standby.signal").is_file()
}

/// Makes databases in the server of a connection string, and answers those of each.
pub(crate) async fn create_databases<const N: usize>(url: &str, names: &[String; N]) -> [String; N] {
    let statements = names.each_ref().map(|name| format!("CREATE DATABASE \"{name}\""));
    psql(url, statements).await;
    let (server, _) = url
        .rsplit_once('/')
        .expect("a connection string ends with a database");
    names.each_ref().map(|name| format!("{server}/{name}"))
}

async fn psql(url: &str, statements: impl IntoIterator<Item = String>) -> String {
    let mut psql = command("psql", &std::env::temp_dir());
    psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
        .args(["--set=ON_ERROR_STOP=1", "--dbname", url]);
    for statement in statements {
        psql.args(["--command", &statement]);
    }
    blocking(move || run(psql).trim_end().to_owned()).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn is_database(directory: &Path) -> bool {
    data(directory).join("PG_VERSION").is_file()
}

fn initialise(place: &Place, options: &PostgresOptions) {
    let secret = place.path().join("password");
    std::fs::write(&secret, PASSWORD).expect("a file in a directory of our own");
    give_away(&secret);
    let mut initdb = command("initdb", place.path());
    initdb
        .args([
            "--no-sync",
            "--no-instructions",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ])
        .args(["--auth=scram-sha-256", "--username", USER])
        .arg("--pwfile")
        .arg(&secret)
        .arg("--pgdata")
        .arg(data(place.path()));
    run(initdb);
    let hba = "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(data(place.path()).join("pg_hba.conf"), hba).expect("a file of the server");
    let lines: String = options
        .initial
        .iter()
        .map(|(name, value)| format!("{name} = '{value}'\n"))
        .collect();
    std::fs::write(data(place.path()).join("postgresql.auto.conf"), lines).expect("a file of the server");
}

/// Copies the database of a server that runs into a place.
fn clone_from(primary: u16, place: &Place, more: &[&str]) {
    if let Err(error) = std::fs::remove_dir_all(data(place.path()))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        panic!(
            "cannot remove the database in {}: {error}",
            place.path().display()
        );
    }
    let mut backup = command("pg_basebackup", place.path());
    backup
        .arg("--pgdata")
        .arg(data(place.path()))
        .args(["--checkpoint=fast", "--wal-method=stream", "--no-sync"])
        .args(more)
        .arg("--dbname")
        .arg(format!(
            "host=127.0.0.1 port={primary} user={USER} password={PASSWORD}"
        ));
    run(backup);
}

/// The timeline of what is in the place of a server, which grows with each promotion (1 at first).
pub fn timeline(directory: &Path) -> u32 {
    // Each promotion writes down where the timeline before it ended.
    let files = std::fs::read_dir(data(directory).join("pg_wal"));
    let numbers = files.into_iter().flatten().flatten().filter_map(|file| {
        let name = file.file_name().into_string().ok()?;
        u32::from_str_radix(name.strip_suffix(".history")?, 16).ok()
    });
    numbers.max().unwrap_or(1)
}

/// Whom a server runs as when the test runs as root: user and group.
fn server_user() -> Option<(u32, u32)> {
    // Whatever this process makes belongs to whom it runs as.
    let is_root = std::fs::metadata("/proc/self").expect("/proc").uid() == 0;
    if !is_root {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let user = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(
        user("postgres")
            .or_else(|| user("nobody"))
            .expect("the user postgres or nobody"),
    )
}

pub(crate) fn give_away(path: &Path) {
    if let Some((user, group)) = server_user() {
        chown(path, Some(user), Some(group)).expect("root may give a file away");
    }
}

fn command(program: &str, directory: &Path) -> Command {
    let path = find_program(program, PACKAGE).unwrap_or_else(|missing| panic!("{missing}"));
    let mut command = Command::new(path);
    command
        .current_dir(directory)
        .env("LC_ALL", "C.UTF-8")
        .env_remove("PGOPTIONS");
    if let Some((user, group)) = server_user() {
        command.uid(user).gid(group);
    }
    command
}

fn run(mut command: Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{} failed: {}",
        command.get_program().display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_ready(port: u16, directory: &Path) -> bool {
    let mut ask = command("pg_isready", directory);
    ask.args(["--quiet", "--host=127.0.0.1", "--port"])
        .arg(port.to_string());
    ask.status().is_ok_and(|status| status.success())
}

fn children_of(process: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

fn is_alive(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

fn signal(name: &str, processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    // The shell's own, so that no package is needed; processes that are gone already are no error.
    let numbers: Vec<String> = processes.iter().map(u32::to_string).collect();
    let _ = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -{name} {}", numbers.join(" ")))
        .stderr(Stdio::null())
        .status();
}
