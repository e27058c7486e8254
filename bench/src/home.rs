//! Home pages of 50 hydrated posts over HTTP: Holon, and the classic design on Redis.

use crate::{
    Setting,
    commits::now,
    load::{self, Connection, Load, request},
    machine::{crate_version, version_of},
    outcome::{Line, Outcome, Sample, Verdict},
    social::{Classic, Holon, items},
};
use anyhow::{Result, ensure};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

const CONNECTIONS: usize = 32;
const PAGE: usize = 50;
/// Posts that a reader's home must have to be asked for. More than a page, since a few texts of the demo are no posts.
pub const HOME: usize = 75;

pub async fn run(setting: &Setting) -> Result<Outcome> {
    let imported = setting.imported().await?;
    let readers = imported.graph.with_home_of(HOME);
    let holon = Holon::start(&imported.data()).await?;
    holon.site.caught_up().await?;
    let classic = Classic::start(setting, &[1, 4]).await?;

    let path = format!("/v1/feed/home?order=latest&limit={PAGE}");
    let ours: Arc<[Vec<u8>]> = holon
        .site
        .tokens(&readers)
        .await?
        .iter()
        .map(|token| request("GET", &path, Some(token), None))
        .collect();
    let theirs: Arc<[Vec<u8>]> = readers
        .iter()
        .map(|reader| {
            request(
                "GET",
                &format!("/home?limit={PAGE}"),
                Some(&Classic::token(*reader)),
                None,
            )
        })
        .collect();
    check_pages(holon.site.addresses[0], &ours).await?;
    check_pages(classic.address(0), &theirs).await?;
    // Everybody's page once, so that what a first look writes and loads is behind both.
    load::each(&holon.site.addresses, ours.to_vec(), CONNECTIONS, 200).await?;
    for place in 0..2 {
        load::each(&[classic.address(place)], theirs.to_vec(), CONNECTIONS, 200).await?;
    }

    let mut pages = Line::new("Holon", "pages/s");
    let mut one = Line::new("classic on Redis, one connection", "pages/s");
    let mut four = Line::new("classic on Redis, four connections", "pages/s");
    for round in 0..setting.rounds {
        tracing::info!(round, "home");
        pages.push(sample(
            load::random(&holon.site.addresses, &ours, CONNECTIONS, setting.duration).await?,
        ));
        for (place, line) in [&mut one, &mut four].into_iter().enumerate() {
            let address = classic.address(place);
            line.push(sample(
                load::random(&[address], &theirs, CONNECTIONS, setting.duration).await?,
            ));
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
        &pages,
        best,
        2.0,
    )];
    Ok(Outcome {
        scenario: "home".into(),
        title: "Home pages of 50 hydrated posts over HTTP".into(),
        method: vec![
            format!(
                "The demo's graph and posts on both sides. {CONNECTIONS} keep-alive connections each ask for the newest {PAGE} \
                 posts of one of {} accounts at random (those whose home has at least {HOME} posts), with the account's bearer token, \
                 for {:.1} s a round. The generator runs on the same machine and is the same for both.",
                readers.len(),
                setting.duration.as_secs_f64()
            ),
            "Holon: `holon serve` with its defaults, `GET /v1/feed/home?order=latest&limit=50`: the token's signature, \
             the session, rate limits, follows, blocks, deletions, counts and the reader's own likes all count."
                .into(),
            "Classic: an axum service on the same tokio, which looks the token up in memory, takes 50 ids from the reader's \
             sorted set (`ZREVRANGE`), gets the posts as JSON (`MGET`) and joins them. Redis with `appendonly yes`, \
             `appendfsync everysec`. The ratio is over the better of one and four multiplexed connections to Redis."
                .into(),
            "Before the clock runs, 200 pages of each side are checked to have 50 posts, and every page is asked for once."
                .into(),
        ],
        caveats: vec![
            "Nobody posts, follows or likes while pages are read.".into(),
            "The classic service checks nothing that changes after a post was pushed: no unfollow, block or deletion, no live \
             counts, no rate limit. Its posts carry fixed counts so that pages are of like size."
                .into(),
            "Generator and servers share the cores, so that both figures are below what the servers could do alone.".into(),
        ],
        recorded: now(),
        machine: setting.machine.clone(),
        versions: versions()?,
        lines: vec![pages, one, four],
        verdicts,
    })
}

pub fn versions() -> Result<BTreeMap<String, String>> {
    let redis = version_of("redis-server", "--version")?;
    let redis = redis
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="))
        .unwrap_or("unknown");
    Ok(BTreeMap::from([
        ("redis-server".into(), redis.to_owned()),
        ("redis (crate)".into(), crate_version("redis")),
        ("axum".into(), crate_version("axum")),
        ("tokio".into(), crate_version("tokio")),
        ("fjall".into(), crate_version("fjall")),
    ]))
}

fn sample(mut load: Load) -> Sample {
    let bytes = load.bytes as f64 / load.times.len().max(1) as f64;
    Sample::new(load.rate())
        .with("p50 ms", load.times.percentile(0.5))
        .with("p99 ms", load.times.percentile(0.99))
        .with("bytes a page", bytes)
}

/// Looks at some pages, spread over all readers.
async fn check_pages(address: SocketAddr, requests: &[Vec<u8>]) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    for request in requests.iter().step_by(requests.len().div_ceil(200).max(1)) {
        let answer = connection.call(request).await?;
        let text = String::from_utf8_lossy(answer.body);
        ensure!(
            answer.status == 200,
            "a page is answered with {}: {text}",
            answer.status
        );
        let found = items(answer.body)?;
        ensure!(found == PAGE, "a page has {found} posts");
    }
    Ok(())
}
