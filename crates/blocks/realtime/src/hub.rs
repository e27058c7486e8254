//! The connections of this node by room, and the way from the bus to them.

use crate::{
    End, HubOptions, Outgoing, RealtimeError,
    frame::{self, Frame},
    queue::Queue,
};
use bytes::Bytes;
use holon_base::{ErrorKind, Id, Tenant};
use holon_ports::{Bus, BusError, Message, Subscription};
use holon_web::{ApiError, Caller, CallerKind};
use parking_lot::{Mutex, RwLock};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::AbortHandle};

const DELIVER: &str = "realtime.deliver";
const END: &str = "realtime.end";
const ALL: &str = "realtime.>";
/// The longest name of a room, in bytes.
const ROOM_BYTES: usize = 256;
/// Rooms named in one message on the bus: with the longest names they take half of what a message may hold.
const ROOMS_PER_MESSAGE: usize = 2_000;
const SHARDS: usize = 64;

/// How somebody listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    Events,
    LongPoll,
    /// Code of this process.
    Internal,
}

/// Somebody who listens to a room.
#[derive(Debug)]
pub struct Connection {
    number: u64,
    room: Arc<str>,
    transport: Transport,
    caller: Option<Caller>,
    opened: Instant,
    queue: Queue,
}

impl Connection {
    pub fn room(&self) -> &str {
        &self.room
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    pub fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    fn is_of(&self, ended: &SessionsEnded) -> bool {
        let Some(caller) = &self.caller else { return false };
        if caller.tenant != ended.tenant || caller.account != ended.account {
            return false;
        }
        match (ended.session, caller.kind) {
            (None, _) => true,
            (
                Some(session),
                CallerKind::Session { session: own } | CallerKind::Minted { session: own, .. },
            ) => session == own,
            (Some(_), _) => false,
        }
    }
}

/// Crosses the bus when sessions end.
#[derive(Debug, Serialize, Deserialize)]
struct SessionsEnded {
    tenant: Tenant,
    account: Id,
    session: Option<Id>,
}

/// What a hub has done and is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HubStats {
    pub rooms: usize,
    pub websockets: usize,
    pub event_streams: usize,
    pub long_polls: usize,
    /// Publications that this node sent.
    pub published: u64,
    /// Messages put into queues of connections.
    pub delivered: u64,
    /// Connections ended because they read too slowly.
    pub slow: u64,
    /// Times that the bus lost messages and all connections were told to resume.
    pub resyncs: u64,
    pub draining: bool,
}

#[derive(Debug, Default)]
struct Counts {
    numbers: AtomicU64,
    published: AtomicU64,
    delivered: AtomicU64,
    slow: AtomicU64,
    resyncs: AtomicU64,
}

type Rooms = HashMap<Arc<str>, Vec<Arc<Connection>>>;
type CallerKey = (Tenant, Id);

