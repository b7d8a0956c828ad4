//! Invariant: a host is shut out only when several of its connections sent wrong data, and only for a while; the table
//! is bounded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::clock::Time;

/// Hosts that sent wrong data. A peer chooses its id and its port anew with each connection, but hardly its address.
///
/// More than one lie is needed, since honest peers may stand behind the same address.
#[derive(Debug, Default)]
pub(super) struct Bans {
    hosts: HashMap<IpAddr, Record>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    lies: u32,
    last: Time,
}

impl Bans {
    /// Connections with wrong data after which a host is shut out.
    const LIES: u32 = 3;
    /// How long it is remembered after the last of them.
    const TERM: Duration = Duration::from_secs(3600);
    const CAPACITY: usize = 4096;

    /// A connection with this host was ended because of wrong data.
    pub(super) fn lied(&mut self, now: Time, host: IpAddr) {
        let host = subscriber(host);
        self.hosts.retain(|_, r| now.since(r.last) < Self::TERM);
        if self.hosts.len() >= Self::CAPACITY && !self.hosts.contains_key(&host) {
            let oldest = self.hosts.iter().min_by_key(|(_, r)| r.last);
            if let Some(oldest) = oldest.map(|(host, _)| *host) {
                self.hosts.remove(&oldest);
            }
        }
        let new = Record { lies: 0, last: now };
        let record = self.hosts.entry(host).or_insert(new);
        record.lies += 1;
        record.last = now;
    }

    /// Whether connections from this host are refused.
    pub(super) fn is_banned(&self, now: Time, host: IpAddr) -> bool {
        let record = self.hosts.get(&subscriber(host));
        record.is_some_and(|r| r.lies >= Self::LIES && now.since(r.last) < Self::TERM)
    }
}

/// What one subscriber has: an IPv4 address, or the 2^64 IPv6 addresses of a subnet.
fn subscriber(host: IpAddr) -> IpAddr {
    match host.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn a_host_is_shut_out_after_several_lies_and_let_in_again_later() {
        let mut bans = Bans::default();
        let now = Time::default();
        for _ in 0..Bans::LIES {
            assert!(!bans.is_banned(now, host(1)));
            bans.lied(now, host(1));
        }
        assert!(bans.is_banned(now, host(1)));
        assert!(!bans.is_banned(now, host(2)));
        let later = now + Bans::TERM;
        assert!(!bans.is_banned(later, host(1)));
        bans.lied(later, host(1));
        assert!(!bans.is_banned(later, host(1)), "it begins anew");
    }

    #[test]
    fn the_addresses_of_one_subnet_are_one_host() {
        let mut bans = Bans::default();
        let now = Time::default();
        for n in 0..3_u16 {
            bans.lied(now, Ipv6Addr::new(0x2001, 0xdb8, 1, 2, n, n, n, n).into());
        }
        assert!(bans.is_banned(now, "2001:db8:1:2::77".parse().unwrap()));
        assert!(!bans.is_banned(now, "2001:db8:1:3::77".parse().unwrap()));
        for _ in 0..3 {
            bans.lied(now, "::ffff:10.0.0.1".parse().unwrap());
        }
        assert!(bans.is_banned(now, "10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest() {
        let mut bans = Bans::default();
        let start = Time::default();
        for n in 0..2 * Bans::CAPACITY as u32 {
            let now = start + Duration::from_millis(n.into());
            for _ in 0..Bans::LIES {
                bans.lied(now, host(n));
            }
        }
        let end = start + Duration::from_secs(60);
        assert_eq!(bans.hosts.len(), Bans::CAPACITY);
        assert!(!bans.is_banned(end, host(5)));
        assert!(bans.is_banned(end, host(2 * Bans::CAPACITY as u32 - 1)));
    }
}
