//! Invariant: an address is dialled by one attempt at a time, never while connected, never when banned; and the more
//! often it failed, the more seldom.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::hearsay::Hearsay;
use super::origin::Origin;
use crate::clock::Time;

/// The addresses where peers may be, and when to try each next. Pure: time is passed in, chance comes from a seed.
#[derive(Debug)]
pub(crate) struct AddressBook {
    entries: HashMap<SocketAddr, Entry>,
    /// Which of them only peers know of.
    hearsay: Hearsay,
    /// Nobody is dialled but whom the user named.
    only_named: bool,
    rng: StdRng,
}

#[derive(Debug)]
struct Entry {
    state: State,
    failures: u32,
    /// The user named it: it is tried for ever.
    named: bool,
    /// An earlier run knew it.
    remembered: bool,
    /// When a peer was last connected there.
    seen: Option<Time>,
    /// The peer id of who is there, while that peer is connected by another way.
    twin: Option<[u8; 20]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle { due: Time },
    Dialling,
    Connected { since: Time },
    Banned { until: Time },
}

impl AddressBook {
    const FIRST_RETRY: Duration = Duration::from_millis(500);
    const LAST_RETRY: Duration = Duration::from_secs(60);
    /// The same for an address that the user named: a read must not time out because nobody looked.
    const LAST_RETRY_NAMED: Duration = Duration::from_secs(5);
    /// How long a peer must have stayed for its earlier failures to be forgotten.
    const STEADY: Duration = Duration::from_secs(10);
    /// Failures in a row after which an address that nobody named is forgotten.
    const GIVE_UP: u32 = 8;
    const CAPACITY: usize = 4096;
    /// Most addresses of one origin that nobody named: strangers can tell us any.
    const MAX_OF_ONE: usize = 16;
    /// How long an address is banned.
    const BAN: Duration = Duration::from_secs(6 * 60 * 60);
    /// How long an address is left alone whose peer is connected by another way.
    const TWIN_REST: Duration = Duration::from_secs(600);

    /// A book whose pauses vary by chance, which starts from `seed`: peers that lost each other at one moment shall not
    /// all come back at one moment. `only_named`: the book takes no addresses but those that the user names.
    pub(crate) fn new(seed: u64, only_named: bool) -> Self {
        Self {
            entries: HashMap::new(),
            hearsay: Hearsay::default(),
            only_named,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Learns of an address; true when it was new.
    pub(crate) fn add(&mut self, now: Time, address: SocketAddr, named: bool) -> bool {
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return false;
        }
        if self.only_named && !named {
            return false;
        }
        if self.entries.get(&address).is_some_and(|e| e.is_over(now)) {
            self.entries.remove(&address);
        }
        if let Some(entry) = self.entries.get_mut(&address) {
            self.hearsay.forget(address);
            let newly_named = named && !entry.named;
            entry.named |= named;
            // What the user asks for is not kept waiting for failures of before.
            if let State::Idle { due } = &mut entry.state
                && newly_named
                && *due > now
            {
                *due = now;
                return true;
            }
            return false;
        }
        if !named && !self.make_room(now, address) {
            return false;
        }
        let entry = Entry::new(State::Idle { due: now }, named);
        self.entries.insert(address, entry);
        true
    }

    /// Learns of an address of which a peer at `teller` told; true when it was new.
    pub(crate) fn hear(&mut self, now: Time, address: SocketAddr, teller: IpAddr) -> bool {
        let known = self.entries.get(&address).is_some_and(|e| !e.is_over(now));
        if known || self.only_named || !self.hearsay.admit(now, address, teller) {
            return false;
        }
        let new = self.add(now, address, false);
        if !new {
            self.hearsay.forget(address);
        }
        new
    }

    /// Whether there is room for another address that nobody named, after the one of least use was forgotten for it if
    /// need be.
    fn make_room(&mut self, now: Time, address: SocketAddr) -> bool {
        let origin = Origin::of(address.ip());
        let rivals = |a: &SocketAddr, e: &Entry| {
            !e.named && origin.is_some() && Origin::of(a.ip()) == origin
        };
        let of_one = self.entries.iter().filter(|(a, e)| rivals(a, e)).count();
        let among_its_own = of_one >= Self::MAX_OF_ONE;
        if !among_its_own && self.entries.len() < Self::CAPACITY {
            return true;
        }
        let candidates = self.entries.iter();
        let candidates = candidates.filter(|(a, e)| !among_its_own || rivals(a, e));
        let uses = candidates.filter_map(|(a, e)| Some((e.uselessness(now)?, *a)));
        // Of equals the greater one, so that a run can be repeated.
        let Some((_, least)) = uses.max() else {
            return false;
        };
        self.entries.remove(&least);
        self.hearsay.forget(least);
        true
    }

    /// Learns of an address that an earlier run knew; true when it was new.
    pub(crate) fn remember(&mut self, now: Time, address: SocketAddr) -> bool {
        let new = self.add(now, address, false);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.remembered = true;
        }
        new
    }

