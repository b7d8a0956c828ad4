//! Invariant: an address is passed on, or believed, only where it means the same host to both sides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far an address reaches, the nearest first. A peer that is connected over an address of one scope shares the networks
/// of this scope and of wider ones with us: of narrower ones it knows others than we do. So `10.0.0.7`, told by a stranger
/// on the Internet, is a host of his network or a try to have us knock at ours; told by `10.0.0.5` it is a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// This host: 127.0.0.0/8, ::1.
    Loopback,
    /// One link (RFC 3927): 169.254.0.0/16. Addresses of fe80::/10 have none: they say nothing without an interface.
    Link,
    /// A private network (RFC 1918, RFC 6598, RFC 4193).
    Private,
    /// Everywhere.
    Global,
}

impl Scope {
    /// `None`: no peer can be there.
    pub(crate) fn of(address: SocketAddr) -> Option<Self> {
        if address.port() == 0 {
            return None;
        }
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Option<Self> {
        let [a, b, ..] = ip.octets();
        match a {
            // This network; multicast, reserved and broadcast.
            0 | 224.. => None,
            127 => Some(Self::Loopback),
            169 if b == 254 => Some(Self::Link),
            // Carriers' own network (RFC 6598).
            100 if (64..128).contains(&b) => Some(Self::Private),
            _ if ip.is_private() => Some(Self::Private),
            _ => Some(Self::Global),
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Option<Self> {
        if ip.is_loopback() {
            Some(Self::Loopback)
        } else if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() {
            None
        } else if ip.is_unique_local() {
            Some(Self::Private)
        } else {
            Some(Self::Global)
        }
    }

    /// Whether one who is connected to us over this scope and we mean the same host by an address.
    pub(crate) fn shares(self, address: SocketAddr) -> bool {
        Self::of(address).is_some_and(|scope| scope >= self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_as_the_registries_have_them() {
        let of = |text: &str| Scope::of(text.parse().unwrap());
        for (scope, addresses) in [
            (
                None,
                &[
                    "0.0.0.0:1",
                    "0.1.2.3:1",
                    "224.0.0.1:1",
                    "255.255.255.255:1",
                    "240.0.0.1:1",
                    "192.0.2.1:0",
                ][..],
            ),
            (
                None,
                &["[::]:1", "[ff02::1]:1", "[fe80::1]:1", "[::ffff:0.0.0.0]:1"],
            ),
            (
                Some(Scope::Loopback),
                &[
                    "127.0.0.1:1",
                    "127.9.9.9:1",
                    "[::1]:1",
                    "[::ffff:127.0.0.1]:1",
                ],
            ),
            (Some(Scope::Link), &["169.254.1.1:1"]),
            (
                Some(Scope::Private),
                &[
                    "10.1.1.1:1",
                    "172.31.0.1:1",
                    "192.168.1.1:1",
                    "100.64.0.1:1",
                    "[fd00::1]:1",
                ],
            ),
            (
                Some(Scope::Global),
                &[
                    "192.0.2.1:1",
                    "172.32.0.1:1",
                    "100.128.0.1:1",
                    "[2001:db8::1]:1",
                ],
            ),
        ] {
            for address in addresses {
                assert_eq!(of(address), scope, "{address}");
            }
        }
    }

    #[test]
    fn narrower_addresses_than_the_connection_are_not_shared() {
        let address = |text: &str| text.parse().unwrap();
        let (here, near, far) = (
            address("127.0.0.1:1"),
            address("10.0.0.1:1"),
            address("192.0.2.1:1"),
        );
        for (scope, shared) in [
            (Scope::Loopback, [true, true, true]),
            (Scope::Private, [false, true, true]),
            (Scope::Global, [false, false, true]),
        ] {
            assert_eq!(
                [here, near, far].map(|a| scope.shares(a)),
                shared,
                "{scope:?}"
            );
        }
    }
}
