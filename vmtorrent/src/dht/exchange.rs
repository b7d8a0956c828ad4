//! What swarms and the session's nodes tell each other. Invariant: it is bounded, and nobody waits for it.

use std::net::SocketAddr;

use tokio::sync::{mpsc, watch};

/// The UDP ports of a session's nodes, as far as there are any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodePorts {
    /// Of the node of IPv4.
    pub(crate) four: Option<u16>,
    /// Of the node of IPv6.
    pub(crate) six: Option<u16>,
}

impl NodePorts {
    /// That of the node that is reached as the peer at this address reaches us.
    pub(crate) fn beside(self, remote: SocketAddr) -> Option<u16> {
        if remote.ip().to_canonical().is_ipv6() {
            self.six
        } else {
            self.four
        }
    }
}

/// A swarm's end.
#[derive(Clone)]
pub(crate) struct NodeExchange {
    pub(super) told: mpsc::Sender<SocketAddr>,
    pub(super) ports: watch::Receiver<NodePorts>,
}

impl NodeExchange {
    /// A peer says that there is a node. What comes while many others wait is lost.
    pub(crate) fn tell(&self, node: SocketAddr) {
        let _ = self.told.try_send(node);
    }

    /// The ports of our nodes, when they have changed; the first time as they are. `None`: there are none any more.
    pub(crate) async fn next_ports(&mut self) -> Option<NodePorts> {
        self.ports.changed().await.ok()?;
        Some(*self.ports.borrow_and_update())
    }
}
