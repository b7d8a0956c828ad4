//! Invariant: no I/O, no clock, no randomness of its own. Every call takes `now`; what is to be done comes out as
//! [`Output`]s. A question is answered at most once, within the [`Quota`], by less than a packet; one of ours is under way
//! for at most [`PATIENCE`].

mod answers;
mod lookups;
mod questions;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::lookups::{Kind, Search};
use self::questions::Pending;
use super::binding;
use super::id::Id;
use super::lookup::Lookup;
use super::message::{Body, Contact, Message, PROTOCOL, Query, Refused};
use super::outside::Outside;
use super::quota::Quota;
use super::store::Store;
use super::table::{K, Table};
use super::tokens::Tokens;
use crate::clock::Time;
use crate::swarm::Scope;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often first contacts are asked for while few nodes are known.
const FIRST_CONTACTS: Duration = Duration::from_secs(2);
const LAST_CONTACTS: Duration = Duration::from_secs(300);
/// How often a part of the table is refreshed, and something is tidied up.
const REFRESH: Duration = Duration::from_secs(300);
const TIDY: Duration = Duration::from_secs(10);
/// Peers that a question is answered with.
const MAX_VALUES: usize = 30;

/// Something for the driver to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Send(SocketAddr, Vec<u8>),
    /// A peer of an image that is searched for.
    Found(Id, SocketAddr),
    /// Few nodes are known: call [`Node::meet`] with addresses of some.
    NeedContacts,
}

/// What a node starts from.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeConfig {
    pub(super) id: Id,
    /// Whether it is one of the IPv6 network.
    pub(super) six: bool,
    pub(super) seed: u64,
}

/// One node of the table, of one address family.
#[derive(Debug)]
pub(super) struct Node {
    id: Id,
    six: bool,
    rng: StdRng,
    table: Table,
    store: Store,
    tokens: Tokens,
    quota: Quota,
    outside: Outside,
    pending: HashMap<[u8; 4], Pending>,
    lookups: BTreeMap<u64, (Lookup, Kind)>,
    next_lookup: u64,
    searches: BTreeMap<Id, Search>,
    contacts_due: Time,
    contacts_pause: Duration,
    refresh_due: Time,
    tidy_due: Time,
    outputs: Vec<Output>,
}

impl Node {
    pub(super) fn new(now: Time, config: NodeConfig) -> Self {
        let mut rng = StdRng::seed_from_u64(config.seed);
        let secret = rng.random();
        Self {
            id: config.id,
            six: config.six,
            rng,
            table: Table::new(config.id),
            store: Store::new(config.id),
            tokens: Tokens::new(now, secret),
            quota: Quota::new(now),
            outside: Outside::default(),
            pending: HashMap::new(),
            lookups: BTreeMap::new(),
            next_lookup: 0,
            searches: BTreeMap::new(),
            contacts_due: now,
            contacts_pause: FIRST_CONTACTS,
            refresh_due: now + REFRESH,
            tidy_due: now + TIDY,
            outputs: Vec::new(),
        }
    }

