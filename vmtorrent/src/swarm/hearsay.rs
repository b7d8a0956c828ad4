//! Invariant: however much one origin tells, at most [`MAX_OPEN`] of its addresses are being tried at a time, each at most
//! [`TRIES`] times, and one whose addresses lead nowhere is soon not listened to.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::origin::Origin;
use crate::clock::Time;

/// Addresses of one origin, and of all, that were told and not reached yet.
const MAX_OPEN: usize = 50;
const MAX_OPEN_IN_ALL: usize = 1_024;
/// Dials of an address that nobody but peers knows of.
const TRIES: u32 = 2;
/// How many more of its addresses may have led nowhere than to a peer, in [`MEMORY`].
const MAX_VAIN: u32 = 200;
const MEMORY: Duration = Duration::from_secs(3_600);
/// After so long an address counts as tried.
const LONGEST_TRY: Duration = Duration::from_secs(600);
/// Origins that are remembered.
const MAX_ORIGINS: usize = 1_024;

/// Addresses that peers told of others (BEP 11). Without a bound a few peers could have a crowd dial any host again and
/// again.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    open: HashMap<SocketAddr, Told>,
    origins: HashMap<Origin, Account>,
}

#[derive(Debug)]
struct Told {
    by: Origin,
    at: Time,
    tries: u32,
}

#[derive(Debug)]
struct Account {
    since: Time,
    vain: u32,
}

impl Hearsay {
    /// Whether an address that `by` told is to be tried; it is noted then.
    pub(super) fn admit(&mut self, now: Time, address: SocketAddr, by: IpAddr) -> bool {
        let by = Origin::or_this_host(by);
        let over = |told: &Told| now.since(told.at) >= LONGEST_TRY;
        self.open.retain(|_, told| !over(told));
        let of_one = self.open.values().filter(|told| told.by == by).count();
        if of_one >= MAX_OPEN || self.open.len() >= MAX_OPEN_IN_ALL || self.is_vain(now, by) {
            return false;
        }
        let told = Told {
            by,
            at: now,
            tries: 0,
        };
        self.open.entry(address).or_insert(told);
        true
    }

    fn is_vain(&mut self, now: Time, origin: Origin) -> bool {
        self.origins
            .retain(|_, account| now.since(account.since) < MEMORY);
        self.origins
            .get(&origin)
            .is_some_and(|account| account.vain >= MAX_VAIN)
    }

    /// A peer is there.
    pub(super) fn reached(&mut self, address: SocketAddr) {
        if let Some(told) = self.open.remove(&address)
            && let Some(account) = self.origins.get_mut(&told.by)
        {
            account.vain = account.vain.saturating_sub(1);
        }
    }

    /// Nobody was reached there. True when it is not to be tried again.
    pub(super) fn failed(&mut self, now: Time, address: SocketAddr) -> bool {
        let Some(told) = self.open.get_mut(&address) else {
            return false;
        };
        told.tries += 1;
        if told.tries < TRIES {
            return false;
        }
        let by = told.by;
        self.open.remove(&address);
        if self.origins.len() >= MAX_ORIGINS && !self.origins.contains_key(&by) {
            let oldest = self.origins.iter().min_by_key(|(_, a)| a.since);
            if let Some(oldest) = oldest.map(|(origin, _)| *origin) {
                self.origins.remove(&oldest);
            }
        }
        let account = self.origins.entry(by).or_insert(Account {
            since: now,
            vain: 0,
        });
        account.vain += 1;
        true
    }

    /// Somebody else knows the address too.
    pub(super) fn forget(&mut self, address: SocketAddr) {
        self.open.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TELLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn address(n: u32) -> SocketAddr {
        let [_, a, b, c] = n.to_be_bytes();
        ([20, a, b, c], 6881).into()
    }

    #[test]
    fn one_that_tells_of_nobody_causes_few_dials() {
        let mut hearsay = Hearsay::default();
        let mut dials = 0;
        // A thousand addresses a second for an hour, none of which answers.
        for second in 0..3_600 {
            let told = (0..1_000).map(|n| address(second * 1_000 + n));
            let taken: Vec<_> = told
                .filter(|a| hearsay.admit(at(second.into()), *a, TELLER))
                .collect();
            assert!(taken.len() <= MAX_OPEN);
            for address in taken {
                dials += 1;
                while !hearsay.failed(at(second.into()), address) {
                    dials += 1;
                }
            }
        }
        assert!((200..=600).contains(&dials), "{dials}");
        // Others are listened to, and later it is again.
        assert!(hearsay.admit(at(3_599), address(1), [192, 0, 2, 2].into()));
        assert!(!hearsay.admit(at(3_599), address(2), TELLER));
        assert!(hearsay.admit(at(7_300), address(2), TELLER));
    }

    #[test]
    fn one_that_tells_the_truth_is_listened_to_for_ever() {
        let mut hearsay = Hearsay::default();
        for n in 0..10_000 {
            assert!(hearsay.admit(at(0), address(n), TELLER), "{n}");
            if n % 2 == 0 {
                hearsay.reached(address(n));
            } else {
                assert!(!hearsay.failed(at(0), address(n)));
                assert!(hearsay.failed(at(0), address(n)));
            }
        }
        assert!(hearsay.open.is_empty());
    }

    #[test]
    fn what_is_open_is_bounded_and_ends_by_itself() {
        let mut hearsay = Hearsay::default();
        let mut taken = 0;
        for teller in 0..100 {
            for n in 0..100 {
                let by = [192, 0, 2, teller].into();
                let told = address(u32::from(teller) * 100 + n);
                taken += usize::from(hearsay.admit(at(0), told, by));
            }
        }
        assert_eq!(taken, MAX_OPEN_IN_ALL);
        assert!(!hearsay.admit(at(599), address(99_999), [192, 0, 2, 200].into()));
        assert!(hearsay.admit(at(600), address(99_999), [192, 0, 2, 200].into()));
        assert_eq!(hearsay.open.len(), 1);
        hearsay.forget(address(99_999));
        assert!(!hearsay.failed(at(600), address(99_999)));
    }

    #[test]
    fn the_memory_of_origins_is_bounded() {
        let mut hearsay = Hearsay::default();
        for n in 0..3_000_u32 {
            let [_, a, b, c] = n.to_be_bytes();
            assert!(hearsay.admit(at(0), address(n), [21, a, b, c].into()));
            while !hearsay.failed(at(0), address(n)) {}
        }
        assert_eq!(hearsay.origins.len(), MAX_ORIGINS);
    }
}
