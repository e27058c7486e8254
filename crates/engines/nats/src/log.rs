//! The Log port.

use crate::{Shared, groups, names::is_name};
use async_trait::async_trait;
use futures::future::try_join_all;
use holon_ports::{
    Event, Log, LogError, Member, NewEvent, Position, TopicSpec,
    log::{Bounds, DeadLetter, Progress, Rewind},
};
use std::sync::Arc;

pub(crate) struct NatsLog(pub Arc<Shared>);

fn check_group(name: &str) -> Result<(), LogError> {
    if is_name(name) {
        return Ok(());
    }
    Err(LogError::Invalid(format!(
        "a group's name is 1 to 64 of a-z, 0-9, '.' and '_'; got {name:?}"
    )))
}

#[async_trait]
impl Log for NatsLog {
    async fn create_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        for spec in topics {
            self.0.create_topic(spec).await?;
        }
        Ok(())
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        self.0.specs().await
    }

    async fn append(&self, events: Vec<NewEvent>) -> Result<Vec<Position>, LogError> {
        self.0.append(events).await
    }

    async fn read(&self, topic: &str, partition: u16, from: u64, max: usize) -> Result<Vec<Event>, LogError> {
        let topic = self.0.topic(topic).await?;
        self.0.read(&topic, partition, from, max).await
    }

    async fn bounds(&self, topic: &str, partition: u16) -> Result<Bounds, LogError> {
        let topic = self.0.topic(topic).await?;
        self.0.bounds(&topic, partition).await
    }

    async fn join(&self, group: &str, topic: &str) -> Result<Box<dyn Member>, LogError> {
        check_group(group)?;
        let topic = self.0.topic(topic).await?;
        groups::join(&self.0, group, topic).await
    }

    async fn progress(&self, group: &str, topic: &str) -> Result<Vec<Progress>, LogError> {
        check_group(group)?;
        let topic = self.0.topic(topic).await?;
        let of_partition = |partition: u16| {
            let topic = Arc::clone(&topic);
            async move {
                let record = groups::record(&self.0, group, topic.name, partition).await?;
                let bounds = self.0.bounds(&topic, partition).await?;
                // A group that was overtaken by retention goes on at the first event kept.
                let committed = record.value.committed.max(bounds.first);
                let oldest = if committed < bounds.next {
                    self.0.time_at(&topic, partition, committed).await?
                } else {
                    None
                };
                Ok(Progress {
                    partition,
                    committed,
                    next: bounds.next,
                    oldest,
                })
            }
        };
        try_join_all((0..topic.partitions.len() as u16).map(of_partition)).await
    }

    async fn groups(&self) -> Result<Vec<(String, String)>, LogError> {
        groups::names(&self.0).await
    }

    async fn rewind(&self, group: &str, topic: &str, to: Rewind) -> Result<(), LogError> {
        check_group(group)?;
        let topic = self.0.topic(topic).await?;
        let target = |partition: u16| {
            let topic = Arc::clone(&topic);
            async move {
                let bounds = self.0.bounds(&topic, partition).await?;
                let target = match to {
                    Rewind::Start => bounds.first,
                    Rewind::End => bounds.next,
                    Rewind::Time(time) => self.0.offset_at(&topic, partition, time).await?,
                    Rewind::Offset(position) if position.offset > bounds.next => {
                        return Err(LogError::Invalid(format!(
                            "partition {partition} of {} ends at {}, before {}",
                            topic.name, bounds.next, position.offset
                        )));
                    }
                    Rewind::Offset(position) => position.offset.max(bounds.first),
                };
                Ok((partition, target))
            }
        };
        let partitions: Vec<u16> = match to {
            Rewind::Offset(position) => {
                topic.partition(position.partition)?;
                vec![position.partition]
            }
            _ => (0..topic.partitions.len() as u16).collect(),
        };
        let targets = try_join_all(partitions.into_iter().map(target)).await?;
        groups::rewind(&self.0, group, &topic, &targets).await
    }

    async fn bury(
        &self,
        group: &str,
        topic: &str,
        event: &Event,
        error: &str,
        attempts: u32,
    ) -> Result<(), LogError> {
        check_group(group)?;
        let topic = self.0.topic(topic).await?;
        self.0.bury(group, topic.name, event, error, attempts).await
    }

    async fn dead_letters(
        &self,
        group: &str,
        topic: &str,
        from: u64,
        max: usize,
    ) -> Result<Vec<DeadLetter>, LogError> {
        check_group(group)?;
        let topic = self.0.topic(topic).await?;
        self.0.dead_letters(group, topic.name, from, max).await
    }

    async fn unbury(&self, group: &str, topic: &str, number: u64) -> Result<Option<DeadLetter>, LogError> {
        check_group(group)?;
        let topic = self.0.topic(topic).await?;
        self.0.unbury(group, topic.name, number).await
    }
}