    /// What is to be done, in order. To be asked after every other call.
    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`tick`](Self::tick) is wanted next.
    pub(super) fn next_timeout(&self) -> Time {
        let mut at = self.refresh_due.min(self.tidy_due);
        if self.table.len() < K {
            at = at.min(self.contacts_due);
        }
        if self.table.len() > 0 {
            at = self.searches.values().map(|s| s.due).fold(at, Time::min);
        }
        let answers = self.pending.values().map(|p| p.at + PATIENCE);
        answers.fold(at, Time::min)
    }

    /// Nodes may be at these addresses.
    pub(super) fn meet(&mut self, now: Time, addresses: &[SocketAddr]) {
        let mut lookup = Lookup::new(self.id);
        for contact in self.table.closest(self.id, K) {
            lookup.add(contact);
        }
        let number = self.begin(lookup, Kind::Nodes);
        for &address in addresses {
            if !self.is_of_family(address) {
                continue;
            }
            if self.ask(now, address, None, Some(number), Query::FindNode(self.id))
                && let Some((lookup, _)) = self.lookups.get_mut(&number)
            {
                lookup.ask_unknown();
            }
        }
        self.go_on(now);
    }

    /// Nodes that a later run may begin with.
    pub(super) fn good_nodes(&self) -> impl Iterator<Item = SocketAddr> {
        self.table.good().map(|c| c.address)
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Time) {
        let late = |p: &Pending| now.since(p.at) >= PATIENCE;
        let late: Vec<[u8; 4]> = self
            .pending
            .iter()
            .filter(|(_, p)| late(p))
            .map(|(transaction, _)| *transaction)
            .collect();
        for transaction in late {
            if let Some(pending) = self.pending.remove(&transaction) {
                self.unanswered(&pending, true);
            }
        }
        if self.table.len() < K && self.contacts_due <= now {
            self.contacts_due = now + self.contacts_pause;
            self.contacts_pause = (self.contacts_pause * 2).min(LAST_CONTACTS);
            self.outputs.push(Output::NeedContacts);
        }
        self.tidy(now);
        self.search_due(now);
        self.go_on(now);
    }

    fn tidy(&mut self, now: Time) {
        if self.tidy_due <= now {
            self.tidy_due = now + TIDY;
            self.store.expire(now);
            let rng = &mut self.rng;
            self.tokens.rotate(now, || rng.random());
            if let Some(silent) = self.table.questionable(now) {
                self.ask(now, silent.address, Some(silent.id), None, Query::Ping);
            }
        }
        if self.refresh_due <= now {
            self.refresh_due = now + REFRESH;
            let bits = self.rng.random_range(0..=self.table.depth());
            let target = self.id.beside(bits, self.rng.random());
            self.look_for(target, Kind::Nodes);
        }
    }

    /// We are reached at this address, others say: our id is to fit it (BEP 42).
    fn move_to(&mut self, ip: IpAddr) {
        // The port does not matter to it.
        if binding::fits(self.id, (ip, 1).into()) {
            return;
        }
        self.id = binding::id_at(ip, self.rng.random());
        tracing::debug!(%ip, id = ?self.id, "the node of the DHT takes an id that fits its address");
        self.table.move_to(self.id);
        self.store.move_to(self.id);
        self.look_for(self.id, Kind::Nodes);
    }

    fn send(&mut self, to: SocketAddr, transaction: Vec<u8>, body: Body) {
        let message = Message { transaction, body };
        self.outputs.push(Output::Send(to, message.encode()));
    }

    /// A datagram has come.
    pub(super) fn received(&mut self, now: Time, from: SocketAddr, datagram: &[u8]) {
        let Some(scope) = Scope::of(from).filter(|_| self.is_of_family(from)) else {
            return;
        };
        match Message::decode(datagram) {
            Err(Refused::Garbage) => {}
            Err(Refused::BadQuery(transaction)) => {
                if self.quota.admits(now, from.ip()) {
                    self.send(from, transaction, Body::Error(PROTOCOL));
                }
            }
            Ok(message) => match message.body {
                Body::Query {
                    id,
                    read_only,
                    query,
                } => {
                    if !self.quota.admits(now, from.ip()) {
                        return;
                    }
                    let answer = self.answer(now, from, scope, query);
                    self.send(from, message.transaction, answer);
                    if !read_only {
                        self.get_to_know(now, Contact { id, address: from });
                    }
                }
                Body::Response(response) => {
                    if let Some(pending) = self.take_pending(from, &message.transaction) {
                        self.on_response(now, scope, &pending, response);
                    }
                }
                Body::Error(_) => {
                    if let Some(pending) = self.take_pending(from, &message.transaction) {
                        // It is there, if of no help.
                        self.unanswered(&pending, false);
                    }
                }
            },
        }
        self.go_on(now);
    }

    fn is_of_family(&self, address: SocketAddr) -> bool {
        address.is_ipv6() == self.six
    }
}

#[cfg(test)]
impl Node {
    pub(super) fn known_nodes(&self) -> usize {
        self.table.len()
    }

    pub(super) fn id(&self) -> Id {
        self.id
    }

    /// How much is kept: questions, lookups, images of others.
    pub(super) fn kept(&self) -> (usize, usize, usize) {
        (self.pending.len(), self.lookups.len(), self.store.len())
    }
}
