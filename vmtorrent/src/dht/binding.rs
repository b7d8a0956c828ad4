//! Ids that are bound to addresses (BEP 42). Invariant: who has one IPv4 address, or one IPv6 network of 64 bits, has eight
//! beginnings of ids that fit it, of 21 bits: so it can't choose where in the table it is.

use std::net::{IpAddr, SocketAddr};

use super::id::Id;
use crate::swarm::Scope;

/// The bits of an address that count: of what is easier to have many of, fewer.
const MASK_V4: [u8; 4] = [0x03, 0x0f, 0x3f, 0xff];
const MASK_V6: [u8; 8] = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];
/// The bits of an id that choose one of the beginnings, in its last byte.
const CHOICE: u8 = 0x07;

/// An id that fits an address; what is free in it is that of `chance`.
pub(super) fn id_at(ip: IpAddr, chance: [u8; 20]) -> Id {
    let mut id = chance;
    let [a, b, c] = beginning(ip, chance[19] & CHOICE);
    id[0] = a;
    id[1] = b;
    id[2] = (c & 0xf8) | (id[2] & 0x07);
    Id(id)
}

/// Whether an id fits the address of its node. Where addresses are not the Internet's nothing has to.
pub(super) fn fits(id: Id, address: SocketAddr) -> bool {
    if Scope::of(address) != Some(Scope::Global) {
        return true;
    }
    let [a, b, c] = beginning(address.ip(), id.0[19] & CHOICE);
    id.0[0] == a && id.0[1] == b && (id.0[2] ^ c) & 0xf8 == 0
}

fn beginning(ip: IpAddr, choice: u8) -> [u8; 3] {
    let crc = match ip.to_canonical() {
        IpAddr::V4(ip) => sum(ip.octets(), MASK_V4, choice),
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h, ..] = ip.octets();
            sum([a, b, c, d, e, f, g, h], MASK_V6, choice)
        }
    };
    let [a, b, c, _] = crc.to_be_bytes();
    [a, b, c]
}

fn sum<const N: usize>(mut octets: [u8; N], mask: [u8; N], choice: u8) -> u32 {
    for (octet, mask) in octets.iter_mut().zip(mask) {
        *octet &= mask;
    }
    if let Some(first) = octets.first_mut() {
        *first |= choice << 5;
    }
    crc32c::crc32c(&octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Address, the last byte of the id, the id.
    const EXAMPLES: [(&str, u8, &str); 5] = [
        (
            "124.31.75.21",
            1,
            "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401",
        ),
        (
            "21.75.31.124",
            86,
            "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256",
        ),
        (
            "65.23.51.170",
            22,
            "a5d43220bc8f112a3d426c84764f8c2a1150e616",
        ),
        (
            "84.124.73.14",
            65,
            "1b0321dd1bb1fe518101ceef99462b947a01ff41",
        ),
        (
            "43.213.53.83",
            90,
            "e56f6cbf5b7c4be0237986d5243b87aa6d51305a",
        ),
    ];

    fn id(hex: &str) -> Id {
        let digit = |n: usize| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
        Id(std::array::from_fn(digit))
    }

    #[test]
    fn the_examples_of_bep_42_fit_and_are_made() {
        for (ip, last, hex) in EXAMPLES {
            let ip: IpAddr = ip.parse().unwrap();
            let example = id(hex);
            assert_eq!(example.0[19], last);
            assert!(fits(example, (ip, 6881).into()), "{ip}");
            // With the example's chance it is the example, whatever else stands where the sum goes.
            let mut chance = example.0;
            chance[..2].fill(0xaa);
            chance[2] ^= 0xf8;
            assert_eq!(id_at(ip, chance), example);
            // At a neighbour's address, or with another choice, it is none.
            let IpAddr::V4(v4) = ip else { panic!() };
            let neighbour = v4.to_bits() ^ 1;
            assert!(!fits(
                example,
                (std::net::Ipv4Addr::from(neighbour), 6881).into()
            ));
            let mut other = example;
            other.0[19] ^= 1;
            assert!(!fits(other, (ip, 6881).into()), "{ip}");
        }
    }

    #[test]
    fn in_closed_networks_every_id_fits() {
        for address in [
            "10.1.2.3:1",
            "172.16.0.1:1",
            "192.168.0.1:1",
            "169.254.1.1:1",
            "127.0.0.1:1",
            "[::1]:1",
            "[fd00::1]:1",
        ] {
            assert!(fits(Id([7; 20]), address.parse().unwrap()), "{address}");
        }
    }

    proptest! {
        #[test]
        fn what_is_made_fits_there_and_hardly_elsewhere(four: [u8; 4], six: [u8; 16], chance: [u8; 20]) {
            for ip in [IpAddr::from(four), IpAddr::from(six)] {
                let made = id_at(ip, chance);
                prop_assert!(fits(made, (ip, 1).into()));
                prop_assert_eq!(&made.0[3..], &chance[3..]);
                prop_assert_eq!(made.0[2] & 0x07, chance[2] & 0x07);
                // All of one network of 64 bits have the same.
                if let IpAddr::V6(ip) = ip && ip.to_ipv4_mapped().is_none() {
                    let host = std::net::Ipv6Addr::from_bits(ip.to_bits() ^ 1);
                    prop_assert_eq!(id_at(host.into(), chance), made);
                }
            }
        }
    }
}
