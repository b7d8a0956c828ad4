//! Finds peers without a tracker: the distributed hash table of BitTorrent (BEP 5, for IPv6 BEP 32).
//!
//! [`node::Node`] is one node of one address family, without I/O; [`discovery::Dht`] carries out what nodes decide, for a
//! session's images.
//!
//! Invariant: nothing that comes from the network is believed beyond a question that was asked: an answer counts only from
//! the address that was asked, with the transaction that was chosen for it, and only once. All that is kept is bounded.

mod binding;
mod bootstrap;
mod discovery;
mod exchange;
mod id;
mod lookup;
mod message;
mod node;
mod nodes_file;
mod outside;
mod quota;
mod socket;
mod store;
mod table;
mod tokens;

pub(crate) use bootstrap::check as check_bootstrap;
pub use bootstrap::is_node;
pub(crate) use discovery::{Dht, DhtConfig, Registration};
pub(crate) use exchange::{NodeExchange, NodePorts};

#[cfg(test)]
mod network_tests;
#[cfg(test)]
mod node_tests;
