//! `holon serve`: a node that runs, from its first line to its last.
//!
//! Start: bind the port, open the engines, make the systems, start consumers and jobs, say where. Stop, on
//! SIGTERM or SIGINT: tell live connections to come back later, finish the requests in hand, let consumers and jobs
//! end after what they hold, close the engines. A second signal ends the process at once; nothing acknowledged is
//! lost by that either.

use crate::{
    admin::{self, Admin},
    cluster::Joined,
    console::Console,
    demo::{self, Demo},
    engines::Engines,
    import::grouped,
    jobs::{self, Holder},
    node::{Node, NodeError},
    settings::{Role, Settings},
};
use async_trait::async_trait;
use holon_base::{Id, Tenant};
use holon_contracts::identity::Accounts as _;
use holon_limit::{Policies, Policy, TokenBucketLimiter};
use holon_ports::{Bus, Consumer};
use holon_realtime::Hub;
use holon_telemetry::{LogFormat, LogOptions, Metrics, OtlpExporter, Tracer, TracerOptions, metrics::SLICE};
use holon_web::{
    Authenticator, Job, RateLimiter,
    edge::Origins,
    limit::{Decision, Subject},
    serve::{App, AppBuilder, AppOptions},
};
use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

/// How often blobs that nothing holds are collected, and how old they must be.
const COLLECT_EVERY: Duration = Duration::from_secs(3_600);
const COLLECT_GRACE: Duration = Duration::from_secs(24 * 3_600);

/// Serves until told to stop.
pub async fn run(settings: Settings) -> Result<(), NodeError> {
    start_logs(&settings)?;
    let mut signals = Signals::listen()?;
    let listener = bind(settings.listen).await?;
    let address = listener.local_addr()?;
    let empty = demo::is_empty(&settings.data);
    let demo = match settings.demo {
        true => Demo::of(&settings.data, empty)?,
        false => None,
    };

    let tracer = Tracer::new(TracerOptions::default());
    let exporter = match &settings.otlp_endpoint {
        Some(endpoint) => Some(OtlpExporter::start(&tracer, endpoint, "holon")?),
        None => None,
    };
    let metrics = Metrics::new();
    let node = Node::open(&settings, Some(&tracer)).await?;
    let joined = match Joined::join(&settings, &node, address).await {
        Ok(joined) => joined,
        Err(error) => {
            // The next try need not wait for what this one holds.
            node.engines.close().await;
            return Err(error);
        }
    };
    let first_token = node
        .identity
        .hand_over_administrator_token(&settings.data)
        .await?;

    let (stop, stopped) = watch::channel(false);
    let mut work = JoinSet::new();
    let holder = Holder::new(
        Arc::clone(&node.context.ports.leases),
        settings.node,
        &*node.context.clock,
    );
    let consumers = consumers(&node, &tracer);
    watch_lag(&node, &consumers, &metrics, &stopped, &mut work);
    let jobs = jobs(&node);
    let job_names = jobs.iter().map(|job| job.name).collect();
    if settings.has(Role::Workers) {
        run_consumers(&node, &consumers, &stopped, &mut work);
        for job in jobs {
            work.spawn(jobs::run(job, holder.clone(), stopped.clone()));
        }
    }
    let admin = Admin::new(admin::Parts {
        node: settings.node,
        started: node.context.clock.now(),
        systems: node.systems.clone(),
        consumers,
        ports: node.context.ports.clone(),
        engines: Arc::clone(&node.engines),
        cursors: node.context.cursors.clone(),
        hub: Arc::clone(&node.hub),
        metrics: Arc::clone(&metrics),
        tracer: tracer.clone(),
        holder,
        cluster: Arc::clone(&joined.cluster),
        jobs: job_names,
    });
    admin.serve_nodes();
    work.spawn(admin::publish_overview(Arc::clone(&admin), stopped.clone()));
    work.spawn(end_sessions(
        Arc::clone(&node.context.ports.bus),
        Arc::clone(&node.hub),
        stopped.clone(),
    ));
    let engines = Arc::clone(&node.engines);
    work.spawn(tick(Arc::clone(&metrics), Arc::clone(&engines), stopped.clone()));
    if settings.has(Role::Relay) {
        let relaying = stopped.clone();
        work.spawn(async move { engines.relay(relaying).await });
    }

    let app = app(&settings, &node, &admin, &metrics, &tracer).await?;
    let (drain, draining) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        app.serve(listener, async {
            let _ = draining.await;
        })
        .await
    });

    announce(
        &settings,
        address,
        node.engines.place(),
        joined.cluster.address(),
        first_token.as_ref().map(|token| token.token.as_str()),
    );
    let filling = start_demo(&settings, demo, address);

    let name = tokio::select! {
        name = signals.next() => name,
        // Whatever it did from now on could be done twice.
        reason = node.engines.lost() => return Err(reason.into()),
    };
    eprintln!("{name}: finishing what is in hand; once more to end at once");
    filling.abort();
    let _ = drain.send(());
    let end = async {
        let _ = tokio::join!(serving, joined.leave());
        stop.send_replace(true);
        while work.join_next().await.is_some() {}
        node.engines.close().await;
    };
    tokio::select! {
        () = end => {}
        _ = signals.next() => {
            eprintln!("ended at once");
            std::process::exit(1);
        }
    }
    drop(tracer);
    if let Some(exporter) = exporter {
        exporter.finish().await;
    }
    Ok(())
}

