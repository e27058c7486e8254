//! Servers as a home, while no node runs on them.

use super::{
    CopyError,
    directory::{files_of, number_of, take_file, take_group},
    home::{Checkpoint, Home, Page},
    record::{Group, Head, Record, Topic, lasting},
};
use crate::engines::{carried, carried::Carried, still::Still};
use async_trait::async_trait;
use bytes::Bytes;
use holon_base::Id;
use holon_objects::copy::ChunkPlace;
use holon_ports::{Event, LogError, Table, log::DeadLetter, store::TableCursor};
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

/// Rows of one page; each may be up to a MiB.
const ROWS: usize = 250;
/// What the home itself keeps is not of the deployment.
const OWN_TABLES: &str = "deployment.";
/// Clocks of nodes may be apart by so much, so ids of the near future may have been given out.
const CLOCK_SKEW: Duration = Duration::from_secs(10);
/// How often events are told again that the servers did not take.
const ATTEMPTS: u32 = 10;

pub struct Servers {
    pub still: Still,
    /// The data directory of a node of this deployment.
    pub data: PathBuf,
}

fn refused(error: crate::node::NodeError) -> CopyError {
    CopyError::Refused(error.to_string())
}

impl Servers {
    /// Refuses servers that hold something else than what an earlier attempt at this copy has left, and marks them as
    /// unfinished.
    pub async fn begin(&self, number: u64) -> Result<(), CopyError> {
        match self.checkpoint().await? {
            Some(checkpoint) if checkpoint.number == number => return Ok(()),
            Some(_) => {
                return Err(CopyError::Refused(
                    "the servers hold an unfinished copy of something else, or of what has changed since; \
                     empty them and begin again"
                        .into(),
                ));
            }
            None => {}
        }
        for table in self.tables().await? {
            let (rows, _) = self.still.store.walk(Table(lasting(&table)), None, 1).await?;
            if !rows.is_empty() {
                return Err(CopyError::Refused(format!(
                    "the servers are not empty: there are rows in {table}; a copy is made into empty servers"
                )));
            }
        }
        for topic in self.topics().await? {
            if topic.bounds.iter().any(|(_, next)| *next > 0) {
                return Err(CopyError::Refused(format!(
                    "the servers are not empty: there are events in {}; take another engines.prefix",
                    topic.name
                )));
            }
        }
        let first = Checkpoint {
            number,
            table: None,
            cursor: None,
        };
        self.note(&first).await
    }

    /// Lets nodes start.
    pub async fn finish(&self) -> Result<(), CopyError> {
        Ok(carried::note_finished(&*self.still.store).await?)
    }

    async fn carry(&self, change: impl FnOnce(&mut Carried)) -> Result<(), CopyError> {
        let mut carried = Carried::read(&*self.still.store, &self.still.secret).await?;
        change(&mut carried);
        Ok(carried.write(&*self.still.store, &self.still.secret).await?)
    }

    async fn take_events(&self, topic: &str, events: &[Event]) -> Result<(), CopyError> {
        let mut attempt = 0;
        loop {
            match self.still.nats.import_events(topic, events).await {
                Err(LogError::Unavailable(why)) if attempt < ATTEMPTS => {
                    attempt += 1;
                    tracing::warn!(topic, why, "events are told again");
                    tokio::time::sleep(Duration::from_millis(100) * attempt).await;
                }
                done => return Ok(done?),
            }
        }
    }

    /// Keeps a letter unless an earlier attempt has kept it.
    async fn take_letter(&self, group: &str, topic: &str, letter: &DeadLetter) -> Result<(), CopyError> {
        let same = |kept: &DeadLetter| kept.at == letter.at && kept.event.position == letter.event.position;
        let kept = self.still.log.dead_letters(group, topic, 0, usize::MAX).await?;
        if kept.iter().any(same) {
            return Ok(());
        }
        Ok(self.still.nats.import_dead_letter(group, topic, letter).await?)
    }
}

#[async_trait]
impl Home for Servers {
    async fn head(&self) -> Result<Head, CopyError> {
        let sequence = self.still.postgres.last_version().await?;
        let secrets = self.secrets().await?;
        let topics = self.topics().await?;
        let ends: Vec<u64> = topics
            .iter()
            .flat_map(|topic| topic.bounds.iter().map(|(_, next)| *next))
            .collect();
        Ok(Head {
            taken: self.still.now,
            home: "servers".into(),
            program: env!("CARGO_PKG_VERSION").into(),
            sequence,
            last_id: Id::first_at(self.still.now.plus(CLOCK_SKEW)),
            number: number_of(&secrets, sequence, &ends),
        })
    }

    async fn secrets(&self) -> Result<Vec<(String, [u8; 32])>, CopyError> {
        self.still.secrets().await.map_err(refused)
    }

