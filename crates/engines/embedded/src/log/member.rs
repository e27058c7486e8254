//! One member of a group: it waits until one of its partitions has events, and hands them out in order.

use super::{
    groups::{Group, MemberId, Owned},
    read_events,
};
use crate::{
    files::as_log_error,
    shared::{Shared, closed},
};
use async_trait::async_trait;
use holon_ports::{Event, LogError, Member};
use std::sync::Arc;
use tokio::sync::watch;

pub(crate) struct EmbeddedMember {
    shared: Arc<Shared>,
    group: Arc<Group>,
    id: MemberId,
    /// Where this member is in each partition, and the epoch in which it got there.
    places: Vec<Option<Place>>,
    /// The partition to look at first, so that all get their turn.
    turn: u16,
    told: watch::Receiver<u64>,
    changed: watch::Receiver<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    epoch: u64,
    next: u64,
}

impl EmbeddedMember {
    pub fn join(shared: Arc<Shared>, group: Arc<Group>) -> Self {
        let told = group.topic.told.subscribe();
        let changed = group.changed.subscribe();
        Self {
            id: group.enter(&shared),
            places: vec![None; group.topic.partitions.len()],
            turn: 0,
            shared,
            group,
            told,
            changed,
        }
    }

    /// Events of the next partition that has some; empty if none has.
    fn take(&mut self, max: usize) -> Result<Vec<Event>, LogError> {
        let mut owned = self.group.owned(self.id);
        let first = owned.partition_point(|share| share.partition < self.turn);
        owned.rotate_left(first);
        for share in owned {
            let events = self.take_from(share, max)?;
            if !events.is_empty() {
                self.turn = share.partition + 1;
                return Ok(events);
            }
        }
        Ok(Vec::new())
    }

    fn take_from(&mut self, share: Owned, max: usize) -> Result<Vec<Event>, LogError> {
        let topic = &self.group.topic;
        let bounds = topic.bounds(share.partition).unwrap_or_default();
        let place = &mut self.places[usize::from(share.partition)];
        let mut next = match place {
            Some(place) if place.epoch == share.epoch => place.next,
            _ => share.committed,
        };
        if next < bounds.first {
            tracing::warn!(
                group = self.group.name,
                topic = topic.name,
                partition = share.partition,
                events = bounds.first - next,
                "events were dropped before the group read them"
            );
            next = bounds.first;
        }
        let mut events =
            read_events(&self.shared, topic, share.partition, next, max).map_err(as_log_error)?;
        let Some(last) = events.last() else {
            return Ok(events);
        };
        *place = Some(Place {
            epoch: share.epoch,
            next: last.position.offset + 1,
        });
        if !self
            .group
            .hand_out(self.id, share.partition, share.epoch, &mut events)
        {
            *place = None;
            events.clear();
        }
        Ok(events)
    }
}

impl Drop for EmbeddedMember {
    fn drop(&mut self) {
        self.group.leave(self.id);
    }
}

#[async_trait]
impl Member for EmbeddedMember {
    async fn poll(&mut self, max: usize) -> Result<Vec<Event>, LogError> {
        if max == 0 {
            return Err(LogError::Invalid("a poll asks for at least one event".into()));
        }
        loop {
            // Seen before it is looked at, so that nothing told in between is slept through.
            self.told.borrow_and_update();
            self.changed.borrow_and_update();
            if self.shared.is_closed() {
                return Err(as_log_error(closed()));
            }
            let events = self.take(max)?;
            if !events.is_empty() {
                return Ok(events);
            }
            // Neither can fail: both senders are in the group, which this member holds.
            tokio::select! {
                _ = self.told.changed() => {}
                _ = self.changed.changed() => {}
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
        self.group
            .commit(&self.shared, self.id, partition, place.epoch, next)
    }
}
