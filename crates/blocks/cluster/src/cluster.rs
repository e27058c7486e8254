//! One node's place among all: what it knows, what it serves, and whom it asks.

use crate::{
    call::{CallError, Handler, Request},
    client::{self, Channels},
    facts::{NodeFacts, Shards},
    membership::{self, Membership, Timing},
    secret::Key,
    server,
    view::{Liveness, Member, View},
};
use bytes::Bytes;
use holon_base::Clock;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

/// How often a free port is looked for that is free for both protocols.
const PORT_ATTEMPTS: usize = 20;
/// How long nodes are given to agree on who has a shard, before it is asked again.
const DISAGREEMENT: Duration = Duration::from_millis(50);

/// Why a node is not in the cluster; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("cannot listen for other nodes on {address}: {detail}")]
    Listen { address: SocketAddr, detail: String },
    #[error(
        "other nodes cannot reach {address}, which stands for every address of this machine; name one of them"
    )]
    NoAddress { address: SocketAddr },
    #[error("cannot begin to gossip: {0}")]
    Gossip(String),
}

/// A port for other nodes: TCP for calls, UDP for gossip.
pub struct Listener {
    calls: TcpListener,
    bound: SocketAddr,
    advertised: SocketAddr,
}

impl Listener {
    /// Takes an address; port 0 is any free one. `advertise` is where others reach this machine, if not there.
    ///
    /// # Errors
    /// [`ClusterError`] if the port is taken, or nobody could reach it.
    pub async fn bind(listen: SocketAddr, advertise: Option<IpAddr>) -> Result<Self, ClusterError> {
        let reached = advertise.unwrap_or(listen.ip());
        if reached.is_unspecified() {
            return Err(ClusterError::NoAddress { address: listen });
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let refuse = |error: std::io::Error| ClusterError::Listen {
                address: listen,
                detail: error.to_string(),
            };
            let calls = TcpListener::bind(listen).await.map_err(refuse)?;
            let bound = calls.local_addr().map_err(refuse)?;
            match UdpSocket::bind(bound) {
                Ok(_) => {
                    return Ok(Self {
                        calls,
                        bound,
                        advertised: SocketAddr::new(reached, bound.port()),
                    });
                }
                Err(error) if listen.port() != 0 || attempt == PORT_ATTEMPTS => return Err(refuse(error)),
                Err(_) => {}
            }
        }
    }

    /// Where other nodes reach this one.
    pub fn address(&self) -> SocketAddr {
        self.advertised
    }
}

/// What a node needs to be one of many.
pub struct JoinOptions {
    /// Where it is reached is filled in.
    pub facts: NodeFacts,
    pub key: Key,
    /// Nodes to begin with, each `host:port`; gossip finds the others.
    pub seeds: Vec<String>,
    pub timing: Timing,
    pub clock: Arc<dyn Clock>,
}

/// What calls need, on both ends.
pub(crate) struct Core {
    pub node: u16,
    pub key: Key,
    pub clock: Arc<dyn Clock>,
    pub channels: Channels,
    views: watch::Receiver<Arc<View>>,
    of_shards: RwLock<HashMap<String, Arc<dyn Handler>>>,
    of_node: RwLock<HashMap<String, Arc<dyn Handler>>>,
}

/// A node among others, or alone.
pub struct Cluster {
    core: Arc<Core>,
    facts: Mutex<NodeFacts>,
    ties: Ties,
}

/// What ties a node to others.
enum Ties {
    /// Nothing: it is the only one there can be.
    None(watch::Sender<Arc<View>>),
    Many {
        membership: Box<Membership>,
        server: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
    },
}

impl Cluster {
    /// A node that is the only one there can be. It owns every shard of what it serves; nothing goes over the network.
    pub fn alone(facts: NodeFacts, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (changed, views) = watch::channel(Arc::new(only(&facts, &*clock)));
        let core = Core {
            node: facts.node,
            key: Key::new([0; 32]),
            clock,
            channels: Channels::default(),
            views,
            of_shards: RwLock::default(),
            of_node: RwLock::default(),
        };
        Arc::new(Self {
            core: Arc::new(core),
            facts: Mutex::new(facts),
            ties: Ties::None(changed),
        })
    }

