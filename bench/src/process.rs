//! Servers that a scenario starts for itself, and stops.

use anyhow::{Context as _, Result, bail};
use std::{
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

/// How long a server may take to start, or to stop with all that it has to write and to merge.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    name: String,
}

impl Server {
    /// Starts a server that listens on a port it was told, and waits until it accepts connections. What it says goes
    /// to `log`.
    pub async fn on_port<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
        port: u16,
        log: &Path,
    ) -> Result<Self> {
        let log = std::fs::File::create(log)?;
        let mut command = Command::new(&program);
        command.args(arguments).stdout(log.try_clone()?).stderr(log);
        let mut server = Self::spawn(command)?;
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended at once: {status}", server.name);
            }
            if start.elapsed() > PATIENCE {
                bail!("{} does not listen on port {port}", server.name);
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(server)
    }

    /// Starts a server that chooses its port and prints `listening on http://HOST:PORT`.
    pub async fn announced(mut command: Command, log: &Path) -> Result<(Self, SocketAddr)> {
        let log = std::fs::File::create(log)?;
        command.stdout(Stdio::piped()).stderr(log);
        let mut server = Self::spawn(command)?;
        let stdout = server
            .child
            .stdout
            .take()
            .context("standard output is not piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let address = timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, address)) = line.split_once("listening on http://") {
                    return address.trim().parse().context("no address is announced");
                }
            }
            bail!("{} ended before it listened", server.name)
        })
        .await
        .with_context(|| format!("{} does not say where it listens", server.name))??;
        // Goes on reading, so that the server never blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((server, address))
    }

    fn spawn(mut command: Command) -> Result<Self> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name })
    }

    pub fn pid(&self) -> Result<u32> {
        self.child
            .id()
            .with_context(|| format!("{} has ended", self.name))
    }

    /// Asks the server to end (SIGTERM) and waits for it.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.pid()?;
        let pid = rustix::process::Pid::from_raw(pid as i32).context("no process has id 0")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        timeout(PATIENCE, self.child.wait())
            .await
            .with_context(|| format!("{} does not stop", self.name))??;
        Ok(())
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A binary of this workspace: named by a variable, or beside this program.
pub fn own_binary(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!(
            "{} is not built; build it or name one with {variable}",
            path.display()
        );
    }
    Ok(path)
}
