//! Entries written to timelines: Holon's consumer behind its log, and the classic service writing to Redis.

use crate::{
    Setting,
    commits::now,
    home::versions,
    load::{self, Load, request},
    outcome::{Line, Outcome, Sample, Verdict},
    social::{Classic, Holon, PATIENCE, Site},
};
use anyhow::{Result, ensure};
use holon_bench::graph::Graph;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use serde_json::json;
use std::time::Instant;

pub const CONNECTIONS: usize = 32;
/// Posts of one round.
pub const POSTS: usize = 2_000;

pub async fn run(setting: &Setting) -> Result<Outcome> {
    let imported = setting.imported().await?;
    let holon = Holon::start(&imported.data()).await?;
    holon.site.caught_up().await?;
    let classic = Classic::start(setting, &[1, 4]).await?;
    let everyone: Vec<usize> = (0..imported.graph.accounts()).collect();
    let tokens = holon.site.tokens(&everyone).await?;

    let mut ours = Line::new("Holon", "entries/s");
    let mut one = Line::new("classic on Redis, one connection", "entries/s");
    let mut four = Line::new("classic on Redis, four connections", "entries/s");
    for round in 0..setting.rounds {
        tracing::info!(round, "fanout");
        let authors = authors(&imported.graph, u64::from(round));
        ours.push(through_holon(&holon.site, &imported.graph, &authors, &tokens).await?);
        for (place, line) in [&mut one, &mut four].into_iter().enumerate() {
            line.push(through_classic(&classic, place, &imported.graph, &authors).await?);
        }
    }
    holon.stop().await?;
    let best = if one.median() >= four.median() {
        &one
    } else {
        &four
    };
    let verdicts = vec![Verdict::ratio(
        format!("Holon over {}", best.name),
        &ours,
        best,
        2.0,
    )];
    Ok(Outcome {
        scenario: "fanout".into(),
        title: "Fan-out: entries written to home timelines".into(),
        method: vec![
            format!(
                "{POSTS} posts a round by accounts of the demo's graph, chosen at random with the same seed for both, over HTTP \
                 by {CONNECTIONS} keep-alive connections. An entry is one post in one follower's timeline. The rate is entries \
                 from the first request to the moment the last entry is written."
            ),
            "Holon: `POST /v1/feed/posts`, which answers when the post and its event are synced to the disk; the consumer \
             `feed.fanout` writes the entries. Done when `/v1/feed/inspect` shows no lag, asked every 10 ms once all posts are \
             answered; the entries are those it says it wrote, and must be the number of followers of all authors."
                .into(),
            "Classic: the service stores the post (`SET`), then writes to every follower's sorted set in one pipeline (`ZADD`, \
             `ZREMRANGEBYRANK` to 800 entries) and answers when Redis has answered. The graph is in the service's memory. \
             `appendonly yes`, `appendfsync everysec`. The ratio is over the better of one and four connections."
                .into(),
        ],
        caveats: vec![
            "The durability is not the same: every post and every timeline entry of Holon's is on the disk once done; Redis with \
             `everysec` may lose the last second."
                .into(),
            "Holon's posts also feed notifications, trends, profiles and live pages meanwhile; the classic service's do not.".into(),
        ],
        recorded: now(),
        machine: setting.machine.clone(),
        versions: versions()?,
        lines: vec![ours, one, four],
        verdicts,
    })
}

pub fn authors(graph: &Graph, seed: u64) -> Vec<usize> {
    let mut random = SmallRng::seed_from_u64(seed);
    let accounts = graph.accounts();
    (0..POSTS).map(|_| random.random_range(0..accounts)).collect()
}

pub fn followers(graph: &Graph, authors: &[usize]) -> u64 {
    let counts = authors.iter().map(|author| graph.followers[*author].len());
    counts.sum::<usize>() as u64
}

fn text(graph: &Graph, number: usize) -> &str {
    &graph.texts[number % graph.texts.len()]
}

/// Posts by some authors and their fan-out through a site; the rate is in entries a second.
pub async fn through_holon(
    site: &Site,
    graph: &Graph,
    authors: &[usize],
    tokens: &[String],
) -> Result<Sample> {
    let post = |(number, author): (usize, &usize)| {
        let body = json!({"text": text(graph, number)});
        request("POST", "/v1/feed/posts", Some(&tokens[*author]), Some(&body))
    };
    let requests = authors.iter().enumerate().map(post).collect();
    let before = site.fanout().await?;
    let expected = followers(graph, authors);
    let start = Instant::now();
    let load = load::each(&site.addresses, requests, CONNECTIONS, 201).await?;
    let entries = loop {
        let after = site.caught_up().await?;
        let entries = after.entries_written - before.entries_written;
        // On servers an event is on its way to the log for a moment, where no lag shows it.
        if entries >= expected {
            break entries;
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "Holon wrote {entries} entries where {expected} were expected"
        );
    };
    let elapsed = start.elapsed();
    tracing::debug!(entries, expected, "fanned out");
    Ok(sample(load, expected as f64 / elapsed.as_secs_f64()))
}

async fn through_classic(
    classic: &Classic,
    place: usize,
    graph: &Graph,
    authors: &[usize],
) -> Result<Sample> {
    let post = |(number, author): (usize, &usize)| {
        let body = json!({"text": text(graph, number)});
        request("POST", "/posts", Some(&Classic::token(*author)), Some(&body))
    };
    let requests = authors.iter().enumerate().map(post).collect();
    let load = load::each(&[classic.address(place)], requests, CONNECTIONS, 201).await?;
    let rate = followers(graph, authors) as f64 / load.elapsed.as_secs_f64();
    Ok(sample(load, rate))
}

fn sample(mut load: Load, rate: f64) -> Sample {
    Sample::new(rate)
        .with("posts/s answered", load.rate())
        .with("post p50 ms", load.times.percentile(0.5))
        .with("post p99 ms", load.times.percentile(0.99))
}
