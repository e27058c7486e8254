//! Telling events: pipelined, each once, and in order per key whatever fails.
//!
//! All events of a call are sent without waiting for one another, and then acknowledged. What is not acknowledged is
//! sent again under the same id, and the server drops what it has already. That alone would not keep the order: when
//! an event is lost on its way (a leader changed, a connection broke) and a later one of the same key is not, the
//! second try comes too late. So an event whose key has an earlier one under way is chained to it: it, and all sent
//! in between, go out on the condition that the message before is the last of the stream
//! (`Nats-Expected-Last-Msg-Id`). If one link is missing, or another writer came in between, the rest of the chain is
//! refused and sent again. Whoever has no luck with that twice waits for each acknowledgement instead, which always
//! ends.

use crate::{
    Shared, envelope,
    error::{api_error, away, is_full},
    topics::Topic,
};
use async_nats::{
    connection::State,
    header::NATS_EXPECTED_LAST_MESSAGE_ID,
    jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind},
};
use holon_base::{Tenant, limits};
use holon_ports::{Event, LogError};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};

/// How long an acknowledgement is waited for before the event is sent again.
const ACK_PATIENCE: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Rounds with chains, before every event waits for those of its key.
const CHAINED_ROUNDS: u32 = 2;

/// An event on its way. Its position has the partition already.
pub(crate) struct Outgoing {
    pub topic: Arc<Topic>,
    pub event: Event,
    /// The offset, once the server has it.
    pub offset: Option<u64>,
}

/// What is under way of one round.
pub(crate) struct Round {
    sent: Vec<(usize, PublishAckFuture)>,
    failed: Option<LogError>,
}

enum Verdict {
    /// Not stored, or not known to be: may be sent again.
    Again(LogError),
    /// Not stored, since what it was chained to was not there.
    Unchained,
    Never(LogError),
}

/// Tells whether the caller may still write.
pub(crate) type May<'a> = dyn Fn() -> bool + Sync + 'a;

impl Shared {
    /// Sends what has no offset yet. `chained` as the module says.
    pub async fn send(&self, writer: &str, events: &[Outgoing], chained: bool, may: &May<'_>) -> Round {
        let waiting: Vec<usize> = (0..events.len())
            .filter(|index| events[*index].offset.is_none())
            .collect();
        let links = links(events, &waiting);
        let mut round = Round {
            sent: Vec::with_capacity(waiting.len()),
            failed: None,
        };
        for (place, &index) in waiting.iter().enumerate() {
            let link = links[place];
            if !chained && link.is_same_key_behind {
                continue;
            }
            if !may() {
                round.failed = Some(LogError::Unavailable("the right to write is over".into()));
                break;
            }
            let Outgoing { topic, event, .. } = &events[index];
            let mut headers = envelope::encode(event);
            if let (true, Some(before)) = (chained, link.after) {
                headers.insert(NATS_EXPECTED_LAST_MESSAGE_ID, events[before].event.id.to_string());
            }
            let subject = self.names.events(topic.name, event.position.partition, writer);
            let published = self
                .publisher
                .publish_with_headers(subject, headers, event.data.clone())
                .await;
            match published {
                Ok(ack) => round.sent.push((index, ack)),
                Err(error) => {
                    // What follows may be of the same key and must not go first.
                    round.failed = Some(away("cannot send an event", error));
                    break;
                }
            }
        }
        round
    }

    /// Notes the offsets of what was acknowledged. Answers the error that stands in the way of the rest, and whether
    /// it will always do so.
    pub async fn collect(&self, round: Round, events: &mut [Outgoing], deadline: Instant) -> Collected {
        let mut collected = Collected {
            error: round.failed,
            is_final: false,
        };
        let deadline = deadline.min(Instant::now() + ACK_PATIENCE);
        for (index, ack) in round.sent {
            let verdict = match timeout_at(deadline, ack).await {
                Ok(Ok(ack)) => {
                    events[index].offset = ack.sequence.checked_sub(1);
                    continue;
                }
                Ok(Err(error)) => judge(&error),
                Err(_) => Verdict::Again(LogError::Unavailable(
                    "an event was not acknowledged in time".into(),
                )),
            };
            match verdict {
                Verdict::Unchained => {}
                Verdict::Again(error) if !collected.is_final => collected.error = Some(error),
                Verdict::Again(_) => {}
                Verdict::Never(error) => {
                    collected.error = Some(error);
                    collected.is_final = true;
                }
            }
        }
        collected
    }

