//! The course of a copy: read everything, write it, read it back, compare.

use super::{
    CopyError,
    archive::{ArchiveReader, ArchiveWriter, Manifest},
    home::{Checkpoint, Home},
    record::{Record, Topic},
    tally::{Floors, Tally},
};
use async_trait::async_trait;
use holon_objects::copy::{CHUNK_TABLE, ChunkPlace};
use std::{
    io::{IsTerminal as _, Read, Write},
    sync::Arc,
    time::{Duration, Instant},
};

/// Stands for the chunks of blobs in a checkpoint; sorts after the names of all tables.
const CHUNKS: &str = "~chunks";
/// Records of a backup that are written at once, and about how many bytes of them.
const BATCH: usize = 500;
const BATCH_BYTES: u64 = 4 << 20;

/// Where records go.
#[async_trait]
pub trait Sink: Send {
    /// Takes records of one kind, and of one table or partition of a topic.
    async fn put(&mut self, records: Vec<Record>) -> Result<(), CopyError>;

    /// Told after each page of a table, with what comes next.
    async fn reached(&mut self, _table: &str, _cursor: Option<&[u8]>) -> Result<(), CopyError> {
        Ok(())
    }
}

/// Says how far it is, on standard error: a line that is rewritten on a terminal, a line every few seconds elsewhere.
pub struct Progress {
    what: &'static str,
    records: u64,
    began: Instant,
    shown: Instant,
    terminal: bool,
}

impl Progress {
    pub fn start(what: &'static str) -> Self {
        Self {
            what,
            records: 0,
            began: Instant::now(),
            shown: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Says nothing to anybody.
    pub fn quiet() -> Self {
        Self::start("")
    }

    fn add(&mut self, records: usize, part: &str) {
        self.records += records as u64;
        let pause = Duration::from_millis(if self.terminal { 200 } else { 5_000 });
        if self.what.is_empty() || self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let rate = self.records as f64 / self.began.elapsed().as_secs_f64();
        let line = format!("{}: {} records, {rate:.0}/s, now {part}", self.what, self.records);
        match self.terminal {
            true => eprint!("\r\x1b[2K{line}"),
            false => eprintln!("{line}"),
        }
        let _ = std::io::stderr().flush();
    }

    fn end(&self) {
        if self.terminal && !self.what.is_empty() {
            eprint!("\r\x1b[2K");
        }
    }
}

/// Writes to a home, and notes how far it is.
pub struct ToHome<'a> {
    pub home: &'a dyn Home,
    pub number: u64,
}

#[async_trait]
impl Sink for ToHome<'_> {
    async fn put(&mut self, records: Vec<Record>) -> Result<(), CopyError> {
        self.home.take(records).await
    }

    async fn reached(&mut self, table: &str, cursor: Option<&[u8]>) -> Result<(), CopyError> {
        let checkpoint = Checkpoint {
            number: self.number,
            table: Some(table.to_owned()),
            cursor: cursor.map(<[u8]>::to_vec),
        };
        self.home.note(&checkpoint).await
    }
}

/// Only counts.
#[derive(Default)]
struct ToTally {
    tally: Tally,
    floors: Floors,
}

#[async_trait]
impl Sink for ToTally {
    async fn put(&mut self, records: Vec<Record>) -> Result<(), CopyError> {
        let mut records = records.iter();
        records.try_for_each(|record| self.tally.add_above(&self.floors, record))
    }
}

/// Writes a backup. Blocks while it compresses and writes, so it is for a thread of its own.
pub struct ToArchive<W: Write>(pub ArchiveWriter<W>);

#[async_trait]
impl<W: Write + Send> Sink for ToArchive<W> {
    async fn put(&mut self, records: Vec<Record>) -> Result<(), CopyError> {
        records.iter().try_for_each(|record| self.0.add(record))
    }
}

