//! Groups: who reads which partition, and how far.
//!
//! Partitions are divided evenly, and those that need not move stay where they are. Each partition has an **epoch**
//! that grows whenever it changes hands or is rewound; a member commits under the epoch in which it was handed the
//! events, and is fenced off when that is over.

use super::topics::Topic;
use crate::{encoding::meta, files::read_u64, shared::Shared};
use holon_base::KeyReader;
use holon_ports::{Event, LogError, StoreError};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tokio::sync::watch;

pub(crate) type MemberId = u64;

/// The groups of all topics, by name and number of the topic.
#[derive(Debug, Default)]
pub(crate) struct Groups(RwLock<BTreeMap<(String, u16), Arc<Group>>>);

impl Groups {
    pub fn get(&self, name: &str, topic: u16) -> Option<Arc<Group>> {
        self.0.read().get(&(name.to_owned(), topic)).cloned()
    }

    /// A new group starts at the first event kept.
    pub fn get_or_create(&self, name: &str, topic: &Arc<Topic>) -> Arc<Group> {
        let mut groups = self.0.write();
        let group = groups
            .entry((name.to_owned(), topic.id))
            .or_insert_with(|| Arc::new(Group::new(name, topic, &BTreeMap::new())));
        Arc::clone(group)
    }

    /// Every group that is there, with the name of its topic.
    pub fn names(&self) -> Vec<(String, String)> {
        self.0
            .read()
            .values()
            .map(|group| (group.name.clone(), group.topic.name.to_owned()))
            .collect()
    }
}

#[derive(Debug)]
pub(crate) struct Group {
    pub name: String,
    pub topic: Arc<Topic>,
    state: Mutex<GroupState>,
    /// Changes when partitions changed hands or were rewound.
    pub changed: watch::Sender<u64>,
    /// Burying and unburying happen one after the other.
    pub burial: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct GroupState {
    members: Vec<MemberId>,
    next_member: MemberId,
    partitions: Vec<Share>,
}

/// A partition as a group sees it.
#[derive(Debug, Default)]
struct Share {
    owner: Option<MemberId>,
    epoch: u64,
    committed: u64,
    /// How often each event from `committed` on was handed out.
    handed: VecDeque<u32>,
}

/// A partition that a member owns, as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owned {
    pub partition: u16,
    pub epoch: u64,
    pub committed: u64,
}

impl Group {
    fn new(name: &str, topic: &Arc<Topic>, committed: &BTreeMap<u16, u64>) -> Self {
        let share = |partition: u16| {
            let bounds = topic.bounds(partition).unwrap_or_default();
            Share {
                committed: committed.get(&partition).copied().unwrap_or(bounds.first),
                ..Share::default()
            }
        };
        Self {
            name: name.to_owned(),
            topic: Arc::clone(topic),
            state: Mutex::new(GroupState {
                members: Vec::new(),
                next_member: 0,
                partitions: (0..topic.partitions.len() as u16).map(share).collect(),
            }),
            changed: watch::Sender::new(0),
            burial: tokio::sync::Mutex::default(),
        }
    }

    /// By partition.
    pub fn committed(&self) -> Vec<u64> {
        self.state
            .lock()
            .partitions
            .iter()
            .map(|share| share.committed)
            .collect()
    }

    /// Takes a member in. Where the group stands is written down, so that it is known from its first member on.
    pub fn enter(&self, shared: &Shared) -> MemberId {
        let mut state = self.state.lock();
        let member = state.next_member;
        state.next_member += 1;
        state.members.push(member);
        state.divide();
        for (partition, share) in (0_u16..).zip(&state.partitions) {
            self.note(shared, partition, share.committed);
        }
        drop(state);
        self.wake();
        member
    }

    pub fn leave(&self, member: MemberId) {
        let mut state = self.state.lock();
        state.members.retain(|other| *other != member);
        state.divide();
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        self.changed
            .send_modify(|changed| *changed = changed.wrapping_add(1));
    }

    /// Has an offset written with the next batch.
    fn note(&self, shared: &Shared, partition: u16, offset: u64) {
        let key = meta::offset(self.topic.id, &self.name, partition);
        shared.offsets.lock().insert(key, offset);
    }

    /// What a member owns, by partition.
    pub fn owned(&self, member: MemberId) -> Vec<Owned> {
        let state = self.state.lock();
        (0_u16..)
            .zip(&state.partitions)
            .filter(|(_, share)| share.owner == Some(member))
            .map(|(partition, share)| Owned {
                partition,
                epoch: share.epoch,
                committed: share.committed,
            })
            .collect()
    }

