//! One member of a group, and what its fetchers tell the group.

use super::{Group, MemberId};
use async_trait::async_trait;
use holon_ports::{Event, LogError, Member};
use std::sync::Arc;
use tokio::sync::watch;

pub(super) struct NatsMember {
    group: Arc<Group>,
    id: MemberId,
    /// Where this member is in each partition, and the epoch in which it got there.
    places: Vec<Option<Place>>,
    /// The partition to look at first, so that all get their turn.
    turn: u16,
    changed: watch::Receiver<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    epoch: u64,
    next: u64,
}

impl NatsMember {
    pub fn enter(group: Arc<Group>) -> Self {
        let changed = group.changed.subscribe();
        Self {
            id: group.enter(),
            places: vec![None; group.topic.partitions.len()],
            turn: 0,
            group,
            changed,
        }
    }
}

impl Drop for NatsMember {
    fn drop(&mut self) {
        self.group.leave(self.id);
    }
}

#[async_trait]
impl Member for NatsMember {
    /// Safe to drop while it waits: what is handed out is handed to somebody.
    async fn poll(&mut self, max: usize) -> Result<Vec<Event>, LogError> {
        if max == 0 {
            return Err(LogError::Invalid("a poll asks for at least one event".into()));
        }
        loop {
            // Seen before it is looked at, so that nothing that comes in between is slept through.
            self.changed.borrow_and_update();
            self.group.refetch();
            if let Some(taken) = self.group.take(self.id, self.turn, max)? {
                self.turn = taken.partition + 1;
                self.places[usize::from(taken.partition)] = Some(Place {
                    epoch: taken.epoch,
                    next: taken.next,
                });
                return Ok(taken.events);
            }
            if self.changed.changed().await.is_err() {
                return Err(LogError::Unavailable("the log is closed".into()));
            }
        }
    }

    async fn commit(&mut self, partition: u16, next: u64) -> Result<(), LogError> {
        let place = self.places.get(usize::from(partition)).copied().flatten();
        let place = place.ok_or(LogError::Fenced)?;
        if next > place.next {
            return Err(LogError::Invalid(format!(
                "offset {next} was not handed out yet; the next is {}",
                place.next
            )));
        }
        self.group.commit(self.id, partition, place.epoch, next).await
    }
}

impl Group {
    /// Sends the fetchers back of partitions whose new owner needs what was let go.
    fn refetch(self: &Arc<Self>) {
        let mut state = self.state.lock();
        for (partition, share) in (0_u16..).zip(&mut state.shares) {
            if share.is_behind() {
                let from = share.place;
                share.fetch(self, partition, from);
            }
        }
    }

    /// How many events a fetcher may ask for; `None` if they are not wanted any more.
    pub(super) fn free(&self, partition: u16, fetch: u64) -> Option<usize> {
        let state = self.state.lock();
        let share = &state.shares[usize::from(partition)];
        (share.fetch == fetch).then(|| share.free())
    }

    /// Takes in an event that was fetched; false if it is not wanted any more.
    pub(super) fn bring(&self, partition: u16, fetch: u64, event: Event) -> bool {
        let mut state = self.state.lock();
        let share = &mut state.shares[usize::from(partition)];
        if share.fetch != fetch {
            return false;
        }
        let dropped = share.push(event);
        drop(state);
        if dropped > 0 {
            tracing::warn!(
                group = self.name,
                topic = self.topic.name,
                partition,
                events = dropped,
                "events were dropped before the group read them"
            );
        }
        self.wake();
        true
    }

    /// Notes what stands in the way of reading on.
    pub(super) fn fault(&self, partition: u16, fetch: u64, error: LogError) {
        let mut state = self.state.lock();
        let share = &mut state.shares[usize::from(partition)];
        if share.fetch == fetch {
            share.fault = Some(error);
        }
        drop(state);
        self.wake();
    }
}
