//! Peers and we tell each other where our nodes of the DHT are (PORT, BEP 5).
//!
//! Invariant: where the DHT is off, and of a private image (BEP 27), nothing is told or heard. A peer is told a port only if
//! its handshake says that it takes this, and once; what it says leads to an address of its own host, once a minute at most.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Engine, Output, Remote};
use crate::clock::Time;
use crate::dht::NodePorts;
use crate::picker::PeerKey;
use crate::swarm::wire::WireMessage;

/// A peer that says more often where its node is, is not heard.
const PAUSE: Duration = Duration::from_secs(60);

/// What is said of nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    enabled: bool,
    /// Our own.
    ports: NodePorts,
    peers: BTreeMap<PeerKey, Talk>,
}

/// What was said between a peer and us.
#[derive(Debug, Default)]
struct Talk {
    /// It takes the message.
    takes: bool,
    told: Option<u16>,
    heard: Option<Time>,
}

impl Nodes {
    pub(super) fn add(&mut self, key: PeerKey, takes: bool) {
        if self.enabled {
            let talk = Talk {
                takes,
                ..Talk::default()
            };
            self.peers.insert(key, talk);
        }
    }

    pub(super) fn remove(&mut self, key: PeerKey) {
        self.peers.remove(&key);
    }

    /// What a peer is to be told: it takes it, and was not told yet.
    fn news(&mut self, key: PeerKey, remote: SocketAddr) -> Option<u16> {
        let talk = self.peers.get_mut(&key)?;
        let port = self.ports.beside(remote)?;
        if !talk.takes || talk.told.replace(port) == Some(port) {
            return None;
        }
        Some(port)
    }

    /// Whether a peer is heard now.
    fn hears(&mut self, now: Time, key: PeerKey) -> bool {
        let Some(talk) = self.peers.get_mut(&key) else {
            return false;
        };
        let hears = talk.heard.is_none_or(|at| now.since(at) >= PAUSE);
        if hears {
            talk.heard = Some(now);
        }
        hears
    }
}

impl Engine {
    /// The session has the DHT: nodes are told of, unless the image is private. To be called before anybody is connected.
    pub(crate) fn enable_dht(&mut self) {
        self.nodes.enabled = !self.image.is_private();
    }

    /// Where the session's own nodes are.
    pub(crate) fn own_nodes(&mut self, now: Time, ports: NodePorts) {
        self.nodes.ports = ports;
        let keys: Vec<PeerKey> = self.nodes.peers.keys().copied().collect();
        for key in keys {
            self.tell_node(now, key);
        }
    }

    /// Tells a peer where our node is, if there is one and the peer was not told.
    pub(super) fn tell_node(&mut self, now: Time, key: PeerKey) {
        if let Some(Remote::Peer(remote)) = self.peers.get(&key).map(|p| p.remote)
            && let Some(port) = self.nodes.news(key, remote)
        {
            self.send(now, key, WireMessage::Port(port));
        }
    }

    /// A peer says on which port its host has a node.
    pub(super) fn on_port(&mut self, now: Time, key: PeerKey, port: u16) {
        let remote = self.peers.get(&key).map(|p| p.remote);
        if let Some(Remote::Peer(remote)) = remote
            && port != 0
            && self.nodes.hears(now, key)
        {
            let node = SocketAddr::new(remote.ip(), port);
            self.outputs.push(Output::Node(node));
        }
    }
}
