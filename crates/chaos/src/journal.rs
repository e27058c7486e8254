//! The clients' own log: what each asked for, every attempt, and what it was told. The checker works from this alone.

use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// What a client wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Action {
    /// Texts are used once, so that a post is known by its text also where its id was never told.
    Post {
        text: String,
    },
    /// Of an own post.
    Delete {
        post: u64,
    },
    Like {
        post: u64,
        author: String,
    },
    Unlike {
        post: u64,
        author: String,
    },
    Follow {
        handle: String,
    },
    Unfollow {
        handle: String,
    },
    /// The newest page of one's own home.
    Home,
}

impl Action {
    pub fn is_write(&self) -> bool {
        *self != Self::Home
    }
}

/// How it ended, for all that its client knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Outcome {
    Done,
    Posted {
        post: u64,
    },
    /// Ids and authors, newest first, and whether that was all.
    Seen {
        posts: Vec<(u64, String)>,
        is_all: bool,
    },
    /// A client error: it was not done.
    Refused {
        status: u16,
        problem: String,
    },
    /// The client gave up: it may have been done, once, or not.
    Unknown,
}

/// One sending of a request. Times are microseconds since the journal was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The place of the node in the client's list.
    pub node: usize,
    pub started: u64,
    pub ended: u64,
    /// None if there was no answer.
    pub status: Option<u16>,
    /// Why there was no answer, or what kind of refusal it was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl Attempt {
    /// Whether a client would call it an error: no answer, or a server's error.
    pub fn is_error(&self) -> bool {
        self.status.is_none_or(|status| status >= 500)
    }
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub person: String,
    pub action: Action,
    pub attempts: Vec<Attempt>,
    pub outcome: Outcome,
}

impl Entry {
    pub fn started(&self) -> u64 {
        self.attempts.first().map_or(0, |attempt| attempt.started)
    }

    pub fn ended(&self) -> u64 {
        self.attempts.last().map_or(0, |attempt| attempt.ended)
    }
}

/// A journal that is being written. An entry is written when its request has ended; those of one person are in the order
/// in which they happened, since a person does one thing at a time.
pub struct Journal {
    began: Instant,
    file: Mutex<BufWriter<File>>,
}

impl Journal {
    /// # Errors
    /// Those of the file.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            began: Instant::now(),
            file: Mutex::new(BufWriter::new(File::create(path)?)),
        })
    }

    /// Microseconds since it was opened.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// # Errors
    /// Those of the file.
    pub fn write(&self, entry: &Entry) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)?;
        file.flush()
    }
}

/// Reads a journal.
///
/// # Errors
/// Those of the file, or of a line that is no entry.
pub fn read(path: &Path) -> std::io::Result<Vec<Entry>> {
    BufReader::new(File::open(path)?)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect()
}
