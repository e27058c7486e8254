//! A link: a connection from one node to one server, which can be cut, healed and slowed.
//!
//! Each link listens at an address of its own and carries bytes to its server and back. A cut link is a *black hole*,
//! as a network that lost its packets: connections stay open, nothing passes in either direction, the end of one side
//! is not told to the other, and new connections are taken but answered by nobody. When it is healed, what was held up
//! arrives, as after TCP's own retransmission; nothing is lost or reordered. Connections are never reset by a link
//! while it is cut; a server that refuses is a connection that ends at once.
//!
//! A slow link delivers what goes to the server later by its delay, and in order, so that each question takes so much
//! longer however many are on the way.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

/// How much is taken from a connection at a time, and how many such pieces a slow link holds before it takes no more.
const PIECE: usize = 32 * 1024;
const PIECES_HELD: usize = 1_024;
/// Connections of one link at a time; more wait to be taken.
const CONNECTIONS: usize = 1_024;

/// What a link does to what passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Condition {
    pub is_cut: bool,
    /// How much later than sent it arrives at the server.
    pub delay: Duration,
}

/// A link that carries until it is dropped.
pub struct Link {
    condition: watch::Sender<Condition>,
    _carrying: AbortOnDropHandle<()>,
}

impl Link {
    /// Listens at an address and carries what comes to the server at a port of this machine.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub async fn open(listen: SocketAddr, server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let (condition, conditions) = watch::channel(Condition::default());
        let carrying = tokio::spawn(carry_all(listener, server, conditions));
        Ok(Self {
            condition,
            _carrying: AbortOnDropHandle::new(carrying),
        })
    }

    pub fn condition(&self) -> Condition {
        *self.condition.borrow()
    }

    pub fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }
}

async fn carry_all(listener: TcpListener, server: u16, conditions: watch::Receiver<Condition>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((client, _)) => {
                let conditions = conditions.clone();
                connections.spawn(async move {
                    // What either side did to the other is all there is to say about it.
                    let _ = carry(client, server, conditions).await;
                });
            }
            // Too many open files: it passes, or nothing else works either.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Carries one connection until both sides have ended it.
pub(crate) async fn carry(
    client: TcpStream,
    server: u16,
    mut conditions: watch::Receiver<Condition>,
) -> io::Result<()> {
    open(&mut conditions).await?;
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pump(from_client, to_server, conditions.clone(), |condition| {
        condition.delay
    });
    let back = pump(from_server, to_client, conditions, |_| Duration::ZERO);
    tokio::try_join!(there, back)?;
    Ok(())
}

/// Waits until the link is not cut.
async fn open(conditions: &mut watch::Receiver<Condition>) -> io::Result<()> {
    match conditions.wait_for(|condition| !condition.is_cut).await {
        Ok(_) => Ok(()),
        Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut conditions: watch::Receiver<Condition>,
    delay: impl Fn(&Condition) -> Duration,
) -> io::Result<()> {
    let mut on_the_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut piece = vec![0; PIECE];
    let mut has_ended = false;
    loop {
        open(&mut conditions).await?;
        let due = on_the_way.front().map(|(due, _)| *due);
        if has_ended && due.is_none() {
            return to.shutdown().await;
        }
        tokio::select! {
            biased;
            // The loop goes on with the new condition.
            changed = conditions.changed() => changed.map_err(|_| io::ErrorKind::ConnectionAborted)?,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some((_, bytes)) = on_the_way.pop_front() {
                    to.write_all(&bytes).await?;
                }
            }
            read = from.read(&mut piece), if !has_ended && on_the_way.len() < PIECES_HELD => {
                let length = read?;
                has_ended = length == 0;
                open(&mut conditions).await?;
                let delay = delay(&conditions.borrow());
                if delay.is_zero() && on_the_way.is_empty() {
                    to.write_all(&piece[..length]).await?;
                } else if length > 0 {
                    let due = (Instant::now() + delay).max(due.unwrap_or_else(Instant::now));
                    on_the_way.push_back((due, piece[..length].to_vec()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a link leads to here: it says back what it hears.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = connection.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        port
    }

    async fn link() -> (Link, TcpStream) {
        let server = echo().await;
        let near = TcpListener::bind("127.0.1.7:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let link = Link::open(near, server).await.unwrap();
        let client = TcpStream::connect(near).await.unwrap();
        (link, client)
    }

    async fn hears(client: &mut TcpStream, wanted: &[u8]) -> bool {
        let mut heard = vec![0; wanted.len()];
        let heard_all = tokio::time::timeout(Duration::from_millis(300), client.read_exact(&mut heard)).await;
        matches!(heard_all, Ok(Ok(_))) && heard == wanted
    }

    #[tokio::test]
    async fn a_cut_is_silence_and_what_it_held_up_arrives_when_it_is_healed() {
        let (link, mut client) = link().await;
        client.write_all(b"one").await.unwrap();
        assert!(hears(&mut client, b"one").await);

        link.set(Condition {
            is_cut: true,
            delay: Duration::ZERO,
        });
        client.write_all(b"two").await.unwrap();
        assert!(!hears(&mut client, b"two").await, "it passed through a cut");
        // A new connection is not refused, and gets no answer.
        let mut other = TcpStream::connect(client.peer_addr().unwrap()).await.unwrap();
        other.write_all(b"hello").await.unwrap();
        assert!(!hears(&mut other, b"hello").await, "a cut let a connection in");

        link.set(Condition::default());
        assert!(hears(&mut client, b"two").await, "it was lost");
        assert!(hears(&mut other, b"hello").await, "it was lost");
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "its end is told");
    }

    #[tokio::test]
    async fn a_slow_link_delays_each_question_and_keeps_their_order() {
        let (link, mut client) = link().await;
        let delay = Duration::from_millis(120);
        link.set(Condition { is_cut: false, delay });
        let began = Instant::now();
        for word in [b"one ", b"two ", b"six "] {
            client.write_all(word).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut heard = [0; 12];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"one two six ");
        assert!(began.elapsed() >= delay, "{:?}", began.elapsed());
    }
}
