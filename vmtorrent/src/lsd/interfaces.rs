//! Invariant: an announce goes out only where our listener can be reached from, and is believed only if it comes from
//! a network that we are on.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use if_addrs::IfAddr;

/// An address of an interface of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Interface {
    /// The system's number of the interface.
    pub(super) index: u32,
    pub(super) ip: IpAddr,
    /// Which bits of `ip` name the network.
    mask: u128,
}

impl Interface {
    /// All that are up.
    pub(super) fn all() -> Vec<Self> {
        let found = if_addrs::get_if_addrs().unwrap_or_else(|error| {
            tracing::debug!(%error, "the network interfaces can't be listed");
            Vec::new()
        });
        found
            .into_iter()
            // The loopback interface has no state on some systems.
            .filter(|i| i.is_oper_up() || i.is_loopback())
            .filter_map(|i| Some(Self::new(i.index?, &i.addr)))
            .collect()
    }

    fn new(index: u32, address: &IfAddr) -> Self {
        match address {
            IfAddr::V4(v4) => Self::v4(index, v4.ip, v4.netmask),
            IfAddr::V6(v6) => Self::v6(index, v6.ip, v6.netmask),
        }
    }

    fn v4(index: u32, ip: Ipv4Addr, mask: Ipv4Addr) -> Self {
        Self {
            index,
            ip: ip.into(),
            mask: u128::from(mask.to_bits()),
        }
    }

    fn v6(index: u32, ip: Ipv6Addr, mask: Ipv6Addr) -> Self {
        Self {
            index,
            ip: ip.into(),
            mask: mask.to_bits(),
        }
    }

    /// Whether an address belongs to this interface's network.
    fn is_on_link(&self, other: IpAddr) -> bool {
        let bits = |ip| match ip {
            IpAddr::V4(ip) => u128::from(Ipv4Addr::to_bits(ip)),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        self.ip.is_ipv4() == other.is_ipv4()
            // No mask at all would make the whole world a neighbour.
            && self.mask != 0
            && bits(self.ip) & self.mask == bits(other) & self.mask
    }
}

/// Whether an announce from there can come from a neighbour.
pub(super) fn is_neighbour(interfaces: &[Interface], from: IpAddr) -> bool {
    let from = from.to_canonical();
    let link_local = matches!(from, IpAddr::V6(ip) if ip.is_unicast_link_local());
    link_local || interfaces.iter().any(|i| i.is_on_link(from))
}

/// Where to announce a listener: the interfaces over which it is reached. This host's own programs are told only
/// if it listens for nobody else, or there is no other network.
pub(super) fn outlets(interfaces: &[Interface], listener: SocketAddr) -> Vec<Interface> {
    let listener = listener.ip();
    let is_reached = |i: &&Interface| match listener {
        IpAddr::V4(ip) => i.ip.is_ipv4() && (ip.is_unspecified() || i.ip == listener),
        // It takes IPv4 connections too, on systems that allow it by default. One that takes a single IPv6 address is
        // not announced but to this host: the system chooses from which address of the interface we send.
        IpAddr::V6(ip) => ip.is_unspecified() || (ip.is_loopback() && i.ip == listener),
    };
    let reached: Vec<Interface> = interfaces.iter().filter(is_reached).copied().collect();
    let abroad: Vec<Interface> = reached
        .iter()
        .filter(|i| !i.ip.is_loopback())
        .copied()
        .collect();
    let mut outlets = if abroad.is_empty() { reached } else { abroad };
    // An interface has several IPv6 addresses as a rule, but one announce goes out over it.
    let mut seen = HashSet::new();
    outlets.retain(|i| i.ip.is_ipv4() || seen.insert(i.index));
    outlets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(index: u32, ip: [u8; 4], prefix: u32) -> Interface {
        Interface::v4(
            index,
            ip.into(),
            Ipv4Addr::from_bits(u32::MAX << (32 - prefix)),
        )
    }

    fn v6(index: u32, ip: &str, prefix: u32) -> Interface {
        let mask = Ipv6Addr::from_bits(u128::MAX << (128 - prefix));
        Interface::v6(index, ip.parse().unwrap(), mask)
    }

    fn host() -> Vec<Interface> {
        vec![
            v4(1, [127, 0, 0, 1], 8),
            v6(1, "::1", 128),
            v4(2, [192, 0, 2, 7], 24),
            v6(2, "2001:db8::7", 64),
            v6(2, "fe80::7", 64),
            v4(3, [10, 1, 0, 1], 16),
        ]
    }

    fn announced(listener: &str) -> Vec<IpAddr> {
        let outlets = outlets(&host(), listener.parse().unwrap());
        outlets.into_iter().map(|i| i.ip).collect()
    }

    #[test]
    fn a_listener_is_announced_where_it_is_reached_and_nowhere_else() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(announced("0.0.0.0:1"), [ip("192.0.2.7"), ip("10.1.0.1")]);
        assert_eq!(
            announced("[::]:1"),
            [ip("192.0.2.7"), ip("2001:db8::7"), ip("10.1.0.1")]
        );
        assert_eq!(announced("10.1.0.1:1"), [ip("10.1.0.1")]);
        assert_eq!(announced("127.0.0.1:1"), [ip("127.0.0.1")]);
        assert_eq!(announced("[::1]:1"), [ip("::1")]);
        assert_eq!(announced("[2001:db8::7]:1"), [] as [IpAddr; 0]);
        assert_eq!(announced("198.51.100.1:1"), [] as [IpAddr; 0]);
        let alone = [v4(1, [127, 0, 0, 1], 8)];
        let listener = "0.0.0.0:1".parse().unwrap();
        assert_eq!(outlets(&alone, listener), alone);
    }

    #[test]
    fn only_neighbours_are_believed() {
        let neighbour = |text: &str| is_neighbour(&host(), text.parse().unwrap());
        for near in [
            "192.0.2.200",
            "10.1.255.1",
            "2001:db8::abcd",
            "fe80::1",
            "127.0.0.1",
            "::ffff:192.0.2.3",
        ] {
            assert!(neighbour(near), "{near}");
        }
        for far in ["192.0.3.1", "10.2.0.1", "2001:db8:0:1::1", "8.8.8.8", "::"] {
            assert!(!neighbour(far), "{far}");
        }
        let maskless = [
            v4(1, [10, 0, 0, 1], 32),
            Interface {
                mask: 0,
                ..v4(1, [10, 0, 0, 1], 32)
            },
        ];
        assert!(!is_neighbour(&maskless, [8, 8, 8, 8].into()));
    }

    #[test]
    fn this_host_has_a_loopback_interface() {
        assert!(Interface::all().iter().any(|i| i.ip.is_loopback()));
    }
}