/// The whole application of a node. Without the role for it, it says how the node is and no more.
pub async fn app(
    settings: &Settings,
    node: &Node,
    admin: &Arc<Admin>,
    metrics: &Arc<Metrics>,
    tracer: &Tracer,
) -> Result<App, NodeError> {
    let origins = match settings.cors_origins.as_slice() {
        [] => Origins::None,
        [any] if any == "*" => Origins::Any,
        some => Origins::Some(some.to_vec()),
    };
    let options = AppOptions {
        origins,
        forwarded_hops: settings.forwarded_hops,
        drain_time: settings.drain,
        ..AppOptions::default()
    };
    let console = match &settings.console_dir {
        Some(directory) => Console::from_directory(directory)
            .map_err(|error| format!("cannot read the console in {}: {error}", directory.display()))?,
        None => Console::built_in(),
    };
    let hub = Arc::clone(&node.hub);
    let engines = Arc::clone(&node.engines);
    engines.show_cache(metrics);
    let mut builder = AppBuilder::new(options)
        .telemetry(Arc::clone(metrics), tracer.clone())
        .authenticator(Arc::clone(&node.identity) as Arc<dyn Authenticator>)
        .check("store", move || {
            let engines = Arc::clone(&engines);
            async move { engines.health().await }
        })
        .on_drain(move || {
            let hub = Arc::clone(&hub);
            async move {
                hub.drain().await;
            }
        });
    let (store, clock) = (
        Arc::clone(&node.context.ports.store),
        Arc::clone(&node.context.clock),
    );
    builder = match node.engines.is_alone() {
        true => builder.idempotency_alone(store, clock),
        false => builder.idempotency(store, clock),
    };
    if !settings.has(Role::Api) {
        for system in &node.systems {
            let system = Arc::clone(system);
            builder = builder.check(system.name(), move || {
                let system = Arc::clone(&system);
                async move { system.health().await }
            });
        }
        return Ok(builder.build()?);
    }
    for system in &node.systems {
        builder = builder.system(Arc::clone(system));
    }
    builder = builder.routes("admin", "A node as its administrator sees it.", admin.routes());
    if settings.rate_limit {
        builder = builder.limiter(limiter(settings, node, metrics).await?);
    }
    Ok(builder.fallback(console.router()).build()?)
}

