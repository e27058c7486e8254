//! Topics: their records, and a stream for each of their partitions.

use crate::{Shared, envelope, error::away, names::is_name, read::Puller, state::PutError, streams};
use async_nats::jetstream::stream::{Config, DiscardPolicy, LastRawMessageErrorKind, StorageType};
use holon_base::{Tenant, Timestamp};
use holon_ports::{
    LogError, TopicSpec,
    log::{Bounds, partition_of},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// What all processes know of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub partitions: u16,
    /// Milliseconds.
    pub max_age: Option<u64>,
    pub max_bytes: Option<u64>,
    pub replicas: usize,
    /// Seconds.
    pub deduplication: u64,
    /// True once its streams are there.
    pub ready: bool,
}

impl Record {
    fn new(spec: &TopicSpec, shared: &Shared) -> Self {
        Self {
            partitions: spec.partitions,
            max_age: spec.max_age.map(|age| age.as_millis() as u64),
            max_bytes: spec.max_bytes,
            replicas: shared.replicas.0,
            deduplication: shared.deduplication.as_secs(),
            ready: false,
        }
    }

    fn spec(&self, name: &'static str) -> TopicSpec {
        TopicSpec {
            name,
            partitions: self.partitions,
            max_age: self.max_age.map(Duration::from_millis),
            max_bytes: self.max_bytes,
        }
    }
}

/// A topic as this process uses it.
pub(crate) struct Topic {
    pub name: &'static str,
    pub partitions: Vec<PartitionState>,
}

pub(crate) struct PartitionState {
    pub stream: String,
    /// The time of the newest event that was there at the first look, or was appended here since. `None` before.
    pub last_time: Mutex<Option<Timestamp>>,
    /// Who read last, and the offset that it is at: whoever reads on from there needs no new consumer.
    pub reader: Mutex<Option<(u64, Puller)>>,
}

impl Topic {
    pub fn partition_of(&self, tenant: &Tenant, key: &str) -> u16 {
        partition_of(tenant, key, self.partitions.len() as u16)
    }

    pub fn partition(&self, partition: u16) -> Result<&PartitionState, LogError> {
        self.partitions.get(usize::from(partition)).ok_or_else(|| {
            LogError::Invalid(format!(
                "topic {} has {} partitions and no partition {partition}",
                self.name,
                self.partitions.len()
            ))
        })
    }
}

/// Names of topics are few and live as long as the process, as those in the code do.
fn lasting(name: &str) -> &'static str {
    static NAMES: Mutex<Option<HashMap<String, &'static str>>> = Mutex::new(None);
    let mut names = NAMES.lock();
    let names = names.get_or_insert_default();
    if let Some(name) = names.get(name) {
        return name;
    }
    let leaked: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(name.to_owned(), leaked);
    leaked
}

impl Shared {
    /// A topic that was created, here or elsewhere.
    pub async fn topic(&self, name: &str) -> Result<Arc<Topic>, LogError> {
        if let Some(topic) = self.topics.read().get(name) {
            return Ok(Arc::clone(topic));
        }
        let missing = || LogError::NoSuchTopic(name.to_owned());
        if !is_name(name) {
            return Err(missing());
        }
        let record = self.state.get::<Record>(&self.names.topic_record(name)).await?;
        let record = record.filter(|record| record.value.ready).ok_or_else(missing)?;
        Ok(self.know(name, record.value.partitions))
    }

    fn know(&self, name: &str, partitions: u16) -> Arc<Topic> {
        let mut topics = self.topics.write();
        let topic = topics.entry(name.to_owned()).or_insert_with(|| {
            let partition = |number| PartitionState {
                stream: self.names.stream(name, number),
                last_time: Mutex::new(None),
                reader: Mutex::new(None),
            };
            Arc::new(Topic {
                name: lasting(name),
                partitions: (0..partitions).map(partition).collect(),
            })
        });
        Arc::clone(topic)
    }

