//! Events from commit to consumer: Holon's embedded log, and NATS JetStream on files.
//!
//! Producers tell one event at a time and wait until it is stored; at the same time a consumer group reads and
//! commits. The rate is that of events consumed, from the first one told to the last one handled.

use crate::{
    Setting,
    commits::now,
    machine::crate_version,
    nats::{self, AlwaysBy, Durability},
    outcome::{Line, Outcome, Sample, Verdict},
    rows::{DOCUMENT_BYTES, Times, documents},
};
use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
    stream::StorageType,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use holon_base::Tenant;
use holon_embedded::{Engine, EngineOptions};
use holon_ports::{Consumer, Event, Handler, HandlerError, Log, NewEvent, TopicSpec};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

const PRODUCERS: usize = 64;
pub(crate) const TOPIC: &str = "bench.events";
const PARTITIONS: u16 = 4;
const BATCH: usize = 256;
/// How long a consumer may take to catch up once the producers are done.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(setting: &Setting) -> Result<Outcome> {
    let mut holon = Line::new("Holon, embedded log, synced", "events/s");
    let mut one = Line::new("NATS JetStream, synced, one stream", "events/s");
    let mut four = Line::new("NATS JetStream, synced, four streams", "events/s");
    let mut later = Line::new("NATS JetStream, not synced (its default), one stream", "events/s");
    for round in 0..setting.rounds {
        tracing::info!(round, "events");
        let dir = tempfile::tempdir_in(&setting.work)?;
        holon.push(through_the_log(&dir.path().join("holon"), setting.duration).await?);
        for (line, durability, streams) in [
            (&mut one, Durability::Synced, 1),
            (&mut four, Durability::Synced, 4),
            (&mut later, Durability::Later, 1),
        ] {
            let dir = tempfile::tempdir_in(&setting.work)?;
            line.push(through_nats(dir.path(), durability, streams, setting.duration).await?);
        }
    }
    let best = if one.median() >= four.median() {
        &one
    } else {
        &four
    };
    let verdicts = vec![Verdict::ratio(
        format!("Holon over {}", best.name),
        &holon,
        best,
        1.0,
    )];
    Ok(Outcome {
        scenario: "events".into(),
        title: "Events from commit to consumer".into(),
        method: vec![
            format!(
                "{PRODUCERS} producers each tell one event of {DOCUMENT_BYTES} bytes at a time and wait for the answer, for \
                 {:.1} s a round; a consumer group reads at the same time. The rate is events handled, from the first one told \
                 to the last one handled.",
                setting.duration.as_secs_f64()
            ),
            format!(
                "Holon: `Log::append` on a topic of {PARTITIONS} partitions, synced before it answers; a `Consumer` with a \
                 member for each partition, which commits its offset after each batch of at most {BATCH}."
            ),
            format!(
                "NATS: file storage, one replica; `publish` with the acknowledgement awaited; a durable pull consumer that \
                 acknowledges the last of each batch of at most {BATCH} (`AckPolicy::All`). One connection publishes, one consumes. \
                 Synced means: {}. With four streams, each has its own consumer.",
                AlwaysBy::of_this_server()?.describe()
            ),
        ],
        caveats: vec![
            "Holon's log runs in the process of producers and consumers, as it does in `holon serve`; NATS is a server of its own \
             and pays for the loopback network."
                .into(),
            "NATS's default does not sync before it acknowledges: its last line shows what that gains, and is no part of the ratio."
                .into(),
        ],
        recorded: now(),
        machine: setting.machine.clone(),
        versions: BTreeMap::from([
            ("fjall".into(), crate_version("fjall")),
            ("nats-server".into(), nats::version()?),
            ("async-nats".into(), crate_version("async-nats")),
        ]),
        lines: vec![holon, one, four, later],
        verdicts,
    })
}

/// Counts what was handled, and wakes who waits for all of it.
#[derive(Default)]
struct Handled {
    events: AtomicU64,
    changed: Notify,
}

impl Handled {
    fn add(&self, events: usize) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        self.changed.notify_one();
    }

    async fn reaches(&self, events: u64) -> Result<()> {
        let all = async {
            while self.events.load(Ordering::Relaxed) < events {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.with_context(|| {
            let handled = self.events.load(Ordering::Relaxed);
            format!("only {handled} of {events} events were handled")
        })
    }
}

/// Waits for the producers, then for the consumers, and makes the sample.
async fn finish(start: Instant, mut producers: JoinSet<Result<Times>>, handled: &Handled) -> Result<Sample> {
    let mut times = Times::default();
    while let Some(of_one) = producers.join_next().await {
        times.merge(of_one??);
    }
    handled.reaches(times.len() as u64).await?;
    let elapsed = start.elapsed();
    let handled = handled.events.load(Ordering::Relaxed);
    ensure!(handled >= times.len() as u64, "events are missing");
    Ok(Sample::new(times.len() as f64 / elapsed.as_secs_f64())
        .with("told p50 ms", times.percentile(0.5))
        .with("told p99 ms", times.percentile(0.99)))
}

struct Count(Arc<Handled>);

#[async_trait]
impl Handler for Count {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        self.0.add(events.len());
        Ok(())
    }
}