/// Holds everybody but the administrator to the settings' rates.
async fn limiter(
    settings: &Settings,
    node: &Node,
    metrics: &Metrics,
) -> Result<Arc<dyn RateLimiter>, NodeError> {
    let policy = |name, burst: u32, per_second: u32| Policy {
        name,
        capacity: burst.into(),
        per_second: per_second.into(),
    };
    let policies = Policies {
        signed_in: policy("signed-in", settings.rate_burst, settings.rate_per_second),
        address: policy(
            "address",
            settings.rate_address_burst,
            settings.rate_address_per_second,
        ),
    };
    let administrator = node
        .identity
        .by_handle(&Tenant::default(), holon_identity::ADMINISTRATOR_HANDLE)
        .await?;
    let limiter = Arc::new(TokenBucketLimiter::new(
        Arc::clone(&node.context.ports.cache),
        policies,
    ));
    let counted = Arc::clone(&limiter);
    metrics.gauge(
        "limit_uncounted",
        "Calls that passed since start because the cache could not count them.",
        move || counted.passed_uncounted() as f64,
    );
    Ok(Arc::new(ForPeople {
        limiter,
        administrator: administrator.map(|account| account.id),
        unlimited: Policy {
            name: "administrator",
            capacity: 1_000_000,
            per_second: 1_000_000.0,
        },
    }))
}

/// Lets the administrator who was made at first start pass: imports and operators' scripts.
struct ForPeople {
    limiter: Arc<TokenBucketLimiter>,
    administrator: Option<Id>,
    unlimited: Policy,
}

#[async_trait]
impl RateLimiter for ForPeople {
    async fn take(&self, subject: &Subject, cost: u32) -> Decision {
        match subject {
            Subject::Account { tenant, account }
                if Some(*account) == self.administrator && *tenant == Tenant::default() =>
            {
                Decision {
                    allowed: true,
                    policy: self.unlimited.name,
                    limit: self.unlimited.capacity,
                    window: Duration::from_secs(1),
                    remaining: self.unlimited.capacity,
                    reset: Duration::ZERO,
                    retry_after: Duration::ZERO,
                }
            }
            _ => self.limiter.take(subject, cost).await,
        }
    }
}

fn start_logs(settings: &Settings) -> Result<(), NodeError> {
    let format = match settings.log_format.as_str() {
        "json" => LogFormat::Json,
        _ => LogFormat::Pretty,
    };
    holon_telemetry::logs::init(&LogOptions {
        format,
        filter: settings.log_filter.clone(),
    })?;
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "; something else listens there: take another with --listen",
            std::io::ErrorKind::PermissionDenied => "; ports below 1024 may need more rights",
            _ => "",
        };
        format!("cannot listen on {address}: {error}{hint}").into()
    })
}

/// Every consumer of every system, as it runs.
fn consumers(node: &Node, tracer: &Tracer) -> Vec<Consumer> {
    node.systems
        .iter()
        .flat_map(|system| Arc::clone(system).consumers())
        .map(|consumer| holon_telemetry::consumers::traced(consumer, tracer))
        .collect()
}

/// Starts every consumer's members.
fn run_consumers(
    node: &Node,
    consumers: &[Consumer],
    stopped: &watch::Receiver<bool>,
    work: &mut JoinSet<()>,
) {
    for consumer in consumers {
        for _ in 0..consumer.members {
            let (consumer, log, stopped) = (
                consumer.clone(),
                Arc::clone(&node.context.ports.log),
                stopped.clone(),
            );
            work.spawn(async move { consumer.run(log, stopped).await });
        }
    }
}

/// Starts the watch over how far consumers are, whichever node runs them.
fn watch_lag(
    node: &Node,
    consumers: &[Consumer],
    metrics: &Arc<Metrics>,
    stopped: &watch::Receiver<bool>,
    work: &mut JoinSet<()>,
) {
    let mut groups: Vec<(&'static str, &'static str)> = consumers
        .iter()
        .map(|consumer| (consumer.group, consumer.topic))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    work.spawn(holon_telemetry::watch_consumers(
        Arc::clone(&node.context.ports.log),
        Arc::clone(&node.context.clock),
        Arc::clone(metrics),
        groups,
        stopped.clone(),
    ));
}

