//! The keeper of a group in one process: takes leases of partitions, renews them, and gives them up.
//!
//! It runs while there are members here. At each pass it renews what is due, gives up what has become too much and
//! takes what is missing to its fair share. A pass follows each third of a lease's life, and each word from another
//! process: so what one gives up in good order is taken by the next within moments, and what one leaves behind that
//! died, when its leases have run out.

use super::{Group, Hold, Record, record};
use crate::{error::away, state::PutError};
use async_nats::Subscriber;
use futures::{StreamExt, future::join_all};
use holon_ports::{Lease, LeaseError, LogError};
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, future::Future, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};

/// Another process with members in the group.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    members: usize,
    holds: Vec<u16>,
    seen: Instant,
}

/// What processes tell each other.
#[derive(Debug, Serialize, Deserialize)]
struct Talk {
    host: String,
    /// 0 from one that leaves.
    members: usize,
    holds: Vec<u16>,
    /// True if it wants to hear from the others.
    asks: bool,
    /// True if partitions were rewound.
    rewound: bool,
}

/// Runs until the last member has left and everything is given up.
pub(super) async fn run(group: Arc<Group>) {
    let mut keeper = Keeper {
        third: group.shared.lease_ttl / 3,
        spoken: Instant::now(),
        heard: None,
        group,
    };
    keeper.listen().await;
    keeper.say(true).await;
    loop {
        let asked = keeper.group.state.lock().asked;
        if let Err(error) = keeper.pass().await {
            let group = &keeper.group;
            tracing::warn!(group = group.name, topic = group.topic.name, %error, "cannot keep partitions");
        }
        keeper.group.passes.send_replace(asked);
        {
            let mut state = keeper.group.state.lock();
            if state.members.is_empty() && state.held().is_empty() {
                state.keeper_runs = false;
                break;
            }
        }
        keeper.wait().await;
    }
    keeper.group.tell(false, false).await;
}

struct Keeper {
    group: Arc<Group>,
    third: Duration,
    spoken: Instant,
    heard: Option<Subscriber>,
}

impl Keeper {
    async fn listen(&mut self) {
        let group = &self.group;
        let subject = group.shared.names.group_talk(group.topic.name, &group.name);
        match group.shared.client.subscribe(subject).await {
            Ok(heard) => self.heard = Some(heard),
            Err(error) => tracing::warn!(group = group.name, %error, "cannot hear the other members"),
        }
    }

    async fn say(&mut self, asks: bool) {
        self.spoken = Instant::now();
        self.group.tell(asks, false).await;
    }