/// Gives everything that a home holds to a sink, from a checkpoint on.
pub async fn read_all(
    home: &dyn Home,
    from: Option<&Checkpoint>,
    sink: &mut dyn Sink,
    mut progress: Progress,
) -> Result<(), CopyError> {
    let resumed = from.and_then(|from| from.table.as_deref());
    // Order matters where it is read back: the head first, tables and topics before what is in them.
    sink.put(vec![Record::Head(home.head().await?)]).await?;
    let secrets = home.secrets().await?.into_iter();
    sink.put(
        secrets
            .map(|(name, secret)| Record::Secret { name, secret })
            .collect(),
    )
    .await?;
    let files = home.files().await?.into_iter();
    sink.put(
        files
            .map(|(name, content)| Record::File { name, content })
            .collect(),
    )
    .await?;
    for table in home.tables().await? {
        sink.put(vec![Record::Table(table.clone())]).await?;
        if resumed.is_some_and(|resumed| table.as_str() < resumed) {
            continue;
        }
        let mut cursor = resume_at(from, &table);
        let name: Arc<str> = table.as_str().into();
        loop {
            let (rows, next) = home.rows(&table, cursor).await?;
            progress.add(rows.len(), &table);
            let rows = rows.into_iter().map(|(partition, row)| Record::Row {
                table: Arc::clone(&name),
                partition,
                row,
            });
            sink.put(rows.collect()).await?;
            // The end of a table is the start of the next one, and its last page may be written twice.
            let Some(next) = next else { break };
            sink.reached(&table, Some(&next)).await?;
            cursor = Some(next);
        }
    }
    read_log(home, sink, &mut progress).await?;
    let fences = home.fences().await?.into_iter();
    sink.put(
        fences
            .map(|(name, fence)| Record::Fence { name, fence })
            .collect(),
    )
    .await?;
    read_chunks(home, resume_at(from, CHUNKS), sink, &mut progress).await?;
    progress.end();
    Ok(())
}

fn resume_at(from: Option<&Checkpoint>, table: &str) -> Option<bytes::Bytes> {
    let from = from.filter(|from| from.table.as_deref() == Some(table))?;
    from.cursor.clone().map(Into::into)
}

async fn read_log(home: &dyn Home, sink: &mut dyn Sink, progress: &mut Progress) -> Result<(), CopyError> {
    for topic in home.topics().await? {
        sink.put(vec![Record::Topic(topic.clone())]).await?;
        let name: Arc<str> = topic.name.as_str().into();
        for (partition, (first, next)) in (0_u16..).zip(&topic.bounds) {
            let mut from = *first;
            while from < *next {
                let mut events = home.events(&topic.name, partition, from).await?;
                events.retain(|event| event.position.offset < *next);
                let has_gap = events.first().is_none_or(|event| event.position.offset != from);
                if has_gap {
                    return Err(CopyError::Refused(format!(
                        "event {from} of {}/{partition} is missing",
                        topic.name
                    )));
                }
                from += events.len() as u64;
                progress.add(events.len(), &topic.name);
                let events = events.into_iter().map(|event| Record::Event {
                    topic: Arc::clone(&name),
                    event,
                });
                sink.put(events.collect()).await?;
            }
        }
    }
    let groups = home.groups().await?.into_iter();
    sink.put(groups.map(Record::Group).collect()).await?;
    for (group, topic, letter) in home.letters().await? {
        sink.put(vec![Record::Letter { group, topic, letter }]).await?;
    }
    Ok(())
}

async fn read_chunks(
    home: &dyn Home,
    mut cursor: Option<bytes::Bytes>,
    sink: &mut dyn Sink,
    progress: &mut Progress,
) -> Result<(), CopyError> {
    if !home.tables().await?.iter().any(|table| table == CHUNK_TABLE.0) {
        return Ok(());
    }
    loop {
        let (rows, next) = home.rows(CHUNK_TABLE.0, cursor).await?;
        for (partition, row) in rows {
            let place = ChunkPlace::of_row(&partition, &row)?;
            let content = home.chunk(place).await?;
            progress.add(1, "chunks of blobs");
            let chunk = Record::Chunk {
                hash: place.hash,
                writing: place.writing,
                content,
            };
            sink.put(vec![chunk]).await?;
        }
        let Some(next) = next else { return Ok(()) };
        sink.reached(CHUNKS, Some(&next)).await?;
        cursor = Some(next);
    }
}

/// The checksums of everything that a home holds, from the floors of topics on.
pub async fn tally_of(home: &dyn Home, floors: Floors, what: &'static str) -> Result<Tally, CopyError> {
    let mut sink = ToTally {
        floors,
        ..ToTally::default()
    };
    read_all(home, None, &mut sink, Progress::start(what)).await?;
    Ok(sink.tally)
}

