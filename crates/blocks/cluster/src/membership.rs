//! Who is there: gossip, and a failure detector that says how sure it is.
//!
//! Nodes tell each other what they know over UDP: every so often each picks a few others, and each of two sends the other
//! what that one has not heard yet (van Renesse et al., "Efficient Reconciliation and Flow Control for Anti-Entropy
//! Protocols", 2008; the crate `chitchat` implements it). What spreads is each node's [`NodeFacts`] and a heartbeat that it
//! counts up, so news of a node arrives by others too, and one broken link between two nodes is no failure.
//!
//! A node is judged by its silence (Hayashibara et al., "The φ Accrual Failure Detector", 2004): φ is how long nothing was
//! heard of it over how long that usually takes, a mean over the last [`WINDOW`] times. Above [`PHI_SUSPECT`] a node is
//! suspect, which changes nothing but what administrators see; above [`PHI_DEAD`] it is dead. With many nodes a heartbeat
//! arrives many times in an interval, and the mean would become so small that a node which merely has no processor for a
//! second were dead. The detector's prior keeps the mean up: it counts as [`PRIOR_WEIGHT`] times of a set length among the
//! last, so that with the default timing no silence shorter than some 3 s is a death, and none longer than 8 s is missed.
//!
//! Facts carry a code under the deployment's secret, so nobody else can make a node up or have calls sent elsewhere.
//! Heartbeats carry none: whoever can send packets to the gossip port can keep a dead node from being noticed.

use crate::{
    facts::NodeFacts,
    secret::Key,
    view::{Liveness, Member, View},
};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion, spawn_chitchat,
    transport::UdpTransport,
};
use holon_base::{Clock, Timestamp};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

/// Above it a node is dead.
pub const PHI_DEAD: f64 = 8.0;
/// Above it a node is suspect.
pub const PHI_SUSPECT: f64 = 4.0;
/// How many times between heartbeats are remembered.
const WINDOW: usize = 20;
/// How many times of the prior's length count beside them; chitchat's own constant.
pub const PRIOR_WEIGHT: f64 = 5.0;
/// How long a node that is dead or has left is still listed.
const FORGOTTEN: Duration = Duration::from_secs(3_600);
/// The key under which facts are told.
const FACTS: &str = "facts";

/// How fast nodes talk, and how patient they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often a node gossips.
    pub interval: Duration,
    /// The length of the detector's prior.
    pub prior: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            prior: Duration::from_secs(2),
        }
    }
}

/// What a membership is begun with.
pub(crate) struct Options {
    pub facts: NodeFacts,
    pub key: Key,
    pub listen: SocketAddr,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Nodes to begin with, each `host:port`.
    pub seeds: Vec<String>,
    pub timing: Timing,
    pub clock: Arc<dyn Clock>,
}

/// This node's part in the gossip. Ends when it is dropped.
pub(crate) struct Membership {
    gossip: Arc<ChitchatHandle>,
    key: Key,
    timing: Timing,
    views: watch::Receiver<Arc<View>>,
    watcher: JoinHandle<()>,
}

impl Membership {
    pub async fn begin(options: Options) -> Result<Self, String> {
        let Options { facts, key, .. } = &options;
        let id = ChitchatId::new(facts.node.to_string(), facts.generation, options.advertise);
        let config = ChitchatConfig {
            chitchat_id: id.clone(),
            // Two deployments on one network do not mix.
            cluster_id: format!("holon-{}", &key.code("deployment", &[])[..16]),
            gossip_interval: options.timing.interval,
            listen_addr: options.listen,
            seed_nodes: options.seeds.clone(),
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: PHI_DEAD,
                sampling_window_size: WINDOW,
                max_interval: options.timing.prior * 5,
                initial_interval: options.timing.prior,
                dead_node_grace_period: FORGOTTEN,
            },
            marked_for_deletion_grace_period: FORGOTTEN,
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        };
        let told = vec![(FACTS.to_owned(), facts.seal(key))];
        let gossip = spawn_chitchat(config, told, &UdpTransport)
            .await
            .map_err(|error| format!("{error:#}"))?;
        let gossip = Arc::new(gossip);
        let mut observer = Observer::new(id, &options);
        let first = observer.look(&gossip).await;
        let (changed, views) = watch::channel(Arc::new(first));
        let watcher = tokio::spawn({
            let gossip = Arc::clone(&gossip);
            async move {
                let ended = gossip.termination_watcher();
                tokio::spawn(async move {
                    if let Err(error) = ended.await {
                        tracing::error!(%error, "gossip has ended; this node hears of no other any more");
                    }
                });
                loop {
                    tokio::time::sleep(observer.timing.interval / 2).await;
                    let view = Arc::new(observer.look(&gossip).await);
                    changed.send_if_modified(|last| {
                        let is_news = !last.is_like(&view);
                        *last = view;
                        is_news
                    });
                }
            }
        });
        Ok(Self {
            gossip,
            key: options.key,
            timing: options.timing,
            views,
            watcher,
        })
    }

    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    /// Tells others something new of this node.
    pub async fn tell(&self, facts: &NodeFacts) {
        let sealed = facts.seal(&self.key);
        let tell = |chitchat: &mut chitchat::Chitchat| chitchat.self_node_state().set(FACTS, &sealed);
        self.gossip.with_chitchat(tell).await;
    }

    /// Tells others that this node ends, and ends.
    pub async fn leave(&self, facts: &NodeFacts) {
        self.tell(facts).await;
        // Each round reaches three nodes, and those tell others; whoever is not reached finds out by the silence.
        tokio::time::sleep(self.timing.interval * 2).await;
        self.end();
    }

    pub fn end(&self) {
        self.watcher.abort();
        // It may have ended.
        let _ = self.gossip.initiate_shutdown();
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.end();
    }
}

