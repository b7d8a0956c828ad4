//! Invariant: no I/O, no clock, no randomness of its own. Every call takes `now`; what is to be done comes out as
//! [`Output`]s. A question is answered at most once, within the [`Quota`], by less than a packet; one of ours is under way
//! for at most [`PATIENCE`].

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::id::Id;
use super::lookup::Lookup;
use super::message::{
    Body, Contact, GENERIC, Message, PROTOCOL, Query, Refused, Response, UNKNOWN_METHOD,
};
use super::quota::Quota;
use super::store::Store;
use super::table::{K, Table};
use super::tokens::Tokens;
use crate::clock::Time;
use crate::swarm::Scope;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Questions under way.
const MAX_PENDING: usize = 256;
/// Pings of nodes that might be taken in, of these.
const MAX_PINGS: usize = 32;
/// How long after a lookup for an image the next one comes: soon at first, then more and more seldom.
const FIRST_SEARCH: Duration = Duration::from_secs(15);
const LAST_SEARCH: Duration = Duration::from_secs(15 * 60);
/// The same while the network is so small that not even [`K`] nodes were found.
const SMALL_SEARCH: Duration = Duration::from_secs(60);
/// How long after a new node one that has few hears of our images.
const SOON: Duration = Duration::from_secs(1);
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

/// A question under way.
#[derive(Debug)]
struct Pending {
    address: SocketAddr,
    /// Who is there, as far as we know.
    id: Option<Id>,
    lookup: Option<u64>,
    at: Time,
}

/// What a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nodes,
    Peers,
}

/// An image whose peers are looked for.
#[derive(Debug)]
struct Search {
    /// Where we serve it.
    port: u16,
    due: Time,
    pause: Duration,
    /// Nodes that were told of us the last time.
    told: usize,
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

    /// From now on peers of an image are looked for, and others are told that we serve it on this port. Asked for anew, it
    /// is as if it had not been.
    pub(super) fn search(&mut self, now: Time, image: Id, port: u16) {
        let search = Search {
            port,
            due: now,
            pause: FIRST_SEARCH,
            told: 0,
        };
        self.searches.insert(image, search);
    }

    /// And no more. Others forget us within half an hour.
    pub(super) fn forget(&mut self, image: Id) {
        self.searches.remove(&image);
        self.lookups
            .retain(|_, (lookup, kind)| *kind == Kind::Nodes || lookup.target() != image);
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

    fn search_due(&mut self, now: Time) {
        if self.table.len() == 0 {
            return;
        }
        let due = self.searches.iter().filter(|(_, s)| s.due <= now);
        let due: Vec<Id> = due.map(|(image, _)| *image).collect();
        for image in due {
            if let Some(search) = self.searches.get_mut(&image) {
                search.due = now + search.pause;
                search.pause = (search.pause * 2).min(LAST_SEARCH);
                if search.told < K {
                    search.pause = search.pause.min(SMALL_SEARCH);
                }
            }
            // In a small network we may be among those who were told of them.
            let chance = self.rng.random();
            for peer in self.store.some(image, MAX_VALUES, chance) {
                self.outputs.push(Output::Found(image, peer));
            }
            self.look_for(image, Kind::Peers);
        }
    }

    fn look_for(&mut self, target: Id, kind: Kind) {
        if self
            .lookups
            .values()
            .any(|(l, k)| l.target() == target && *k == kind)
        {
            return;
        }
        let mut lookup = Lookup::new(target);
        for contact in self.table.closest(target, K) {
            lookup.add(contact);
        }
        self.begin(lookup, kind);
    }

    fn begin(&mut self, lookup: Lookup, kind: Kind) -> u64 {
        let number = self.next_lookup;
        self.next_lookup += 1;
        self.lookups.insert(number, (lookup, kind));
        number
    }

    /// Asks whom lookups want to ask, and ends those that are done.
    fn go_on(&mut self, now: Time) {
        let numbers: Vec<u64> = self.lookups.keys().copied().collect();
        for number in numbers {
            while let Some((lookup, kind)) = self.lookups.get_mut(&number)
                && let Some(next) = lookup.next()
            {
                let query = match kind {
                    Kind::Nodes => Query::FindNode(lookup.target()),
                    Kind::Peers => Query::GetPeers(lookup.target()),
                };
                if !self.ask(now, next.address, Some(next.id), Some(number), query)
                    && let Some((lookup, _)) = self.lookups.get_mut(&number)
                {
                    lookup.failed(Some(next));
                }
            }
            if self.lookups.get(&number).is_some_and(|(l, _)| l.is_done())
                && let Some((lookup, Kind::Peers)) = self.lookups.remove(&number)
            {
                self.announce(now, lookup);
            }
        }
    }

    /// Tells the nodes that are closest to an image that we serve it.
    fn announce(&mut self, now: Time, lookup: Lookup) {
        let image = lookup.target();
        let Some(port) = self.searches.get(&image).map(|s| s.port) else {
            return;
        };
        let mut told = 0;
        for (contact, token) in lookup.holders() {
            let query = Query::Announce {
                info_hash: image,
                port: Some(port),
                token,
            };
            told += usize::from(self.ask(now, contact.address, Some(contact.id), None, query));
        }
        if let Some(search) = self.searches.get_mut(&image) {
            search.told = told;
        }
    }

    /// Asks a node. False when too many questions are under way.
    fn ask(
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

    fn answer(&mut self, now: Time, from: SocketAddr, scope: Scope, query: Query) -> Body {
        let mut response = Response::of(self.id);
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
    fn get_to_know(&mut self, now: Time, contact: Contact) {
        let pings = self.pending.values().filter(|p| p.lookup.is_none());
        let asked = self.pending.values().any(|p| p.address == contact.address);
        if self.table.wants(contact) && pings.count() < MAX_PINGS && !asked {
            self.ask(now, contact.address, Some(contact.id), None, Query::Ping);
        }
    }

    fn take_pending(&mut self, from: SocketAddr, transaction: &[u8]) -> Option<Pending> {
        let transaction: [u8; 4] = transaction.try_into().ok()?;
        let asked = self.pending.get(&transaction)?;
        if asked.address != from {
            return None;
        }
        self.pending.remove(&transaction)
    }

    /// A question got no answer. `silent`: nor an error.
    fn unanswered(&mut self, pending: &Pending, silent: bool) {
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

    fn on_response(&mut self, now: Time, scope: Scope, pending: &Pending, response: Response) {
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
            // Where few are known each counts.
            for search in self.searches.values_mut().filter(|s| s.told < K) {
                search.due = search.due.min(now + SOON);
            }
        }
    }
}

#[cfg(test)]
impl Node {
    pub(super) fn known_nodes(&self) -> usize {
        self.table.len()
    }

    /// How much is kept: questions, lookups, images of others.
    pub(super) fn kept(&self) -> (usize, usize, usize) {
        (self.pending.len(), self.lookups.len(), self.store.len())
    }
}
