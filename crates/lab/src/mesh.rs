//! What nodes say to each other, through a middle that can cut any two of them apart: gossip (UDP) and calls (TCP).
//!
//! Each node has two addresses with one port: where it listens, on 127.0.0.1, and where others reach it, which is a
//! socket of the mesh on 127.0.2.*node*. A datagram
//! that arrives at the outer socket of B from where A listens goes on to where B listens, *from the outer socket of A*;
//! so B's answers take the way back through the mesh, and neither ever learns of the other's inner address. Who opened
//! a TCP connection is not in its address, so the process is looked up that has the other end (`/proc/net/tcp` names
//! the socket, `/proc/*/fd` who has it).
//!
//! A cut loses datagrams, as networks do; connections are held as by a [`crate::link`].

use crate::link::{Condition, carry};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
};

const DATAGRAM: usize = 65_536;
/// Connections to one node at a time; others are turned away.
const CONNECTIONS: usize = 256;

/// Where other nodes reach a node.
pub(crate) fn outer_address(node: u16) -> IpAddr {
    let [_, low] = node.to_be_bytes();
    Ipv4Addr::new(127, 0, 2, low).into()
}

struct Member {
    inner: SocketAddr,
    outer: UdpSocket,
    /// Its process while it runs.
    process: Mutex<Option<u32>>,
}

/// The middle. It carries until it is dropped.
pub struct Mesh {
    shared: Arc<Shared>,
    _carrying: JoinSet<()>,
}

struct Shared {
    members: BTreeMap<u16, Member>,
    /// What happens between two nodes, the smaller number first.
    pairs: BTreeMap<(u16, u16), watch::Sender<Condition>>,
}

impl Mesh {
    /// Listens for nodes, each with its port.
    ///
    /// # Errors
    /// If it cannot listen at an outer address.
    pub async fn open(nodes: &[(u16, u16)]) -> io::Result<Self> {
        let mut members = BTreeMap::new();
        let mut listeners = Vec::new();
        for (node, port) in nodes {
            let outer = SocketAddr::new(outer_address(*node), *port);
            let member = Member {
                inner: SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
                outer: UdpSocket::bind(outer).await?,
                process: Mutex::new(None),
            };
            members.insert(*node, member);
            listeners.push((*node, TcpListener::bind(outer).await?));
        }
        let mut pairs = BTreeMap::new();
        for (one, _) in nodes {
            for (other, _) in nodes.iter().filter(|(other, _)| other > one) {
                pairs.insert((*one, *other), watch::channel(Condition::default()).0);
            }
        }
        let shared = Arc::new(Shared { members, pairs });
        let mut carrying = JoinSet::new();
        for (node, listener) in listeners {
            carrying.spawn(Arc::clone(&shared).datagrams(node));
            carrying.spawn(Arc::clone(&shared).connections(node, listener));
        }
        Ok(Self {
            shared,
            _carrying: carrying,
        })
    }

    /// Which process a node is.
    pub fn set_process(&self, node: u16, process: Option<u32>) {
        if let Some(member) = self.shared.members.get(&node) {
            *member.process.lock() = process;
        }
    }

    pub fn set(&self, one: u16, other: u16, condition: Condition) {
        if let Some(pair) = self.shared.pair(one, other) {
            pair.send_replace(condition);
        }
    }

    pub fn condition(&self, one: u16, other: u16) -> Condition {
        let pair = self.shared.pair(one, other);
        pair.map_or_else(Condition::default, |pair| *pair.borrow())
    }
}

impl Shared {
    fn pair(&self, one: u16, other: u16) -> Option<&watch::Sender<Condition>> {
        self.pairs.get(&(one.min(other), one.max(other)))
    }

