//! The demo: filling an empty data directory, once, with the files that are built in.
//!
//! The directory keeps two files about it: `demo.password`, written before anything is imported, says that there is
//! a demo and how to sign in; `demo.complete` says that it need not be gone on with.

use crate::import::{Done, Import, ImportError, Options, Source};
use rand::seq::IndexedRandom as _;
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// See `demo/README.md` for where these come from and their terms.
pub static EDGES: Source = Source::BuiltIn {
    name: "demo/facebook_edges.txt.gz",
    bytes: include_bytes!("../../../demo/facebook_edges.txt.gz"),
};
pub static POSTS: Source = Source::BuiltIn {
    name: "demo/posts.jsonl.gz",
    bytes: include_bytes!("../../../demo/posts.jsonl.gz"),
};

/// Whom to sign in as: the first person of the graph, who has 347 friends.
pub const HANDLE: &str = "u0";
const LIKES_EACH: usize = 4;
const REPOSTS: usize = 600;

/// A demo in a data directory.
pub struct Demo {
    directory: PathBuf,
    pub password: String,
    pub complete: bool,
}

impl Demo {
    /// The demo of a data directory, begun if the directory is `empty`. `None` if it holds something else. Call it
    /// before anything else is written there.
    pub fn of(directory: &Path, empty: bool) -> io::Result<Option<Self>> {
        let password_file = directory.join("demo.password");
        let password = match fs::read_to_string(&password_file) {
            Ok(password) => password.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && empty => {
                let password = new_password();
                write_private(&password_file, &password)?;
                password
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self {
            complete: directory.join("demo.complete").exists(),
            directory: directory.into(),
            password,
        }))
    }

    /// Imports what is not there yet over the server's own API, and notes that it is complete.
    pub async fn fill(&self, server: SocketAddr, token: String) -> Result<Done, ImportError> {
        let import = Import::prepare(Options {
            server: format!("http://{server}"),
            edges: EDGES.clone(),
            posts: POSTS.clone(),
            token,
            concurrency: 64,
            hashtags: true,
            likes: LIKES_EACH,
            reposts: REPOSTS,
            wait: true,
            patience: Duration::from_secs(30),
            password: Some(self.password.clone()),
        })?;
        let done = import.run().await?;
        if let Err(error) = fs::write(self.directory.join("demo.complete"), "") {
            tracing::warn!(%error, "the demo is complete; the next start will look again");
        }
        Ok(done)
    }
}

/// True if a directory is not there or holds nothing.
pub fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

/// Four words and a number: good for a demo, and easy to type.
fn new_password() -> String {
    const WORDS: [&str; 32] = [
        "amber", "birch", "cedar", "cloud", "coral", "delta", "ember", "fjord", "frost", "grove", "harbor",
        "hazel", "island", "ivory", "juniper", "lagoon", "lantern", "maple", "meadow", "nectar", "opal",
        "orchid", "pebble", "quartz", "raven", "river", "saffron", "summit", "thistle", "tundra", "willow",
        "zephyr",
    ];
    let mut random = rand::rng();
    let words: Vec<&str> = (0..4)
        .filter_map(|_| WORDS.choose(&mut random).copied())
        .collect();
    format!("{}-{}", words.join("-"), rand::random_range(10..100))
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    // Renamed into place, so that nobody reads half of it.
    let partial = path.with_extension("partial");
    let _ = fs::remove_file(&partial);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_is_begun_only_in_an_empty_directory_and_remembered() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        assert!(is_empty(&directory));
        let begun = Demo::of(&directory, true).unwrap().unwrap();
        assert!(!begun.complete);
        let again = Demo::of(&directory, is_empty(&directory)).unwrap().unwrap();
        assert_eq!(again.password, begun.password);

        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("x"), "").unwrap();
        assert!(Demo::of(&other, is_empty(&other)).unwrap().is_none());
    }
}
