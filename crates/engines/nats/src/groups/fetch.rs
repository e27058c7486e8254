//! The fetcher of a partition: keeps events ready ahead of those who poll.

use super::Group;
use crate::{
    error::corrupt,
    events::decode,
    read::{Pulled, Puller, Start},
};
use holon_ports::LogError;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

/// How long one request waits at the server.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Fetches from an offset on until another fetcher takes over, or the task is aborted.
pub(super) async fn run(group: Arc<Group>, partition: u16, number: u64, from: u64, room: Arc<Notify>) {
    let mut next = from;
    let mut pause = FIRST_PAUSE;
    loop {
        let before = next;
        match fetch(&group, partition, number, &mut next, &room).await {
            Ok(()) => return,
            Err(LogError::Corrupt(damaged)) => {
                tracing::error!(
                    group = group.name,
                    topic = group.topic.name,
                    partition,
                    damaged,
                    "cannot read on"
                );
                group.fault(partition, number, corrupt("cannot read on", damaged));
                return;
            }
            Err(error) => {
                tracing::warn!(group = group.name, topic = group.topic.name, partition, %error, "will read on");
            }
        }
        pause = if next > before {
            FIRST_PAUSE
        } else {
            (pause * 2).min(LONGEST_PAUSE)
        };
        sleep(pause).await;
    }
}

/// Returns when the events are not wanted any more.
async fn fetch(
    group: &Arc<Group>,
    partition: u16,
    number: u64,
    next: &mut u64,
    room: &Notify,
) -> Result<(), LogError> {
    let shared = &group.shared;
    let stream = &group.topic.partition(partition)?.stream;
    let start = Start::Sequence(*next + 1);
    let mut puller = Puller::open(&shared.client, &shared.js, stream, start, None, false).await?;
    loop {
        let free = loop {
            match group.free(partition, number) {
                None => return Ok(()),
                // Few at a time would be many requests.
                Some(free) if free >= super::share::AHEAD / 4 => break free,
                Some(_) => _ = timeout(PATIENCE, room.notified()).await,
            }
        };
        puller.request(free, PATIENCE).await?;
        let mut left = free;
        while left > 0 {
            match puller.next().await {
                Pulled::Message(message) => {
                    left -= 1;
                    let event = decode(&group.topic, partition, *message)?;
                    // A consumer never starts beyond the end of its stream.
                    if event.position.offset < *next {
                        continue;
                    }
                    *next = event.position.offset + 1;
                    if !group.bring(partition, number, event) {
                        return Ok(());
                    }
                }
                Pulled::End => break,
                Pulled::Broken(why) => return Err(LogError::Unavailable(why)),
            }
        }
    }
}