/// The jobs of every system, and those of the engines.
fn jobs(node: &Node) -> Vec<Job> {
    let blobs = Arc::clone(&node.context.ports.blobs);
    let collect = Job {
        name: "blobs.collect",
        every: COLLECT_EVERY,
        run: Arc::new(move || {
            let blobs = Arc::clone(&blobs);
            Box::pin(async move {
                let collected = blobs
                    .collect(COLLECT_GRACE)
                    .await
                    .map_err(|error| error.to_string())?;
                tracing::info!(
                    blobs = collected.blobs,
                    bytes = collected.bytes,
                    "collected what nothing holds"
                );
                Ok(())
            })
        }),
    };
    let jobs = node.systems.iter().flat_map(|system| Arc::clone(system).jobs());
    jobs.chain([collect]).collect()
}

/// Ends the live connections of sessions that end, whichever node ended them.
async fn end_sessions(bus: Arc<dyn Bus>, hub: Arc<Hub>, mut stop: watch::Receiver<bool>) {
    let follow = async {
        loop {
            let Ok(mut ended) = bus.subscribe(holon_identity::SESSIONS_SUBJECT).await else {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            while let Ok(message) = ended.next().await {
                let Ok(gone) = serde_json::from_slice::<holon_identity::SessionsGone>(&message.payload)
                else {
                    continue;
                };
                if let Err(error) = hub.end_sessions(&gone.tenant, gone.account, gone.session).await {
                    tracing::warn!(%error, "other nodes were not told that a session ended");
                }
            }
        }
    };
    tokio::select! {
        () = follow => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn tick(metrics: Arc<Metrics>, engines: Arc<Engines>, mut stop: watch::Receiver<bool>) {
    while tokio::time::timeout(SLICE, stop.wait_for(|stop| *stop))
        .await
        .is_err()
    {
        metrics.tick();
        engines.measure_relay(&metrics).await;
    }
}

/// Says where things are. The first line is for programs, too.
fn announce(
    settings: &Settings,
    address: SocketAddr,
    servers: Option<&str>,
    of_nodes: Option<SocketAddr>,
    first_token: Option<&str>,
) {
    let data = std::path::absolute(&settings.data).unwrap_or_else(|_| settings.data.clone());
    let mut lines = format!(
        "listening on http://{address}\n  console  http://{reach}/\n  API      http://{reach}/docs\n  data     {}\n",
        data.display(),
        reach = reachable(address),
    );
    if let Some(servers) = servers {
        lines += &format!("  servers  {servers}\n");
    }
    if let Some(of_nodes) = of_nodes {
        lines += &format!(
            "  node     {} ({}), reached by others at {of_nodes}\n",
            settings.node,
            settings.roles.join(", ")
        );
    }
    if let Some(token) = first_token {
        lines += &format!(
            "  admin    {token}\n           the administrator's token, shown this once and kept in {}\n",
            data.join("admin.token").display()
        );
    }
    // Whoever started this may have stopped reading.
    let _ = std::io::stdout().lock().write_all(lines.as_bytes());
    let _ = std::io::stdout().flush();
}

/// An address that this machine can connect to: the loopback for "any".
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Says how to sign in to the demo, and fills it beside the serving if it is not complete.
fn start_demo(settings: &Settings, demo: Option<Demo>, address: SocketAddr) -> tokio::task::JoinHandle<()> {
    let data = settings.data.clone();
    let wanted = settings.demo;
    tokio::spawn(async move {
        let Some(demo) = demo else {
            if wanted {
                println!("  demo     not added: the data directory has data of its own");
            }
            return;
        };
        println!(
            "  demo     sign in as {} with the password {}",
            demo::HANDLE,
            demo.password
        );
        if demo.complete {
            return;
        }
        let token = match std::fs::read_to_string(data.join("admin.token")) {
            Ok(token) => token.trim().to_owned(),
            Err(error) => {
                eprintln!(
                    "the demo cannot be filled without {}: {error}",
                    data.join("admin.token").display()
                );
                return;
            }
        };
        eprintln!("filling the demo; it can be used meanwhile");
        match demo.fill(reachable(address), token).await {
            Ok(done) => println!(
                "  demo     complete: {} people, {} follows, {} posts",
                grouped(done.accounts + done.accounts_found),
                grouped(done.follows + done.follows_found),
                grouped(done.posts + done.posts_found)
            ),
            Err(error) => eprintln!("the demo is not complete: {error}; the next start with --demo goes on"),
        }
    })
}

/// The signals that end a server.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
