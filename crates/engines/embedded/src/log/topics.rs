//! Topics and their partitions: what is kept of each in memory.

use holon_base::{Tenant, Timestamp};
use holon_ports::{TopicSpec, log::Bounds, log::partition_of};
use parking_lot::{Mutex, RwLock};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::watch;

/// What is published of one partition. Only the committer moves `next`, and only after the events are durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub first: u64,
    pub next: u64,
    /// Keys and values of the events kept.
    pub bytes: u64,
    /// The time of the newest event. Times never go back within a partition, so they can be searched.
    pub last_time: Timestamp,
}

/// What a topic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    pub max_age: Option<Duration>,
    pub max_bytes: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub id: u16,
    pub name: &'static str,
    pub retention: Mutex<Retention>,
    pub partitions: Vec<Mutex<PartitionState>>,
    /// Changes whenever events were told.
    pub told: watch::Sender<u64>,
}

impl Topic {
    pub fn new(id: u16, name: &'static str, retention: Retention, partitions: Vec<PartitionState>) -> Self {
        Self {
            id,
            name,
            retention: Mutex::new(retention),
            partitions: partitions.into_iter().map(Mutex::new).collect(),
            told: watch::Sender::new(0),
        }
    }

    pub fn partition_of(&self, tenant: &Tenant, key: &str) -> u16 {
        partition_of(tenant, key, self.partitions.len() as u16)
    }

    /// `None` if there is no such partition.
    pub fn state(&self, partition: u16) -> Option<PartitionState> {
        Some(*self.partitions.get(usize::from(partition))?.lock())
    }

    pub fn bounds(&self, partition: u16) -> Option<Bounds> {
        let state = self.state(partition)?;
        Some(Bounds {
            first: state.first,
            next: state.next,
        })
    }

    /// Wakes all who wait for events of this topic.
    pub fn wake(&self) {
        self.told.send_modify(|told| *told = told.wrapping_add(1));
    }

    pub fn spec(&self) -> TopicSpec {
        let retention = *self.retention.lock();
        TopicSpec {
            name: self.name,
            partitions: self.partitions.len() as u16,
            max_age: retention.max_age,
            max_bytes: retention.max_bytes,
        }
    }
}

/// The topics that are there, by name.
#[derive(Debug, Default)]
pub(crate) struct Topics(RwLock<HashMap<&'static str, Arc<Topic>>>);

impl Topics {
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.read().get(name).cloned()
    }

    pub fn insert(&self, topic: Arc<Topic>) {
        self.0.write().insert(topic.name, topic);
    }

    /// By number.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.0.read().values().cloned().collect();
        topics.sort_unstable_by_key(|topic| topic.id);
        topics
    }

    /// The number for the next topic; `None` when all 65,535 are taken.
    pub fn next_id(&self) -> Option<u16> {
        match self.0.read().values().map(|topic| topic.id).max() {
            Some(last) => last.checked_add(1),
            None => Some(1),
        }
    }
}
