//! The feed's paths on each home: embedded, on one PostgreSQL, and on a cluster, by what a core does in a second.

use crate::{
    Setting,
    commits::now,
    fanout::{self, CONNECTIONS, authors},
    home::HOME,
    load::{self, request},
    machine::{cpu_seconds, crate_version},
    nats,
    outcome::{Line, Outcome, Sample},
    postgres,
    social::{Holon, Site, holon_binary},
};
use anyhow::{Context as _, Result};
use holon_bench::graph::{EDGES, Graph, POSTS};
use holon_lab::{Cluster, ClusterOptions, NodeOptions};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

const PAGE: usize = 50;

/// A home that serves, with all processes that it is made of.
struct Home {
    site: Site,
    nodes: Vec<u32>,
    servers: Vec<u32>,
}

pub async fn run(setting: &Setting) -> Result<Outcome> {
    let graph = Graph::read(EDGES.as_ref(), POSTS.as_ref())?;
    let mut lines = Vec::new();

    let imported = setting.imported().await?;
    let embedded = Holon::start(&imported.data()).await?;
    let home = Home {
        nodes: vec![embedded.pid()?],
        servers: Vec::new(),
        site: Site::new(embedded.site.addresses.clone(), embedded.site.administrator()),
    };
    lines.extend(measure(setting, "embedded", &graph, &home, imported.import).await?);
    embedded.stop().await?;

    let single = ClusterOptions {
        nodes: vec![NodeOptions::default()],
        shards: 1,
        standbys: false,
        nats: 1,
        redis_primaries: 1,
        redis_replicas: 0,
        s3: false,
        links: false,
        ..ClusterOptions::new(holon_binary()?)
    };
    lines.extend(on_servers(setting, "one PostgreSQL", &graph, &single).await?);
    let whole = ClusterOptions {
        links: false,
        ..ClusterOptions::new(holon_binary()?)
    };
    lines.extend(on_servers(setting, "cluster", &graph, &whole).await?);

    Ok(Outcome {
        scenario: "homes".into(),
        title: "The feed embedded, on one PostgreSQL, and on a cluster, for each core".into(),
        method: vec![
            format!(
                "The demo's graph and posts, imported over HTTP into each home. Pages: {CONNECTIONS} keep-alive connections ask for the \
                 newest {PAGE} posts of random homes, for {:.1} s a round. Posts: {} a round by random authors, until the last \
                 timeline entry is written.",
                setting.duration.as_secs_f64(),
                fanout::POSTS
            ),
            "Figures are for each second of a core that Holon's nodes and all servers of the home (PostgreSQL, NATS, Redis, S3) used \
             together meanwhile, by `/proc`; the share of the nodes is beside them. The generator is not counted."
                .into(),
            "One PostgreSQL: one node, one server each of PostgreSQL, NATS and Redis. Cluster: three nodes, two shards of PostgreSQL with a \
             synchronous standby each, three NATS servers that keep every event three times, a Redis Cluster of three primaries with \
             replicas, an S3 server; connections go evenly to the nodes."
                .into(),
        ],
        caveats: vec![
            "All of a home is on one machine of two cores, so nothing here says what more machines bear; it says what the same work costs.".into(),
            "Rates by the clock, beside the figures, are of everything on two cores at once, the generator with it.".into(),
        ],
        recorded: now(),
        machine: setting.machine.clone(),
        versions: BTreeMap::from([
            ("PostgreSQL".into(), postgres::version()?),
            ("nats-server".into(), nats::version()?),
            ("fjall".into(), crate_version("fjall")),
        ]),
        lines,
        verdicts: Vec::new(),
    })
}

async fn on_servers(
    setting: &Setting,
    name: &str,
    graph: &Graph,
    options: &ClusterOptions,
) -> Result<Vec<Line>> {
    let dir = tempfile::tempdir_in(&setting.work)?;
    // PostgreSQL runs as a user of its own, who must be let through.
    open_to_all(dir.path())?;
    let options = options.clone().set("rate_limit.enabled", "false");
    let cluster = Cluster::start(&options, &dir.path().join("cluster")).await?;
    let mut home = Home {
        site: Site::new(Vec::new(), &cluster.admin_token()?),
        nodes: Vec::new(),
        servers: Vec::new(),
    };
    for node in cluster.nodes() {
        let address = node.url().trim_start_matches("http://").parse()?;
        home.site.addresses.push(address);
        home.nodes.push(node.process().await.context("a node has ended")?);
    }
    for server in cluster.servers() {
        home.servers
            .push(server.process().await.context("a server has ended")?);
    }
    let import = home
        .site
        .import(EDGES.as_ref(), POSTS.as_ref(), &dir.path().join("import.log"))
        .await?;
    let lines = measure(setting, name, graph, &home, import).await?;
    cluster.stop().await?;
    Ok(lines)
}

fn open_to_all(path: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(
        path,
        std::fs::Permissions::from_mode(0o755),
    )?)
}

/// Work done, and the cores' seconds that it took.
struct Cost {
    start: Instant,
    nodes: f64,
    servers: f64,
}

impl Cost {
    fn begin(home: &Home) -> Result<Self> {
        Ok(Self {
            start: Instant::now(),
            nodes: cpu_seconds(&home.nodes)?,
            servers: cpu_seconds(&home.servers)?,
        })
    }

    /// A sample of so much work.
    fn of(&self, work: f64, home: &Home) -> Result<Sample> {
        let nodes = cpu_seconds(&home.nodes)? - self.nodes;
        let all = nodes + cpu_seconds(&home.servers)? - self.servers;
        Ok(Sample::new(work / all)
            .with("% in nodes", 100.0 * nodes / all)
            .with("by the clock", work / self.start.elapsed().as_secs_f64()))
    }
}

async fn measure(
    setting: &Setting,
    name: &str,
    graph: &Graph,
    home: &Home,
    import: Duration,
) -> Result<Vec<Line>> {
    let readers = graph.with_home_of(HOME);
    let path = format!("/v1/feed/home?order=latest&limit={PAGE}");
    let requests: Arc<[Vec<u8>]> = home
        .site
        .tokens(&readers)
        .await?
        .iter()
        .map(|token| request("GET", &path, Some(token), None))
        .collect();
    let everyone: Vec<usize> = (0..graph.accounts()).collect();
    let tokens = home.site.tokens(&everyone).await?;
    load::each(&home.site.addresses, requests.to_vec(), CONNECTIONS, 200).await?;

    let mut pages = Line::new(format!("{name}: pages"), "pages/core-s");
    let mut posts = Line::new(format!("{name}: posts"), "posts/core-s");
    let mut entries = Line::new(format!("{name}: fan-out"), "entries/core-s");
    for round in 0..setting.rounds {
        tracing::info!(round, name, "homes");
        let cost = Cost::begin(home)?;
        let load = load::random(&home.site.addresses, &requests, CONNECTIONS, setting.duration).await?;
        pages.push(cost.of(load.times.len() as f64, home)?);

        let authors = authors(graph, u64::from(round));
        let cost = Cost::begin(home)?;
        fanout::through_holon(&home.site, graph, &authors, &tokens).await?;
        posts.push(cost.of(authors.len() as f64, home)?);
        entries.push(cost.of(fanout::followers(graph, &authors) as f64, home)?);
    }
    let mut imported = Line::new(format!("{name}: import"), "s");
    imported.push(Sample::new(import.as_secs_f64()));
    Ok(vec![pages, posts, entries, imported])
}
