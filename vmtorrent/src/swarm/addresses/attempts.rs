//! When an address is tried, and what came of it. Invariant: an address that is dialled, connected or banned is not
//! due, and each failure in a row doubles the pause, up to a bound.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::AddressBook;
use super::entry::{Entry, State};
use crate::clock::Time;

impl AddressBook {
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

/// What a pause is multiplied by.
fn jitter(rng: &mut StdRng) -> f64 {
    rng.random_range(0.75..1.25)
}