/// The rooms of this node. See the crate.
pub struct Hub {
    bus: Arc<dyn Bus>,
    pub(crate) options: HubOptions,
    shards: Vec<RwLock<Rooms>>,
    /// How many connections there are; watched by [`Hub::drain`].
    connections: watch::Sender<usize>,
    open: AtomicUsize,
    per_caller: Mutex<HashMap<CallerKey, usize>>,
    draining: AtomicBool,
    /// Whether the bus brings messages.
    listening: watch::Sender<bool>,
    counts: Counts,
    task: Mutex<Option<AbortHandle>>,
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Hub {
    /// Starts listening to the bus. Must be called within a tokio runtime; ends when the last reference goes.
    pub fn start(bus: Arc<dyn Bus>, options: HubOptions) -> Arc<Self> {
        let hub = Arc::new(Self {
            bus,
            options,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            connections: watch::Sender::new(0),
            open: AtomicUsize::new(0),
            per_caller: Mutex::default(),
            draining: AtomicBool::new(false),
            listening: watch::Sender::new(false),
            counts: Counts::default(),
            task: Mutex::new(None),
        });
        let task = tokio::spawn(receive(Arc::downgrade(&hub), Arc::clone(&hub.bus)));
        *hub.task.lock() = Some(task.abort_handle());
        hub
    }

    /// Waits until the bus brings messages. [`Hub::serve`] and [`Hub::long_poll`] do so by themselves; whoever calls
    /// [`Hub::listen`] and then reads rows does it in between.
    pub async fn ready(&self) {
        // The sender lives as long as the hub.
        let _ = self.listening.subscribe().wait_for(|listening| *listening).await;
    }

    /// Tells a room on all nodes. At most once: whoever is not there now reads it from the rows later.
    ///
    /// # Errors
    /// [`RealtimeError::Invalid`] for a message or room that is none; [`RealtimeError::Bus`] if it cannot be sent.
    pub async fn publish(&self, room: &str, outgoing: Outgoing) -> Result<(), RealtimeError> {
        self.publish_many(&[room], outgoing).await
    }

    /// Tells many rooms the same: one message on the bus for 2,000 of them.
    ///
    /// # Errors
    /// As [`Hub::publish`]; some of the rooms may have been told.
    pub async fn publish_many(&self, rooms: &[&str], outgoing: Outgoing) -> Result<(), RealtimeError> {
        if rooms
            .iter()
            .any(|room| room.is_empty() || room.len() > ROOM_BYTES)
        {
            return Err(RealtimeError::Invalid("a room's name is 1 to 256 bytes"));
        }
        Frame::from_outgoing(&outgoing)?;
        for some in rooms.chunks(ROOMS_PER_MESSAGE) {
            let payload = frame::encode(some, &outgoing);
            self.bus.publish(DELIVER, payload).await?;
            self.counts.published.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Whether somebody on this node listens to a room. On one node this spares publishing to empty rooms; on several
    /// it says nothing of the others.
    pub fn is_occupied(&self, room: &str) -> bool {
        self.shard(room).read().contains_key(room)
    }

    /// How many rooms of this node have somebody in them.
    pub fn occupied_rooms(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// The rooms of this node that have somebody in them.
    pub fn rooms(&self) -> Vec<Arc<str>> {
        self.shards
            .iter()
            .flat_map(|shard| shard.read().keys().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Listens from code of this process, without limits on callers.
    pub fn listen(self: &Arc<Self>, room: &str) -> Listener {
        self.enter(room, Transport::Internal, None)
    }

    /// Puts somebody into a room. The decision whether they may be there comes before.
    ///
    /// # Errors
    /// 503 while draining or when the node is full; 429 when the caller has too many connections.
    pub fn join(
        self: &Arc<Self>,
        room: &str,
        transport: Transport,
        caller: Option<&Caller>,
    ) -> Result<Listener, ApiError> {
        let full = |detail| {
            ApiError::new(ErrorKind::Unavailable, "unavailable", detail).retry_after(self.retry_after())
        };
        if self.draining.load(Relaxed) {
            return Err(full("this node is going away; connect again"));
        }
        if self.open.load(Relaxed) >= self.options.connections {
            return Err(full(
                "this node has all the connections that it can hold; try again",
            ));
        }
        if let Some(caller) = caller {
            let mut per_caller = self.per_caller.lock();
            let count = per_caller
                .entry((caller.tenant.clone(), caller.account))
                .or_default();
            if *count >= self.options.connections_per_caller {
                return Err(ApiError::new(
                    ErrorKind::RateLimited,
                    "too-many-connections",
                    format!("{count} live connections are open already; close one"),
                )
                .retry_after(self.options.heartbeat));
            }
            *count += 1;
        }
        Ok(self.enter(room, transport, caller.cloned()))
    }

    fn enter(self: &Arc<Self>, room: &str, transport: Transport, caller: Option<Caller>) -> Listener {
        let room: Arc<str> = room.into();
        let connection = Arc::new(Connection {
            number: self.counts.numbers.fetch_add(1, Relaxed),
            room: Arc::clone(&room),
            transport,
            caller,
            opened: Instant::now(),
            queue: Queue::new(self.options.queue_length),
        });
        self.open.fetch_add(1, Relaxed);
        self.connections.send_modify(|count| *count += 1);
        let mut rooms = self.shard(&room).write();
        rooms.entry(room).or_default().push(Arc::clone(&connection));
        drop(rooms);
        // Draining may have begun since it was asked for; then it passed by the room before this was in it.
        if self.draining.load(Relaxed) {
            connection.queue.end(End::Draining);
        }
        Listener {
            hub: Arc::clone(self),
            connection,
        }
    }

    fn leave(&self, connection: &Connection) {
        let mut rooms = self.shard(&connection.room).write();
        if let Some(members) = rooms.get_mut(&connection.room) {
            members.retain(|member| member.number != connection.number);
            if members.is_empty() {
                rooms.remove(&connection.room);
            }
        }
        drop(rooms);
        if let Some(caller) = &connection.caller {
            let key = (caller.tenant.clone(), caller.account);
            let mut per_caller = self.per_caller.lock();
            if let Some(count) = per_caller.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    per_caller.remove(&key);
                }
            }
        }
        self.open.fetch_sub(1, Relaxed);
        self.connections.send_modify(|count| *count -= 1);
    }

    fn shard(&self, room: &str) -> &RwLock<Rooms> {
        let mut hasher = DefaultHasher::new();
        room.hash(&mut hasher);
        &self.shards[hasher.finish() as usize % SHARDS]
    }

    fn deliver(&self, rooms: &[&str], frame: &Arc<Frame>) {
        let (mut delivered, mut slow) = (0, 0);
        for room in rooms {
            let members = self.shard(room).read();
            for connection in members.get(*room).into_iter().flatten() {
                if connection.queue.push(frame) {
                    slow += 1;
                } else {
                    delivered += 1;
                }
            }
        }
        self.counts.delivered.fetch_add(delivered, Relaxed);
        self.counts.slow.fetch_add(slow, Relaxed);
    }

    /// Ends connections of this node; answers how many.
    pub fn close_where(&self, end: End, of: impl Fn(&Connection) -> bool) -> usize {
        let mut closed = 0;
        for shard in &self.shards {
            let rooms = shard.read();
            for connection in rooms.values().flatten().filter(|connection| of(connection)) {
                connection.queue.end(end);
                closed += 1;
            }
        }
        closed
    }

    /// Ends the connections of one session of an account, or of all its sessions and keys, on all nodes.
    ///
    /// # Errors
    /// [`RealtimeError::Bus`] if the other nodes cannot be told; those of this node are closed then.
    pub async fn end_sessions(
        &self,
        tenant: &Tenant,
        account: Id,
        session: Option<Id>,
    ) -> Result<(), RealtimeError> {
        let ended = SessionsEnded {
            tenant: tenant.clone(),
            account,
            session,
        };
        self.close_where(End::SignedOut, |connection| connection.is_of(&ended));
        let payload =
            serde_json::to_vec(&ended).map_err(|_| RealtimeError::Invalid("a session is not JSON"))?;
        self.bus.publish(END, payload.into()).await?;
        Ok(())
    }

    /// Says `bye` to everybody and lets nobody in any more. Returns when all have left or
    /// [`HubOptions::drain_timeout`] is over; answers how many are still there.
    pub async fn drain(&self) -> usize {
        self.draining.store(true, Relaxed);
        self.close_where(End::Draining, |_| true);
        let mut connections = self.connections.subscribe();
        let left = connections.wait_for(|count| *count == 0);
        match tokio::time::timeout(self.options.drain_timeout, left).await {
            Ok(_) => 0,
            Err(_) => *self.connections.borrow(),
        }
    }

    /// When to come back: at random within [`HubOptions::retry_after`].
    pub(crate) fn retry_after(&self) -> Duration {
        let range = &self.options.retry_after;
        if range.is_empty() {
            return range.start;
        }
        let (from, to) = (range.start.as_millis() as u64, range.end.as_millis() as u64);
        Duration::from_millis(rand::rng().random_range(from..to.max(from + 1)))
    }

    /// The last words to a connection, as JSON.
    pub(crate) fn bye(&self, end: End, since: Option<&str>) -> Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Bye<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            since: Option<&'a str>,
            reason: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after_ms: Option<u64>,
        }
        let bye = Bye {
            kind: "bye",
            since,
            reason: end.reason(),
            retry_after_ms: end.may_return().then(|| self.retry_after().as_millis() as u64),
        };
        serde_json::to_vec(&bye).unwrap_or_default().into()
    }

    pub fn stats(&self) -> HubStats {
        let mut stats = HubStats {
            published: self.counts.published.load(Relaxed),
            delivered: self.counts.delivered.load(Relaxed),
            slow: self.counts.slow.load(Relaxed),
            resyncs: self.counts.resyncs.load(Relaxed),
            draining: self.draining.load(Relaxed),
            ..HubStats::default()
        };
        for shard in &self.shards {
            let rooms = shard.read();
            stats.rooms += rooms.len();
            for connection in rooms.values().flatten() {
                match connection.transport {
                    Transport::WebSocket => stats.websockets += 1,
                    Transport::Events => stats.event_streams += 1,
                    Transport::LongPoll => stats.long_polls += 1,
                    Transport::Internal => {}
                }
            }
        }
        stats
    }

    fn take(&self, message: &Message) {
        match message.subject.as_str() {
            DELIVER => match frame::decode(&message.payload) {
                Some((rooms, frame)) => self.deliver(&rooms, &Arc::new(frame)),
                None => tracing::warn!("a publication on the bus is not one"),
            },
            END => match serde_json::from_slice::<SessionsEnded>(&message.payload) {
                Ok(ended) => {
                    self.close_where(End::SignedOut, |connection| connection.is_of(&ended));
                }
                Err(error) => tracing::warn!(%error, "an end of sessions on the bus is not one"),
            },
            _ => {}
        }
    }

    /// Something was lost: all resume from their rows.
    fn resync(&self) {
        let closed = self.close_where(End::Resync, |connection| {
            connection.transport != Transport::Internal
        });
        self.counts.resyncs.fetch_add(1, Relaxed);
        tracing::warn!(connections = closed, "the bus lost messages; connections resume");
    }
}

/// Takes messages off the bus for as long as the hub lives.
async fn receive(hub: Weak<Hub>, bus: Arc<dyn Bus>) {
    let mut was_listening = false;
    loop {
        let subscribed = bus.subscribe(ALL).await;
        let Some(alive) = hub.upgrade() else { return };
        match subscribed {
            Ok(mut subscription) => {
                if was_listening {
                    alive.resync();
                }
                was_listening = true;
                alive.listening.send_replace(true);
                drop(alive);
                receive_from(&hub, &mut *subscription).await;
                let Some(alive) = hub.upgrade() else { return };
                alive.listening.send_replace(false);
            }
            // Closed for good: the process is ending.
            Err(BusError::Closed) => return,
            Err(error) => tracing::warn!(%error, "cannot listen to the bus, will try again"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn receive_from(hub: &Weak<Hub>, subscription: &mut dyn Subscription) {
    loop {
        let received = subscription.next().await;
        let Some(hub) = hub.upgrade() else { return };
        match received {
            Ok(message) => hub.take(&message),
            Err(BusError::Lagged(_)) => hub.resync(),
            // In one process the bus closes with the process.
            Err(BusError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "lost the bus");
                return;
            }
        }
    }
}

/// Somebody's place in a room; dropping it leaves.
pub struct Listener {
    hub: Arc<Hub>,
    connection: Arc<Connection>,
}

impl Listener {
    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// The reason why no more will come.
    pub async fn next(&mut self) -> Result<Arc<Frame>, End> {
        self.connection.queue.next().await
    }

    /// The next message, if one waits already.
    pub fn try_next(&mut self) -> Option<Arc<Frame>> {
        self.connection.queue.try_next()
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.hub.leave(&self.connection);
    }
}
