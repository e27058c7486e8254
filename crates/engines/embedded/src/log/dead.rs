//! Dead letters: events that a group gave up on, kept until somebody takes them out.

use super::{groups::Group, topics::Topic};
use crate::{
    committer::{Place, RawWrite},
    encoding::{self, meta},
    files::read_u64,
    shared::Shared,
};
use bytes::{Buf, BufMut, Bytes};
use holon_base::Timestamp;
use holon_ports::{Event, Position, StoreError, log::DeadLetter};

pub(crate) fn encode(event: &Event, error: &str, attempts: u32, at: Timestamp) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_i64(at.millis());
    out.put_u32(attempts);
    out.put_u16(event.position.partition);
    out.put_u64(event.position.offset);
    out.put_u32(event.redelivered);
    out.put_u32(error.len() as u32);
    out.put_slice(error.as_bytes());
    out.put_slice(&encoding::stored_event_value(event));
    out
}

const HEADER: usize = 8 + 4 + 2 + 8 + 4 + 4;

pub(crate) fn decode(number: u64, mut record: Bytes) -> Result<DeadLetter, StoreError> {
    let damaged = || StoreError::Corrupt(format!("dead letter {number} is malformed"));
    if record.len() < HEADER {
        return Err(damaged());
    }
    let at = Timestamp::from_millis(record.get_i64());
    let attempts = record.get_u32();
    let position = Position {
        partition: record.get_u16(),
        offset: record.get_u64(),
    };
    let redelivered = record.get_u32();
    let error_bytes = record.get_u32() as usize;
    if record.len() < error_bytes {
        return Err(damaged());
    }
    let error = String::from_utf8(record.split_to(error_bytes).to_vec()).map_err(|_| damaged())?;
    let mut event = encoding::event(position, record.into()).map_err(|_| damaged())?;
    event.redelivered = redelivered;
    Ok(DeadLetter {
        number,
        event,
        error,
        attempts,
        at,
    })
}

pub(crate) fn number_of(key: &[u8], prefix: &[u8]) -> Result<u64, StoreError> {
    read_u64(key, prefix.len())
        .ok_or_else(|| StoreError::Corrupt("the key of a dead letter is malformed".into()))
}

pub(crate) async fn bury(
    shared: &Shared,
    group: &Group,
    event: &Event,
    error: &str,
    attempts: u32,
) -> Result<(), StoreError> {
    let _one_at_a_time = group.burial.lock().await;
    let (topic, name) = (group.topic.id, group.name.as_str());
    let next_key = meta::dead_letters_next(topic, name);
    let number = shared
        .meta(&next_key)?
        .and_then(|next| read_u64(&next, 0))
        .unwrap_or(0);
    let letter = encode(event, error, attempts, shared.clock.now());
    shared
        .write_raw(vec![
            RawWrite::meta(meta::dead_letter(topic, name, number), letter),
            RawWrite::meta(next_key, (number + 1).to_be_bytes()),
        ])
        .await
}

pub(crate) fn list(
    shared: &Shared,
    topic: &Topic,
    group: &str,
    from: u64,
    max: usize,
) -> Result<Vec<DeadLetter>, StoreError> {
    let prefix = meta::dead_letters(topic.id, group);
    let start = meta::dead_letter(topic.id, group, from);
    let end = meta::dead_letter(topic.id, group, u64::MAX);
    let files = shared.files()?;
    files
        .meta
        .range(start..=end)
        .take(max)
        .map(|guard| {
            let (key, value) = guard
                .into_inner()
                .map_err(|error| crate::files::read_error(&error))?;
            decode(number_of(&key, &prefix)?, value.into())
        })
        .collect()
}

pub(crate) async fn unbury(
    shared: &Shared,
    group: &Group,
    number: u64,
) -> Result<Option<DeadLetter>, StoreError> {
    let _one_at_a_time = group.burial.lock().await;
    let key = meta::dead_letter(group.topic.id, &group.name, number);
    let Some(record) = shared.meta(&key)? else {
        return Ok(None);
    };
    let letter = decode(number, record.into())?;
    shared.write_raw(vec![RawWrite::remove(Place::Meta, key)]).await?;
    Ok(Some(letter))
}
