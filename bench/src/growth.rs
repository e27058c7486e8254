//! How cost grows: fan-out and home reads with the demo's graph, and with graphs many times as large whose degrees are
//! distributed alike.

use crate::{
    Setting,
    commits::now,
    fanout::{self, CONNECTIONS, authors},
    footprint::{megabytes, size},
    home::HOME,
    load::{self, request},
    machine::crate_version,
    outcome::{Line, Outcome, Sample, Verdict},
    social::{Holon, Imported},
};
use anyhow::Result;
use holon_bench::graph::{EDGES, Graph, POSTS};
use std::{collections::BTreeMap, sync::Arc};

const PAGE: usize = 50;
/// Readers that ask for their homes.
const READERS: usize = 1_600;

pub async fn run(setting: &Setting) -> Result<Outcome> {
    let demo = Graph::read(EDGES.as_ref(), POSTS.as_ref())?;
    let mut lines = Vec::new();
    for scale in &setting.scales {
        lines.extend(at(setting, &demo, *scale).await?);
    }
    let scales: Vec<String> = setting.scales.iter().map(|scale| format!("{scale}×")).collect();
    Ok(Outcome {
        scenario: "growth".into(),
        title: "How cost grows with the graph".into(),
        method: vec![
            format!(
                "Embedded home, graphs of {} the demo's 4,039 people and 8,834 posts. Larger ones have the same degrees, joined at \
                 random (configuration model). Everybody who follows n people there follows n here, so the work of a post and of \
                 a page stays the same while data grows.",
                scales.join(", ")
            ),
            format!(
                "Pages: {CONNECTIONS} connections ask for the newest {PAGE} posts of {READERS} random accounts whose homes have at least \
                 {HOME} posts, for {:.1} s a round, after each was asked for once. Posts: {} a round by random authors, until the last \
                 timeline entry is written.",
                setting.duration.as_secs_f64(),
                fanout::POSTS
            ),
        ],
        caveats: vec![
            "`holon-bench growth --scales 1,10,100` takes other sizes; the import of 100× (17.6 million follows) takes about an hour on two cores and 15 GB of disk."
                .into(),
        ],
        recorded: now(),
        machine: setting.machine.clone(),
        versions: BTreeMap::from([("fjall".into(), crate_version("fjall"))]),
        lines,
        verdicts: Vec::<Verdict>::new(),
    })
}

async fn at(setting: &Setting, demo: &Graph, scale: usize) -> Result<Vec<Line>> {
    let graph = demo.grown(scale, scale as u64);
    let dir = tempfile::tempdir_in(&setting.work)?;
    let (edges, posts) = (dir.path().join("edges.txt"), dir.path().join("posts.jsonl"));
    graph.write(&edges, &posts)?;
    let imported = Imported::of(setting, &edges, &posts).await?;
    let holon = Holon::start(&imported.data()).await?;
    holon.site.caught_up().await?;

    let readers = graph.with_home_of(HOME);
    let step = (readers.len() / READERS).max(1);
    let readers: Vec<usize> = readers.into_iter().step_by(step).collect();
    let path = format!("/v1/feed/home?order=latest&limit={PAGE}");
    let requests: Arc<[Vec<u8>]> = holon
        .site
        .tokens(&readers)
        .await?
        .iter()
        .map(|token| request("GET", &path, Some(token), None))
        .collect();
    let mut pages = Line::new(format!("{scale}×: pages"), "pages/s");
    let mut entries = Line::new(format!("{scale}×: fan-out"), "entries/s");
    load::each(&holon.site.addresses, requests.to_vec(), CONNECTIONS, 200).await?;
    for round in 0..setting.rounds {
        tracing::info!(round, scale, "growth");
        let mut load = load::random(&holon.site.addresses, &requests, CONNECTIONS, setting.duration).await?;
        pages.push(
            Sample::new(load.rate())
                .with("p50 ms", load.times.percentile(0.5))
                .with("p99 ms", load.times.percentile(0.99)),
        );
        // Tokens for the authors of this round only: of everybody they would take longer than the posts.
        let authors = authors(&graph, u64::from(round));
        let mut tokens = vec![String::new(); graph.accounts()];
        for (author, token) in authors.iter().zip(holon.site.tokens(&authors).await?) {
            tokens[*author] = token;
        }
        entries.push(fanout::through_holon(&holon.site, &graph, &authors, &tokens).await?);
    }
    let mut resident = Line::new(format!("{scale}×: resident"), "MB");
    resident
        .push(Sample::new(megabytes(holon.resident()?)).with("on disk", megabytes(size(&imported.data())?)));
    let mut import = Line::new(format!("{scale}×: import"), "s");
    import.push(Sample::new(imported.import.as_secs_f64()).with("accounts", graph.accounts() as f64));
    holon.stop().await?;
    Ok(vec![pages, entries, resident, import])
}