/// Where the events of both begin. A copy may have dropped its oldest by now, if they are too much there; should a group
/// still have needed them, it has another place in the copy, which is found.
pub async fn common_floors(source: &[Topic], copy: &dyn Home) -> Result<Floors, CopyError> {
    let mut floors = Floors::new();
    for there in copy.topics().await? {
        let Some(here) = source.iter().find(|topic| topic.name == there.name) else {
            continue;
        };
        for (partition, ((first, _), (kept, _))) in (0_u16..).zip(here.bounds.iter().zip(&there.bounds)) {
            if kept > first {
                floors.insert((there.name.clone(), partition), *kept);
            }
        }
    }
    Ok(floors)
}

/// Reads a backup to its end; answers its head and its manifest once it is certain that it is whole.
pub fn verify_archive(from: impl Read) -> Result<(super::record::Head, Manifest), CopyError> {
    let mut reader = ArchiveReader::new(from)?;
    let Some(Record::Head(head)) = reader.next()? else {
        return Err(CopyError::Archive("it does not say what it is of".into()));
    };
    while reader.next()?.is_some() {}
    let manifest = reader.manifest().cloned();
    Ok((
        head,
        manifest.ok_or_else(|| CopyError::Archive("it has no manifest".into()))?,
    ))
}

/// Gives the records of a backup to a sink, in batches of a kind.
pub async fn read_archive(
    from: impl Read + Send,
    sink: &mut dyn Sink,
    mut progress: Progress,
) -> Result<(), CopyError> {
    let mut reader = ArchiveReader::new(from)?;
    let (mut batch, mut bytes): (Vec<Record>, u64) = (Vec::new(), 0);
    while let Some(record) = reader.next()? {
        let fits = batch.last().is_none_or(|last| is_same_kind(last, &record));
        if !fits || batch.len() == BATCH || bytes > BATCH_BYTES {
            progress.add(batch.len(), "the backup");
            sink.put(std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        bytes += size(&record);
        batch.push(record);
    }
    sink.put(batch).await?;
    progress.end();
    Ok(())
}

/// The checksums of a backup above floors.
pub async fn tally_archive(from: impl Read + Send, floors: Floors) -> Result<Tally, CopyError> {
    let mut sink = ToTally {
        floors,
        ..ToTally::default()
    };
    read_archive(from, &mut sink, Progress::quiet()).await?;
    Ok(sink.tally)
}

fn is_same_kind(one: &Record, two: &Record) -> bool {
    match (one, two) {
        (Record::Row { table: a, .. }, Record::Row { table: b, .. }) => a == b,
        (Record::Event { topic: a, event: one }, Record::Event { topic: b, event: two }) => {
            a == b && one.position.partition == two.position.partition
        }
        (Record::Fence { .. }, Record::Fence { .. }) => true,
        _ => false,
    }
}

fn size(record: &Record) -> u64 {
    match record {
        Record::Row { row, .. } => row.value.size() as u64,
        Record::Event { event, .. } => event.data.len() as u64,
        Record::Chunk { content, .. } => content.len() as u64,
        _ => 0,
    }
}

/// Refuses a copy that does not hold what it must.
///
/// # Errors
/// With every difference, a line each.
pub async fn compare(
    expected: &Tally,
    fences: &[(String, u64)],
    copy: &dyn Home,
    floors: Floors,
) -> Result<Tally, CopyError> {
    let found = tally_of(copy, floors, "reading back").await?;
    let mut differences = expected.differences(&found);
    let there = copy.fences().await?;
    for (name, fence) in fences {
        let is_kept = there.iter().any(|(other, kept)| other == name && kept >= fence);
        if !is_kept {
            differences.push(format!("lease {name}: its fence went back below {fence}"));
        }
    }
    if differences.is_empty() {
        return Ok(found);
    }
    Err(CopyError::Refused(format!(
        "the copy is not what it was made of, and will not be served:\n  {}",
        differences.join("\n  ")
    )))
}

/// What was compared, for people.
pub fn report(tally: &Tally) -> String {
    let mut lines = String::new();
    for (part, sum) in tally.summary() {
        lines += &format!(
            "  {part:<44} {:>10} records {:>10.1} MB  {}\n",
            sum.records,
            sum.bytes as f64 / 1e6,
            sum.short()
        );
    }
    lines
        + &format!(
            "  {} records in {} parts, each compared\n",
            tally.records(),
            tally.parts.len()
        )
}
