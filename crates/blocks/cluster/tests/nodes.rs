//! Real nodes on the loopback interface: joining, leaving, dying, freezing, being cut off, and asking each other.
#![allow(clippy::unwrap_used, reason = "a failing test should fail")]

use async_trait::async_trait;
use bytes::Bytes;
use holon_base::{ErrorKind, SystemClock, Timestamp};
use holon_cluster::{
    CallError, Cluster, Handler, JoinOptions, Key, Listener, Liveness, NodeFacts, Request, Shards, Timing,
};
use holon_testkit::{PATIENCE, eventually};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};
use tokio::{net::UdpSocket, runtime::Runtime, time::Instant};

const TIMING: Timing = Timing {
    interval: Duration::from_millis(100),
    prior: Duration::from_millis(800),
};
const SHARDS: Shards = Shards {
    shards: 32,
    copies: 2,
};

/// Says who it is and what it was asked; knows some methods that test patience.
struct Echo {
    node: u16,
    handled: Arc<AtomicUsize>,
}

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, request: Request) -> Result<Bytes, CallError> {
        match request.method.as_str() {
            "slow" => tokio::time::sleep(PATIENCE).await,
            "left" => {
                let left = request.deadline.saturating_duration_since(Instant::now());
                return Ok(left.as_millis().to_string().into());
            }
            "trace" => {
                return Ok(holon_base::trace::current()
                    .unwrap_or_default()
                    .to_string()
                    .into());
            }
            "refuse" => return Err(CallError::failed(ErrorKind::Conflict, "it is taken")),
            _ => {}
        }
        self.handled.fetch_add(1, Ordering::SeqCst);
        Ok(format!(
            "node {} has {}",
            self.node,
            String::from_utf8_lossy(&request.body)
        )
        .into())
    }
}

/// A node on a thread of its own, so that it can be frozen as a process is.
struct Node {
    cluster: Arc<Cluster>,
    address: SocketAddr,
    handled: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
    thaw: Option<mpsc::Sender<()>>,
}

struct Begin {
    node: u16,
    generation: u64,
    capacity: u32,
    secret: u8,
    advertise: Option<IpAddr>,
    listen: SocketAddr,
    seeds: Vec<SocketAddr>,
}

impl Begin {
    fn new(node: u16, seeds: &[&Node]) -> Self {
        Self {
            node,
            generation: 1,
            capacity: 1,
            secret: 7,
            advertise: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seeds: seeds.iter().map(|node| node.address).collect(),
        }
    }

    async fn node(self) -> Node {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let handled = Arc::<AtomicUsize>::default();
        let echo = Arc::new(Echo {
            node: self.node,
            handled: Arc::clone(&handled),
        });
        let begun = runtime.spawn(async move {
            let listener = Listener::bind(self.listen, self.advertise).await.unwrap();
            let address = listener.address();
            let facts = NodeFacts {
                node: self.node,
                generation: self.generation,
                roles: vec!["api".into()],
                capacity: self.capacity,
                version: "1".into(),
                schema: Some(1),
                http: None,
                grpc: None,
                started: Timestamp::EPOCH,
                services: BTreeMap::new(),
                leaving: false,
            };
            let options = JoinOptions {
                facts,
                key: Key::new([self.secret; 32]),
                seeds: self.seeds.iter().map(SocketAddr::to_string).collect(),
                timing: TIMING,
                clock: Arc::new(SystemClock),
            };
            let cluster = Cluster::join(listener, options).await.unwrap();
            cluster.serve_node("echo", Arc::clone(&echo) as _);
            cluster.serve_shards("echo", SHARDS, echo).await;
            (cluster, address)
        });
        let (cluster, address) = begun.await.unwrap();
        Node {
            cluster,
            address,
            handled,
            runtime: Some(runtime),
            thaw: None,
        }
    }
}

impl Node {
    /// What a look at the members says: each node with its liveness.
    fn sees(&self) -> Vec<(u16, Liveness)> {
        let view = self.cluster.view();
        view.members
            .values()
            .map(|member| (member.facts.node, member.liveness))
            .collect()
    }

    async fn until_sees(&self, expected: &[(u16, Liveness)]) {
        let what = format!("node {} to see {expected:?}", self.cluster.node());
        eventually(&what, PATIENCE, || async {
            // That a node is suspect for a moment is the machine's business.
            let settled = self.sees().into_iter().map(|(node, liveness)| match liveness {
                Liveness::Suspect => (node, Liveness::Alive),
                other => (node, other),
            });
            settled.eq(expected.iter().copied()).then_some(())
        })
        .await;
    }

