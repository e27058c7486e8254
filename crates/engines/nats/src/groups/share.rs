//! A partition as a group in one process sees it: the lease, the owner, and the events between what is committed and
//! what was fetched.

use super::{Group, MemberId, Record, fetch};
use holon_ports::{Event, Lease, LogError};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{sync::Notify, task::AbortHandle, time::Instant};

/// Events that are fetched ahead of what is handed out.
pub(super) const AHEAD: usize = 256;
/// Events that were handed out and are kept in case that their owner changes; older ones are fetched again.
const BEHIND: usize = 4_096;
/// The most bytes that one poll hands out, beyond its first event.
const POLL_BYTES: usize = 8 << 20;

/// A lease that this process has.
pub(super) struct Hold {
    pub lease: Lease,
    /// When it ends, by the monotonic clock: reckoned from before it was asked for.
    pub until: Instant,
    pub record: Record,
    pub revision: u64,
}

impl Hold {
    /// True if there is more than a margin left of it.
    pub fn is_good(&self, now: Instant, margin: Duration) -> bool {
        now + margin < self.until
    }
}

#[derive(Default)]
pub(super) struct Share {
    pub hold: Option<Hold>,
    pub owner: Option<MemberId>,
    /// Grows whenever the owner changes, or the partition is lost or rewound: then what was handed out is void.
    pub epoch: u64,
    /// Events in order, the first at `start`.
    events: VecDeque<Event>,
    start: u64,
    /// The next offset to hand out.
    pub place: u64,
    /// How often each event from `committed` on was handed out.
    pub handed: VecDeque<u32>,
    /// The offset of the first count in `handed`.
    committed: u64,
    /// Of the record, when it was last seen.
    pub known_epoch: u64,
    /// The fence of the last hold, by which it is known whether another had the partition in between.
    pub known_fence: u64,
    /// What stands in the way of reading on.
    pub fault: Option<LogError>,
    fetcher: Option<AbortHandle>,
    /// Grows with each fetcher, so that what an old one brings is not taken.
    pub fetch: u64,
    /// Told when there is room for more events.
    pub room: Arc<Notify>,
}

impl Share {
    /// Gives the partition to a member, or to none.
    pub fn give(&mut self, owner: Option<MemberId>) {
        self.owner = owner;
        self.epoch += 1;
        // A new owner starts at the committed offset. What it needs may be here still; if not, `take` finds nothing
        // and the fetcher is sent back.
        self.place = self.committed;
    }

    /// The lease is over: nothing here is worth anything but the counts.
    pub fn lose(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.known_fence = hold.lease.fence.0;
            self.known_epoch = hold.record.epoch;
        }
        self.epoch += 1;
        self.owner = None;
        self.stop();
    }

    /// Forgets what was fetched, and goes on from an offset.
    pub fn restart(&mut self, from: u64) {
        self.epoch += 1;
        self.committed = from;
        self.place = from;
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(fetcher) = self.fetcher.take() {
            fetcher.abort();
        }
        self.fetch += 1;
        self.events.clear();
        self.fault = None;
    }

    /// Takes the partition over with what the record says.
    pub fn hold(&mut self, hold: Hold, before: Record) {
        let is_unbroken = before.fence == self.known_fence && before.epoch == self.known_epoch;
        if !is_unbroken {
            // Another had it: all that is known is how far it had handed out at its last commit.
            let handed = before.handed.saturating_sub(before.committed);
            self.handed = std::iter::repeat_n(1, usize::try_from(handed).unwrap_or(0).min(BEHIND)).collect();
        }
        self.known_fence = hold.lease.fence.0;
        self.known_epoch = hold.record.epoch;
        let from = hold.record.committed;
        self.hold = Some(hold);
        self.restart(from);
    }

    /// Fetches from an offset on.
    pub fn fetch(&mut self, group: &Arc<Group>, partition: u16, from: u64) {
        self.stop();
        self.start = from;
        let task = tokio::spawn(fetch::run(
            Arc::clone(group),
            partition,
            self.fetch,
            from,
            Arc::clone(&self.room),
        ));
        self.fetcher = Some(task.abort_handle());
    }

    /// True if the events that are to be handed out next were let go: fetch from `place` on.
    pub fn is_behind(&self) -> bool {
        self.hold.is_some() && self.place < self.start
    }

    /// How many more events may be fetched.
    pub fn free(&self) -> usize {
        let end = self.start + self.events.len() as u64;
        let ahead = usize::try_from(end.saturating_sub(self.place)).unwrap_or(usize::MAX);
        AHEAD.saturating_sub(ahead)
    }

    /// Takes in an event that was fetched. Answers how many before it were dropped by retention.
    pub fn push(&mut self, event: Event) -> u64 {
        let end = self.start + self.events.len() as u64;
        let offset = event.position.offset;
        let dropped = offset.saturating_sub(end);
        if dropped > 0 {
            self.events.clear();
            self.start = offset;
            self.forget_counts(offset);
        }
        self.events.push_back(event);
        dropped
    }

    /// Hands out events, and writes into each how often it was handed out before.
    pub fn take(&mut self, max: usize) -> Vec<Event> {
        let Some(first) = self.place.checked_sub(self.start) else {
            return Vec::new();
        };
        let mut bytes = 0;
        let mut taken = Vec::new();
        for event in self.events.iter().skip(first as usize).take(max) {
            bytes += event.data.len();
            if bytes > POLL_BYTES && !taken.is_empty() {
                break;
            }
            taken.push(event.clone());
        }
        for event in &mut taken {
            let ahead = event.position.offset.saturating_sub(self.committed) as usize;
            if self.handed.len() <= ahead {
                self.handed.resize(ahead + 1, 0);
            }
            event.redelivered = self.handed[ahead];
            self.handed[ahead] += 1;
        }
        if let Some(last) = taken.last() {
            self.place = last.position.offset + 1;
            self.let_go(self.place.saturating_sub(BEHIND as u64));
            self.room.notify_one();
        }
        taken
    }

    /// Everything before an offset is committed.
    pub fn done(&mut self, committed: u64) {
        self.forget_counts(committed);
        self.let_go(self.committed);
    }

    fn forget_counts(&mut self, before: u64) {
        let counts = usize::try_from(before.saturating_sub(self.committed)).unwrap_or(usize::MAX);
        self.handed.drain(..counts.min(self.handed.len()));
        self.committed = self.committed.max(before);
        self.place = self.place.max(self.committed);
    }

    /// Lets events before an offset go.
    fn let_go(&mut self, before: u64) {
        while self.start < before && self.events.pop_front().is_some() {
            self.start += 1;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.stop();
    }
}
