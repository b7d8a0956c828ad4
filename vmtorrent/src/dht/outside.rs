//! How others see us. Invariant: an address is believed only when nodes of [`QUORUM`] networks say it, and more than half of
//! those that said anything; each network has one voice, and nobody has one who was not asked.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::clock::Time;
use crate::swarm::Scope;

/// Networks that must agree.
const QUORUM: usize = 5;
/// Networks whose last word is remembered.
const MAX_VOICES: usize = 32;
/// The least time between two beliefs: a host with two ways out shall not go to and fro.
const REST: Duration = Duration::from_secs(600);

/// The address from which our questions come, as far as those say who were asked.
#[derive(Debug, Default)]
pub(super) struct Outside {
    /// Who said which, the oldest first.
    voices: VecDeque<(IpAddr, IpAddr)>,
    believed: Option<(IpAddr, Time)>,
}

impl Outside {
    /// A node that was asked says that our question came from `seen`. Gives what is believed from now on, if that has
    /// changed.
    pub(super) fn heard(
        &mut self,
        now: Time,
        from: SocketAddr,
        seen: SocketAddr,
    ) -> Option<IpAddr> {
        let is_global = |a| Scope::of(a) == Some(Scope::Global);
        if !is_global(from) || !is_global(seen) || from.is_ipv6() != seen.is_ipv6() {
            return None;
        }
        let (network, seen) = (network(from.ip()), seen.ip());
        self.voices.retain(|(voice, _)| *voice != network);
        if self.voices.len() >= MAX_VOICES {
            self.voices.pop_front();
        }
        self.voices.push_back((network, seen));
        let rests = |at: Time| now.since(at) < REST;
        if self
            .believed
            .is_some_and(|(ip, at)| ip == seen || rests(at))
        {
            return None;
        }
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (_, said) in &self.voices {
            *counts.entry(*said).or_default() += 1;
        }
        let agree = counts.get(&seen).copied().unwrap_or(0);
        if agree < QUORUM || 2 * agree <= self.voices.len() {
            return None;
        }
        self.believed = Some((seen, now));
        Some(seen)
    }
}

/// What whoever has one of its addresses may have all of: an IPv4 network of 24 bits, an IPv6 network of 48.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & !0xff).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 80 << 80).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A node of the n-th network.
    fn node(n: u8) -> SocketAddr {
        ([20, 0, n, 1], 6881).into()
    }

    const OURS: &str = "21.75.31.124:6881";
    const OTHER: &str = "65.23.51.170:6881";

    #[test]
    fn five_networks_are_believed_and_one_is_not() {
        let mut outside = Outside::default();
        for host in 1..=255 {
            let one = ([20, 0, 1, host], 6881).into();
            assert_eq!(outside.heard(at(0), one, address(OURS)), None);
        }
        for n in 2..=4 {
            assert_eq!(outside.heard(at(0), node(n), address(OURS)), None);
        }
        // The port does not matter: a router may choose another for each.
        let seen = address("21.75.31.124:1");
        assert_eq!(outside.heard(at(0), node(5), seen), Some(seen.ip()));
        // Once.
        assert_eq!(outside.heard(at(0), node(6), seen), None);
    }

    #[test]
    fn liars_need_more_than_half_of_the_networks() {
        let mut outside = Outside::default();
        for n in 0..5 {
            outside.heard(at(0), node(n), address(OURS));
        }
        for n in 100..105 {
            assert_eq!(outside.heard(at(1_000), node(n), address(OTHER)), None);
        }
        let other = address(OTHER).ip();
        assert_eq!(
            outside.heard(at(1_000), node(105), address(OTHER)),
            Some(other)
        );
    }

    #[test]
    fn a_new_address_is_believed_after_a_while_and_old_voices_go() {
        let mut outside = Outside::default();
        for n in 0..40 {
            outside.heard(at(0), node(n), address(OURS));
        }
        assert_eq!(outside.voices.len(), MAX_VOICES);
        let change = |outside: &mut Outside, second| {
            let heard = (0..40).filter_map(|n| outside.heard(at(second), node(n), address(OTHER)));
            heard.last()
        };
        assert_eq!(change(&mut outside, 599), None);
        assert_eq!(change(&mut outside, 600), Some(address(OTHER).ip()));
        assert_eq!(outside.voices.len(), MAX_VOICES);
    }

    #[test]
    fn what_is_no_address_of_the_internet_counts_nowhere() {
        let mut outside = Outside::default();
        for n in 0..100 {
            for seen in [
                "10.0.0.1:1",
                "127.0.0.1:1",
                "0.0.0.0:1",
                "21.75.31.124:0",
                "[2001:db8::1]:1",
            ] {
                assert_eq!(outside.heard(at(0), node(n), address(seen)), None);
            }
            let private = ([10, 0, n, 1], 6881).into();
            assert_eq!(outside.heard(at(0), private, address(OURS)), None);
        }
        assert!(outside.voices.is_empty());
    }

    #[test]
    fn of_ipv6_a_network_of_48_bits_has_one_voice() {
        let mut outside = Outside::default();
        let seen = address("[2001:db8:7::1]:6881");
        for n in 1..100 {
            let one = address(&format!("[2001:db8:1:{n}::1]:6881"));
            assert_eq!(outside.heard(at(0), one, seen), None);
        }
        for n in 2..5 {
            let one = address(&format!("[2001:db8:{n}::1]:6881"));
            assert_eq!(outside.heard(at(0), one, seen), None);
        }
        let one = address("[2001:db8:5::1]:6881");
        assert_eq!(outside.heard(at(0), one, seen), Some(seen.ip()));
    }
}
