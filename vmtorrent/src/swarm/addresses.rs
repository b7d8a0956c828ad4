//! Invariant: an address is dialled by one attempt at a time, never while connected, never when banned.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Time;

/// The addresses where peers may be, and when to try each next.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    entries: HashMap<SocketAddr, Entry>,
}

#[derive(Debug)]
struct Entry {
    state: State,
    failures: u32,
    /// The user named it: it is tried for ever.
    named: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle { due: Time },
    Dialling,
    Connected { since: Time },
    Banned,
}

impl AddressBook {
    const FIRST_RETRY: Duration = Duration::from_millis(500);
    const LAST_RETRY: Duration = Duration::from_secs(60);
    /// How long a peer must have stayed for its earlier failures to be forgotten.
    const STEADY: Duration = Duration::from_secs(10);
    /// Failures in a row after which an address that nobody named is forgotten.
    const GIVE_UP: u32 = 8;
    const CAPACITY: usize = 4096;

    /// Learns of an address; true when it was new.
    pub(crate) fn add(&mut self, now: Time, address: SocketAddr, named: bool) -> bool {
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.named |= named;
            return false;
        }
        if self.entries.len() >= Self::CAPACITY && !named {
            return false;
        }
        let state = State::Idle { due: now };
        self.entries.insert(
            address,
            Entry {
                state,
                failures: 0,
                named,
            },
        );
        true
    }

    /// The address to dial now, if any; it counts as being dialled.
    pub(crate) fn next(&mut self, now: Time) -> Option<SocketAddr> {
        let due = |e: &Entry| match e.state {
            State::Idle { due } if due <= now => Some((!e.named, due)),
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
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.entries
            .values()
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
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.state = State::Connected { since: now };
        }
    }

    /// The address did not answer, or its connection ended: it is due again after a pause that doubles.
    pub(crate) fn lost(&mut self, now: Time, address: SocketAddr) {
        let Some(entry) = self.entries.get_mut(&address) else {
            return;
        };
        match entry.state {
            State::Banned => return,
            State::Connected { since } if now.since(since) >= Self::STEADY => entry.failures = 0,
            _ => entry.failures += 1,
        }
        if entry.failures > Self::GIVE_UP && !entry.named {
            self.entries.remove(&address);
            return;
        }
        let pause = Self::FIRST_RETRY * 2u32.pow(entry.failures.min(10));
        entry.state = State::Idle {
            due: now + pause.min(Self::LAST_RETRY),
        };
    }

    /// The address is of no use for a while (it has nothing for us, nor we for it).
    pub(crate) fn rest(&mut self, now: Time, address: SocketAddr, pause: Duration) {
        if let Some(entry) = self.entries.get_mut(&address)
            && entry.state != State::Banned
        {
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

    /// The address is never dialled again: it is our own, or it lied.
    pub(crate) fn ban(&mut self, address: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.state = State::Banned;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn failures_back_off_and_end_unless_the_address_was_named() {
        let mut book = AddressBook::default();
        let mut now = Time::default();
        assert!(book.add(now, address(1), true));
        assert!(book.add(now, address(2), false));
        assert!(!book.add(now, address(2), false));
        assert!(!book.add(now, address(0), false));
        let mut dials = HashMap::new();
        for _ in 0..60 {
            while let Some(a) = book.next(now) {
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
        let mut book = AddressBook::default();
        let now = Time::default();
        book.add(now, address(1), false);
        assert_eq!(book.next(now), Some(address(1)));
        book.connected(now, address(1));
        book.rest(now, address(1), Duration::from_secs(600));
        assert_eq!(book.next(now), None);
        book.end_rests(now);
        assert_eq!(book.next(now), Some(address(1)));
    }

    #[test]
    fn connected_and_banned_addresses_are_not_dialled() {
        let mut book = AddressBook::default();
        let now = Time::default();
        book.add(now, address(1), true);
        assert_eq!(book.next(now), Some(address(1)));
        book.connected(now, address(1));
        assert_eq!(book.next_due(), None);
        book.ban(address(1));
        book.lost(now, address(1));
        assert_eq!(book.next(now + Duration::from_secs(9999)), None);
    }
}
