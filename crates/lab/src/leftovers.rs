//! Which process runs the cluster of a directory, and what is left of one that was killed.

use holon_lab::LabError;
use holon_testkit::{Place, try_signal};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const FILE: &str = "lab.json";
/// How long leftovers may take to end in good order.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process that runs a cluster. The file that says so goes away with this, in the process that wrote it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Running {
    pub process: u32,
    control: String,
    #[serde(skip)]
    written: Option<PathBuf>,
}

impl Running {
    /// Writes down that this process runs the cluster.
    pub fn write(directory: &Path, control: &str) -> Result<Self, LabError> {
        let path = directory.join(FILE);
        let running = Self {
            process: std::process::id(),
            control: control.to_owned(),
            written: Some(path.clone()),
        };
        let text = serde_json::to_string(&running).unwrap_or_default();
        holon_lab::write_private(&path, &text).map_err(|error| LabError::File {
            what: "cannot write",
            path,
            error,
        })?;
        Ok(running)
    }

    /// The process that runs the cluster of a directory, if there is one.
    pub fn find(directory: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(directory.join(FILE)).ok()?;
        let running: Self = serde_json::from_str(&text).ok()?;
        let command = std::fs::read(format!("/proc/{}/cmdline", running.process)).ok()?;
        // The number may be another's by now.
        String::from_utf8_lossy(&command)
            .contains("holon-lab")
            .then_some(running)
    }

    /// # Errors
    /// If there is none, with what to do.
    pub fn needed(directory: &Path) -> Result<Self, LabError> {
        Self::find(directory).ok_or_else(|| {
            LabError::Setup(format!(
                "no cluster runs in {}; `make cluster` starts one",
                directory.display()
            ))
        })
    }

    /// Where it listens, and the secret that paths begin with.
    pub fn control(&self) -> Option<(u16, &str)> {
        let (address, secret) = self.control.strip_prefix("http://")?.split_once('/')?;
        let (_, port) = address.split_once(':')?;
        Some((port.parse().ok()?, secret))
    }

    pub async fn terminate(&self) {
        try_signal(self.process, "TERM").await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(path) = &self.written {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Ends what a run that was killed left: nodes first, then what they stand on. Answers how many there were.
pub async fn end_leftovers(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let (nodes, servers): (Vec<PathBuf>, Vec<PathBuf>) = entries
        .map(|entry| entry.path())
        .filter(|path| Place::leftover(path).is_some())
        .partition(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("node-"))
        });
    end_all(&nodes).await;
    end_all(&servers).await;
    nodes.len() + servers.len()
}

async fn end_all(places: &[PathBuf]) {
    let left = || {
        places
            .iter()
            .filter_map(|place| Some((place, Place::leftover(place)?)))
    };
    for (place, process) in left() {
        // By SIGTERM, PostgreSQL would wait until nobody is connected.
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let order = if name.starts_with("postgres-") {
            "INT"
        } else {
            "TERM"
        };
        try_signal(process, "CONT").await;
        try_signal(process, order).await;
    }
    let end = Instant::now() + PATIENCE;
    while left().next().is_some() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (_, process) in left() {
        try_signal(process, "KILL").await;
    }
}
