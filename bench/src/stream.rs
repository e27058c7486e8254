//! Events told to NATS JetStream: through Holon's engine, and as `nats bench` publishes them.

use crate::{
    Setting,
    commits::now,
    events::{TOPIC, append_until},
    machine::crate_version,
    nats::{self, Durability},
    outcome::{Line, Outcome, Sample, Verdict},
    rows::{DOCUMENT_BYTES, Times, documents},
};
use anyhow::{Result, ensure};
use async_nats::jetstream::{self, stream::StorageType};
use bytes::Bytes;
use holon_embedded::{Engine, EngineOptions};
use holon_nats::{Nats, NatsOptions};
use holon_ports::TopicSpec;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Publishers of the peer, each with a connection of its own.
const PUBLISHERS: usize = 4;
/// Messages that a publisher sends before it waits for their acknowledgements, as `nats bench` does.
const WINDOW: usize = 100;
/// As many events are under way through the engine.
const APPENDERS: usize = PUBLISHERS * WINDOW;
const PARTITIONS: u16 = 4;
const AIM: f64 = 0.7;

pub async fn run(setting: &Setting) -> Result<Outcome> {
    let mut holon = Line::new("Holon, NATS engine, four partitions", "events/s");
    let mut one = Line::new("plain publishing, one stream", "events/s");
    let mut four = Line::new("plain publishing, four streams", "events/s");
    for round in 0..setting.rounds {
        tracing::info!(round, "stream");
        let dir = tempfile::tempdir_in(&setting.work)?;
        holon.push(through_the_engine(dir.path(), setting.duration).await?);
        for (line, streams) in [(&mut one, 1), (&mut four, usize::from(PARTITIONS))] {
            let dir = tempfile::tempdir_in(&setting.work)?;
            line.push(plain(dir.path(), streams, setting.duration).await?);
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
        AIM,
    )];
    Ok(Outcome {
        scenario: "stream".into(),
        title: "Events told to NATS JetStream".into(),
        method: vec![
            format!(
                "Events of {DOCUMENT_BYTES} bytes into streams on files with one replica, for {:.1} s a round; the server's default \
                 durability on both sides. The rate is acknowledged events; afterwards the streams must hold as many.",
                setting.duration.as_secs_f64()
            ),
            format!(
                "Holon: {APPENDERS} tasks that each `Log::append` one event at a time to a topic of {PARTITIONS} partitions, each \
                 with a key of its own, and wait for the answer."
            ),
            format!(
                "Plain: {PUBLISHERS} publishers, each with a connection of its own, send {WINDOW} messages without waiting, then \
                 wait for their acknowledgements, and go on, as `nats bench` does. The ratio is over the better of one and four \
                 streams."
            ),
        ],
        caveats: vec![
            "Holon's events are whole CloudEvents with an id by which a second telling is known, in order per key; the plain \
             messages carry no headers and are not deduplicated."
                .into(),
            "Both sides use the same client library (async-nats), since the `nats` program is in no package registry.".into(),
        ],
        recorded: now(),
        machine: setting.machine.clone(),
        versions: BTreeMap::from([
            ("nats-server".into(), nats::version()?),
            ("async-nats".into(), crate_version("async-nats")),
        ]),
        lines: vec![holon, one, four],
        verdicts,
    })
}

fn sample(mut times: Times, elapsed: Duration) -> Sample {
    Sample::new(times.len() as f64 / elapsed.as_secs_f64())
        .with("p50 ms", times.percentile(0.5))
        .with("p99 ms", times.percentile(0.99))
}

async fn through_the_engine(dir: &Path, duration: Duration) -> Result<Sample> {
    let server = nats::start(dir, Durability::Later).await?;
    // For the leases that the engine wants; they are not used for telling.
    let home = Engine::open(EngineOptions::new(dir.join("home"))).await?;
    let ports = home.ports();
    let options = NatsOptions::new(
        vec![server.url.clone()],
        "bench",
        Arc::new(holon_base::SystemClock),
        home.ids(),
        ports.leases,
    );
    let engine = Nats::connect(options).await?;
    let log = engine.log();
    log.create_topics(&[TopicSpec {
        name: TOPIC,
        partitions: PARTITIONS,
        max_age: None,
        max_bytes: Some(8 << 30),
    }])
    .await?;
    let start = Instant::now();
    let mut appenders = JoinSet::new();
    for appender in 0..APPENDERS {
        appenders.spawn(append_until(log.clone(), appender, documents(), start + duration));
    }
    let times = gather(appenders).await?;
    let elapsed = start.elapsed();
    check_held(&server.url, times.len()).await?;
    home.close().await;
    Ok(sample(times, elapsed))
}

async fn plain(dir: &Path, streams: usize, duration: Duration) -> Result<Sample> {
    let server = nats::start(dir, Durability::Later).await?;
    let context = jetstream::new(async_nats::connect(&server.url).await?);
    for number in 0..streams {
        context
            .create_stream(jetstream::stream::Config {
                name: format!("bench-{number}"),
                subjects: vec![format!("bench.{number}")],
                storage: StorageType::File,
                num_replicas: 1,
                ..Default::default()
            })
            .await?;
    }
    let start = Instant::now();
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let context = jetstream::new(async_nats::connect(&server.url).await?);
        let subject = format!("bench.{}", publisher % streams);
        publishers.spawn(publish(context, subject, documents(), start + duration));
    }
    let times = gather(publishers).await?;
    let elapsed = start.elapsed();
    check_held(&server.url, times.len()).await?;
    Ok(sample(times, elapsed))
}

async fn publish(
    context: jetstream::Context,
    subject: String,
    documents: Arc<[Bytes]>,
    deadline: Instant,
) -> Result<Times> {
    let mut times = Times::default();
    while Instant::now() < deadline {
        let start = Instant::now();
        let mut answers = Vec::with_capacity(WINDOW);
        for document in documents.iter().take(WINDOW) {
            answers.push(context.publish(subject.clone(), document.clone()).await?);
        }
        for answer in answers {
            answer.await?;
            times.add(start);
        }
    }
    Ok(times)
}

async fn gather(mut tasks: JoinSet<Result<Times>>) -> Result<Times> {
    let mut all = Times::default();
    while let Some(of_one) = tasks.join_next().await {
        all.merge(of_one??);
    }
    Ok(all)
}

/// Whether the streams of a server hold all that was acknowledged.
async fn check_held(url: &str, acknowledged: usize) -> Result<()> {
    use futures::TryStreamExt as _;
    let context = jetstream::new(async_nats::connect(url).await?);
    let streams: Vec<_> = context.streams().try_collect().await?;
    let held: u64 = streams.iter().map(|stream| stream.state.messages).sum();
    ensure!(
        held >= acknowledged as u64,
        "{acknowledged} events were acknowledged, and the streams hold {held}"
    );
    Ok(())
}
