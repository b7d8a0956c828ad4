//! What a node tells others who ask it. Invariant: nobody is told of addresses that mean something else to them, and a
//! peer is stored only if its own host shows a token that we gave it.

use std::net::SocketAddr;

use rand::RngExt;

use super::{MAX_VALUES, Node, Output};
use crate::clock::Time;
use crate::dht::id::Id;
use crate::dht::message::{Body, Contact, GENERIC, PROTOCOL, Query, Response, UNKNOWN_METHOD};
use crate::dht::table::K;
use crate::swarm::Scope;

/// Pings under way to nodes that might be taken in.
const MAX_PINGS: usize = 32;

impl Node {
    pub(super) fn answer(
        &mut self,
        now: Time,
        from: SocketAddr,
        scope: Scope,
        query: Query,
    ) -> Body {
        let mut response = Response::of(self.id);
        response.asker = Some(from);
        match query {
            Query::Ping => {}
            Query::FindNode(target) => response.nodes = self.nodes_for(target, from, scope),
            Query::GetPeers(image) => {
                response.nodes = self.nodes_for(image, from, scope);
                response.token = Some(self.tokens.give(from.ip()));
                let chance = self.rng.random();
                response.values = self.store.some(image, MAX_VALUES, chance);
                response.values.retain(|peer| scope.shares(*peer));
            }
            Query::Announce {
                info_hash,
                port,
                token,
            } => {
                if !self.tokens.is_good(from.ip(), &token) {
                    return Body::Error(PROTOCOL);
                }
                let peer = SocketAddr::new(from.ip(), port.unwrap_or(from.port()));
                if Scope::of(peer).is_none() {
                    return Body::Error(GENERIC);
                }
                self.store.add(now, info_hash, peer);
                if self.searches.contains_key(&info_hash) {
                    self.outputs.push(Output::Found(info_hash, peer));
                }
            }
            Query::Unknown => return Body::Error(UNKNOWN_METHOD),
        }
        Body::Response(response)
    }

    /// What one who asks is told: the nodes closest to the target, where an address means the same to it as to us.
    fn nodes_for(&self, target: Id, asker: SocketAddr, scope: Scope) -> Vec<Contact> {
        let mut nodes = self.table.closest(target, K + 1);
        nodes.retain(|n| n.address != asker && scope.shares(n.address));
        nodes.truncate(K);
        nodes
    }

    /// A node asked us something: if there is a place for it, it is asked whether it is where it seems to be.
    pub(super) fn get_to_know(&mut self, now: Time, contact: Contact) {
        if self.table.wants(contact) && self.may_ping(contact.address) {
            self.ask(now, contact.address, Some(contact.id), None, Query::Ping);
        }
    }

    /// A peer says that a node is there: unless it is known, it is asked.
    pub(in crate::dht) fn told_of(&mut self, now: Time, address: SocketAddr) {
        let possible = self.is_of_family(address) && Scope::of(address).is_some();
        if possible && !self.table.is_at(address) && self.may_ping(address) {
            self.ask(now, address, None, None, Query::Ping);
        }
    }

    fn may_ping(&self, address: SocketAddr) -> bool {
        let pings = self.pending.values().filter(|p| p.lookup.is_none());
        let asked = self.pending.values().any(|p| p.address == address);
        pings.count() < MAX_PINGS && !asked
    }
}
