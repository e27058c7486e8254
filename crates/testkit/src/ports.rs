//! Ports for servers that cannot be told to take any free one.
//!
//! A port that the system hands out and that is given back at once is soon handed out again: to the next test, or to
//! an outgoing connection of this one. So ports come from below the range that the system hands out from, and each is
//! kept by a lock on a file, which the system lets go of when the process ends, however it ends.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{File, OpenOptions, TryLockError},
    net::TcpListener,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

/// Below are well-known ports and those of servers that the machine itself may run.
const LOWEST: u16 = 10_000;
/// Where Linux begins to hand out ports if nothing else is said.
const HANDED_OUT_FROM: u16 = 32_768;

/// The ports of this process; each lock is held until it ends.
static TAKEN: Mutex<BTreeMap<u16, File>> = Mutex::new(BTreeMap::new());

/// A port of the loopback interface that is free, and that no other call of this function, in any process, answers
/// until this process ends. Where a port can be left to the system, leave it to the system.
pub fn free_port() -> u16 {
    let directory = std::env::temp_dir().join("holon-test-ports");
    std::fs::create_dir_all(&directory).expect("a directory in the temporary one");
    let count = u32::from(highest() - LOWEST);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let start = std::process::id().wrapping_mul(2_654_435_761) % count;
    for step in 0..count {
        // Two processes seldom begin at the same port, and one goes on where it was.
        let port = LOWEST + ((start + taken.len() as u32 + step) % count) as u16;
        let Some(lock) = lock(directory.join(port.to_string())) else {
            continue;
        };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            taken.insert(port, lock);
            return port;
        }
    }
    panic!("every port from {LOWEST} to {} is in use", highest());
}

/// Takes a port that this process or an earlier one had from [`free_port`]; false if somebody else has it now.
pub(crate) fn take_port(port: u16) -> bool {
    let directory = std::env::temp_dir().join("holon-test-ports");
    std::fs::create_dir_all(&directory).expect("a directory in the temporary one");
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Entry::Vacant(entry) = taken.entry(port) {
        let Some(lock) = lock(directory.join(port.to_string())) else {
            return false;
        };
        entry.insert(lock);
    }
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn lock(path: PathBuf) -> Option<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("a file in a directory of our own");
    match file.try_lock() {
        Ok(()) => Some(file),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => panic!("cannot lock the file of a port: {error}"),
    }
}

/// The first port that the system hands out by itself.
fn highest() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range
        .split_whitespace()
        .next()
        .and_then(|first| first.parse().ok());
    // A machine that hands out nearly all leaves no room below; then a collision is possible, if unlikely.
    first
        .filter(|first| *first > LOWEST + 1_000)
        .unwrap_or(HANDED_OUT_FROM)
}