async fn through_the_log(dir: &Path, duration: Duration) -> Result<Sample> {
    let engine = Engine::open(EngineOptions::new(dir)).await?;
    let log = engine.ports().log;
    log.create_topics(&[TopicSpec {
        name: TOPIC,
        partitions: PARTITIONS,
        max_age: None,
        max_bytes: None,
    }])
    .await?;
    let handled = Arc::new(Handled::default());
    let (stop, stopped) = watch::channel(false);
    let consumer = Consumer::new("bench.count", TOPIC, Arc::new(Count(handled.clone()))).max_batch(BATCH);
    let mut members = JoinSet::new();
    for _ in 0..PARTITIONS {
        let (consumer, log, stopped) = (consumer.clone(), log.clone(), stopped.clone());
        members.spawn(async move { consumer.run(log, stopped).await });
    }
    let start = Instant::now();
    let deadline = start + duration;
    let documents = documents();
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        producers.spawn(append_until(log.clone(), producer, documents.clone(), deadline));
    }
    let sample = finish(start, producers, &handled).await?;
    stop.send(true)?;
    members.join_all().await;
    drop(log);
    engine.close().await;
    Ok(sample)
}

/// Tells one event after the other under a key of its own, until a time.
pub(crate) async fn append_until(
    log: Arc<dyn Log>,
    producer: usize,
    documents: Arc<[Bytes]>,
    deadline: Instant,
) -> Result<Times> {
    let tenant = Tenant::default();
    let mut times = Times::default();
    for document in documents.iter().cycle() {
        let start = Instant::now();
        if start >= deadline {
            break;
        }
        let event = NewEvent {
            topic: TOPIC,
            tenant: tenant.clone(),
            key: format!("producer:{producer}"),
            kind: "bench.told.v1",
            subject: "bench".into(),
            data: document.clone(),
            traceparent: None,
        };
        log.append(vec![event]).await?;
        times.add(start);
    }
    Ok(times)
}

async fn through_nats(
    dir: &Path,
    durability: Durability,
    streams: usize,
    duration: Duration,
) -> Result<Sample> {
    let server = nats::start(dir, durability).await?;
    let publisher = jetstream::new(async_nats::connect(&server.url).await?);
    let subscriber = jetstream::new(async_nats::connect(&server.url).await?);
    let handled = Arc::new(Handled::default());
    let mut consumers = JoinSet::new();
    for number in 0..streams {
        let stream = subscriber
            .create_stream(jetstream::stream::Config {
                name: format!("bench-{number}"),
                subjects: vec![format!("bench.{number}")],
                storage: StorageType::File,
                num_replicas: 1,
                ..Default::default()
            })
            .await?;
        let consumer = stream
            .create_consumer(pull::Config {
                durable_name: Some("count".into()),
                ack_policy: AckPolicy::All,
                max_ack_pending: 10_000,
                ..Default::default()
            })
            .await?;
        consumers.spawn(consume(consumer, handled.clone()));
    }
    let start = Instant::now();
    let deadline = start + duration;
    let documents = documents();
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let subject = format!("bench.{}", producer % streams);
        producers.spawn(publish(publisher.clone(), subject, documents.clone(), deadline));
    }
    let sample = finish(start, producers, &handled).await?;
    consumers.shutdown().await;
    Ok(sample)
}

async fn publish(
    publisher: jetstream::Context,
    subject: String,
    documents: Arc<[Bytes]>,
    deadline: Instant,
) -> Result<Times> {
    let mut times = Times::default();
    for document in documents.iter().cycle() {
        let start = Instant::now();
        if start >= deadline {
            break;
        }
        publisher
            .publish(subject.clone(), document.clone())
            .await?
            .await?;
        times.add(start);
    }
    Ok(times)
}

async fn consume(consumer: jetstream::consumer::Consumer<pull::Config>, handled: Arc<Handled>) -> Result<()> {
    let messages = consumer
        .stream()
        .max_messages_per_batch(2 * BATCH)
        .messages()
        .await?;
    let mut batches = messages.ready_chunks(BATCH);
    while let Some(batch) = batches.next().await {
        let mut count = 0;
        let mut last = None;
        for message in batch {
            last = Some(message?);
            count += 1;
        }
        if let Some(last) = last {
            last.ack().await.map_err(|error| anyhow::anyhow!(error))?;
        }
        handled.add(count);
    }
    Ok(())
}
