//! The library of functions that runs on the servers (Redis 7 functions).
//!
//! Its name ends in a hash of its source, so nodes of two versions of Holon can use one Redis while they are
//! upgraded, each its own functions. It is loaded on every primary when a connection is made, and again whenever a
//! server does not know it: after `FUNCTION FLUSH`, on a server that was started empty, or on a shard that was added.

use redis::{Cmd, cmd};
use std::sync::LazyLock;

const SOURCE: &str = include_str!("functions.lua");

struct Library {
    source: String,
    name: String,
}

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let name = format!("holon_cache_{:016x}", fnv1a(SOURCE.as_bytes()));
    Library {
        source: SOURCE.replace("LIBRARY", &name),
        name,
    }
});

/// Fowler, Noll and Vo's hash: it only has to tell versions apart.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The command that loads the library. Loading it twice is loading it once.
pub(crate) fn load() -> Cmd {
    let mut command = cmd("FUNCTION");
    command.arg("LOAD").arg("REPLACE").arg(&LIBRARY.source);
    command
}

/// A call of a function on one key; its arguments come after.
pub(crate) fn call(function: &str, key: &str) -> Cmd {
    call_with("FCALL", function, key)
}

/// A call of a function that only reads.
pub(crate) fn read(function: &str, key: &str) -> Cmd {
    call_with("FCALL_RO", function, key)
}

fn call_with(command: &str, function: &str, key: &str) -> Cmd {
    let mut command = cmd(command);
    command
        .arg(format!("{}_{function}", LIBRARY.name))
        .arg(1)
        .arg(key);
    command
}