    /// A peer that connected to us says that it listens there. True when the address is taken for that peer's: its
    /// connection's end has to be told like that of one that was dialled.
    pub(crate) fn arrived(&mut self, now: Time, address: SocketAddr) -> bool {
        self.add(now, address, false);
        match self.entries.get_mut(&address) {
            Some(entry) if matches!(entry.state, State::Idle { .. }) => {
                entry.connect(now);
                self.hearsay.reached(address);
                true
            }
            // Being dialled, or somebody else's, or banned; or there is no room.
            _ => false,
        }
    }

    /// The addresses that are worth remembering, the best ones first: where peers are or were connected, then those
    /// that an earlier run knew and that were not given up.
    pub(crate) fn worth_remembering(&self, limit: usize) -> Vec<SocketAddr> {
        let rank = |e: &Entry| match e.state {
            State::Banned { .. } => None,
            State::Connected { since } => Some((2, since)),
            _ => match e.seen {
                Some(seen) => Some((1, seen)),
                None => e.remembered.then(|| (0, Time::default())),
            },
        };
        let mut found: Vec<_> = self
            .entries
            .iter()
            // Who was named is named again.
            .filter(|(_, e)| !e.named)
            .filter_map(|(a, e)| Some((rank(e)?, *a)))
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, a)| a).take(limit).collect()
    }

    /// Whether the user named the address.
    pub(crate) fn is_named(&self, address: SocketAddr) -> bool {
        self.entries.get(&address).is_some_and(|e| e.named)
    }

    /// The address to dial now, if any; it counts as being dialled. `only_named`: there is no room for others.
    pub(crate) fn next(&mut self, now: Time, only_named: bool) -> Option<SocketAddr> {
        let due = |e: &Entry| match e.state {
            State::Idle { due } if due <= now && (e.named || !only_named) => Some((!e.named, due)),
            _ => None,
        };
        let (address, _) = self
            .entries
            .iter()
            .filter_map(|(a, e)| due(e).map(|order| (*a, order)))
            .min_by_key(|(_, order)| *order)?;
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.state = State::Dialling;
        }
        Some(address)
    }

    /// When [`next`](Self::next) will have something.
    pub(crate) fn next_due(&self, only_named: bool) -> Option<Time> {
        self.entries
            .values()
            .filter(|e| e.named || !only_named)
            .filter_map(|e| match e.state {
                State::Idle { due } => Some(due),
                _ => None,
            })
            .min()
    }

    /// How many addresses are being dialled.
    pub(crate) fn dialling(&self) -> usize {
        self.entries
            .values()
            .filter(|e| e.state == State::Dialling)
            .count()
    }

    /// The address answered.
    pub(crate) fn connected(&mut self, now: Time, address: SocketAddr) {
        self.hearsay.reached(address);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.connect(now);
        }
    }

    /// The peer at this address is connected by another way, under that peer id: it is left alone for as long.
    pub(crate) fn twin(&mut self, now: Time, address: SocketAddr, peer_id: [u8; 20]) {
        self.hearsay.reached(address);
        self.rest(now, address, Self::TWIN_REST);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.twin = Some(peer_id);
        }
    }

    /// That peer's connection has ended: its other addresses may be tried.
    pub(crate) fn gone(&mut self, now: Time, peer_id: [u8; 20]) {
        let rng = &mut self.rng;
        let twins = self.entries.values_mut();
        for entry in twins.filter(|e| e.twin == Some(peer_id)) {
            entry.twin = None;
            if let State::Idle { due } = &mut entry.state {
                *due = (*due).min(now + Self::FIRST_RETRY.mul_f64(jitter(rng)));
            }
        }
    }

    /// The address did not answer, or its connection ended: it is due again after a pause that doubles.
    pub(crate) fn lost(&mut self, now: Time, address: SocketAddr) {
        let Some(entry) = self.entries.get_mut(&address) else {
            return;
        };
        if entry.state == State::Dialling && self.hearsay.failed(now, address) {
            self.entries.remove(&address);
            return;
        }
        match entry.state {
            State::Banned { .. } => return,
            State::Connected { since } if now.since(since) >= Self::STEADY => {
                entry.failures = 0;
                entry.seen = Some(now);
            }
            _ => entry.failures += 1,
        }
        if entry.failures > Self::GIVE_UP && !entry.named {
            self.entries.remove(&address);
            return;
        }
        let pause = Self::FIRST_RETRY * 2u32.pow(entry.failures.min(10));
        let longest = if entry.named {
            Self::LAST_RETRY_NAMED
        } else {
            Self::LAST_RETRY
        };
        let pause = pause.min(longest).mul_f64(jitter(&mut self.rng));
        entry.state = State::Idle { due: now + pause };
    }

    /// The address is of no use for a while (it has nothing for us, nor we for it).
    pub(crate) fn rest(&mut self, now: Time, address: SocketAddr, pause: Duration) {
        if let Some(entry) = self.entries.get_mut(&address)
            && !matches!(entry.state, State::Banned { .. })
        {
            if matches!(entry.state, State::Connected { .. }) {
                entry.failures = 0;
                entry.seen = Some(now);
            }
            entry.state = State::Idle { due: now + pause };
        }
    }

    /// Peers are needed again after all: addresses that rest, and never failed, are due now.
    pub(crate) fn end_rests(&mut self, now: Time) {
        for entry in self.entries.values_mut().filter(|e| e.failures == 0) {
            if let State::Idle { due } = &mut entry.state {
                *due = now.min(*due);
            }
        }
    }

    /// The address is our own, or a liar's: it is not dialled again before it is learnt anew, much later.
    pub(crate) fn ban(&mut self, now: Time, address: SocketAddr) {
        self.hearsay.forget(address);
        if let Some(entry) = self.entries.get_mut(&address) {
            let until = now + Self::BAN;
            entry.state = State::Banned { until };
        }
    }

    /// The peer there sent wrong data. One that the user named gets another chance after a while, since
    /// another may have spoilt the piece; others don't.
    pub(crate) fn lied(&mut self, now: Time, address: SocketAddr) {
        match self.entries.get(&address).map(|e| e.named) {
            Some(true) => self.rest(now, address, Self::LAST_RETRY),
            Some(false) => self.ban(now, address),
            None => {}
        }
    }
}