    /// Makes a topic, or takes on its retention. Several processes may do so at once.
    pub async fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        if !is_name(spec.name) {
            return Err(LogError::Invalid(format!(
                "a topic's name is 1 to 64 of a-z, 0-9, '.' and '_'; got {:?}",
                spec.name
            )));
        }
        if spec.partitions == 0 {
            return Err(LogError::Invalid(format!(
                "topic {} needs a partition",
                spec.name
            )));
        }
        let subject = self.names.topic_record(spec.name);
        let wanted = Record::new(spec, self);
        loop {
            let found = self.state.get::<Record>(&subject).await?;
            let revision = match &found {
                Some(found) if found.value.partitions != spec.partitions => {
                    return Err(LogError::Invalid(format!(
                        "topic {} has {} partitions and cannot get {}, since keys would move",
                        spec.name, found.value.partitions, spec.partitions
                    )));
                }
                Some(found)
                    if found.value
                        == (Record {
                            ready: true,
                            ..wanted.clone()
                        }) =>
                {
                    break;
                }
                Some(found) => found.revision,
                None => 0,
            };
            // The record is there before the streams, so that nobody makes them with another number of partitions;
            // only when all are there may the topic be used.
            let noted = self.state.put(&subject, &wanted, revision).await;
            let revision = match noted {
                Ok(revision) => revision,
                Err(PutError::Conflict) => continue,
                Err(PutError::Failed(error)) => return Err(error),
            };
            for partition in 0..spec.partitions {
                streams::ensure(&self.js, self.stream_config(spec, partition)).await?;
            }
            let ready = Record {
                ready: true,
                ..wanted.clone()
            };
            match self.state.put(&subject, &ready, revision).await {
                Ok(_) => break,
                Err(PutError::Conflict) => {}
                Err(PutError::Failed(error)) => return Err(error),
            }
        }
        self.know(spec.name, spec.partitions);
        Ok(())
    }

    fn stream_config(&self, spec: &TopicSpec, partition: u16) -> Config {
        let max_age = spec.max_age.unwrap_or_default();
        // A server remembers ids no longer than messages.
        let deduplication = match spec.max_age {
            Some(age) => self.deduplication.min(age),
            None => self.deduplication,
        };
        Config {
            name: self.names.stream(spec.name, partition),
            subjects: vec![self.names.events(spec.name, partition, ">")],
            storage: StorageType::File,
            num_replicas: self.replicas.0,
            max_age,
            max_bytes: spec
                .max_bytes
                .map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(-1)),
            discard: DiscardPolicy::Old,
            duplicate_window: deduplication,
            // Taking out single events would make gaps.
            deny_delete: true,
            ..Config::default()
        }
    }

    pub async fn specs(&self) -> Result<Vec<TopicSpec>, LogError> {
        let records = self.state.list::<Record>(&self.names.state("topic.*")).await?;
        let ready = records.iter().filter(|(_, record)| record.ready);
        let mut specs: Vec<TopicSpec> = ready
            .filter_map(|(subject, record)| {
                let [name] = crate::names::Names::last_parts(subject)?;
                Some(record.spec(lasting(&name)))
            })
            .collect();
        specs.sort_unstable_by_key(|spec| spec.name);
        Ok(specs)
    }

    pub async fn bounds(&self, topic: &Topic, partition: u16) -> Result<Bounds, LogError> {
        let stream = &topic.partition(partition)?.stream;
        let bounds = streams::bounds(&self.js, stream).await?;
        bounds.ok_or_else(|| LogError::Corrupt(format!("stream {stream} is gone")))
    }

    /// The time of the event at an offset; `None` if it is not kept.
    pub async fn time_at(
        &self,
        topic: &Topic,
        partition: u16,
        offset: u64,
    ) -> Result<Option<Timestamp>, LogError> {
        let name = &topic.partition(partition)?.stream;
        let stream = self
            .js
            .get_stream_no_info(name)
            .await
            .map_err(|error| away("cannot read an event", error))?;
        match stream.get_raw_message(offset + 1).await {
            Ok(message) => envelope::time(&message.headers)
                .map(Some)
                .map_err(|damaged| LogError::Corrupt(format!("event {offset} of {name}: {damaged}"))),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(away("cannot read an event", error)),
        }
    }
}
