//! Invariant: an address is dialled by one attempt at a time, never while connected, never when banned; and the more
//! often it failed, the more seldom.

mod attempts;
mod entry;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use self::entry::{Entry, State};
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
}

#[cfg(test)]
mod tests;
