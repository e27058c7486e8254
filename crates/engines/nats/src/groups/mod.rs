//! Groups: who reads which partition, and how far.
//!
//! Partitions are divided in two steps. **Among processes** by leases: a process holds the lease of each partition
//! that its members read, and renews it. **Among the members of a process** in memory, at once and evenly.
//!
//! Processes tell each other over a subject how many members they have and what they hold ([`keeper`]). That is only
//! talk: from it each reckons its fair share, gives up what is too much and takes what is free. What is right does not
//! hang on it, nor on anybody's clock, but on the **fence**: the record of each partition (how far the group is) has
//! the fence of the lease under which it was written last, and is only replaced by compare and set. A new holder
//! writes its fence into the record before it reads; from then on whatever an earlier holder commits is refused,
//! however long it slept (Kleppmann, "How to do distributed locking", 2016). A rewind grows the record's **epoch**,
//! which fences off the present holder in the same way.
//!
//! Leases and local clocks only see to it that this is rarely needed: a process stops handing out and committing when
//! its lease is near its end by the monotonic clock.

mod fetch;
mod keeper;
mod member;
mod share;

use crate::{
    Shared,
    error::away,
    names::Names,
    state::{PutError, Versioned},
    topics::Topic,
};
use holon_ports::{Event, LogError, Member};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use share::{Hold, Share};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

pub(crate) type MemberId = u64;

/// How far a group is in a partition, as all processes know it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub committed: u64,
    /// Of the lease of who wrote last, or claimed the partition.
    pub fence: u64,
    /// Grows with each rewind.
    pub epoch: u64,
    /// Everything before was handed out when this was written.
    pub handed: u64,
}

/// The record of a partition; a group that has none is at the start.
pub(crate) async fn record(
    shared: &Shared,
    group: &str,
    topic: &str,
    partition: u16,
) -> Result<Versioned<Record>, LogError> {
    let subject = shared.names.offset_record(topic, group, partition);
    Ok(shared.state.get(&subject).await?.unwrap_or(Versioned {
        value: Record::default(),
        revision: 0,
    }))
}

/// Every group that has joined, was rewound or committed, with its topic.
pub(crate) async fn names(shared: &Shared) -> Result<Vec<(String, String)>, LogError> {
    let joined = shared
        .state
        .list::<serde::de::IgnoredAny>(&shared.names.state("group.*.*"))
        .await?;
    let names: BTreeSet<(String, String)> = joined
        .iter()
        .filter_map(|(subject, _)| Names::last_parts(subject))
        .map(|[topic, group]| (group, topic))
        .collect();
    Ok(names.into_iter().collect())
}

/// Notes that a group is there.
async fn note(shared: &Shared, group: &str, topic: &str) -> Result<(), LogError> {
    let subject = shared.names.group_record(topic, group);
    if shared
        .state
        .get::<serde::de::IgnoredAny>(&subject)
        .await?
        .is_some()
    {
        return Ok(());
    }
    match shared.state.put(&subject, &true, 0).await {
        Ok(_) | Err(PutError::Conflict) => Ok(()),
        Err(PutError::Failed(error)) => Err(error),
    }
}

pub(crate) async fn join(
    shared: &Arc<Shared>,
    name: &str,
    topic: Arc<Topic>,
) -> Result<Box<dyn Member>, LogError> {
    note(shared, name, topic.name).await?;
    let group = get_or_create(shared, name, topic);
    let member = member::NatsMember::enter(Arc::clone(&group));
    // Members that join while there is something to read find it at their first poll.
    let mut passes = group.passes.subscribe();
    let wanted = {
        let mut state = group.state.lock();
        state.asked += 1;
        state.asked
    };
    group.work.notify_one();
    match timeout(shared.deadline, passes.wait_for(|done| *done >= wanted)).await {
        Ok(_) => Ok(Box::new(member)),
        Err(_) => Err(away("cannot join a group", "leases or servers do not answer")),
    }
}

fn get_or_create(shared: &Arc<Shared>, name: &str, topic: Arc<Topic>) -> Arc<Group> {
    let mut groups = shared.groups.lock();
    let group = groups
        .entry((name.to_owned(), topic.name.to_owned()))
        .or_insert_with(|| Arc::new(Group::new(Arc::clone(shared), name, topic)));
    Arc::clone(group)
}