    /// Carries what others send to a node.
    async fn datagrams(self: Arc<Self>, to: u16) {
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let Ok((length, source)) = self.members[&to].outer.recv_from(&mut datagram).await else {
                // An earlier datagram found nobody; the socket is as good as before.
                continue;
            };
            let sender = self.members.iter().find(|(_, member)| member.inner == source);
            let Some((from, _)) = sender else { continue };
            let Some(pair) = self.pair(*from, to) else {
                continue;
            };
            let Condition { is_cut, delay } = *pair.borrow();
            if is_cut {
                continue;
            }
            if delay.is_zero() {
                self.pass(*from, to, &datagram[..length]).await;
            } else {
                let (shared, from, late) = (Arc::clone(&self), *from, datagram[..length].to_vec());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    shared.pass(from, to, &late).await;
                });
            }
        }
    }

    async fn pass(&self, from: u16, to: u16, datagram: &[u8]) {
        // Lost if nobody is there, as datagrams are.
        let _ = self.members[&from]
            .outer
            .send_to(datagram, self.members[&to].inner)
            .await;
    }

    /// Carries connections that others open to a node.
    async fn connections(self: Arc<Self>, to: u16, listener: TcpListener) {
        let inner = self.members[&to].inner.port();
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok((client, source)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            if connections.len() >= CONNECTIONS {
                continue;
            }
            let shared = Arc::clone(&self);
            connections.spawn(async move {
                let from = shared.who_has(source.port()).await;
                // Somebody who is no other node, such as a person with a client, is never cut off.
                let (_stranger, mut conditions) = watch::channel(Condition::default());
                if let Some(pair) = from.and_then(|from| shared.pair(from, to)) {
                    conditions = pair.subscribe();
                }
                let _ = carry(client, inner, conditions).await;
            });
        }
    }

    /// The node whose process has a TCP port of this machine.
    async fn who_has(&self, port: u16) -> Option<u16> {
        let processes: Vec<(u16, u32)> = self
            .members
            .iter()
            .filter_map(|(node, member)| Some((*node, (*member.process.lock())?)))
            .collect();
        let find = move || {
            let socket = format!("socket:[{}]", socket_of(port)?);
            let owner = processes.iter().find(|(_, process)| has_open(*process, &socket));
            owner.map(|(node, _)| *node)
        };
        tokio::task::spawn_blocking(find).await.ok()?
    }
}

/// The number of the socket that is connected from a port of 127.0.0.1.
fn socket_of(port: u16) -> Option<String> {
    const LOCAL: usize = 1;
    const INODE: usize = 9;
    let local = format!("0100007F:{port:04X}");
    let sockets = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let line = sockets
        .lines()
        .find(|line| line.split_whitespace().nth(LOCAL) == Some(&local))?;
    line.split_whitespace().nth(INODE).map(str::to_owned)
}

fn has_open(process: u32, file: &str) -> bool {
    let files = std::fs::read_dir(format!("/proc/{process}/fd"));
    files
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|target| target.as_os_str() == file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const CUT: Condition = Condition {
        is_cut: true,
        delay: Duration::ZERO,
    };

    async fn hears(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
        let mut datagram = [0; 64];
        let heard = tokio::time::timeout(Duration::from_millis(300), socket.recv_from(&mut datagram)).await;
        let (length, from) = heard.ok()?.unwrap();
        Some((datagram[..length].to_vec(), from))
    }

    #[tokio::test]
    async fn nodes_reach_each_other_at_outer_addresses_alone_and_can_be_cut_apart() {
        let one = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = other.local_addr().unwrap().port();
        let other_gossip = UdpSocket::bind(("127.0.0.1", port)).await.unwrap();
        let mesh = Mesh::open(&[(201, one.local_addr().unwrap().port()), (202, port)])
            .await
            .unwrap();
        let outer = SocketAddr::new(outer_address(202), port);

        one.send_to(b"hello", outer).await.unwrap();
        let (said, from) = hears(&other_gossip).await.unwrap();
        assert_eq!(
            (said.as_slice(), from.ip()),
            (b"hello".as_slice(), outer_address(201))
        );
        other_gossip.send_to(b"hello to you", from).await.unwrap();
        let (said, from) = hears(&one).await.unwrap();
        assert_eq!((said.as_slice(), from), (b"hello to you".as_slice(), outer));

        // This process has the other end of the connection, so it is node 201's.
        mesh.set_process(201, Some(std::process::id()));
        let mut client = tokio::net::TcpStream::connect(outer).await.unwrap();
        client.write_all(b"a").await.unwrap();
        let (mut server, _) = other.accept().await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'a');

        mesh.set(202, 201, CUT);
        one.send_to(b"anybody?", outer).await.unwrap();
        assert_eq!(hears(&other_gossip).await, None);
        client.write_all(b"b").await.unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(300), server.read_u8()).await;
        assert!(silent.is_err(), "it passed through a cut");
        mesh.set(201, 202, Condition::default());
        assert_eq!(server.read_u8().await.unwrap(), b'b');
        assert_eq!(
            hears(&other_gossip).await,
            None,
            "a datagram that was cut is lost"
        );
    }
}
