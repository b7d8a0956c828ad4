//! Invariant: at most [`ALPHA`] nodes are asked at a time, none twice, and a lookup ends once the [`K`] closest that are
//! alive and whose ids fit their addresses have answered, or the [`MAX_WAYS`] closest of all: it can't be led on for ever,
//! since what is remembered of it is bounded and comes ever closer.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use super::id::{Distance, Id};
use super::message::Contact;
use super::table::K;
use crate::swarm::Origin;

/// Questions under way at a time.
const ALPHA: usize = 4;
/// Nodes that are remembered, and of one origin.
const MAX_CANDIDATES: usize = 64;
const MAX_OF_ONE: usize = 4;
/// The closest nodes whose answers are waited for where the ids of many don't fit (BEP 42): who has many ids close to a
/// target, as nobody comes by them honestly, shall not be all that is found there.
const MAX_WAYS: usize = 2 * K;
/// Nodes that are asked in all.
const MAX_ASKED: usize = 200;
/// Peers that are taken.
const MAX_PEERS: usize = 500;

/// A way towards a target, from node to node.
#[derive(Debug)]
pub(super) struct Lookup {
    target: Id,
    candidates: BTreeMap<Distance, Candidate>,
    /// Those under way, whose id may not be known.
    under_way: usize,
    asked: usize,
    peers: HashSet<SocketAddr>,
}

#[derive(Debug)]
struct Candidate {
    contact: Contact,
    /// Its id fits its address.
    fits: bool,
    state: State,
    token: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    Answered,
    Failed,
}

impl Lookup {
    pub(super) fn new(target: Id) -> Self {
        Self {
            target,
            candidates: BTreeMap::new(),
            under_way: 0,
            asked: 0,
            peers: HashSet::new(),
        }
    }

    pub(super) fn target(&self) -> Id {
        self.target
    }

    /// Learns of a node.
    pub(super) fn add(&mut self, contact: Contact) {
        let distance = contact.id.distance(self.target);
        let known = |c: &Candidate| c.contact.address == contact.address;
        if self.candidates.contains_key(&distance) || self.candidates.values().any(known) {
            return;
        }
        let origin = Origin::of(contact.address.ip());
        let rivals = self
            .candidates
            .values()
            .filter(|c| origin.is_some() && Origin::of(c.contact.address.ip()) == origin);
        if rivals.count() >= MAX_OF_ONE {
            return;
        }
        let candidate = Candidate {
            contact,
            fits: contact.fits(),
            state: State::Fresh,
            token: None,
        };
        self.candidates.insert(distance, candidate);
        if self.candidates.len() > MAX_CANDIDATES {
            self.candidates.pop_last();
        }
    }

    /// One whose id is not known is asked too.
    pub(super) fn ask_unknown(&mut self) {
        self.under_way += 1;
        self.asked += 1;
    }

    /// Whom to ask next; noted as asked.
    pub(super) fn next(&mut self) -> Option<Contact> {
        if self.under_way >= ALPHA || self.asked >= MAX_ASKED {
            return None;
        }
        let mut fitting = 0;
        let alive = self.candidates.values_mut();
        let alive = alive.filter(|c| c.state != State::Failed);
        let mut ways = alive.take(MAX_WAYS).take_while(|c| {
            let enough = fitting == K;
            fitting += usize::from(c.fits);
            !enough
        });
        let next = ways.find(|c| c.state == State::Fresh)?;
        next.state = State::Asked;
        self.under_way += 1;
        self.asked += 1;
        Some(next.contact)
    }

    /// One that was asked answered. Under which id, that of one not known before too.
    pub(super) fn answered(&mut self, contact: Contact, token: Option<Vec<u8>>) {
        self.under_way = self.under_way.saturating_sub(1);
        self.add(contact);
        if let Some(candidate) = self.candidate(contact) {
            candidate.state = State::Answered;
            candidate.token = token;
        }
    }

    /// One that was asked did not answer.
    pub(super) fn failed(&mut self, contact: Option<Contact>) {
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(candidate) = contact.and_then(|c| self.candidate(c)) {
            candidate.state = State::Failed;
        }
    }

    fn candidate(&mut self, contact: Contact) -> Option<&mut Candidate> {
        let distance = contact.id.distance(self.target);
        let found = self.candidates.get_mut(&distance);
        found.filter(|c| c.contact == contact)
    }

    /// A peer was named; true when it is new.
    pub(super) fn take_peer(&mut self, peer: SocketAddr) -> bool {
        self.peers.len() < MAX_PEERS && self.peers.insert(peer)
    }

    /// Whether nobody is left to ask or to wait for. To be asked when [`next`](Self::next) gives nobody.
    pub(super) fn is_done(&self) -> bool {
        self.under_way == 0
    }