    /// Notes that events are handed to a member, and writes into each how often it was before. False if the
    /// partition is no longer the member's: then they must not be handed out.
    pub fn hand_out(&self, member: MemberId, partition: u16, epoch: u64, events: &mut [Event]) -> bool {
        let mut state = self.state.lock();
        let Some(share) = state.share(member, partition, epoch) else {
            return false;
        };
        for event in events {
            let ahead = event.position.offset.saturating_sub(share.committed) as usize;
            if share.handed.len() <= ahead {
                share.handed.resize(ahead + 1, 0);
            }
            event.redelivered = share.handed[ahead];
            share.handed[ahead] += 1;
        }
        true
    }

    pub fn commit(
        &self,
        shared: &Shared,
        member: MemberId,
        partition: u16,
        epoch: u64,
        next: u64,
    ) -> Result<(), LogError> {
        let mut state = self.state.lock();
        let share = state.share(member, partition, epoch).ok_or(LogError::Fenced)?;
        if next > share.committed {
            let done = ((next - share.committed) as usize).min(share.handed.len());
            share.handed.drain(..done);
            share.committed = next;
            self.note(shared, partition, next);
        }
        Ok(())
    }

    pub fn rewind(&self, shared: &Shared, targets: &[(u16, u64)]) {
        let mut state = self.state.lock();
        for &(partition, target) in targets {
            if let Some(share) = state.partitions.get_mut(usize::from(partition)) {
                share.epoch += 1;
                share.committed = target;
                share.handed.clear();
                self.note(shared, partition, target);
            }
        }
        drop(state);
        self.wake();
    }
}

impl GroupState {
    fn share(&mut self, member: MemberId, partition: u16, epoch: u64) -> Option<&mut Share> {
        self.partitions
            .get_mut(usize::from(partition))
            .filter(|share| share.owner == Some(member) && share.epoch == epoch)
    }

    /// Divides the partitions among the members: as evenly as it goes, and moving as few as it can.
    fn divide(&mut self) {
        let owned = |partitions: &[Share], member: MemberId| {
            partitions
                .iter()
                .filter(|share| share.owner == Some(member))
                .count()
        };
        for share in &mut self.partitions {
            if share.owner.is_some_and(|owner| !self.members.contains(&owner)) {
                share.owner = None;
                share.epoch += 1;
            }
        }
        if self.members.is_empty() {
            return;
        }
        // Those who have most keep one more than the others, where it does not come out even.
        let mut by_share = self.members.clone();
        by_share.sort_by_key(|member| std::cmp::Reverse(owned(&self.partitions, *member)));
        let even = self.partitions.len() / by_share.len();
        let extra = self.partitions.len() % by_share.len();
        let target = |place: usize| even + usize::from(place < extra);
        for (place, member) in by_share.iter().enumerate() {
            let mut surplus = owned(&self.partitions, *member).saturating_sub(target(place));
            for share in self.partitions.iter_mut().rev() {
                if surplus > 0 && share.owner == Some(*member) {
                    share.owner = None;
                    share.epoch += 1;
                    surplus -= 1;
                }
            }
        }
        for (place, member) in by_share.iter().enumerate() {
            let mut missing = target(place).saturating_sub(owned(&self.partitions, *member));
            for share in &mut self.partitions {
                if missing > 0 && share.owner.is_none() {
                    share.owner = Some(*member);
                    share.epoch += 1;
                    missing -= 1;
                }
            }
        }
    }
}

/// Finds the groups and what each has committed.
pub(crate) fn recover(shared: &Shared) -> Result<(), StoreError> {
    for topic in shared.topics.all() {
        let mut committed: BTreeMap<String, BTreeMap<u16, u64>> = BTreeMap::new();
        for (key, value) in shared.meta_with_prefix(&meta::offsets(topic.id))? {
            let damaged = || StoreError::Corrupt(format!("an offset in topic {} is malformed", topic.name));
            let mut reader = KeyReader::new(&key[3..]);
            let group = reader.str().map_err(|_| damaged())?;
            let partition = reader.u16().map_err(|_| damaged())?;
            let offset = read_u64(&value, 0).ok_or_else(damaged)?;
            committed.entry(group).or_default().insert(partition, offset);
        }
        let mut groups = shared.groups.0.write();
        for (name, committed) in committed {
            let group = Arc::new(Group::new(&name, &topic, &committed));
            groups.insert((name, topic.id), group);
        }
    }
    Ok(())
}
