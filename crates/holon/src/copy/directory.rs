//! A data directory as a home: read under a snapshot, also while a server uses it; written beside its place.

use super::{
    CopyError,
    home::{Checkpoint, Home, PAGE, Page},
    record::{Group, Head, Record, Topic, lasting},
};
use async_trait::async_trait;
use bytes::Bytes;
use holon_base::{Clock, ManualClock, SystemClock, Timestamp};
use holon_embedded::{
    Engine, EngineOptions,
    copy::{Mark, Snapshot},
};
use holon_objects::{ObjectBlobs, copy::ChunkPlace};
use holon_ports::{Event, StoreError, log::DeadLetter, store::TableCursor};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The files of a data directory that people rely on.
const FILES: [&str; 3] = ["admin.token", "demo.password", "demo.complete"];
/// What says that a directory is not whole yet.
const UNFINISHED: &str = "copy.json";

/// A data directory.
pub struct Directory {
    path: PathBuf,
    objects: ObjectBlobs,
    secrets: Vec<(String, [u8; 32])>,
    /// What is read; none while it is written.
    snapshot: Option<Snapshot>,
    /// None where a server has it.
    engine: Option<Engine>,
}

/// Refuses a directory that a copy has not finished.
pub fn is_whole(path: &Path) -> Result<(), String> {
    match path.join(UNFINISHED).exists() {
        true => Err(format!(
            "{} is an unfinished copy; finish it with the command that began it, or remove it",
            path.display()
        )),
        false => Ok(()),
    }
}

impl Directory {
    /// A directory that no server uses, to be read.
    pub async fn open(path: &Path, now: Timestamp) -> Result<Self, CopyError> {
        if !path.join("db").is_dir() {
            return Err(CopyError::Refused(format!(
                "{} is no data directory of Holon",
                path.display()
            )));
        }
        is_whole(path).map_err(CopyError::Refused)?;
        Self::open_at(path, now, true).await
    }

    async fn open_at(path: &Path, now: Timestamp, to_read: bool) -> Result<Self, CopyError> {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(now));
        let engine = Engine::open(EngineOptions::new(path).clock(clock)).await?;
        Ok(Self {
            path: path.to_owned(),
            objects: engine.objects().clone(),
            secrets: engine.secrets()?,
            snapshot: match to_read {
                true => Some(engine.snapshot().await?),
                false => None,
            },
            engine: Some(engine),
        })
    }

    /// The directory of a running server, as it is now.
    pub async fn of_running(engine: &Engine) -> Result<Self, CopyError> {
        Ok(Self {
            path: engine.options().dir.clone(),
            objects: engine.objects().clone(),
            secrets: engine.secrets()?,
            snapshot: Some(engine.snapshot().await?),
            engine: None,
        })
    }

    /// Begins, or goes on with, a directory that will be at `path`. Until [`Self::finish`] it is beside it, under a
    /// name of its own. What an earlier attempt at another copy left there is removed.
    pub async fn begin(path: &Path, number: u64, now: Timestamp) -> Result<Self, CopyError> {
        let is_empty = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if !is_empty {
            return Err(CopyError::Refused(format!(
                "{} is not empty; a copy is made into a directory that is not there yet or empty",
                path.display()
            )));
        }
        let beside = beside(path)?;
        if beside.exists() && unfinished(&beside)?.is_none_or(|checkpoint| checkpoint.number != number) {
            refuse_others(&beside)?;
            fs::remove_dir_all(&beside).map_err(CopyError::Write)?;
        }
        fs::create_dir_all(&beside).map_err(CopyError::Write)?;
        if unfinished(&beside)?.is_none() {
            let first = Checkpoint {
                number,
                table: None,
                cursor: None,
            };
            write_private(&beside, UNFINISHED, &json(&first)?)?;
        }
        Self::open_at(&beside, now, false).await
    }

    /// Closes what was written and opens it again, to be read back from the disk.
    pub async fn reopen(self, now: Timestamp) -> Result<Self, CopyError> {
        let path = self.path.clone();
        self.close().await;
        Self::open_at(&path, now, true).await
    }

    /// Puts a directory that was written and verified into its place.
    pub async fn finish(self, path: &Path) -> Result<(), CopyError> {
        let beside = self.path.clone();
        self.close().await;
        fs::remove_file(beside.join(UNFINISHED)).map_err(CopyError::Write)?;
        sync(&beside)?;
        // Takes the place of an empty directory as well.
        fs::rename(&beside, path).map_err(CopyError::Write)?;
        let parent = std::path::absolute(path).map_err(CopyError::Write)?;
        parent.parent().map_or(Ok(()), sync)
    }

    pub async fn close(self) {
        drop(self.snapshot);
        if let Some(engine) = self.engine {
            engine.close().await;
        }
    }

    fn snapshot(&self) -> Result<&Snapshot, CopyError> {
        let none = || CopyError::Refused("a directory that is being written is not read".into());
        self.snapshot.as_ref().ok_or_else(none)
    }

    fn engine(&self) -> Result<&Engine, CopyError> {
        let none = || CopyError::Refused("a server has the directory".into());
        self.engine.as_ref().ok_or_else(none)
    }
}