    /// The closest ones that answered with a token: with those alone whose ids fit something is stored (BEP 42), unless
    /// there is none. Then it is a network that knows nothing of it.
    pub(super) fn holders(self) -> Vec<(Contact, Vec<u8>)> {
        let answered = self.candidates.into_values();
        let answered = answered.filter(|c| c.state == State::Answered && c.token.is_some());
        let answered: Vec<Candidate> = answered.collect();
        let any_fits = answered.iter().any(|c| c.fits);
        let holders = answered.into_iter().filter(|c| c.fits || !any_fits);
        let holders = holders.filter_map(|c| Some((c.contact, c.token?)));
        holders.take(K).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::binding;

    /// Of a closed network, where every id fits.
    fn contact(n: u8) -> Contact {
        let mut id = [0; 20];
        id[0] = n;
        Contact {
            id: Id(id),
            address: ([10, 0, 0, n], 1).into(),
        }
    }

    const TARGET: Id = Id([0x55; 20]);

    /// Closer to the target than anybody who comes by his id honestly.
    fn liar(n: u8) -> Contact {
        let mut id = TARGET;
        id.0[18] = n;
        let address = ([20, 0, 1, n], 1).into();
        Contact { id, address }
    }

    fn honest(n: u8) -> Contact {
        let address = SocketAddr::from(([20, 0, 2, n], 1));
        let id = binding::id_at(address.ip(), [n; 20]);
        Contact { id, address }
    }

    /// Whom a lookup asks that knows all of these, and with whom something is stored in the end.
    fn walk(all: impl Iterator<Item = Contact>) -> (Vec<Contact>, Vec<Contact>) {
        let mut lookup = Lookup::new(TARGET);
        all.for_each(|c| lookup.add(c));
        let asked = std::iter::from_fn(|| {
            let next = lookup.next()?;
            lookup.answered(next, Some(vec![1]));
            Some(next)
        });
        let asked = asked.collect();
        assert!(lookup.is_done());
        (
            asked,
            lookup.holders().into_iter().map(|(c, _)| c).collect(),
        )
    }

    #[test]
    fn nothing_is_stored_with_ids_that_do_not_fit_while_others_are_there() {
        let (asked, holders) = walk((0..10).map(liar).chain((0..12).map(honest)));
        assert_eq!(asked.len(), MAX_WAYS);
        assert_eq!(holders.len(), MAX_WAYS - 10);
        assert!(holders.iter().all(|c| c.fits()));
        // With few of them as many are found as anywhere.
        let (asked, holders) = walk((0..3).map(liar).chain((0..12).map(honest)));
        assert_eq!(asked.len(), 3 + K);
        assert_eq!(holders.len(), K);
        assert!(holders.iter().all(|c| c.fits()));
    }

    #[test]
    fn where_no_id_fits_the_closest_are_as_good_as_ever() {
        let (asked, mut holders) = walk((0..30).map(liar));
        assert_eq!(asked.len(), MAX_WAYS);
        assert_eq!(holders.len(), K);
        let mut closest: Vec<Contact> = (0..30).map(liar).collect();
        closest.sort_by_key(|c| c.id.distance(TARGET));
        closest.truncate(K);
        holders.sort_by_key(|c| c.id.distance(TARGET));
        assert_eq!(holders, closest);
    }

    #[test]
    fn the_closest_are_asked_first_and_the_end_is_when_eight_have_answered() {
        let mut lookup = Lookup::new(Id([0; 20]));
        for n in (1..=30).rev() {
            lookup.add(contact(n));
            lookup.add(contact(n));
        }
        let asked: Vec<_> = std::iter::from_fn(|| lookup.next()).collect();
        assert_eq!(asked, [1, 2, 3, 4].map(contact));
        lookup.failed(Some(contact(2)));
        for n in [1, 3, 4] {
            lookup.answered(contact(n), Some(vec![n]));
        }
        let mut rest = Vec::new();
        while let Some(next) = lookup.next() {
            rest.push(next);
            let token = (next != contact(6)).then(|| vec![9]);
            lookup.answered(next, token);
        }
        assert_eq!(rest, [5, 6, 7, 8, 9].map(contact));
        assert!(lookup.is_done());
        let holders: Vec<_> = lookup.holders().into_iter().map(|(c, _)| c).collect();
        assert_eq!(holders, [1, 3, 4, 5, 7, 8, 9].map(contact));
    }

    #[test]
    fn a_liar_that_names_ever_closer_nodes_is_left() {
        let mut lookup = Lookup::new(Id([0; 20]));
        let mut asked = 0;
        let mut last = Contact {
            id: Id([255; 20]),
            address: ([20, 0, 0, 1], 1).into(),
        };
        lookup.add(last);
        while let Some(next) = lookup.next() {
            asked += 1;
            for n in 0..100_u32 {
                last.id = Id([255 - asked.min(254) as u8; 20]);
                let n = asked * 1_000 + n;
                last.id.0[16..].copy_from_slice(&n.to_be_bytes());
                let [_, a, b, c] = n.to_be_bytes();
                last.address = ([30, a, b, c], 1).into();
                lookup.add(last);
            }
            lookup.answered(next, None);
            assert!(lookup.candidates.len() <= MAX_CANDIDATES);
        }
        assert_eq!(asked, MAX_ASKED as u32);
        assert!(lookup.is_done());
    }

    #[test]
    fn peers_are_taken_once_and_not_without_end() {
        let mut lookup = Lookup::new(Id([0; 20]));
        let taken = (0..10_000_u16).filter(|n| lookup.take_peer(([20, 0, 0, 1], n % 2_000).into()));
        assert_eq!(taken.count(), MAX_PEERS);
    }

    #[test]
    fn one_origin_gets_few_places() {
        let mut lookup = Lookup::new(Id([0; 20]));
        for n in 1..100 {
            let mut one = contact(n);
            one.address = ([20, 0, 0, 1], n.into()).into();
            lookup.add(one);
        }
        assert_eq!(lookup.candidates.len(), MAX_OF_ONE);
    }
}
