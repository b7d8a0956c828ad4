//! What a node asks others, and what it takes of their answers. Invariant: an answer counts only if it comes from the
//! address that was asked, with that question's transaction, and only once.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;

use super::lookups::Kind;
use super::{FIRST_CONTACTS, Node, Output};
use crate::clock::Time;
use crate::dht::id::Id;
use crate::dht::message::{Body, Contact, Query, Response};
use crate::dht::table::K;
use crate::swarm::Scope;

/// Questions under way.
const MAX_PENDING: usize = 256;
/// How long after a new node one that has few hears of our images, and of our need of others.
const SOON: Duration = Duration::from_secs(1);

/// A question under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) address: SocketAddr,
    /// Who is there, as far as we know.
    pub(super) id: Option<Id>,
    pub(super) lookup: Option<u64>,
    pub(super) at: Time,
}

impl Node {
    /// Asks a node. False when too many questions are under way.
    pub(super) fn ask(
        &mut self,
        now: Time,
        address: SocketAddr,
        id: Option<Id>,
        lookup: Option<u64>,
        query: Query,
    ) -> bool {
        if self.pending.len() >= MAX_PENDING {
            return false;
        }
        let transaction: [u8; 4] = self.rng.random();
        let pending = Pending {
            address,
            id,
            lookup,
            at: now,
        };
        self.pending.insert(transaction, pending);
        let body = Body::Query {
            id: self.id,
            read_only: false,
            query,
        };
        self.send(address, transaction.to_vec(), body);
        true
    }

    pub(super) fn take_pending(&mut self, from: SocketAddr, transaction: &[u8]) -> Option<Pending> {
        let transaction: [u8; 4] = transaction.try_into().ok()?;
        let asked = self.pending.get(&transaction)?;
        if asked.address != from {
            return None;
        }
        self.pending.remove(&transaction)
    }

    /// A question got no answer. `silent`: nor an error.
    pub(super) fn unanswered(&mut self, pending: &Pending, silent: bool) {
        let contact = pending.id.map(|id| Contact {
            id,
            address: pending.address,
        });
        if let Some(contact) = contact.filter(|_| silent) {
            self.table.failed(contact);
        }
        if let Some((lookup, _)) = pending.lookup.and_then(|n| self.lookups.get_mut(&n)) {
            lookup.failed(contact);
        }
    }

    pub(super) fn on_response(
        &mut self,
        now: Time,
        scope: Scope,
        pending: &Pending,
        response: Response,
    ) {
        let contact = Contact {
            id: response.id,
            address: pending.address,
        };
        if contact.id == self.id {
            // Ourselves, or one that says so.
            return self.unanswered(pending, true);
        }
        if pending.id.is_some_and(|id| id != contact.id) {
            // Another one than we took it for.
            self.unanswered(pending, true);
        } else if let Some((lookup, kind)) = pending.lookup.and_then(|n| self.lookups.get_mut(&n)) {
            lookup.answered(contact, response.token);
            let own = self.id;
            let useful = |n: &Contact| {
                n.address.is_ipv6() == self.six && scope.shares(n.address) && n.id != own
            };
            for node in response.nodes.into_iter().filter(useful) {
                lookup.add(node);
            }
            if *kind == Kind::Peers {
                let image = lookup.target();
                for peer in response.values {
                    if scope.shares(peer) && lookup.take_peer(peer) {
                        self.outputs.push(Output::Found(image, peer));
                    }
                }
            }
        }
        if self.table.answered(now, contact) {
            self.contacts_pause = FIRST_CONTACTS;
            // Through it others are found.
            self.contacts_due = self.contacts_due.min(now + SOON);
            // Where few are known each counts.
            for search in self.searches.values_mut().filter(|s| s.told < K) {
                search.due = search.due.min(now + SOON);
            }
        }
        let seen = response.asker;
        if let Some(ip) = seen.and_then(|seen| self.outside.heard(now, pending.address, seen)) {
            self.move_to(ip);
        }
    }
}