    /// A node among others: it gossips, and answers calls, from now on.
    ///
    /// # Errors
    /// [`ClusterError::Gossip`] if it cannot.
    pub async fn join(listener: Listener, options: JoinOptions) -> Result<Arc<Self>, ClusterError> {
        let JoinOptions {
            mut facts,
            key,
            seeds,
            timing,
            clock,
        } = options;
        facts.grpc = Some(listener.advertised);
        let membership = Membership::begin(membership::Options {
            facts: facts.clone(),
            key: key.clone(),
            listen: listener.bound,
            advertise: listener.advertised,
            seeds,
            timing,
            clock: Arc::clone(&clock),
        });
        let membership = membership.await.map_err(ClusterError::Gossip)?;
        let core = Arc::new(Core {
            node: facts.node,
            key,
            clock,
            channels: Channels::default(),
            views: membership.views(),
            of_shards: RwLock::default(),
            of_node: RwLock::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = server::serve(Arc::clone(&core), listener.calls, async {
            let _ = stopped.await;
        });
        let server = (stop, tokio::spawn(serving));
        Ok(Arc::new(Self {
            core,
            facts: Mutex::new(facts),
            ties: Ties::Many {
                membership: Box::new(membership),
                server: Mutex::new(Some(server)),
            },
        }))
    }

    pub fn node(&self) -> u16 {
        self.core.node
    }

    /// Where other nodes reach this one; nowhere if there can be none.
    pub fn address(&self) -> Option<SocketAddr> {
        self.facts.lock().grpc
    }

    /// Who is there, as far as this node knows.
    pub fn view(&self) -> Arc<View> {
        self.core.view()
    }

    /// The same, to follow: it changes when a node comes, goes, or says something new.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.core.views.clone()
    }

    /// Takes shards of a service from now on, and says so to all.
    pub async fn serve_shards(&self, service: &str, shards: Shards, handler: Arc<dyn Handler>) {
        self.core.of_shards.write().insert(service.to_owned(), handler);
        let facts = {
            let mut facts = self.facts.lock();
            facts.services.insert(service.to_owned(), shards);
            facts.clone()
        };
        match &self.ties {
            Ties::None(changed) => {
                changed.send_replace(Arc::new(only(&facts, &*self.core.clock)));
            }
            Ties::Many { membership, .. } => membership.tell(&facts).await,
        }
    }

    /// Answers what is asked of this node as such.
    pub fn serve_node(&self, service: &str, handler: Arc<dyn Handler>) {
        self.core.of_node.write().insert(service.to_owned(), handler);
    }

    /// Asks whoever has the shard: in this process if this node has it, by gRPC if another.
    ///
    /// A read goes on to the next node that has a copy when one cannot be reached, or is silent for its share of the time.
    /// Anything else is asked of the owner alone. While nodes do not agree yet on who that is, which is while news of a
    /// member spreads, nothing is done, and it is asked again until the deadline.
    ///
    /// # Errors
    /// [`CallError`] says whether it may have been done.
    pub async fn call(&self, request: Request) -> Result<Bytes, CallError> {
        let Some(shard) = request.shard else {
            return Err(CallError::Invalid(
                "a request that is for no shard is for a node: name it".into(),
            ));
        };
        loop {
            match self.call_owners(&request, shard).await {
                Err(CallError::NotOwner { .. }) if Instant::now() + DISAGREEMENT < request.deadline => {
                    tokio::time::sleep(DISAGREEMENT).await;
                }
                answer => return answer,
            }
        }
    }

    async fn call_owners(&self, request: &Request, shard: u32) -> Result<Bytes, CallError> {
        let view = self.core.view();
        let owners = view.owners(&request.service, shard);
        let copies = if request.is_read { owners.len() } else { 1 };
        let mut left: VecDeque<u16> = owners.into_iter().take(copies).collect();
        let mut asked: Vec<u16> = Vec::new();
        let mut failure = CallError::NoOwner {
            service: request.service.clone(),
            shard,
        };
        while let Some(node) = left.pop_front() {
            asked.push(node);
            let wait = request.deadline.saturating_duration_since(Instant::now());
            let share = wait / (left.len() as u32 + 1);
            let attempt = request.clone().until(Instant::now() + share);
            failure = match self.core.ask(node, &attempt).await {
                Err(error @ CallError::NotOwner { owner, .. }) => {
                    let is_there = |owner: &u16| {
                        let member = view.member(*owner);
                        member.is_some_and(|member| member.liveness.is_counted_on())
                    };
                    if let Some(owner) = owner.filter(is_there).filter(|owner| !asked.contains(owner)) {
                        left.retain(|node| *node != owner);
                        left.push_front(owner);
                    }
                    error
                }
                Err(error @ (CallError::Unavailable { .. } | CallError::Deadline { .. }))
                    if request.is_read =>
                {
                    error
                }
                answer => return answer,
            };
        }
        Err(failure)
    }

    /// Asks one node, whatever it owns.
    ///
    /// # Errors
    /// [`CallError`] says whether it may have been done.
    pub async fn call_node(&self, node: u16, request: Request) -> Result<Bytes, CallError> {
        self.core.ask(node, &request).await
    }

    /// Says to all that this node ends, finishes the calls in hand, and asks and answers no more.
    pub async fn leave(&self) {
        let Ties::Many { membership, server } = &self.ties else {
            return;
        };
        let facts = {
            let mut facts = self.facts.lock();
            facts.leaving = true;
            facts.clone()
        };
        membership.leave(&facts).await;
        let server = server.lock().take();
        if let Some((stop, serving)) = server {
            let _ = stop.send(());
            // Connections of others stay open while they live; what was in hand had its deadline.
            let _ = tokio::time::timeout(membership::Timing::default().interval, serving).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Ties::Many { server, .. } = &self.ties
            && let Some((_, serving)) = server.lock().take()
        {
            serving.abort();
        }
    }
}

/// The view of a node that is alone.
fn only(facts: &NodeFacts, clock: &dyn Clock) -> View {
    let member = Member {
        facts: facts.clone(),
        liveness: Liveness::Alive,
        since: facts.started.min(clock.now()),
        phi: 0.0,
    };
    View {
        members: [(facts.node, member)].into(),
    }
}

impl Core {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Asks a node, which may be this one.
    async fn ask(&self, node: u16, request: &Request) -> Result<Bytes, CallError> {
        if node == self.node {
            return self.answer(request.clone()).await;
        }
        let view = self.view();
        let member = view.member(node).ok_or(CallError::NoSuchNode { node })?;
        let unavailable = |detail: String| CallError::Unavailable { node, detail };
        match member.liveness {
            Liveness::Alive | Liveness::Suspect => {}
            Liveness::Dead => return Err(unavailable(format!("dead since {}", member.since))),
            Liveness::Left => return Err(unavailable(format!("it left at {}", member.since))),
        }
        let Some(address) = member.facts.grpc else {
            return Err(unavailable("it answers no other node".into()));
        };
        client::ask(self, (node, member.facts.generation, address), request).await
    }

    /// Answers in this process.
    pub async fn answer(&self, request: Request) -> Result<Bytes, CallError> {
        let handler = match request.shard {
            None => self.of_node.read().get(&request.service).cloned(),
            Some(shard) => {
                self.check_owner(&request, shard)?;
                self.of_shards.read().get(&request.service).cloned()
            }
        };
        let Some(handler) = handler else {
            return Err(CallError::Invalid(format!(
                "node {} has no service {:?}",
                self.node, request.service
            )));
        };
        let deadline = request.deadline;
        if deadline <= Instant::now() {
            return Err(CallError::Deadline { node: self.node });
        }
        tokio::time::timeout_at(deadline, handler.handle(request))
            .await
            .unwrap_or(Err(CallError::Deadline { node: self.node }))
    }

    fn check_owner(&self, request: &Request, shard: u32) -> Result<(), CallError> {
        let view = self.view();
        if let Some(shards) = view.shards(&request.service)
            && shard >= shards.shards
        {
            return Err(CallError::Invalid(format!(
                "{} has {} shards, and no shard {shard}",
                request.service, shards.shards
            )));
        }
        let owners = view.owners(&request.service, shard);
        let has_it = match request.is_read {
            true => owners.contains(&self.node),
            false => owners.first() == Some(&self.node),
        };
        match has_it {
            true => Ok(()),
            false => Err(CallError::NotOwner {
                node: self.node,
                service: request.service.clone(),
                shard,
                owner: owners.first().copied(),
            }),
        }
    }
}