/// Sets partitions of a group to offsets. Whoever holds them is fenced off.
pub(crate) async fn rewind(
    shared: &Arc<Shared>,
    name: &str,
    topic: &Arc<Topic>,
    targets: &[(u16, u64)],
) -> Result<(), LogError> {
    note(shared, name, topic.name).await?;
    let group = get_or_create(shared, name, Arc::clone(topic));
    for &(partition, target) in targets {
        let _writing = group.writing[usize::from(partition)].lock().await;
        let subject = shared.names.offset_record(topic.name, name, partition);
        let (record, revision) = loop {
            let found = record(shared, name, topic.name, partition).await?;
            let rewound = Record {
                committed: target,
                fence: found.value.fence,
                epoch: found.value.epoch + 1,
                handed: 0,
            };
            match shared.state.put(&subject, &rewound, found.revision).await {
                Ok(revision) => break (rewound, revision),
                Err(PutError::Conflict) => {}
                Err(PutError::Failed(error)) => return Err(error),
            }
        };
        group.adopt(partition, record, revision);
    }
    group.say_rewound().await;
    Ok(())
}

/// A group as one process sees it. Lives as long as the process, so that what was handed out stays known.
pub(crate) struct Group {
    pub shared: Arc<Shared>,
    pub name: String,
    pub topic: Arc<Topic>,
    pub state: Mutex<GroupState>,
    /// Changes when members may find something: events came, or partitions changed hands or were rewound.
    pub changed: watch::Sender<u64>,
    /// The number of the last join that the keeper has seen to.
    pub passes: watch::Sender<u64>,
    /// Wakes the keeper.
    pub work: Notify,
    /// Held by whoever writes the record of a partition.
    pub writing: Vec<tokio::sync::Mutex<()>>,
}

pub(crate) struct GroupState {
    members: Vec<MemberId>,
    next_member: MemberId,
    shares: Vec<Share>,
    asked: u64,
    keeper_runs: bool,
    /// Other processes with members, by name.
    peers: HashMap<String, keeper::Peer>,
}

impl Group {
    fn new(shared: Arc<Shared>, name: &str, topic: Arc<Topic>) -> Self {
        let partitions = topic.partitions.len();
        Self {
            shared,
            name: name.to_owned(),
            state: Mutex::new(GroupState {
                members: Vec::new(),
                next_member: 0,
                shares: (0..partitions).map(|_| Share::default()).collect(),
                asked: 0,
                keeper_runs: false,
                peers: HashMap::new(),
            }),
            changed: watch::Sender::new(0),
            passes: watch::Sender::new(0),
            work: Notify::new(),
            writing: (0..partitions).map(|_| tokio::sync::Mutex::default()).collect(),
            topic,
        }
    }

    /// Takes a member in, and sees to it that the keeper runs.
    fn enter(self: &Arc<Self>) -> MemberId {
        let mut state = self.state.lock();
        let member = state.next_member;
        state.next_member += 1;
        state.members.push(member);
        state.divide();
        if !state.keeper_runs {
            state.keeper_runs = true;
            tokio::spawn(keeper::run(Arc::clone(self)));
        }
        drop(state);
        self.wake();
        member
    }

    fn leave(&self, member: MemberId) {
        let mut state = self.state.lock();
        state.members.retain(|other| *other != member);
        state.divide();
        drop(state);
        self.wake();
        self.work.notify_one();
    }

    pub fn wake(&self) {
        self.changed
            .send_modify(|changed| *changed = changed.wrapping_add(1));
    }

    /// Takes in what a record says now, which another process may have written.
    fn adopt(self: &Arc<Self>, partition: u16, record: Record, revision: u64) {
        let mut state = self.state.lock();
        let share = &mut state.shares[usize::from(partition)];
        let mut from = None;
        match &mut share.hold {
            Some(hold) if record.fence > hold.lease.fence.0 => {
                share.lose();
                state.divide();
            }
            Some(hold) => {
                let is_rewound = record.epoch != hold.record.epoch;
                hold.record = record;
                hold.revision = revision;
                if is_rewound {
                    share.restart(record.committed);
                    share.handed.clear();
                    from = Some(record.committed);
                } else {
                    share.done(record.committed);
                }
            }
            None if record.epoch != share.known_epoch => share.handed.clear(),
            None => {}
        }
        let share = &mut state.shares[usize::from(partition)];
        share.known_epoch = record.epoch;
        if let Some(from) = from {
            share.fetch(self, partition, from);
        }
        drop(state);
        self.wake();
    }