impl Entry {
    fn new(state: State, named: bool) -> Self {
        Self {
            state,
            failures: 0,
            named,
            remembered: false,
            seen: None,
            twin: None,
        }
    }

    /// Whether it was banned, and is no longer.
    fn is_over(&self, now: Time) -> bool {
        matches!(self.state, State::Banned { until } if until <= now)
    }

    /// How little is lost with it; `None`: it stays.
    fn uselessness(&self, now: Time) -> Option<u32> {
        match self.state {
            _ if self.named => None,
            State::Idle { .. } => Some(self.failures).filter(|f| *f > 0),
            _ => self.is_over(now).then_some(u32::MAX),
        }
    }

    fn connect(&mut self, now: Time) {
        self.state = State::Connected { since: now };
        self.twin = None;
    }
}

/// What a pause is multiplied by.
fn jitter(rng: &mut StdRng) -> f64 {
    rng.random_range(0.75..1.25)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn what_only_peers_know_of_is_tried_twice_and_what_others_know_of_too_for_longer() {
        let at = |seconds| Time::from_start(Duration::from_secs(seconds));
        let mut book = AddressBook::new(7, false);
        let teller = [192, 0, 2, 1].into();
        let tries = |book: &mut AddressBook, from: u64| {
            (from..from + 4_000)
                .filter(|second| {
                    let next = book.next(at(*second), false);
                    next.inspect(|a| book.lost(at(*second), *a)).is_some()
                })
                .count()
        };
        assert!(book.hear(at(0), address(1), teller));
        assert!(!book.hear(at(0), address(1), teller));
        assert_eq!(tries(&mut book, 0), 2);
        assert!(book.hear(at(4_000), address(1), teller));
        assert!(!book.add(at(4_000), address(1), false));
        assert_eq!(tries(&mut book, 4_000), 9);
        // A peer was there: it is worth as much as any other.
        assert!(book.hear(at(8_000), address(1), teller));
        assert_eq!(book.next(at(8_000), false), Some(address(1)));
        book.connected(at(8_000), address(1));
        book.lost(at(8_100), address(1));
        assert_eq!(tries(&mut book, 8_100), 9);
        assert!(!AddressBook::new(7, true).hear(at(0), address(1), teller));
        assert!(!book.hear(at(0), ([224, 0, 0, 1], 1).into(), teller));
    }

    #[test]
    fn failures_back_off_and_end_unless_the_address_was_named() {
        let mut book = AddressBook::new(1, false);
        let mut now = Time::default();
        assert!(book.add(now, address(1), true));
        assert!(book.add(now, address(2), false));
        assert!(!book.add(now, address(2), false));
        assert!(!book.add(now, address(0), false));
        let mut dials = HashMap::new();
        for _ in 0..60 {
            while let Some(a) = book.next(now, false) {
                *dials.entry(a.port()).or_insert(0) += 1;
                assert_eq!(book.dialling(), 1);
                book.lost(now, a);
            }
            now = now + Duration::from_secs(60);
        }
        assert_eq!(dials[&2], AddressBook::GIVE_UP + 1);
        assert!(dials[&1] > 50);
    }

    #[test]
    fn an_address_that_rests_is_due_when_peers_are_needed_again() {
        let mut book = AddressBook::new(1, false);
        let now = Time::default();
        book.add(now, address(1), false);
        assert_eq!(book.next(now, false), Some(address(1)));
        book.connected(now, address(1));
        book.rest(now, address(1), Duration::from_secs(600));
        assert_eq!(book.next(now, false), None);
        book.end_rests(now);
        assert_eq!(book.next(now, false), Some(address(1)));
    }

    #[test]
    fn connected_and_banned_addresses_are_not_dialled() {
        let mut book = AddressBook::new(1, false);
        let now = Time::default();
        book.add(now, address(1), true);
        assert_eq!(book.next(now, false), Some(address(1)));
        book.connected(now, address(1));
        assert_eq!(book.next_due(false), None);
        book.ban(now, address(1));
        book.lost(now, address(1));
        assert_eq!(book.next(now + Duration::from_secs(9999), false), None);
    }

    #[test]
    fn pauses_grow_with_failures_vary_by_chance_and_shrink_after_a_steady_connection() {
        let pauses = |seed| {
            let mut book = AddressBook::new(seed, false);
            let mut now = Time::default();
            book.add(now, address(1), false);
            let mut pauses = Vec::new();
            for _ in 0..7 {
                book.next(now, false).unwrap();
                book.lost(now, address(1));
                let due = book.next_due(false).unwrap();
                pauses.push(due.since(now));
                now = due;
            }
            book.next(now, false).unwrap();
            book.connected(now, address(1));
            now = now + AddressBook::STEADY;
            book.lost(now, address(1));
            pauses.push(book.next_due(false).unwrap().since(now));
            pauses
        };
        let (one, two) = (pauses(1), pauses(2));
        assert_eq!(one, pauses(1));
        assert_ne!(one, two);
        for (n, pause) in one[..7].iter().enumerate() {
            let plain = AddressBook::FIRST_RETRY * 2u32.pow(n as u32 + 1);
            let bounds = plain.mul_f64(0.75)..plain.mul_f64(1.25);
            assert!(bounds.contains(pause), "{n}: {pause:?}");
        }
        assert!(one[7] < AddressBook::FIRST_RETRY.mul_f64(1.25));
    }

    #[test]
    fn a_peer_that_came_to_us_is_dialled_when_it_is_lost_and_never_before() {
        let mut book = AddressBook::new(1, false);
        let now = Time::default();
        assert!(book.arrived(now, address(1)));
        // Another peer that says the same is not believed.
        assert!(!book.arrived(now, address(1)));
        assert_eq!(book.next(now, false), None);
        let end = now + Duration::from_secs(60);
        book.lost(end, address(1));
        assert_eq!(book.next(end, false), None);
        let later = end + AddressBook::FIRST_RETRY * 2;
        assert_eq!(book.next(later, false), Some(address(1)));
        assert!(!book.arrived(later, address(1)), "it is being dialled");
        book.ban(now, address(1));
        assert!(!book.arrived(later, address(1)));
        assert!(!book.arrived(later, address(0)));
    }

    #[test]
    fn a_peer_that_flaps_is_dialled_ever_more_seldom() {
        let mut book = AddressBook::new(1, false);
        let mut now = Time::default();
        let end = now + Duration::from_secs(600);
        book.add(now, address(1), true);
        let mut dials = 0;
        while now < end {
            if let Some(a) = book.next(now, false) {
                dials += 1;
                book.connected(now, a);
                book.lost(now, a);
            }
            now = now + Duration::from_millis(100);
        }
        // A named one: each 5 s in the end.
        assert!((100..180).contains(&dials), "{dials}");
    }

    #[test]
    fn other_addresses_of_a_connected_peer_rest_until_it_is_gone() {
        let mut book = AddressBook::new(1, false);
        let now = Time::default();
        book.add(now, address(1), false);
        book.next(now, false).unwrap();
        book.twin(now, address(1), [7; 20]);
        let later = now + Duration::from_secs(60);
        book.gone(later, [8; 20]);
        assert_eq!(book.next(later + Duration::from_secs(1), false), None);
        book.gone(later, [7; 20]);
        assert_eq!(book.next(later, false), None);
        assert_eq!(
            book.next(later + Duration::from_secs(1), false),
            Some(address(1))
        );
    }

    #[test]
    fn only_named_addresses_are_dialled_when_there_is_room_for_no_others() {
        let mut book = AddressBook::new(1, false);
        let now = Time::default();
        book.add(now, address(1), false);
        assert_eq!(book.next(now, true), None);
        assert_eq!(book.next_due(true), None);
        book.add(now, address(2), true);
        assert_eq!(book.next(now, true), Some(address(2)));
        assert!(book.is_named(address(2)) && !book.is_named(address(1)));
    }

    #[test]
    fn an_address_that_failed_is_due_at_once_when_the_user_names_it() {
        let mut book = AddressBook::new(1, false);
        let now = Time::default();
        book.add(now, address(1), false);
        book.next(now, false).unwrap();
        book.lost(now, address(1));
        assert_eq!(book.next(now, false), None);
        assert!(book.add(now, address(1), true));
        assert_eq!(book.next(now, false), Some(address(1)));
    }

    #[test]
    fn what_is_remembered_begins_with_those_who_are_there() {
        let mut book = AddressBook::new(1, false);
        let at = |s| Time::from_start(Duration::from_secs(s));
        for port in 1..=6 {
            book.add(at(0), address(port), port == 6);
            book.next(at(0), false).unwrap();
        }
        // 1 was there early, 2 later, 3 is there, 4 only failed, 5 lied, 6 was named.
        for (port, end) in [(1, 50), (2, 80)] {
            book.connected(at(1), address(port));
            book.lost(at(end), address(port));
        }
        book.connected(at(90), address(3));
        book.lost(at(90), address(4));
        book.connected(at(1), address(5));
        book.lied(at(60), address(5));
        book.connected(at(1), address(6));
        assert!(book.remember(at(90), address(7)));
        assert_eq!(book.worth_remembering(9), [3, 2, 1, 7].map(address));
        assert_eq!(book.worth_remembering(2), [3, 2].map(address));
    }

    fn elsewhere(host: u16, port: u16) -> SocketAddr {
        let [a, b] = host.to_be_bytes();
        SocketAddr::from(([10, 7, a, b], port))
    }

    #[test]
    fn one_host_takes_a_bounded_part_of_the_book_and_junk_makes_room_for_others() {
        let mut book = AddressBook::new(1, false);
        let now = Time::default();
        for port in 1..=5_000 {
            let taken = book.add(now, elsewhere(0, port), false);
            assert_eq!(taken, usize::from(port) <= AddressBook::MAX_OF_ONE);
        }
        // Whom the user names is taken, and counts for nothing here.
        assert!(book.add(now, elsewhere(0, 6_000), true));
        // What failed makes room for another of the same host.
        let failing = book.next(now, false).unwrap();
        assert!(book.is_named(failing));
        let failing = book.next(now, false).unwrap();
        book.lost(now, failing);
        assert!(book.add(now, elsewhere(0, 7_000), false));
        assert!(!book.entries.contains_key(&failing));
        assert!(!book.add(now, elsewhere(0, 7_001), false));

        let mut host = 1;
        while book.entries.len() < AddressBook::CAPACITY {
            assert!(book.add(now, elsewhere(host, 1), false));
            host += 1;
        }
        assert!(!book.add(now, elsewhere(host, 1), false), "all may be good");
        let mut failed = Vec::new();
        for failures in [2, 3, 1] {
            let address = book.next(now, false).unwrap();
            for _ in 0..failures {
                book.lost(now, address);
            }
            failed.push(address);
        }
        assert!(book.add(now, elsewhere(host, 1), false));
        let there = failed.iter().map(|a| book.entries.contains_key(a));
        assert_eq!(there.collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(book.entries.len(), AddressBook::CAPACITY);
    }

    #[test]
    fn a_ban_ends_and_the_address_may_be_learnt_again() {
        let mut book = AddressBook::new(1, false);
        let now = Time::default();
        book.add(now, address(1), false);
        book.ban(now, address(1));
        let later = now + AddressBook::BAN;
        assert!(!book.add(now + AddressBook::BAN / 2, address(1), false));
        assert_eq!(book.next(later, false), None);
        assert!(book.add(later, address(1), false));
        assert_eq!(book.next(later, false), Some(address(1)));
    }

    #[test]
    fn a_book_for_named_addresses_takes_no_others() {
        let mut book = AddressBook::new(1, true);
        let now = Time::default();
        assert!(!book.add(now, address(1), false));
        assert!(!book.arrived(now, address(1)));
        assert!(!book.remember(now, address(1)));
        assert!(book.add(now, address(2), true));
        assert_eq!(book.next(now, false), Some(address(2)));
        book.lost(now, address(2));
        assert!(book.arrived(now, address(2)), "the user named it");
        assert_eq!(book.entries.len(), 1);
    }
}
