//! Retention: the oldest events of a partition are dropped once they are too old, or take too much.
//!
//! A partition's record in `meta` keeps the first offset, so that offsets go on where they were even when nothing is
//! left, and how many bytes its events took up to some offset, so that a start counts only what came after.
//!
//! Retention does not wait for groups: one that lags further behind than the topic keeps loses events, and is warned
//! of it. A topic that must not lose any sets no limit, or one that no group will fall behind.

use super::{event_bytes, time_at, topics::Topic};
use crate::{
    committer::{Message, Place, RawWrite},
    encoding::{self, meta},
    files::{read_error, read_u64},
    shared::{Shared, closed},
};
use holon_ports::StoreError;
use tokio::sync::oneshot;

/// The most events that one round drops from one partition.
const DROP_AT_ONCE: usize = 10_000;

/// What is written of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    pub first: u64,
    /// `bytes` is of the events `first..counted_to`.
    pub counted_to: u64,
    pub bytes: u64,
}

pub(crate) fn encode(saved: Saved) -> Vec<u8> {
    [saved.first, saved.counted_to, saved.bytes]
        .map(u64::to_be_bytes)
        .concat()
}

pub(crate) fn decode(record: &[u8]) -> Result<Saved, StoreError> {
    let saved = || {
        Some(Saved {
            first: read_u64(record, 0)?,
            counted_to: read_u64(record, 8)?,
            bytes: read_u64(record, 16)?,
        })
    };
    saved().ok_or_else(|| StoreError::Corrupt("the record of a partition is malformed".into()))
}

/// The records of all partitions as they are now, so that the next start need count nothing.
pub(crate) fn records(shared: &Shared) -> Vec<RawWrite> {
    let mut records = Vec::new();
    for topic in shared.topics.all() {
        for partition in 0..topic.partitions.len() as u16 {
            let state = topic.state(partition).unwrap_or_default();
            let saved = Saved {
                first: state.first,
                counted_to: state.next,
                bytes: state.bytes,
            };
            records.push(RawWrite::meta(
                meta::partition(topic.id, partition),
                encode(saved),
            ));
        }
    }
    records
}

/// Drops what is too old or too much, a bounded number of events in each partition. Answers how many.
pub(crate) fn run(shared: &Shared) -> Result<u64, StoreError> {
    let mut dropped = 0;
    for topic in shared.topics.all() {
        for partition in 0..topic.partitions.len() as u16 {
            dropped += run_partition(shared, &topic, partition)?;
        }
    }
    Ok(dropped)
}

fn run_partition(shared: &Shared, topic: &Topic, partition: u16) -> Result<u64, StoreError> {
    let retention = *topic.retention.lock();
    let Some(state) = topic.state(partition) else {
        return Ok(0);
    };
    let oldest_kept = retention.max_age.map(|age| shared.clock.now().minus(age));
    let too_much = retention.max_bytes.is_some_and(|max| state.bytes > max);
    let too_old = match oldest_kept {
        Some(oldest_kept) if state.first < state.next => {
            time_at(shared, topic, partition, state.first)?.is_some_and(|time| time < oldest_kept)
        }
        _ => false,
    };
    if !too_much && !too_old {
        return Ok(0);
    }

    let mut first = state.first;
    let mut freed = 0;
    let mut writes = Vec::new();
    let files = shared.files()?;
    let range = encoding::event_key(topic.id, partition, state.first)
        ..encoding::event_key(topic.id, partition, state.next);
    for guard in files.events.range(range).take(DROP_AT_ONCE) {
        let (key, value) = guard.into_inner().map_err(|error| read_error(&error))?;
        let time =
            encoding::event_time(&value).map_err(|damaged| StoreError::Corrupt(damaged.to_string()))?;
        let too_old = oldest_kept.is_some_and(|oldest_kept| time < oldest_kept);
        let too_much = retention.max_bytes.is_some_and(|max| state.bytes - freed > max);
        if !too_old && !too_much {
            break;
        }
        first += 1;
        freed += event_bytes(value.len());
        writes.push(RawWrite::remove(Place::Events, key.to_vec()));
    }
    drop(files);
    let dropped = first - state.first;
    let saved = Saved {
        first,
        counted_to: state.next,
        bytes: state.bytes - freed,
    };
    writes.push(RawWrite::meta(
        meta::partition(topic.id, partition),
        encode(saved),
    ));
    // Readers are sent past the events before these are gone, so that none finds a gap.
    if let Some(state) = topic.partitions.get(usize::from(partition)) {
        let mut state = state.lock();
        state.first = first;
        state.bytes -= freed;
    }
    let (answer, answered) = oneshot::channel();
    shared.send_blocking(Message::Raw {
        writes,
        durable: true,
        answer: Some(answer),
    })?;
    answered.blocking_recv().map_err(|_| closed())??;
    Ok(dropped)
}
