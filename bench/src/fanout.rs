//! Entries written to timelines: Holon's consumer behind its log, and the classic service writing to Redis.

use crate::{
    Setting,
    commits::now,
    home::versions,
    load::{self, Connection, Load, request},
    outcome::{Line, Outcome, Sample, Verdict},
    social::{Classic, Holon, Imported},
};
use anyhow::{Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use serde_json::json;
use std::time::Instant;

const CONNECTIONS: usize = 32;
/// Posts of one round.
const POSTS: usize = 2_000;

pub async fn run(setting: &Setting) -> Result<Outcome> {
    let imported = setting.imported().await?;
    let holon = Holon::start(&imported.data()).await?;
    holon.caught_up().await?;
    let classic = Classic::start(setting, &[1, 4]).await?;
    let everyone: Vec<usize> = (0..imported.graph.accounts()).collect();
    let tokens = holon.tokens(&everyone).await?;

    let mut ours = Line::new("Holon", "entries/s");
    let mut one = Line::new("classic on Redis, one connection", "entries/s");
    let mut four = Line::new("classic on Redis, four connections", "entries/s");
    for round in 0..setting.rounds {
        tracing::info!(round, "fanout");
        let authors = authors(imported, u64::from(round));
        ours.push(through_holon(&holon, imported, &authors, &tokens).await?);
        for (place, line) in [&mut one, &mut four].into_iter().enumerate() {
            line.push(through_classic(&classic, place, imported, &authors).await?);
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

fn authors(imported: &Imported, seed: u64) -> Vec<usize> {
    let mut random = SmallRng::seed_from_u64(seed);
    let accounts = imported.graph.accounts();
    (0..POSTS).map(|_| random.random_range(0..accounts)).collect()
}

fn followers(imported: &Imported, authors: &[usize]) -> u64 {
    let counts = authors
        .iter()
        .map(|author| imported.graph.followers[*author].len());
    counts.sum::<usize>() as u64
}

fn text(imported: &Imported, number: usize) -> &str {
    &imported.graph.texts[number % imported.graph.texts.len()]
}

async fn through_holon(
    holon: &Holon,
    imported: &Imported,
    authors: &[usize],
    tokens: &[String],
) -> Result<Sample> {
    let post = |(number, author): (usize, &usize)| {
        let body = json!({"text": text(imported, number)});
        request("POST", "/v1/feed/posts", Some(&tokens[*author]), Some(&body))
    };
    let requests = authors.iter().enumerate().map(post).collect();
    let mut connection = Connection::open(holon.address).await?;
    let before = holon.fanout(&mut connection).await?;
    let start = Instant::now();
    let load = load::each(holon.address, requests, CONNECTIONS, 201).await?;
    let after = holon.caught_up().await?;
    let elapsed = start.elapsed();
    let entries = after.entries_written - before.entries_written;
    let expected = followers(imported, authors);
    ensure!(
        entries >= expected,
        "Holon wrote {entries} entries where {expected} were expected"
    );
    Ok(sample(load, expected as f64 / elapsed.as_secs_f64()))
}

async fn through_classic(
    classic: &Classic,
    place: usize,
    imported: &Imported,
    authors: &[usize],
) -> Result<Sample> {
    let post = |(number, author): (usize, &usize)| {
        let body = json!({"text": text(imported, number)});
        request("POST", "/posts", Some(&Classic::token(*author)), Some(&body))
    };
    let requests = authors.iter().enumerate().map(post).collect();
    let load = load::each(classic.address(place), requests, CONNECTIONS, 201).await?;
    let rate = followers(imported, authors) as f64 / load.elapsed.as_secs_f64();
    Ok(sample(load, rate))
}

fn sample(mut load: Load, rate: f64) -> Sample {
    Sample::new(rate)
        .with("posts/s answered", load.rate())
        .with("post p50 ms", load.times.percentile(0.5))
        .with("post p99 ms", load.times.percentile(0.99))
}