fn json<T: serde::Serialize>(document: &T) -> Result<Vec<u8>, CopyError> {
    serde_json::to_vec(document).map_err(|error| CopyError::Record(error.to_string()))
}

/// Where a directory is until it is whole.
fn beside(path: &Path) -> Result<PathBuf, CopyError> {
    let absolute = std::path::absolute(path).map_err(CopyError::Write)?;
    let name = absolute
        .file_name()
        .ok_or_else(|| CopyError::Refused(format!("{} cannot be a data directory", path.display())))?;
    let mut name = name.to_owned();
    name.push(".partial");
    Ok(absolute.with_file_name(name))
}

fn unfinished(path: &Path) -> Result<Option<Checkpoint>, CopyError> {
    match fs::read(path.join(UNFINISHED)) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CopyError::Write(error)),
    }
}

/// A directory of that name which holds something else than an unfinished copy is somebody's.
fn refuse_others(beside: &Path) -> Result<(), CopyError> {
    let is_ours = beside.join(UNFINISHED).exists();
    let is_empty = fs::read_dir(beside).is_ok_and(|mut entries| entries.next().is_none());
    match is_ours || is_empty {
        true => Ok(()),
        false => Err(CopyError::Refused(format!(
            "{} is in the way and is no unfinished copy; move it away",
            beside.display()
        ))),
    }
}

fn sync(directory: &Path) -> Result<(), CopyError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(CopyError::Write)
}

/// Writes a file that only the owner may read, whole or not at all.
pub fn write_private(directory: &Path, name: &str, content: &[u8]) -> Result<(), CopyError> {
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(directory.join(name)).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(CopyError::Write)
}

