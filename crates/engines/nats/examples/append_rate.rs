//! How many events a second `append` takes, against what the same client publishes to one file stream without any of
//! Holon: batches that are sent at once and then acknowledged, in turn on the same server.
//!
//! ```text
//! cargo run --release -p holon-nats --example append_rate
//! ```

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use holon_base::{Clock, IdGenerator, SystemClock, Tenant};
use holon_nats::{Nats, NatsOptions};
use holon_ports::{NewEvent, TopicSpec};
use holon_testkit::{NatsServer, TestHome};
use std::{sync::Arc, time::Instant};
use tokio::task::JoinSet;

const EVENTS: usize = 60_000;
const BATCH: usize = 100;
/// Batches that are under way at once.
const WRITERS: usize = 8;
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() {
    let server = NatsServer::start().await;
    let home = TestHome::start().await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids = IdGenerator::new(0, Arc::clone(&clock));
    let options = NatsOptions::new(
        vec![server.url()],
        "rate",
        clock,
        ids,
        home.context().ports.leases,
    );
    let nats = Nats::connect(options).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let js = async_nats::jetstream::new(client);
    // 256 bytes of JSON.
    let data = Bytes::from(format!("{:?}", "x".repeat(254)));
    for round in 0..ROUNDS {
        let config = async_nats::jetstream::stream::Config {
            name: format!("raw{round}"),
            subjects: vec![format!("raw{round}")],
            ..Default::default()
        };
        js.create_stream(config).await.unwrap();
        let began = Instant::now();
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let (js, data) = (js.clone(), data.clone());
            writers.spawn(async move {
                for _ in 0..EVENTS / BATCH / WRITERS {
                    let mut acks = Vec::with_capacity(BATCH);
                    for _ in 0..BATCH {
                        acks.push(js.publish(format!("raw{round}"), data.clone()).await.unwrap());
                    }
                    for ack in acks {
                        ack.await.unwrap();
                    }
                }
            });
        }
        writers.join_all().await;
        let raw = rate(began);
        let single = append(&nats, round, 1, &data).await;
        let several = append(&nats, round, 8, &data).await;
        println!(
            "raw {raw:.0}/s; append to 1 partition {single:.0}/s ({:.2}x), to 8 {several:.0}/s ({:.2}x)",
            single / raw,
            several / raw
        );
    }
}

fn rate(began: Instant) -> f64 {
    (EVENTS / BATCH / WRITERS * BATCH * WRITERS) as f64 / began.elapsed().as_secs_f64()
}

async fn append(nats: &Nats, round: usize, partitions: u16, data: &Bytes) -> f64 {
    let name: &'static str = Box::leak(format!("rate.round{round}_{partitions}").into_boxed_str());
    let topic = TopicSpec {
        name,
        partitions,
        max_age: None,
        max_bytes: None,
    };
    nats.log().create_topics(&[topic]).await.unwrap();
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (log, data) = (nats.log(), data.clone());
        writers.spawn(async move {
            for batch in 0..EVENTS / BATCH / WRITERS {
                let event = |n: usize| NewEvent {
                    topic: name,
                    tenant: Tenant::default(),
                    key: format!("user:{writer}-{}", batch * BATCH + n),
                    kind: "rate.event.v1",
                    subject: format!("post:{n}"),
                    data: data.clone(),
                    traceparent: None,
                };
                log.append((0..BATCH).map(event).collect()).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    rate(began)
}
