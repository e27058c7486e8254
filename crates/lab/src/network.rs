//! Every way from a node to a server and to another node, so that any of them can be cut, healed and slowed.
//!
//! A node reaches all servers at an address of its own, 127.0.1.*node*, where a [`Link`] listens on each server's port.
//! So nodes share the ports and differ in the address, and a server that tells of others by port alone (Redis Cluster
//! does, see `holon_testkit::RedisCluster`) tells each node the right thing.

use crate::{
    error::LabError,
    link::{Condition, Link},
    mesh::Mesh,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// The address at which a node reaches servers through links.
pub(crate) fn address_of(node: u16) -> IpAddr {
    let [_, low] = node.to_be_bytes();
    Ipv4Addr::new(127, 0, 1, low).into()
}

/// All links of a cluster.
pub(crate) struct Network {
    /// From a node to the server of a name.
    links: BTreeMap<(u16, String), Link>,
    mesh: Mesh,
    nodes: Vec<u16>,
}

impl Network {
    /// Opens a link from every node to every server (its name and port), and between nodes (number and port).
    pub async fn open(nodes: &[(u16, u16)], servers: &[(String, u16)]) -> Result<Self, LabError> {
        let mut links = BTreeMap::new();
        for (node, _) in nodes {
            for (name, port) in servers {
                let listen = SocketAddr::new(address_of(*node), *port);
                let link = Link::open(listen, *port)
                    .await
                    .map_err(|error| LabError::Network {
                        what: format!("cannot listen on {listen} for node {node}"),
                        error,
                    })?;
                links.insert((*node, name.clone()), link);
            }
        }
        let mesh = Mesh::open(nodes).await.map_err(|error| LabError::Network {
            what: "cannot listen between nodes".into(),
            error,
        })?;
        Ok(Self {
            links,
            mesh,
            nodes: nodes.iter().map(|(node, _)| *node).collect(),
        })
    }

    pub fn set_process(&self, node: u16, process: Option<u32>) {
        self.mesh.set_process(node, process);
    }

    pub fn set_to_server(&self, node: u16, server: &str, condition: Condition) {
        if let Some(link) = self.links.get(&(node, server.to_owned())) {
            link.set(condition);
        }
    }

    pub fn set_between(&self, one: u16, other: u16, condition: Condition) {
        self.mesh.set(one, other, condition);
    }

    /// What happens to everything that a node says and hears.
    pub fn set_around(&self, node: u16, condition: Condition) {
        for ((from, _), link) in &self.links {
            if *from == node {
                link.set(condition);
            }
        }
        for other in self.nodes.iter().filter(|other| **other != node) {
            self.mesh.set(node, *other, condition);
        }
    }

    /// What happens to everything that is said to a server.
    pub fn set_before(&self, server: &str, condition: Condition) {
        for ((_, to), link) in &self.links {
            if to == server {
                link.set(condition);
            }
        }
    }

    /// The conditions around a node.
    pub fn around(&self, node: u16) -> Vec<Condition> {
        let links = self.links.iter().filter(|((from, _), _)| *from == node);
        let others = self.nodes.iter().filter(|other| **other != node);
        links
            .map(|(_, link)| link.condition())
            .chain(others.map(|other| self.mesh.condition(node, *other)))
            .collect()
    }

    /// The conditions before a server.
    pub fn before(&self, server: &str) -> Vec<Condition> {
        let links = self.links.iter().filter(|((_, to), _)| to == server);
        links.map(|(_, link)| link.condition()).collect()
    }

    pub fn heal(&self) {
        for link in self.links.values() {
            link.set(Condition::default());
        }
        for one in &self.nodes {
            for other in &self.nodes {
                self.mesh.set(*one, *other, Condition::default());
            }
        }
    }
}
