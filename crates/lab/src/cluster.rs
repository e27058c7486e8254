//! The cluster: everything in one directory, started in order, and ended with this.

use crate::{
    control::Control,
    error::{LabError, guarded},
    link::Condition,
    mesh::outer_address,
    network::{Network, address_of},
    node::{self, Node},
    options::ClusterOptions,
    part::{Part, Server},
    shard::Shard,
};
use holon_testkit::{NatsCluster, Place, RedisCluster, RedisServer, S3Server, postgres};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::task::AbortOnDropHandle;

/// How long a node may take until it is ready: longer than a node that died keeps its number.
pub const NODE_START: Duration = Duration::from_secs(90);
/// Nodes start while their servers still find each other; a first try that fails says little.
const STARTS: usize = 3;

/// A cluster that runs. Dropping it kills everything; [`Cluster::stop`] ends it in good order.
pub struct Cluster {
    directory: PathBuf,
    nodes: Vec<Node>,
    shards: Vec<Arc<Shard>>,
    nats: Vec<Arc<Part>>,
    redis: Vec<Arc<Part>>,
    s3: Option<Arc<Part>>,
    network: Option<Network>,
    control: Control,
    _keepers: Vec<AbortOnDropHandle<()>>,
}

impl Cluster {
    /// Starts a cluster on what is in a directory, which is made if it is not there. On return every node is ready.
    ///
    /// # Errors
    /// [`LabError`] with what could not be started and why; what was started is ended.
    pub async fn start(options: &ClusterOptions, directory: &Path) -> Result<Arc<Self>, LabError> {
        let cluster = Self::start_servers(options, directory).await?;
        cluster.start_nodes().await?;
        Ok(cluster)
    }

    /// Starts servers and links alone; [`Self::start_nodes`] starts the nodes.
    pub async fn start_servers(options: &ClusterOptions, directory: &Path) -> Result<Arc<Self>, LabError> {
        options.check()?;
        let directory = &make(directory)?;
        check_way(directory)?;
        let secret = secret_in(directory)?;
        let (shards, nats, redis, s3) = tokio::try_join!(
            start_shards(options, directory),
            start_nats(options, directory),
            start_redis(options, directory),
            start_s3(options, directory)
        )?;
        let servers: Vec<&Arc<Part>> = shards
            .iter()
            .flat_map(|shard| shard.members())
            .chain(&nats)
            .chain(&redis)
            .chain(&s3)
            .collect();
        let mut places = Vec::new();
        for number in (1..).take(options.nodes.len()) {
            let place = place(directory, &node::name(number))?;
            let port = guarded(async { place.port("cluster") }).await?;
            places.push((number, port, place));
        }
        let network = match options.links {
            true => {
                let nodes: Vec<(u16, u16)> = places.iter().map(|(node, port, _)| (*node, *port)).collect();
                let servers: Vec<(String, u16)> = servers
                    .iter()
                    .map(|part| (part.name.clone(), part.port))
                    .collect();
                Some(Network::open(&nodes, &servers).await?)
            }
            false => None,
        };
        let control = Control::open().await?;
        let plan = Plan {
            options,
            secret: &secret,
            shards: &shards,
            nats: &nats,
            redis: &redis,
            s3: s3.as_ref(),
            control: &control,
        };
        let mut nodes = Vec::new();
        for (number, port, place) in places {
            let address = plan.address(number, &place).await?;
            let settings = plan.settings(number, address, port);
            nodes.push(Node::new(number, address, &options.binary, place, &settings)?);
        }
        let keepers = shards.iter().map(Shard::keep).collect();
        let cluster = Arc::new(Self {
            directory: directory.clone(),
            nodes,
            shards,
            nats,
            redis,
            s3,
            network,
            control,
            _keepers: keepers,
        });
        cluster.control.serve(&cluster);
        Ok(cluster)
    }

    /// Starts all nodes; they are ready on return. The first makes what all have in common, so it is first.
    pub async fn start_nodes(&self) -> Result<(), LabError> {
        let Some((first, others)) = self.nodes.split_first() else {
            return Ok(());
        };
        self.start_node(first).await?;
        futures::future::try_join_all(others.iter().map(|node| self.start_node(node))).await?;
        Ok(())
    }