    async fn files(&self) -> Result<Vec<(String, Bytes)>, CopyError> {
        files_of(&self.data)
    }

    async fn tables(&self) -> Result<Vec<String>, CopyError> {
        let mut tables = self.still.postgres.tables();
        tables.retain(|name| !name.starts_with(OWN_TABLES));
        Ok(tables)
    }

    async fn rows(&self, table: &str, cursor: Option<TableCursor>) -> Result<Page, CopyError> {
        Ok(self.still.store.walk(Table(lasting(table)), cursor, ROWS).await?)
    }

    async fn topics(&self) -> Result<Vec<Topic>, CopyError> {
        let mut topics = Vec::new();
        for spec in self.still.log.topics().await? {
            let mut bounds = Vec::new();
            for partition in 0..spec.partitions {
                let kept = self.still.log.bounds(spec.name, partition).await?;
                bounds.push((kept.first, kept.next));
            }
            topics.push(Topic::new(&spec, bounds));
        }
        Ok(topics)
    }

    async fn events(&self, topic: &str, partition: u16, from: u64) -> Result<Vec<Event>, CopyError> {
        Ok(self
            .still
            .log
            .read(topic, partition, from, super::home::PAGE)
            .await?)
    }

    async fn groups(&self) -> Result<Vec<Group>, CopyError> {
        let mut groups = Vec::new();
        for (group, topic) in self.still.log.groups().await? {
            let progress = self.still.log.progress(&group, &topic).await?;
            groups.push(Group {
                group,
                topic,
                committed: progress.iter().map(|progress| progress.committed).collect(),
            });
        }
        Ok(groups)
    }

    async fn letters(&self) -> Result<Vec<(String, String, DeadLetter)>, CopyError> {
        let mut letters = Vec::new();
        let groups: BTreeSet<(String, String)> =
            self.still.nats.dead_letter_groups().await?.into_iter().collect();
        for (group, topic) in groups {
            for letter in self.still.log.dead_letters(&group, &topic, 0, usize::MAX).await? {
                letters.push((group.clone(), topic.clone(), letter));
            }
        }
        Ok(letters)
    }

    async fn fences(&self) -> Result<Vec<(String, u64)>, CopyError> {
        Ok(self.still.postgres.fences().await?)
    }

    async fn chunk(&self, place: ChunkPlace) -> Result<Bytes, CopyError> {
        Ok(self.still.blobs.copy_out(place).await?)
    }

    async fn take(&self, records: Vec<Record>) -> Result<(), CopyError> {
        let (mut rows, mut events, mut fences) = (Vec::new(), Vec::new(), Vec::new());
        let mut of = String::new();
        for record in records {
            match record {
                Record::Head(head) => {
                    self.still.postgres.pass_version(head.sequence).await?;
                    self.carry(|carried| carried.last_id = Some(head.last_id)).await?;
                }
                Record::Secret { name, secret } => {
                    let insert = |carried: &mut Carried| {
                        carried.secrets.insert(name, secret);
                    };
                    self.carry(insert).await?;
                }
                Record::File { name, content } => take_file(&self.data, &name, &content)?,
                Record::Table(name) => self.still.store.create_tables(&[Table(lasting(&name))]).await?,
                Record::Row {
                    table,
                    partition,
                    row,
                } => {
                    of = table.to_string();
                    rows.push((partition, row));
                }
                Record::Topic(topic) => {
                    self.still.log.create_topics(&[topic.spec()]).await?;
                    for (partition, (first, _)) in (0_u16..).zip(&topic.bounds) {
                        self.still
                            .nats
                            .import_first(&topic.name, partition, *first)
                            .await?;
                    }
                }
                Record::Event { topic, event } => {
                    of = topic.to_string();
                    events.push(event);
                }
                Record::Group(group) => take_group(&*self.still.log, &group).await?,
                Record::Letter { group, topic, letter } => self.take_letter(&group, &topic, &letter).await?,
                Record::Fence { name, fence } => fences.push((name, fence)),
                Record::Chunk {
                    hash,
                    writing,
                    content,
                } => {
                    self.still
                        .blobs
                        .copy_in(ChunkPlace { hash, writing }, content)
                        .await?
                }
            }
        }
        if !rows.is_empty() {
            self.still
                .postgres
                .import_rows(Table(lasting(&of)), &rows)
                .await?;
        }
        if !events.is_empty() {
            self.take_events(&of, &events).await?;
        }
        if !fences.is_empty() {
            self.still.postgres.pass_fences(&fences).await?;
        }
        Ok(())
    }

    async fn checkpoint(&self) -> Result<Option<Checkpoint>, CopyError> {
        Ok(carried::unfinished(&*self.still.store).await?)
    }

    async fn note(&self, checkpoint: &Checkpoint) -> Result<(), CopyError> {
        Ok(carried::note_unfinished(&*self.still.store, checkpoint).await?)
    }
}