/// What is remembered of a node from one look to the next.
struct Track {
    heartbeat: chitchat::Heartbeat,
    heard: Instant,
    /// The usual time between heartbeats, as of when there was one.
    usual: Option<Duration>,
    liveness: Option<Liveness>,
    since: Timestamp,
    first_seen: Instant,
}

/// Makes views of what gossip knows.
struct Observer {
    own: ChitchatId,
    key: Key,
    timing: Timing,
    clock: Arc<dyn Clock>,
    tracks: BTreeMap<ChitchatId, Track>,
}

impl Observer {
    fn new(own: ChitchatId, options: &Options) -> Self {
        Self {
            own,
            key: options.key.clone(),
            timing: options.timing,
            clock: Arc::clone(&options.clock),
            tracks: BTreeMap::new(),
        }
    }

    async fn look(&mut self, gossip: &ChitchatHandle) -> View {
        let chitchat = gossip.chitchat();
        let chitchat = chitchat.lock().await;
        let now = self.clock.now();
        self.tracks
            .retain(|id, _| chitchat.node_states().contains_key(id));
        let mut view = View::default();
        for (id, state) in chitchat.node_states() {
            let Some(facts) = state
                .get(FACTS)
                .and_then(|sealed| NodeFacts::open(&self.key, sealed))
            else {
                continue;
            };
            // Its address is the one under the code, whatever address gossips.
            if id.node_id.parse() != Ok(facts.node) || id.generation_id != facts.generation {
                continue;
            }
            let is_live = chitchat.live_nodes().any(|live| live == id);
            let timeout = chitchat.failure_detection_timeout(id);
            let track = self.tracks.entry(id.clone()).or_insert_with(|| Track {
                heartbeat: state.heartbeat(),
                heard: Instant::now(),
                usual: None,
                liveness: None,
                since: now,
                first_seen: Instant::now(),
            });
            track.hear(state.heartbeat(), timeout);
            let phi = if *id == self.own { 0.0 } else { track.phi() };
            let liveness = match () {
                () if facts.leaving => Liveness::Left,
                () if is_live && phi > PHI_SUSPECT => Liveness::Suspect,
                () if is_live => Liveness::Alive,
                // Its heartbeats are still too few to judge by.
                () if track.liveness.is_none() && track.first_seen.elapsed() < self.timing.prior * 4 => {
                    continue;
                }
                () => Liveness::Dead,
            };
            if track.liveness != Some(liveness) {
                track.liveness = Some(liveness);
                track.since = now;
            }
            let member = Member {
                liveness,
                since: track.since,
                phi,
                facts,
            };
            let known = view.members.get(&member.facts.node);
            if known.is_none_or(|known| known.facts.generation < member.facts.generation) {
                view.members.insert(member.facts.node, member);
            }
        }
        view
    }
}

impl Track {
    fn hear(&mut self, heartbeat: chitchat::Heartbeat, timeout: Option<Duration>) {
        if self.heartbeat != heartbeat {
            self.heartbeat = heartbeat;
            self.heard = Instant::now();
        }
        if let Some(timeout) = timeout {
            self.usual = Some(timeout.div_f64(PHI_DEAD));
        }
    }

    fn phi(&self) -> f64 {
        let usual = self.usual.unwrap_or_default().as_secs_f64();
        match usual > 0.0 {
            true => self.heard.elapsed().as_secs_f64() / usual,
            false => 0.0,
        }
    }
}