    async fn start_node(&self, node: &Node) -> Result<(), LabError> {
        let mut attempt = 1;
        loop {
            self.launch(node).await?;
            match node.ready(NODE_START).await {
                Err(LabError::NotReady { .. }) if attempt < STARTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn launch(&self, node: &Node) -> Result<(), LabError> {
        node.start().await?;
        if let Some(network) = &self.network {
            network.set_process(node.number, node.process().await);
        }
        Ok(())
    }

    /// Ends everything in good order: nodes first, then what they stand on.
    pub async fn stop(&self) -> Result<(), LabError> {
        self.heal();
        futures::future::try_join_all(self.nodes.iter().map(Node::stop)).await?;
        futures::future::try_join_all(self.servers().map(|part| part.stop())).await?;
        Ok(())
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its number, from 1.
    ///
    /// # Errors
    /// [`LabError::NoPart`].
    pub fn node(&self, number: u16) -> Result<&Node, LabError> {
        let node = self.nodes.iter().find(|node| node.number == number);
        node.ok_or_else(|| self.no_part(&node::name(number)))
    }

    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    pub fn nats(&self) -> &[Arc<Part>] {
        &self.nats
    }

    pub fn redis(&self) -> &[Arc<Part>] {
        &self.redis
    }

    pub fn s3(&self) -> Option<&Arc<Part>> {
        self.s3.as_ref()
    }

    /// All servers.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.shards
            .iter()
            .flat_map(|shard| shard.members())
            .chain(&self.nats)
            .chain(&self.redis)
            .chain(&self.s3)
    }

    /// A server by its name, such as `nats-2`.
    ///
    /// # Errors
    /// [`LabError::NoPart`].
    pub fn server(&self, name: &str) -> Result<&Arc<Part>, LabError> {
        let server = self.servers().find(|part| part.name == name);
        server.ok_or_else(|| self.no_part(name))
    }

    /// The shard of a name, such as `a`.
    ///
    /// # Errors
    /// [`LabError::NoPart`].
    pub fn shard(&self, name: &str) -> Result<&Arc<Shard>, LabError> {
        let shard = self.shards.iter().find(|shard| shard.name == name);
        shard.ok_or_else(|| self.no_part(name))
    }

    /// The shard that a server belongs to.
    pub fn shard_of(&self, part: &Part) -> Option<&Arc<Shard>> {
        self.shards
            .iter()
            .find(|shard| shard.members().iter().any(|member| member.name == part.name))
    }

    /// The Redis servers that are primaries now.
    pub async fn redis_primaries(&self) -> Result<Vec<Arc<Part>>, LabError> {
        let mut primaries = Vec::new();
        for part in &self.redis {
            let mut held = part.hold().await;
            if held.state() != crate::State::Running {
                continue;
            }
            let Server::Redis(server) = &held.server else {
                continue;
            };
            let said = guarded(server.command(&["role"])).await?;
            if said.starts_with("master") {
                primaries.push(Arc::clone(part));
            }
        }
        Ok(primaries)
    }

    /// Starts a node again; it is ready on return.
    pub async fn restart_node(&self, number: u16) -> Result<(), LabError> {
        let node = self.node(number)?;
        self.launch(node).await?;
        node.ready(NODE_START).await
    }

    /// Starts a node again, and waits for nothing.
    pub async fn launch_node(&self, number: u16) -> Result<(), LabError> {
        self.launch(self.node(number)?).await
    }

    /// Starts a server again on what it left; a PostgreSQL server that lost its place as a primary becomes the standby.
    pub async fn restart_server(&self, name: &str) -> Result<(), LabError> {
        let part = self.server(name)?;
        match self.shard_of(part) {
            Some(shard) => shard.start_again(part).await,
            None => part.start_again().await,
        }
    }

    /// Cuts a node off from all servers and all other nodes. Clients still reach it.
    pub fn cut_off(&self, node: u16) -> Result<(), LabError> {
        self.node(node)?;
        self.network()?.set_around(node, CUT);
        Ok(())
    }

    /// Takes back what was done around a node.
    pub fn heal_node(&self, node: u16) -> Result<(), LabError> {
        self.node(node)?;
        self.network()?.set_around(node, Condition::default());
        Ok(())
    }

    /// Does something to what a node says to one server and hears of it.
    pub fn set_link(&self, node: u16, server: &str, condition: Condition) -> Result<(), LabError> {
        self.node(node)?;
        self.server(server)?;
        self.network()?.set_to_server(node, server, condition);
        Ok(())
    }

    /// Does something to what two nodes say to each other.
    pub fn set_between(&self, one: u16, other: u16, condition: Condition) -> Result<(), LabError> {
        self.node(one)?;
        self.node(other)?;
        self.network()?.set_between(one, other, condition);
        Ok(())
    }

    /// Does something to what all nodes say to one server and hear of it.
    pub fn set_before(&self, server: &str, condition: Condition) -> Result<(), LabError> {
        self.server(server)?;
        self.network()?.set_before(server, condition);
        Ok(())
    }

    /// Makes a whole shard slow, whichever of its servers is the primary: each statement takes so much longer.
    pub fn slow_shard(&self, shard: &str, delay: Duration) -> Result<(), LabError> {
        let condition = Condition { is_cut: false, delay };
        for member in self.shard(shard)?.members() {
            self.network()?.set_before(&member.name, condition);
        }
        Ok(())
    }

    /// Takes back everything that was done to links.
    pub fn heal(&self) {
        if let Some(network) = &self.network {
            network.heal();
        }
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    pub(crate) fn network(&self) -> Result<&Network, LabError> {
        self.network.as_ref().ok_or(LabError::NoLinks)
    }

    /// Where chaos is asked for; a secret of this run is part of it.
    pub fn control_url(&self) -> String {
        self.control.url()
    }

    /// The administrator's token, once the first node has made it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn admin_token(&self) -> Result<String, LabError> {
        let first = self.nodes.first().map(Node::directory).unwrap_or(&self.directory);
        let path = first.join("admin.token");
        let token = std::fs::read_to_string(&path).map_err(|error| LabError::File {
            what: "cannot read",
            path,
            error,
        })?;
        Ok(token.trim().to_owned())
    }

    fn no_part(&self, name: &str) -> LabError {
        let nodes = self.nodes.iter().map(|node| node.name.as_str());
        let servers = self.servers().map(|part| part.name.as_str());
        LabError::NoPart {
            name: name.to_owned(),
            known: nodes.chain(servers).collect::<Vec<_>>().join(", "),
        }
    }
}

pub(crate) const CUT: Condition = Condition {
    is_cut: true,
    delay: Duration::ZERO,
};

/// What nodes are told.
struct Plan<'a> {
    options: &'a ClusterOptions,
    secret: &'a str,
    shards: &'a [Arc<Shard>],
    nats: &'a [Arc<Part>],
    redis: &'a [Arc<Part>],
    s3: Option<&'a Arc<Part>>,
    control: &'a Control,
}

impl Plan<'_> {
    /// Where a node serves clients.
    async fn address(&self, node: u16, place: &Place) -> Result<SocketAddr, LabError> {
        let port = match self.options.first_port {
            Some(first) => first + node - 1,
            None => guarded(async { place.port("http") }).await?,
        };
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// The settings of a node that serves clients at an address and other nodes at a port.
    fn settings(&self, node: u16, address: SocketAddr, port: u16) -> Vec<(String, String)> {
        let own = &self.options.nodes[usize::from(node) - 1];
        let host: IpAddr = match self.options.links {
            true => address_of(node),
            false => Ipv4Addr::LOCALHOST.into(),
        };
        let all = |scheme: &str, parts: &[Arc<Part>]| {
            let urls: Vec<String> = parts
                .iter()
                .map(|part| format!("{scheme}://{host}:{}", part.port))
                .collect();
            urls.join(",")
        };
        let shards = |url_of: fn(&str, &[u16]) -> String| {
            let urls = self.shards.iter().map(|shard| {
                let ports: Vec<u16> = shard.members().iter().map(|member| member.port).collect();
                format!("{}={}", shard.name, url_of(&host.to_string(), &ports))
            });
            urls.collect::<Vec<_>>().join(",")
        };
        let mut settings: Vec<(&str, String)> = vec![
            ("node", node.to_string()),
            ("listen", address.to_string()),
            ("engines.postgres", shards(postgres::url_of_any)),
            ("engines.nats", all("nats", self.nats)),
            ("engines.nats_replicas", self.nats.len().to_string()),
            ("engines.redis", all("redis", self.redis)),
            ("engines.redis_cluster", (self.redis.len() > 1).to_string()),
            ("engines.secret", self.secret.to_owned()),
        ];
        if self.options.standbys {
            settings.push(("engines.postgres_replicas", shards(postgres::url_of_standby)));
        }
        if let Some(s3) = self.s3 {
            settings.extend([
                ("engines.s3_endpoint", format!("http://{host}:{}", s3.port)),
                ("engines.s3_bucket", S3Server::BUCKET.to_owned()),
                ("engines.s3_access_key", S3Server::ACCESS_KEY_ID.to_owned()),
                ("engines.s3_secret_key", S3Server::SECRET_ACCESS_KEY.to_owned()),
            ]);
        }
        if self.options.chaos {
            settings.push(("chaos.control", self.control.url()));
        }
        settings.push(("cluster.listen", format!("127.0.0.1:{port}")));
        if self.options.links {
            settings.push(("cluster.advertise", outer_address(node).to_string()));
        }
        if !own.roles.is_empty() {
            settings.push(("roles", own.roles.join(",")));
        }
        settings
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .chain(self.options.settings.iter().cloned())
            .chain(own.settings.iter().cloned())
            .collect()
    }
}

fn make(directory: &Path) -> Result<PathBuf, LabError> {
    let made = std::fs::create_dir_all(directory).and_then(|()| directory.canonicalize());
    made.map_err(|error| LabError::File {
        what: "cannot make",
        path: directory.to_owned(),
        error,
    })
}

/// PostgreSQL does not run as root; whom it runs as instead must get to its directory.
fn check_way(directory: &Path) -> Result<(), LabError> {
    const OTHERS_MAY_ENTER: u32 = 0o001;
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let is_closed = |path: &&Path| {
        std::fs::metadata(path).is_ok_and(|directory| directory.mode() & OTHERS_MAY_ENTER == 0)
    };
    match directory.ancestors().find(is_closed) {
        Some(closed) if is_root => Err(LabError::Setup(format!(
            "this runs as root, so PostgreSQL runs as another user, who may not enter {}; choose another directory, such \
             as /var/tmp/holon-cluster",
            closed.display()
        ))),
        _ => Ok(()),
    }
}

fn place(directory: &Path, name: &str) -> Result<Place, LabError> {
    let path = directory.join(name);
    Place::lasting(&path).map_err(|error| LabError::File {
        what: "cannot make",
        path,
        error,
    })
}

fn places(directory: &Path, prefix: &str, count: usize) -> Result<Vec<Place>, LabError> {
    (1..=count)
        .map(|number| place(directory, &format!("{prefix}{number}")))
        .collect()
}

/// The secret of this deployment, made at the first start.
fn secret_in(directory: &Path) -> Result<String, LabError> {
    let path = directory.join("secret");
    let at = |what, error| LabError::File {
        what,
        path: path.clone(),
        error,
    };
    match std::fs::read_to_string(&path) {
        Ok(secret) => return Ok(secret),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(at("cannot read", error)),
    }
    let secret = random_hex();
    crate::write_private(&path, &secret).map_err(|error| at("cannot write", error))?;
    Ok(secret)
}

/// 32 random bytes in letters.
pub(crate) fn random_hex() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn start_shards(options: &ClusterOptions, directory: &Path) -> Result<Vec<Arc<Shard>>, LabError> {
    let members = if options.standbys { 2 } else { 1 };
    let mut starting = Vec::new();
    for name in options.shard_names() {
        let places = places(directory, &format!("postgres-{name}"), members)?;
        let record = directory.join(format!("shard-{name}.primary"));
        starting.push(async move {
            let shard = Shard::start(&name, record, places, &options.postgres_settings).await?;
            Ok(Arc::new(shard))
        });
    }
    futures::future::try_join_all(starting).await
}

async fn start_nats(options: &ClusterOptions, directory: &Path) -> Result<Vec<Arc<Part>>, LabError> {
    let places = places(directory, "nats-", options.nats)?;
    let cluster = guarded(NatsCluster::start_in(places)).await?;
    Ok((1..)
        .zip(cluster.into_servers())
        .map(|(number, server)| Arc::new(Part::new(format!("nats-{number}"), Server::Nats(server))))
        .collect())
}

async fn start_redis(options: &ClusterOptions, directory: &Path) -> Result<Vec<Arc<Part>>, LabError> {
    let servers = match options.redis_primaries {
        1 => {
            let place = place(directory, "redis-1")?;
            vec![guarded(RedisServer::start_in(place)).await?]
        }
        primaries => {
            let count = primaries * (1 + options.redis_replicas);
            let places = places(directory, "redis-", count)?;
            guarded(RedisCluster::start_in(places, options.redis_replicas))
                .await?
                .servers
        }
    };
    Ok((1..)
        .zip(servers)
        .map(|(number, server)| Arc::new(Part::new(format!("redis-{number}"), Server::Redis(server))))
        .collect())
}

async fn start_s3(options: &ClusterOptions, directory: &Path) -> Result<Option<Arc<Part>>, LabError> {
    if !options.s3 {
        return Ok(None);
    }
    let place = place(directory, "s3")?;
    let server = guarded(S3Server::start_in(place)).await?;
    Ok(Some(Arc::new(Part::new("s3", Server::S3(server)))))
}