    /// Sends until everything is acknowledged, or the deadline has passed, or `may` says no. What is done then has
    /// its offset.
    pub async fn publish(
        &self,
        writer: &str,
        events: &mut [Outgoing],
        deadline: Instant,
        may: &May<'_>,
    ) -> Result<(), LogError> {
        self.publish_from(None, writer, events, deadline, may).await
    }

    /// As [`Self::publish`], with the first round sent already.
    pub async fn publish_from(
        &self,
        first: Option<Round>,
        writer: &str,
        events: &mut [Outgoing],
        deadline: Instant,
        may: &May<'_>,
    ) -> Result<(), LogError> {
        let mut pause = FIRST_PAUSE;
        let mut next = first;
        for number in 0_u32.. {
            let round = match next.take() {
                Some(round) => round,
                None => {
                    self.connected(deadline).await?;
                    let chained = number < CHAINED_ROUNDS;
                    timeout_at(deadline, self.send(writer, events, chained, may))
                        .await
                        .map_err(|_| LogError::Unavailable("events could not be sent in time".into()))?
                }
            };
            let collected = self.collect(round, events, deadline).await;
            if events.iter().all(|event| event.offset.is_some()) {
                return Ok(());
            }
            let Some(error) = collected.error else {
                // Only chains were broken; that needs no pause.
                continue;
            };
            if collected.is_final || !may() || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    /// Waits for a connection, so that nothing is left lying in a buffer to be sent whenever there is one again.
    pub async fn connected(&self, deadline: Instant) -> Result<(), LogError> {
        let mut pause = Duration::from_millis(1);
        while self.client.connection_state() != State::Connected {
            if Instant::now() + pause >= deadline {
                return Err(LogError::Unavailable(
                    "there is no connection to a nats server".into(),
                ));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Ok(())
    }
}

pub(crate) struct Collected {
    pub error: Option<LogError>,
    pub is_final: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Link {
    /// The event that must be the last of the stream when this one comes.
    after: Option<usize>,
    /// An earlier event of the same key waits too.
    is_same_key_behind: bool,
}

/// For each waiting event, by place, what it is chained to: between two events of one key, everything of their
/// partition is.
fn links(events: &[Outgoing], waiting: &[usize]) -> Vec<Link> {
    let mut links = vec![Link::default(); waiting.len()];
    // By partition, the places in order; the last place of each key; and up to where there are links already.
    let mut of_partition: HashMap<(&str, u16), Vec<usize>> = HashMap::new();
    let mut last_of_key: HashMap<(&str, &Tenant, &str), usize> = HashMap::new();
    let mut linked: HashSet<usize> = HashSet::new();
    for (place, &index) in waiting.iter().enumerate() {
        let Outgoing { topic, event, .. } = &events[index];
        let partition = of_partition
            .entry((topic.name, event.position.partition))
            .or_default();
        partition.push(place);
        let Some(earlier) = last_of_key.insert((topic.name, &event.tenant, &event.key), place) else {
            continue;
        };
        links[place].is_same_key_behind = true;
        // Back from here to the earlier event of the key, or to where somebody else did this before.
        for pair in partition.windows(2).rev() {
            let [before, after] = [pair[0], pair[1]];
            if after <= earlier || !linked.insert(after) {
                break;
            }
            links[after].after = Some(waiting[before]);
        }
    }
    links
}

fn judge(error: &PublishError) -> Verdict {
    match error.kind() {
        PublishErrorKind::WrongLastMessageId => Verdict::Unchained,
        PublishErrorKind::MaxPayloadExceeded => Verdict::Never(LogError::TooLarge {
            what: "event with its envelope",
            size: limits::ROW_BYTES + envelope::ENVELOPE_BYTES,
            limit: limits::ROW_BYTES,
        }),
        _ => match api_error(error) {
            Some(api) if is_full(api.error_code()) => Verdict::Never(LogError::Full),
            _ => Verdict::Again(away("an event was not stored", error)),
        },
    }
}
