//! PostgreSQL servers of a test's own: the programs of the Debian package `postgresql`, on a port that the system
//! chose, in a temporary directory, with `fsync` on. They are stopped when they are dropped.
//!
//! The server refuses to run as root. A test that runs as root gives the directory to the user `postgres` (or
//! `nobody`) and starts the server as that one.

use crate::{find_program, free_port};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

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
    port: u16,
    settings: Vec<(String, String)>,
    directory: TempDir,
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
        blocking(move || {
            let directory = new_directory();
            let secret = directory.path().join("password");
            std::fs::write(&secret, PASSWORD).expect("a file in a temporary directory");
            give_away(&secret);
            let mut initdb = command("initdb", directory.path());
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
                .arg(data(directory.path()));
            run(initdb);
            let hba =
                "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n";
            std::fs::write(data(directory.path()).join("pg_hba.conf"), hba).expect("a file of the server");
            Self::launch(directory, options.settings)
        })
        .await
    }

    /// A hot standby that streams from this server, with a database of its own to read from.
    pub async fn standby(&self) -> Self {
        let (primary, settings) = (self.port, self.settings.clone());
        blocking(move || {
            let directory = new_directory();
            let mut backup = command("pg_basebackup", directory.path());
            backup
                .arg("--pgdata")
                .arg(data(directory.path()))
                .args([
                    "--checkpoint=fast",
                    "--wal-method=stream",
                    "--write-recovery-conf",
                    "--no-sync",
                ])
                .arg("--dbname")
                .arg(format!(
                    "host=127.0.0.1 port={primary} user={USER} password={PASSWORD}"
                ));
            run(backup);
            Self::launch(directory, settings)
        })
        .await
    }

    fn launch(directory: TempDir, settings: Vec<(String, String)>) -> Self {
        let mut server = Self {
            server: None,
            port: free_port(),
            settings,
            directory,
        };
        server.spawn();
        server
    }

    /// For `tokio-postgres`; holds the password.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
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
        self.kill().await;
        blocking(move || {
            self.spawn();
            self
        })
        .await
    }

    fn spawn(&mut self) {
        let end = Instant::now() + START;
        loop {
            let mut child = self.spawn_once();
            loop {
                if is_ready(self.port, self.directory.path()) {
                    self.server = Some(child);
                    return;
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
        let log = std::fs::File::create(self.directory.path().join("log")).expect("a log");
        let mut postgres = command("postgres", self.directory.path());
        postgres
            .arg("-D")
            .arg(data(self.directory.path()))
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
            ("shared_buffers", "64MB"),
            ("logging_collector", "off"),
        ];
        for (name, value) in of_the_kit {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, value) in &self.settings {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        postgres
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start PostgreSQL: {error}"))
    }

    /// What the server has said since it was started last.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        // An immediate shutdown ends the children too, and leaves no shared memory behind.
        let processes = children_of(server.id());
        signal("CONT", &processes);
        signal("CONT", &[server.id()]);
        signal("QUIT", &[server.id()]);
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

/// A directory that belongs to whom the server runs as.
fn new_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    give_away(directory.path());
    directory
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

fn give_away(path: &Path) {
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