/// The files that people rely on, as they are in a directory.
pub fn files_of(directory: &Path) -> Result<Vec<(String, Bytes)>, CopyError> {
    let mut files = Vec::new();
    for name in FILES {
        match fs::read(directory.join(name)) {
            Ok(content) => files.push((name.to_owned(), content.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
    Ok(files)
}

/// Writes one of the files that people rely on.
pub fn take_file(directory: &Path, name: &str, content: &[u8]) -> Result<(), CopyError> {
    if !FILES.contains(&name) {
        return Err(CopyError::Record(format!(
            "{name:?} is no file of a data directory"
        )));
    }
    write_private(directory, name, content)
}

/// Tells one state of a deployment from another, and from that of another deployment.
pub fn number_of(secrets: &[(String, [u8; 32])], sequence: u64, more: &[u64]) -> u64 {
    let mut hash = Sha256::new();
    for (name, secret) in secrets {
        hash.update(name.as_bytes());
        hash.update(secret);
    }
    for number in [sequence].iter().chain(more) {
        hash.update(number.to_be_bytes());
    }
    let hash = hash.finalize();
    hash[..8]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[async_trait]
impl Home for Directory {
    async fn head(&self) -> Result<Head, CopyError> {
        let snapshot = self.snapshot()?;
        let mark = snapshot.mark()?;
        Ok(Head {
            taken: snapshot.taken(),
            home: "a data directory".into(),
            program: env!("CARGO_PKG_VERSION").into(),
            sequence: mark.sequence,
            last_id: mark.last_id,
            number: number_of(&self.secrets, mark.sequence, &[mark.last_id.as_u64()]),
        })
    }

    async fn secrets(&self) -> Result<Vec<(String, [u8; 32])>, CopyError> {
        Ok(self.secrets.clone())
    }

    async fn files(&self) -> Result<Vec<(String, Bytes)>, CopyError> {
        files_of(&self.path)
    }

    async fn tables(&self) -> Result<Vec<String>, CopyError> {
        Ok(self.snapshot()?.tables())
    }

    async fn rows(&self, table: &str, cursor: Option<TableCursor>) -> Result<Page, CopyError> {
        Ok(self.snapshot()?.rows(table, cursor, PAGE)?)
    }

    async fn topics(&self) -> Result<Vec<Topic>, CopyError> {
        let snapshot = self.snapshot()?;
        let mut topics = Vec::new();
        for spec in snapshot.topics() {
            let bounds: Result<Vec<(u64, u64)>, StoreError> = (0..spec.partitions)
                .map(|partition| {
                    let bounds = snapshot.bounds(spec.name, partition)?;
                    Ok((bounds.first, bounds.next))
                })
                .collect();
            topics.push(Topic::new(&spec, bounds?));
        }
        Ok(topics)
    }

    async fn events(&self, topic: &str, partition: u16, from: u64) -> Result<Vec<Event>, CopyError> {
        Ok(self.snapshot()?.events(topic, partition, from, PAGE)?)
    }

    async fn groups(&self) -> Result<Vec<Group>, CopyError> {
        let groups = self.snapshot()?.groups()?;
        let group = |group: holon_embedded::copy::Committed| Group {
            group: group.group,
            topic: group.topic,
            committed: group.offsets,
        };
        Ok(groups.into_iter().map(group).collect())
    }

    async fn letters(&self) -> Result<Vec<(String, String, DeadLetter)>, CopyError> {
        let snapshot = self.snapshot()?;
        let mut letters = Vec::new();
        for (group, topic) in snapshot.dead_letter_groups()? {
            for letter in snapshot.dead_letters(&group, &topic)? {
                letters.push((group.clone(), topic.clone(), letter));
            }
        }
        Ok(letters)
    }

    async fn fences(&self) -> Result<Vec<(String, u64)>, CopyError> {
        Ok(self.snapshot()?.leases()?)
    }

    async fn chunk(&self, place: ChunkPlace) -> Result<Bytes, CopyError> {
        Ok(self.objects.copy_out(place).await?)
    }

    async fn take(&self, records: Vec<Record>) -> Result<(), CopyError> {
        let engine = self.engine()?;
        let (mut rows, mut events) = (Vec::new(), Vec::new());
        let mut of: Option<Arc<str>> = None;
        for record in records {
            match record {
                Record::Head(head) => {
                    let mark = Mark {
                        sequence: head.sequence,
                        last_id: head.last_id,
                    };
                    engine.import_mark(mark).await?;
                }
                Record::Secret { name, secret } => engine.import_secret(&name, secret)?,
                Record::File { name, content } => take_file(&self.path, &name, &content)?,
                Record::Table(name) => engine.import_table(&name).await?,
                Record::Row {
                    table,
                    partition,
                    row,
                } => {
                    of = Some(table);
                    rows.push((partition, row));
                }
                Record::Topic(topic) => {
                    let firsts: Vec<u64> = topic.bounds.iter().map(|(first, _)| *first).collect();
                    engine.import_topic(&topic.spec(), &firsts).await?;
                }
                Record::Event { topic, event } => {
                    of = Some(topic);
                    events.push(event);
                }
                Record::Group(group) => {
                    take_group(&*engine.ports().log, &group).await?;
                }
                Record::Letter { group, topic, letter } => {
                    engine.import_dead_letter(&group, &topic, &letter).await?;
                }
                // No row has a version above the mark, which comes first.
                Record::Fence { name, fence } => engine.import_lease(&name, fence, 1).await?,
                Record::Chunk {
                    hash,
                    writing,
                    content,
                } => {
                    self.objects
                        .copy_in(ChunkPlace { hash, writing }, content)
                        .await?
                }
            }
        }
        if let Some(of) = of {
            match rows.is_empty() {
                false => engine.import_rows(&of, &rows).await?,
                true => engine.import_events(&of, &events).await?,
            }
        }
        Ok(())
    }

    async fn checkpoint(&self) -> Result<Option<Checkpoint>, CopyError> {
        unfinished(&self.path)
    }

    async fn note(&self, checkpoint: &Checkpoint) -> Result<(), CopyError> {
        write_private(&self.path, UNFINISHED, &json(checkpoint)?)
    }
}

/// Sets a group to where it was. What retention has dropped since, it need not have.
pub async fn take_group(log: &dyn holon_ports::Log, group: &Group) -> Result<(), CopyError> {
    for (partition, committed) in (0_u16..).zip(&group.committed) {
        let position = holon_ports::Position {
            partition,
            offset: *committed,
        };
        let to = holon_ports::log::Rewind::Offset(position);
        log.rewind(&group.group, lasting(&group.topic), to).await?;
    }
    Ok(())
}

/// The time at which a home stands still while it is copied.
pub fn now() -> Timestamp {
    SystemClock.now()
}