    /// Until all of these are seen to take shards.
    async fn until_takers(&self, nodes: usize) {
        let what = format!("{nodes} nodes to take shards");
        eventually(&what, PATIENCE, || async {
            (self.cluster.view().takers("echo").len() == nodes).then_some(())
        })
        .await;
    }

    /// SIGKILL, as far as others can see.
    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// SIGSTOP: its sockets stay, and take what comes; nothing of it runs.
    async fn freeze(&mut self) {
        let (thaw, thawed) = mpsc::channel::<()>();
        let is_frozen = Arc::<AtomicBool>::default();
        let frozen = Arc::clone(&is_frozen);
        self.runtime.as_ref().unwrap().spawn(async move {
            frozen.store(true, Ordering::SeqCst);
            let _ = thawed.recv();
        });
        eventually("the node to freeze", PATIENCE, || async {
            is_frozen.load(Ordering::SeqCst).then_some(())
        })
        .await;
        self.thaw = Some(thaw);
    }

    fn thaw(&mut self) {
        self.thaw = None;
    }

    fn shard_of(&self, owner: u16) -> u32 {
        let view = self.cluster.view();
        (0..SHARDS.shards)
            .find(|shard| view.owners("echo", *shard).first() == Some(&owner))
            .unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.thaw();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn ask(shard: u32) -> Request {
    Request::new("echo", shard, "say", Duration::from_secs(20)).body(format!("shard {shard}"))
}

const ALIVE: Liveness = Liveness::Alive;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_go_die_freeze_and_come_back() {
    let one = Begin::new(1, &[]).node().await;
    let mut two = Begin::new(2, &[&one]).node().await;
    let three = Begin::new(3, &[&two]).node().await;
    for node in [&one, &two, &three] {
        node.until_sees(&[(1, ALIVE), (2, ALIVE), (3, ALIVE)]).await;
    }
    // Somebody with another secret knows the way, and is not one of them.
    let stranger = Begin {
        secret: 8,
        ..Begin::new(4, &[&one])
    };
    let stranger = stranger.node().await;

    // Rubbish is no news, and no call.
    let rubbish: Vec<u8> = (0..60_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let packets = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [0, 1, 3, 4, 100, 1_000, 60_000] {
        packets.send_to(&rubbish[..length], one.address).await.unwrap();
        // What begins like gossip does.
        let packet = [&[0x53, 0xb0, 1, length as u8 % 4], &rubbish[..length.min(1_000)]].concat();
        packets.send_to(&packet, one.address).await.unwrap();
    }
    let mut stream = tokio::net::TcpStream::connect(one.address).await.unwrap();
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &rubbish).await;

    // Frozen, it is dead to the others, and when it wakes all are back.
    two.freeze().await;
    one.until_sees(&[(1, ALIVE), (2, Liveness::Dead), (3, ALIVE)])
        .await;
    assert!(one.cluster.view().member(2).unwrap().phi > holon_cluster::membership::PHI_DEAD / 2.0);
    two.thaw();
    for node in [&one, &two, &three] {
        node.until_sees(&[(1, ALIVE), (2, ALIVE), (3, ALIVE)]).await;
    }

    // Killed, and begun anew: the same node in its next generation.
    two.kill();
    three
        .until_sees(&[(1, ALIVE), (2, Liveness::Dead), (3, ALIVE)])
        .await;
    let again = Begin {
        generation: 2,
        ..Begin::new(2, &[&one])
    };
    let two = again.node().await;
    for node in [&one, &two, &three] {
        node.until_sees(&[(1, ALIVE), (2, ALIVE), (3, ALIVE)]).await;
    }
    assert_eq!(one.cluster.view().member(2).unwrap().facts.generation, 2);

    // Left in order: nobody has to find out by its silence.
    three.cluster.leave().await;
    for node in [&one, &two] {
        node.until_sees(&[(1, ALIVE), (2, ALIVE), (3, Liveness::Left)])
            .await;
    }
    assert!(
        one.cluster
            .view()
            .owners("echo", 0)
            .iter()
            .all(|owner| *owner != 3)
    );
    assert_eq!(stranger.sees(), [(4, ALIVE)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_shard_is_asked_wherever_it_is() {
    let one = Begin::new(1, &[]).node().await;
    let two = Begin {
        capacity: 3,
        ..Begin::new(2, &[&one])
    };
    let two = two.node().await;
    let mut three = Begin::new(3, &[&one]).node().await;
    let all = [&one, &two, &three];
    for node in all {
        node.until_takers(3).await;
    }
    // Each shard is found alike from everywhere, in this process or in another.
    for shard in 0..SHARDS.shards {
        let owners = one.cluster.view().owners("echo", shard);
        assert_eq!(owners.len(), 2);
        for node in all {
            assert_eq!(node.cluster.view().owners("echo", shard), owners);
            let answer = node.cluster.call(ask(shard)).await.unwrap();
            assert_eq!(answer, format!("node {} has shard {shard}", owners[0]));
        }
    }
    assert!(one.handled.load(Ordering::SeqCst) > 0 && two.handled.load(Ordering::SeqCst) > 0);

    // The deadline and the trace go along, and errors come back as they were.
    let to_two = |method: &str| Request::of_node("echo", method, Duration::from_secs(30));
    let left = one.cluster.call_node(2, to_two("left")).await.unwrap();
    let left: u64 = std::str::from_utf8(&left).unwrap().parse().unwrap();
    assert!((1..=30_000).contains(&left), "{left}");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = holon_base::trace::scope(trace, one.cluster.call_node(2, to_two("trace"))).await;
    assert_eq!(answer.unwrap(), trace);
    let refused = one.cluster.call_node(2, to_two("refuse")).await.unwrap_err();
    assert_eq!(refused, CallError::failed(ErrorKind::Conflict, "it is taken"));
    let unknown = one.cluster.call_node(9, to_two("say")).await;
    assert_eq!(unknown, Err(CallError::NoSuchNode { node: 9 }));
    let far = one.cluster.call(ask(99)).await.unwrap_err();
    assert!(matches!(far, CallError::Invalid(_)), "{far:?}");
    let slow = Request::of_node("echo", "slow", Duration::from_millis(200));
    let late = one.cluster.call_node(2, slow).await;
    assert_eq!(late, Err(CallError::Deadline { node: 2 }));

    // The owner of another's shard says whose it is.
    let shard = one.shard_of(2);
    let mistaken = Request {
        shard: Some(shard),
        ..to_two("say")
    };
    let answer = one.cluster.call_node(1, mistaken).await.unwrap_err();
    let CallError::NotOwner {
        node: 1,
        owner: Some(2),
        ..
    } = answer
    else {
        panic!("{answer:?}");
    };

    // Frozen: it takes the connection and says nothing. A write ends with its deadline, a read goes to who comes next.
    let shard = one.shard_of(3);
    let next = one.cluster.view().owners("echo", shard)[1];
    three.freeze().await;
    let before = three.handled.load(Ordering::SeqCst);
    let began = Instant::now();
    let write = Request::new("echo", shard, "say", Duration::from_millis(300));
    let failed = one.cluster.call(write).await;
    assert_eq!(failed, Err(CallError::Deadline { node: 3 }));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let read = Request {
        deadline: Instant::now() + Duration::from_secs(2),
        ..ask(shard)
    }
    .read();
    let answer = one.cluster.call(read).await.unwrap();
    assert_eq!(answer, format!("node {next} has shard {shard}"));
    // Once it is known to be dead, what it had is with others, and it is not waited for.
    one.until_sees(&[(1, ALIVE), (2, ALIVE), (3, Liveness::Dead)])
        .await;
    let answer = one.cluster.call(ask(shard)).await.unwrap();
    assert_eq!(answer, format!("node {next} has shard {shard}"));
    let dead = one
        .cluster
        .call_node(3, Request::of_node("echo", "say", Duration::from_secs(20)))
        .await;
    assert!(
        matches!(dead, Err(CallError::Unavailable { node: 3, .. })),
        "{dead:?}"
    );
    // Awake again, it does not begin what nobody waits for any more.
    three.thaw();
    one.until_sees(&[(1, ALIVE), (2, ALIVE), (3, ALIVE)]).await;
    let answer = one
        .cluster
        .call_node(3, Request::of_node("echo", "left", Duration::from_secs(20)))
        .await;
    assert!(answer.is_ok(), "{answer:?}");
    assert!(three.handled.load(Ordering::SeqCst) <= before + 1);

    // Gone, with nothing where it was.
    three.kill();
    let began = Instant::now();
    let gone = one
        .cluster
        .call_node(3, Request::of_node("echo", "say", Duration::from_secs(30)))
        .await;
    assert!(
        matches!(gone, Err(CallError::Unavailable { node: 3, .. })),
        "{gone:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// Stands before each node's gossip on an address of its own, and drops what a node that is cut off sends or is sent.
struct Net {
    cut: Arc<Mutex<Option<u16>>>,
    /// Where packets of a node come from.
    known: Arc<Mutex<HashMap<SocketAddr, u16>>>,
}

impl Net {
    /// The address before a node.
    fn before(node: u16) -> IpAddr {
        Ipv4Addr::new(127, 0, 1, node as u8).into()
    }

    async fn stand_before(&self, node: u16, real: SocketAddr) {
        self.known.lock().insert(real, node);
        let front = UdpSocket::bind((Self::before(node), real.port())).await.unwrap();
        let front = Arc::new(front);
        let (cut, known) = (Arc::clone(&self.cut), Arc::clone(&self.known));
        tokio::spawn(async move {
            // For each node that sends here, a socket that answers come back to.
            let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
            let mut packet = vec![0; 65_536];
            loop {
                let (length, from) = front.recv_from(&mut packet).await.unwrap();
                let parties = [Some(node), known.lock().get(&from).copied()];
                let is_cut = move |cut: &Mutex<Option<u16>>| {
                    let cut = *cut.lock();
                    cut.is_some() && parties.contains(&cut)
                };
                if is_cut(&cut) {
                    continue;
                }
                if let Entry::Vacant(entry) = backs.entry(from) {
                    let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                    back.connect(real).await.unwrap();
                    entry.insert(Arc::clone(&back));
                    let (front, cut) = (Arc::clone(&front), Arc::clone(&cut));
                    tokio::spawn(async move {
                        let mut packet = vec![0; 65_536];
                        while let Ok(length) = back.recv(&mut packet).await {
                            if !is_cut(&cut) {
                                let _ = front.send_to(&packet[..length], from).await;
                            }
                        }
                    });
                }
                let _ = backs[&from].send(&packet[..length]).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_sees_the_others_dead_and_comes_back() {
    let net = Net {
        cut: Arc::default(),
        known: Arc::default(),
    };
    let mut nodes: Vec<Node> = Vec::new();
    for number in 1..=3 {
        let begin = Begin {
            advertise: Some(Net::before(number)),
            ..Begin::new(number, &nodes.iter().collect::<Vec<_>>())
        };
        let node = begin.node().await;
        let real = SocketAddr::from(([127, 0, 0, 1], node.address.port()));
        net.stand_before(number, real).await;
        nodes.push(node);
    }
    let all = [(1, ALIVE), (2, ALIVE), (3, ALIVE)];
    for node in &nodes {
        node.until_sees(&all).await;
    }
    *net.cut.lock() = Some(3);
    let dead = Liveness::Dead;
    nodes[0].until_sees(&[(1, ALIVE), (2, ALIVE), (3, dead)]).await;
    nodes[1].until_sees(&[(1, ALIVE), (2, ALIVE), (3, dead)]).await;
    nodes[2].until_sees(&[(1, dead), (2, dead), (3, ALIVE)]).await;
    *net.cut.lock() = None;
    for node in &nodes {
        node.until_sees(&all).await;
    }
}

#[tokio::test]
async fn alone_it_has_everything_and_needs_no_network() {
    let facts = NodeFacts {
        node: 0,
        generation: 0,
        roles: Vec::new(),
        capacity: 1,
        version: "1".into(),
        schema: None,
        http: None,
        grpc: None,
        started: Timestamp::EPOCH,
        services: BTreeMap::new(),
        leaving: false,
    };
    let cluster = Cluster::alone(facts, Arc::new(SystemClock));
    let none = cluster.call(ask(3)).await;
    let service = "echo".to_owned();
    assert_eq!(none, Err(CallError::NoOwner { service, shard: 3 }));
    let echo = Arc::new(Echo {
        node: 0,
        handled: Arc::default(),
    });
    cluster.serve_shards("echo", SHARDS, echo).await;
    assert_eq!(cluster.call(ask(3)).await.unwrap(), "node 0 has shard 3");
    let late = Request::new("echo", 3, "slow", Duration::from_millis(20));
    assert_eq!(cluster.call(late).await, Err(CallError::Deadline { node: 0 }));
}

#[tokio::test]
async fn an_address_that_cannot_be_reached_is_refused() {
    let all = SocketAddr::from(([0, 0, 0, 0], 0));
    let refused = Listener::bind(all, None).await.err().unwrap().to_string();
    assert!(refused.contains("cannot reach 0.0.0.0"), "{refused}");
    let reached = Listener::bind(all, Some(Ipv4Addr::LOCALHOST.into()))
        .await
        .unwrap();
    let taken = Listener::bind(reached.address(), None)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(taken.contains("cannot listen for other nodes"), "{taken}");
}
