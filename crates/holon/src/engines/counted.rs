//! A store that counts what this process commits, for the administrator's page.

use async_trait::async_trait;
use holon_ports::{AroundStore, Batch, Committed, Op, Partition, Store, StoreError};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The rate of commits is taken over so long.
const WINDOW: Duration = Duration::from_secs(10);

/// Commits acknowledged since the start, and their events.
#[derive(Debug, Default)]
pub struct Counts {
    commits: AtomicU64,
    events: AtomicU64,
    /// How many there had been when it was asked.
    asked: Mutex<VecDeque<(Instant, u64)>>,
}

impl Counts {
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Since it was asked some seconds ago; 0 the first time.
    pub fn commits_per_second(&self) -> f64 {
        let (now, commits) = (Instant::now(), self.commits());
        let mut asked = self.asked.lock();
        while asked.len() > 1 && asked.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            asked.pop_front();
        }
        let rate = match asked.front() {
            Some((at, before)) if now - *at > Duration::from_millis(1) => {
                (commits - before) as f64 / (now - *at).as_secs_f64()
            }
            _ => 0.0,
        };
        asked.push_back((now, commits));
        rate
    }

    fn count(&self, events: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.events.fetch_add(events, Ordering::Relaxed);
    }
}

/// A store, and how much was committed through it.
pub struct Counted {
    pub store: Arc<dyn Store>,
    pub counts: Arc<Counts>,
}

fn events(batch: &Batch) -> u64 {
    let is_event = |op: &&Op| matches!(op, Op::Event(_));
    batch.ops.iter().filter(is_event).count() as u64
}

#[async_trait]
impl AroundStore for Counted {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn commit(&self, partition: &Partition, batch: Batch) -> Result<Committed, StoreError> {
        let events = events(&batch);
        let committed = self.store.commit(partition, batch).await?;
        self.counts.count(events);
        Ok(committed)
    }

    async fn commit_many(&self, commits: Vec<(Partition, Batch)>) -> Vec<Result<Committed, StoreError>> {
        let events: Vec<u64> = commits.iter().map(|(_, batch)| events(batch)).collect();
        let answers = self.store.commit_many(commits).await;
        for (_, events) in answers.iter().zip(events).filter(|(answer, _)| answer.is_ok()) {
            self.counts.count(events);
        }
        answers
    }
}