    /// Waits until there may be something to do, and takes in what was said.
    async fn wait(&mut self) {
        let tick = Instant::now() + self.third / 2;
        let heard = async {
            match &mut self.heard {
                Some(heard) => heard.next().await,
                None => None,
            }
        };
        let message = tokio::select! {
            () = self.group.work.notified() => return,
            () = sleep_until(tick) => None,
            Some(message) = heard => Some(message),
        };
        let Some(message) = message else {
            if self.heard.is_none() {
                self.listen().await;
            }
            if self.spoken.elapsed() >= self.third {
                self.say(false).await;
            }
            return;
        };
        match serde_json::from_slice::<Talk>(&message.payload) {
            Ok(talk) if talk.host != self.group.shared.host => self.hear(talk).await,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(group = self.group.name, %error, "a process says what is not understood")
            }
        }
    }

    async fn hear(&mut self, talk: Talk) {
        {
            let mut state = self.group.state.lock();
            if talk.members == 0 {
                state.peers.remove(&talk.host);
            } else {
                let peer = Peer {
                    members: talk.members,
                    holds: talk.holds,
                    seen: Instant::now(),
                };
                state.peers.insert(talk.host, peer);
            }
        }
        if talk.asks {
            self.say(false).await;
        }
        if talk.rewound {
            self.look_again().await;
        }
    }

    /// Reads the records of what is held here anew.
    async fn look_again(&self) {
        let group = &self.group;
        let held = group.state.lock().held();
        for partition in held {
            let _writing = group.writing[usize::from(partition)].lock().await;
            match record(&group.shared, &group.name, group.topic.name, partition).await {
                Ok(found) => group.adopt(partition, found.value, found.revision),
                // The next commit finds out.
                Err(error) => {
                    tracing::warn!(group = group.name, partition, %error, "cannot look for a rewind")
                }
            }
        }
    }

    async fn pass(&mut self) -> Result<(), LogError> {
        let before = self.group.state.lock().held();
        self.renew().await;
        self.give_up().await;
        let taken = self.take_missing().await;
        if self.group.state.lock().held() != before {
            self.say(false).await;
        }
        taken
    }

    /// Renews leases of which a third has gone by, and lets those go that are over.
    async fn renew(&self) {
        let group = &self.group;
        let due: Vec<(u16, Lease)> = {
            let state = group.state.lock();
            let is_due = |hold: &Hold| Instant::now() + self.third * 2 >= hold.until;
            (0_u16..)
                .zip(&state.shares)
                .filter_map(|(partition, share)| Some((partition, share.hold.as_ref()?)))
                .filter(|(_, hold)| is_due(hold))
                .map(|(partition, hold)| (partition, hold.lease.clone()))
                .collect()
        };
        let renewals = due.into_iter().map(|(partition, lease)| async move {
            let asked = Instant::now();
            let answer = self
                .in_time(group.shared.leases.renew(&lease, group.shared.lease_ttl))
                .await;
            (partition, lease, asked, answer)
        });
        let answers = join_all(renewals).await;
        let mut state = group.state.lock();
        let mut is_changed = false;
        for (partition, lease, asked, answer) in answers {
            let share = &mut state.shares[usize::from(partition)];
            let Some(hold) = share.hold.as_mut().filter(|hold| hold.lease.fence == lease.fence) else {
                continue;
            };
            match answer {
                Ok(lease) => {
                    hold.lease = lease;
                    hold.until = asked + group.shared.lease_ttl;
                }
                Err(LeaseError::Unavailable(why)) => {
                    tracing::warn!(
                        group = group.name,
                        topic = group.topic.name,
                        partition,
                        why,
                        "cannot renew a lease"
                    );
                }
                Err(error) => {
                    tracing::warn!(group = group.name, topic = group.topic.name, partition, %error, "lost a partition");
                    share.lose();
                    is_changed = true;
                }
            }
        }
        for share in &mut state.shares {
            if share
                .hold
                .as_ref()
                .is_some_and(|hold| hold.until <= Instant::now())
            {
                share.lose();
                is_changed = true;
            }
        }
        if is_changed {
            state.divide();
        }
        drop(state);
        if is_changed {
            group.wake();
        }
    }

    /// Gives up what is above the fair share.
    async fn give_up(&self) {
        let group = &self.group;
        let leases: Vec<Lease> = {
            let mut state = group.state.lock();
            let surplus = state.held().len().saturating_sub(self.fair_share(&mut state));
            let mut leases = Vec::new();
            for partition in state.held().into_iter().rev().take(surplus) {
                let share = &mut state.shares[usize::from(partition)];
                if let Some(hold) = &share.hold {
                    leases.push(hold.lease.clone());
                }
                share.lose();
            }
            if leases.is_empty() {
                return;
            }
            state.divide();
            leases
        };
        group.wake();
        join_all(leases.iter().map(|lease| async {
            // If this fails, the lease runs out.
            if let Err(error) = self.in_time(group.shared.leases.release(lease)).await {
                tracing::warn!(group = group.name, topic = group.topic.name, %error, "cannot give up a lease");
            }
        }))
        .await;
    }

    /// How many partitions this process should hold: as many as its members are of all. Who comes first by name gets
    /// one more where it does not come out even; so all reckon the same.
    fn fair_share(&self, state: &mut super::GroupState) -> usize {
        let ttl = self.group.shared.lease_ttl;
        state.peers.retain(|_, peer| peer.seen.elapsed() < ttl);
        let mine = state.members.len();
        let others: usize = state.peers.values().map(|peer| peer.members).sum();
        if mine == 0 {
            return 0;
        }
        let all = mine + others;
        let host = self.group.shared.host.as_str();
        let earlier = state.peers.iter().filter(|(peer, _)| peer.as_str() < host);
        let earlier: usize = earlier.map(|(_, peer)| peer.members).sum();
        let (even, extra) = (state.shares.len() / all, state.shares.len() % all);
        mine * even + extra.saturating_sub(earlier).min(mine)
    }

    /// Takes partitions that nobody is known to hold, up to the fair share.
    async fn take_missing(&self) -> Result<(), LogError> {
        let group = &self.group;
        let (mut missing, free) = {
            let mut state = group.state.lock();
            let missing = self.fair_share(&mut state).saturating_sub(state.held().len());
            let mut taken: HashSet<u16> = state.held().into_iter().collect();
            taken.extend(state.peers.values().flat_map(|peer| peer.holds.iter().copied()));
            let free: Vec<u16> = (0..state.shares.len() as u16)
                .filter(|p| !taken.contains(p))
                .collect();
            (missing, free)
        };
        let mut free = free.into_iter();
        let mut failed = Ok(());
        while missing > 0 {
            let tried: Vec<u16> = free.by_ref().take(missing).collect();
            if tried.is_empty() {
                break;
            }
            let answers = join_all(tried.iter().map(|partition| self.acquire(*partition))).await;
            for answer in answers {
                match answer {
                    Ok(true) => missing -= 1,
                    Ok(false) => {}
                    Err(error) => failed = Err(error),
                }
            }
            group.state.lock().divide();
            group.wake();
            if failed.is_err() {
                break;
            }
        }
        failed
    }

    /// Takes one partition; false if another holds it.
    async fn acquire(&self, partition: u16) -> Result<bool, LogError> {
        let group = &self.group;
        let shared = &group.shared;
        let name = shared
            .names
            .partition_lease(group.topic.name, &group.name, partition);
        let asked = Instant::now();
        let acquired = self
            .in_time(shared.leases.acquire(&name, &shared.host, shared.lease_ttl))
            .await;
        let lease = match acquired {
            Ok(lease) => lease,
            Err(LeaseError::Held { .. } | LeaseError::Lost) => return Ok(false),
            Err(error) => return Err(away("leases", error)),
        };
        match self.claim(partition, &lease, asked).await {
            Ok(true) => Ok(true),
            other => {
                if let Err(error) = self.in_time(shared.leases.release(&lease)).await {
                    tracing::warn!(group = group.name, topic = group.topic.name, %error, "cannot give up a lease");
                }
                other
            }
        }
    }

    /// Writes the fence of a lease into the record of its partition: from then on nobody else can commit.
    async fn claim(&self, partition: u16, lease: &Lease, asked: Instant) -> Result<bool, LogError> {
        let group = &self.group;
        let shared = &group.shared;
        let _writing = group.writing[usize::from(partition)].lock().await;
        let subject = shared
            .names
            .offset_record(group.topic.name, &group.name, partition);
        let (before, claimed, revision) = loop {
            let found = record(shared, &group.name, group.topic.name, partition).await?;
            if found.value.fence > lease.fence.0 {
                tracing::error!(
                    group = group.name,
                    topic = group.topic.name,
                    partition,
                    found = found.value.fence,
                    lease = lease.fence.0,
                    "the fences of leases have gone back; nothing can be read until they are past that again"
                );
                return Ok(false);
            }
            let claimed = Record {
                fence: lease.fence.0,
                ..found.value
            };
            match shared.state.put(&subject, &claimed, found.revision).await {
                Ok(revision) => break (found.value, claimed, revision),
                Err(PutError::Conflict) => {}
                Err(PutError::Failed(error)) => return Err(error),
            }
        };
        let hold = Hold {
            lease: lease.clone(),
            until: asked + shared.lease_ttl,
            record: claimed,
            revision,
        };
        let mut state = group.state.lock();
        let share = &mut state.shares[usize::from(partition)];
        share.hold(hold, before);
        share.fetch(group, partition, claimed.committed);
        Ok(true)
    }

    /// Leases that do not answer must not keep the others from being renewed.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, LeaseError>>) -> Result<T, LeaseError> {
        match timeout(self.third, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(LeaseError::Unavailable("no answer in time".into())),
        }
    }
}

impl Group {
    pub(super) async fn say_rewound(&self) {
        self.tell(false, true).await;
    }

    async fn tell(&self, asks: bool, rewound: bool) {
        let talk = {
            let state = self.state.lock();
            Talk {
                host: self.shared.host.clone(),
                members: state.members.len(),
                holds: state.held(),
                asks,
                rewound,
            }
        };
        let subject = self.shared.names.group_talk(self.topic.name, &self.name);
        // Only talk: who does not hear it finds out later.
        if let Ok(talk) = serde_json::to_vec(&talk) {
            let said = self.shared.client.publish(subject, talk.into());
            if timeout(Duration::from_secs(1), said).await.is_err() {
                tracing::debug!(group = self.name, "nothing can be said to the other members");
            }
        }
    }
}
