//! Where a server keeps what it has, and on which ports it listens.
//!
//! A test's server has a *temporary* place, which goes away with it. A server of the cluster lab has a *lasting* one:
//! the next start finds the directory and the ports of the last one, what the server says is appended to a log beside
//! its data, the id of its process is written down, and a Ctrl-C in the terminal does not reach it.

use crate::ports::{free_port, take_port};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PORTS: &str = "ports";
const LOG: &str = "log";
const PROCESS: &str = "pid";

/// The directory of one server.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    /// Removes the directory, if it is a temporary one.
    temporary: Option<TempDir>,
}

impl Place {
    /// A directory that goes away with this.
    pub fn temporary() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self {
            path: directory.path().to_owned(),
            temporary: Some(directory),
        }
    }

    /// A directory that stays; made if it is not there.
    ///
    /// # Errors
    /// Those of making a directory.
    pub fn lasting(path: impl Into<PathBuf>) -> std::io::Result<Self> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        let path = path.canonicalize()?;
        Ok(Self {
            path,
            temporary: None,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_lasting(&self) -> bool {
        self.temporary.is_none()
    }

    /// The port that goes by a name here: the one of the last start, or a free one that is written down for the next.
    ///
    /// # Panics
    /// If the port of the last start was given to somebody else meanwhile.
    pub fn port(&self, name: &str) -> u16 {
        if !self.is_lasting() {
            return free_port();
        }
        let file = self.path.join(PORTS);
        let known = std::fs::read_to_string(&file).unwrap_or_default();
        let kept = known.lines().find_map(|line| {
            let (kept_name, port) = line.split_once(' ')?;
            (kept_name == name).then(|| port.parse().ok())?
        });
        if let Some(port) = kept {
            assert!(
                take_port(port),
                "port {port}, which {} had at its last start, is in use; end what uses it, or remove the whole \
                 directory of the cluster to begin anew",
                self.path.display()
            );
            return port;
        }
        let port = free_port();
        self.keep_port(name, port);
        port
    }

    /// Gives a name to a port from now on.
    pub fn keep_port(&self, name: &str, port: u16) {
        let mut file = append(&self.path.join(PORTS));
        writeln!(file, "{name} {port}").expect("a line in a file of our own");
    }

    /// Where what the server says goes: a log, or a file without a name.
    pub fn log(&self) -> File {
        match self.is_lasting() {
            true => append(&self.log_path()),
            false => tempfile::tempfile().expect("a temporary file"),
        }
    }

    pub fn log_path(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Writes down which process serves this place, so that one that outlived who started it can be found.
    pub(crate) fn served_by(&self, process: u32) {
        if self.is_lasting() {
            std::fs::write(self.path.join(PROCESS), process.to_string()).expect("a file of our own");
        }
    }

    /// The process that served the place of a directory last, if it still runs and still is about this directory.
    pub fn leftover(directory: &Path) -> Option<u32> {
        let process: u32 = std::fs::read_to_string(directory.join(PROCESS))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        // The number may be another's by now; a server of ours works in its own directory.
        let works_in = std::fs::read_link(format!("/proc/{process}/cwd")).ok()?;
        works_in
            .starts_with(directory.canonicalize().ok()?)
            .then_some(process)
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .open(path)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()))
}
