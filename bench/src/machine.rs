//! The machine a figure comes from: a speed without it says nothing.

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gb: u64,
    pub system: String,
    pub kernel: String,
    pub file_system: String,
    /// Median of 200 appends of 4 KiB, each followed by `fdatasync`, in the directory the scenarios use.
    pub sync_microseconds: u64,
}

impl Machine {
    /// Looks around, and measures the disk under `work`.
    ///
    /// # Errors
    /// If `work` is kept in memory: syncing costs nothing there, so durable figures would mean nothing.
    pub fn look(work: &Path) -> Result<Self> {
        let file_system = file_system(work)?;
        if file_system == "tmpfs" || file_system == "ramfs" {
            bail!(
                "{} is kept in memory; name a directory on a disk with --work",
                work.display()
            );
        }
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let kilobytes: u64 = field(&memory, "MemTotal:")
            .split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or_default();
        Ok(Self {
            processor: field(&cpu, "model name")
                .trim_start_matches([':', ' ', '\t'])
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gb: (kilobytes as f64 / 1e6).round() as u64,
            system: field(&release, "PRETTY_NAME=").trim_matches('"').to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            file_system,
            sync_microseconds: sync_time(work)?.as_micros() as u64,
        })
    }
}

/// The rest of the first line that starts with `name`.
fn field(text: &str, name: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or("unknown")
        .trim()
        .to_owned()
}

/// The type of the file system that holds a directory: that of the longest mount point above it.
fn file_system(directory: &Path) -> Result<String> {
    let directory = directory.canonicalize()?;
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (point, kind) = (fields.nth(1)?, fields.next()?);
        directory.starts_with(point).then_some((point.len(), kind))
    });
    let (_, kind) = holding
        .max_by_key(|(length, _)| *length)
        .context("no file system holds the directory")?;
    Ok(kind.to_owned())
}

fn sync_time(directory: &Path) -> Result<Duration> {
    let mut file = tempfile::tempfile_in(directory)?;
    let block = [0x5a; 4096];
    let mut times = Vec::with_capacity(200);
    for _ in 0..200 {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// The first line that a program prints when asked for its version.
pub fn version_of(program: &str, argument: &str) -> Result<String> {
    let output = Command::new(program)
        .arg(argument)
        .output()
        .with_context(|| format!("cannot run {program}; on Debian, install the package of that name"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The version of a crate that this program was built with.
pub fn crate_version(name: &str) -> String {
    // Read at compile time, so that the report names what was measured and not what the tree says later.
    const LOCK: &str = include_str!("../../Cargo.lock");
    let start = format!("name = \"{name}\"\nversion = \"");
    LOCK.split_once(&start)
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or("unknown")
        .to_owned()
}

/// Resident memory of a process in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let kilobytes: u64 = field(&status, "VmRSS:")
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("process {pid} has no resident memory"))?;
    Ok(kilobytes * 1024)
}

/// Seconds of a core that processes and all that descend from them have used so far.
///
/// # Errors
/// If one of `roots` is gone.
pub fn cpu_seconds(roots: &[u32]) -> Result<f64> {
    // Linux counts in hundredths of a second there, whatever its own clock does.
    const PER_SECOND: f64 = 100.0;
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut used: HashMap<u32, u64> = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // A process may end while it is looked at.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // The name, in parentheses, may hold anything; the fields after it are numbers.
        let fields: Vec<&str> = match stat.rsplit_once(')') {
            Some((_, rest)) => rest.split_whitespace().collect(),
            None => continue,
        };
        let number = |at: usize| {
            fields
                .get(at)
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0)
        };
        children.entry(number(1) as u32).or_default().push(pid);
        // Its own user and system time, and that of children it has waited for.
        used.insert(pid, (11..=14).map(number).sum());
    }
    let mut open = roots.to_vec();
    let mut ticks = 0;
    while let Some(pid) = open.pop() {
        ticks += used.get(&pid).with_context(|| format!("process {pid} is gone"))?;
        open.extend(children.remove(&pid).unwrap_or_default());
    }
    Ok(ticks as f64 / PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        assert!(crate_version("fjall").starts_with("3."));
        assert_eq!(crate_version("no-such-crate"), "unknown");
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident(std::process::id()).unwrap() > 1 << 20);
    }

    #[test]
    fn work_is_counted_with_that_of_children() {
        let own = [std::process::id()];
        let before = cpu_seconds(&own).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])
            .spawn()
            .unwrap();
        child.wait().unwrap();
        assert!(cpu_seconds(&own).unwrap() > before);
        assert!(cpu_seconds(&[u32::MAX]).is_err());
    }
}
