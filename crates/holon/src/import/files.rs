//! The files of an import: a graph and texts, plain or gzip, from disk or built into the binary.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    io::Read as _,
    path::{Path, PathBuf},
};

/// A file that cannot be used, and where.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {name}: {error}")]
    Read { name: String, error: std::io::Error },
    #[error("{name}, line {line}: expected {expected}")]
    Line {
        name: String,
        line: usize,
        expected: &'static str,
    },
    #[error("{name} holds nothing")]
    Empty { name: String },
}

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    Disk(PathBuf),
    BuiltIn {
        name: &'static str,
        bytes: &'static [u8],
    },
}

impl Source {
    pub fn disk(path: &Path) -> Self {
        Self::Disk(path.into())
    }

    fn name(&self) -> String {
        match self {
            Self::Disk(path) => path.display().to_string(),
            Self::BuiltIn { name, .. } => (*name).to_owned(),
        }
    }

    /// The content, unpacked if it starts as gzip does.
    fn content(&self) -> Result<Vec<u8>, FileError> {
        let failed = |error| FileError::Read {
            name: self.name(),
            error,
        };
        let raw = match self {
            Self::Disk(path) => Cow::Owned(std::fs::read(path).map_err(failed)?),
            Self::BuiltIn { bytes, .. } => Cow::Borrowed(*bytes),
        };
        if !raw.starts_with(&[0x1f, 0x8b]) {
            return Ok(raw.into_owned());
        }
        let mut content = Vec::new();
        flate2::read::MultiGzDecoder::new(&*raw)
            .read_to_end(&mut content)
            .map_err(failed)?;
        Ok(content)
    }

    fn text(&self) -> Result<String, FileError> {
        String::from_utf8(self.content()?).map_err(|error| FileError::Read {
            name: self.name(),
            error: std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error()),
        })
    }
}

/// Who is a friend of whom: for each person the others' numbers, ascending, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    friends: Vec<Vec<u32>>,
}

impl Graph {
    /// Reads `a b` a line, two numbers from 0. Lines that start with `#` are comments; the same pair twice, either
    /// way round, counts once; nobody is their own friend. There are as many people as the highest number plus one.
    pub fn read(source: &Source) -> Result<Self, FileError> {
        let text = source.text()?;
        let mut friends: Vec<Vec<u32>> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((a, b)) = pair(line) else {
                return Err(FileError::Line {
                    name: source.name(),
                    line: index + 1,
                    expected: "two numbers below 10,000,000 with a space between",
                });
            };
            let people = a.max(b) as usize + 1;
            if friends.len() < people {
                friends.resize_with(people, Vec::new);
            }
            if a != b {
                friends[a as usize].push(b);
                friends[b as usize].push(a);
            }
        }
        if friends.is_empty() {
            return Err(FileError::Empty { name: source.name() });
        }
        for list in &mut friends {
            list.sort_unstable();
            list.dedup();
        }
        Ok(Self { friends })
    }

    pub fn people(&self) -> usize {
        self.friends.len()
    }

    pub fn friends_of(&self, person: usize) -> &[u32] {
        &self.friends[person]
    }

    /// Follows that the friendships make: two each.
    pub fn follows(&self) -> usize {
        self.friends.iter().map(Vec::len).sum()
    }
}

fn pair(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
    let pair = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let extra = numbers.next().is_some();
    let sane = pair.0.max(pair.1) < 10_000_000;
    (sane && !extra).then_some(pair)
}

/// A text to post.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Text {
    #[serde(default)]
    pub topic: String,
    pub text: String,
}

/// The texts to post, and a name for exactly these texts in this order.
#[derive(Debug, Clone)]
pub struct Texts {
    pub items: Vec<Text>,
    /// The first 16 hexadecimal digits of the SHA-256 of the unpacked file: part of each post's idempotency key.
    pub fingerprint: String,
}

impl Texts {
    /// Reads `{"topic","text"}` a line.
    pub fn read(source: &Source) -> Result<Self, FileError> {
        let content = source.text()?;
        let hash = Sha256::digest(content.as_bytes());
        let fingerprint = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut items = Vec::new();
        for (index, line) in content.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let text = serde_json::from_str(line).map_err(|_| FileError::Line {
                name: source.name(),
                line: index + 1,
                expected: "an object with \"text\" and perhaps \"topic\"",
            })?;
            items.push(text);
        }
        Ok(Self { items, fingerprint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn on_disk(bytes: &[u8]) -> (tempfile::TempDir, Source) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let source = Source::disk(&path);
        (directory, source)
    }

    #[test]
    fn a_graph_is_the_same_plain_and_packed() {
        let plain = b"# comment\n0 1\n1 0\n2 2\n\n1 3\r\n";
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(plain).unwrap();
        let (_a, source) = on_disk(plain);
        let (_b, packed_source) = on_disk(&packed.finish().unwrap());
        let graph = Graph::read(&source).unwrap();
        assert_eq!(graph, Graph::read(&packed_source).unwrap());
        assert_eq!(graph.people(), 4);
        assert_eq!(graph.friends_of(1), [0, 3]);
        assert!(graph.friends_of(2).is_empty());
        assert_eq!(graph.follows(), 4);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (bytes, line) in [("0 1\n0 x\n", "line 2"), ("1\n", "line 1"), ("0 1 2\n", "line 1")] {
            let (_directory, source) = on_disk(bytes.as_bytes());
            let error = Graph::read(&source).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
        let (_directory, source) = on_disk(b"{\"text\":\"a\"}\n{\"topic\":\"b\"}\n");
        assert!(Texts::read(&source).unwrap_err().to_string().contains("line 2"));
        let (_directory, source) = on_disk(b"");
        assert!(matches!(Graph::read(&source), Err(FileError::Empty { .. })));
    }

    #[test]
    fn the_built_in_demo_is_the_graph_it_says() {
        let graph = Graph::read(&crate::demo::EDGES).unwrap();
        assert_eq!((graph.people(), graph.follows()), (4_039, 2 * 88_234));
        assert_eq!(Texts::read(&crate::demo::POSTS).unwrap().items.len(), 8_834);
    }
}
