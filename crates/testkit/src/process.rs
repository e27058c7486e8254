//! Servers that are programs of their own.

use crate::{place::Place, redis::try_signal};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// A program that a test needs is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("program {program} is not installed; on Debian: apt-get install {package}")]
pub struct MissingProgram {
    pub program: String,
    pub package: String,
}

/// Finds a program on the `PATH`, or where Debian keeps servers.
///
/// # Errors
/// [`MissingProgram`], which names the package that has it.
pub fn find_program(program: &str, package: &str) -> Result<PathBuf, MissingProgram> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(["/usr/sbin", "/usr/local/bin"].map(PathBuf::from));
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        directories.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    directories
        .into_iter()
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| MissingProgram {
            program: program.to_owned(),
            package: package.to_owned(),
        })
}

/// How much of what a program said is shown when it ends before its time.
const SHOWN: u64 = 4_096;

/// A child process that is killed when this is dropped.
pub struct Process {
    program: PathBuf,
    child: Child,
    /// What it said.
    said: File,
}

impl Process {
    /// Starts a program. What it says is shown if it ends before it listens.
    pub fn start<A: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = A>) -> Self {
        let said = tempfile::tempfile().expect("a temporary file");
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(command, program, said)
    }

    /// Starts a program in a place of its own.
    pub fn start_in<A: AsRef<OsStr>>(
        place: &Place,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(place.path());
        // A node reads settings from there; what it is to have is on its command line.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOLON_") {
                command.env_remove(name);
            }
        }
        if place.is_lasting() {
            command.process_group(0);
        }
        let process = Self::spawn(command, program, place.log());
        place.served_by(process.id());
        process
    }

    fn spawn(mut command: Command, program: &Path, said: File) -> Self {
        let output = || Stdio::from(said.try_clone().expect("a file can be shared"));
        let child = command
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Self {
            program: program.to_owned(),
            child,
            said,
        }
    }

    /// Waits until the process accepts connections on a port of the loopback interface.
    ///
    /// # Panics
    /// If it ended, or the deadline has passed.
    pub async fn listening(&mut self, port: u16, deadline: Duration) {
        let name = self.program.display().to_string();
        let end = tokio::time::Instant::now() + deadline;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if let Some(ended) = self.child.try_wait().expect("a child can be waited for") {
                panic!("{name} ended with {ended} and said: {}", self.last_words());
            }
            if tokio::time::Instant::now() >= end {
                panic!("{name} does not listen on {port} and said: {}", self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The end of what it said so far.
    pub fn last_words(&mut self) -> String {
        let length = self.said.metadata().map_or(0, |file| file.len());
        let mut words = Vec::new();
        let read = self.said.seek(SeekFrom::Start(length.saturating_sub(SHOWN)));
        match read.and_then(|_| self.said.read_to_end(&mut words)) {
            Ok(_) => String::from_utf8_lossy(&words).into_owned(),
            Err(error) => format!("(cannot be read: {error})"),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("a process that has not been waited for")
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    /// Tells it to end in good order (SIGTERM), and kills it if it has not after so long.
    pub async fn stop(mut self, patience: Duration) {
        if self.ended().is_none() {
            // It may end by itself meanwhile.
            try_signal(self.id(), "CONT").await;
            try_signal(self.id(), "TERM").await;
        }
        if tokio::time::timeout(patience, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }
}