    /// Events of the next partition of a member that has some, from `turn` on. Notes that they are handed out.
    fn take(&self, member: MemberId, turn: u16, max: usize) -> Result<Option<Taken>, LogError> {
        let now = Instant::now();
        let margin = self.shared.lease_ttl / 5;
        let mut state = self.state.lock();
        let count = state.shares.len();
        for step in 0..count {
            let partition = (usize::from(turn) + step) % count;
            let share = &mut state.shares[partition];
            let is_mine = share.owner == Some(member)
                && share.hold.as_ref().is_some_and(|hold| hold.is_good(now, margin));
            if !is_mine {
                continue;
            }
            if let Some(fault) = &share.fault {
                return Err(fault.clone());
            }
            let events = share.take(max);
            if let Some(last) = events.last() {
                return Ok(Some(Taken {
                    partition: partition as u16,
                    epoch: share.epoch,
                    next: last.position.offset + 1,
                    events,
                }));
            }
        }
        Ok(None)
    }

    async fn commit(
        self: &Arc<Self>,
        member: MemberId,
        partition: u16,
        epoch: u64,
        next: u64,
    ) -> Result<(), LogError> {
        let margin = self.shared.lease_ttl / 5;
        let _writing = self.writing[usize::from(partition)].lock().await;
        let subject = self
            .shared
            .names
            .offset_record(self.topic.name, &self.name, partition);
        loop {
            let (record, revision) = {
                let mut state = self.state.lock();
                let share = state.share(member, partition, epoch).ok_or(LogError::Fenced)?;
                let hold = share.hold.as_ref().ok_or(LogError::Fenced)?;
                if !hold.is_good(Instant::now(), margin) {
                    return Err(LogError::Fenced);
                }
                if next <= hold.record.committed {
                    return Ok(());
                }
                let record = Record {
                    committed: next,
                    handed: share.place.max(next),
                    ..hold.record
                };
                (record, hold.revision)
            };
            match self.shared.state.put(&subject, &record, revision).await {
                Ok(revision) => {
                    let mut state = self.state.lock();
                    let share = &mut state.shares[usize::from(partition)];
                    if let Some(hold) = share
                        .hold
                        .as_mut()
                        .filter(|hold| hold.lease.fence.0 == record.fence)
                    {
                        hold.record = record;
                        hold.revision = revision;
                        share.done(next);
                    }
                    return Ok(());
                }
                Err(PutError::Conflict) => {
                    // Another claimed it, or it was rewound; or an earlier write of this process arrived after all.
                    let found = self::record(&self.shared, &self.name, self.topic.name, partition).await?;
                    self.adopt(partition, found.value, found.revision);
                }
                Err(PutError::Failed(error)) => return Err(error),
            }
        }
    }
}

struct Taken {
    partition: u16,
    epoch: u64,
    next: u64,
    events: Vec<Event>,
}

impl GroupState {
    fn share(&mut self, member: MemberId, partition: u16, epoch: u64) -> Option<&mut Share> {
        self.shares
            .get_mut(usize::from(partition))
            .filter(|share| share.owner == Some(member) && share.epoch == epoch)
    }

    fn held(&self) -> Vec<u16> {
        (0_u16..)
            .zip(&self.shares)
            .filter(|(_, share)| share.hold.is_some())
            .map(|(partition, _)| partition)
            .collect()
    }

    /// Divides the partitions that this process holds among its members: as evenly as it goes, and moving as few as
    /// it can.
    fn divide(&mut self) {
        let members = self.members.clone();
        let owned = |shares: &[Share], member: MemberId| {
            shares.iter().filter(|share| share.owner == Some(member)).count()
        };
        for share in &mut self.shares {
            if share
                .owner
                .is_some_and(|owner| share.hold.is_none() || !members.contains(&owner))
            {
                share.give(None);
            }
        }
        if members.is_empty() {
            return;
        }
        let held = self.held().len();
        // Those who have most keep one more than the others, where it does not come out even.
        let mut by_share = members;
        by_share.sort_by_key(|member| std::cmp::Reverse(owned(&self.shares, *member)));
        let even = held / by_share.len();
        let extra = held % by_share.len();
        let target = |place: usize| even + usize::from(place < extra);
        for (place, member) in by_share.iter().enumerate() {
            let mut surplus = owned(&self.shares, *member).saturating_sub(target(place));
            for share in self.shares.iter_mut().rev() {
                if surplus > 0 && share.owner == Some(*member) {
                    share.give(None);
                    surplus -= 1;
                }
            }
        }
        for (place, member) in by_share.iter().enumerate() {
            let mut missing = target(place).saturating_sub(owned(&self.shares, *member));
            for share in &mut self.shares {
                if missing > 0 && share.owner.is_none() && share.hold.is_some() {
                    share.give(Some(*member));
                    missing -= 1;
                }
            }
        }
    }
}
