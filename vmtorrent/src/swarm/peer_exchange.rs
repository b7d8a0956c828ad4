//! Messages of ut_pex (BEP 11). Invariant: however many addresses a message names, a bounded number is kept of it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::bencode::{Encoder, Node};

/// Which peers their sender is connected to, and which no more, since its message before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerExchange {
    pub(crate) added: Vec<Neighbour>,
    pub(crate) dropped: Vec<SocketAddr>,
}

/// A peer of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) address: SocketAddr,
    pub(crate) flags: u8,
}

impl Neighbour {
    /// It has everything.
    pub(crate) const SEED: u8 = 0x02;
    /// It takes connections over uTP (BEP 29).
    pub(crate) const UTP: u8 = 0x04;
    /// Its sender has opened a connection to it.
    pub(crate) const REACHABLE: u8 = 0x10;
}

impl PeerExchange {
    /// Most addresses that are added in a message, and most that are dropped (BEP 11).
    pub(crate) const MOST: usize = 50;
    /// Addresses of each kind that are kept of a message: the first one may name more. The rest is passed over.
    pub(crate) const MOST_KEPT: usize = 200;
    /// Longest message that is read, bytes: ten times what may be kept of one.
    const MAX_LENGTH: usize = 64 << 10;

    /// Reads the dictionary of a message. Entries of a wrong type are as good as absent; an address without its last
    /// bytes is passed over.
    pub(crate) fn decode(bencode: &[u8]) -> Result<Self, String> {
        if bencode.len() > Self::MAX_LENGTH {
            return Err(format!("{} bytes of peer exchange", bencode.len()));
        }
        let root = Node::parse(bencode).map_err(|e| e.to_string())?;
        let entry = |key| -> Result<&[u8], String> {
            let found = root
                .get(key)
                .map_err(|_| format!("the key {key} stands twice"))?;
            Ok(found.and_then(|n| n.as_bytes()).unwrap_or_default())
        };
        let v4 = added(v4(entry("added")?), entry("added.f")?);
        let v6 = added(v6(entry("added6")?), entry("added6.f")?);
        let mut dropped = self::v4(entry("dropped")?);
        dropped.extend(self::v6(entry("dropped6")?));
        dropped.truncate(Self::MOST_KEPT);
        Ok(Self {
            added: v4.chain(v6).take(Self::MOST_KEPT).collect(),
            dropped,
        })
    }

    /// The dictionary of the message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (added4, flags4) = compact_added(&self.added, false);
        let (added6, flags6) = compact_added(&self.added, true);
        let dropped = |six| -> Vec<u8> {
            let some = self.dropped.iter().filter(|a| a.is_ipv6() == six);
            some.flat_map(|a| compact(*a)).collect()
        };
        Encoder::encode(|d| {
            d.string("added").string(added4);
            d.string("added.f").string(flags4);
            d.string("added6").string(added6);
            d.string("added6.f").string(flags6);
            d.string("dropped").string(dropped(false));
            d.string("dropped6").string(dropped(true));
        })
    }
}

/// Addresses with their flags; where flags are missing there are none.
fn added(addresses: Vec<SocketAddr>, flags: &[u8]) -> impl Iterator<Item = Neighbour> {
    let flags = flags.iter().copied().chain(std::iter::repeat(0));
    addresses
        .into_iter()
        .zip(flags)
        .map(|(address, flags)| Neighbour { address, flags })
}

fn compact_added(added: &[Neighbour], six: bool) -> (Vec<u8>, Vec<u8>) {
    let some = added.iter().filter(|n| n.address.is_ipv6() == six);
    let (addresses, flags): (Vec<_>, Vec<_>) = some.map(|n| (compact(n.address), n.flags)).unzip();
    (addresses.concat(), flags)
}

fn compact(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address {
        SocketAddr::V4(a) => a.ip().octets().to_vec(),
        SocketAddr::V6(a) => a.ip().octets().to_vec(),
    };
    bytes.extend(address.port().to_be_bytes());
    bytes
}

fn v4(bytes: &[u8]) -> Vec<SocketAddr> {
    let (all, _) = bytes.as_chunks::<6>();
    let some = all.iter().take(PeerExchange::MOST_KEPT);
    some.map(|&[a, b, c, d, high, low]| {
        let port = u16::from_be_bytes([high, low]);
        (Ipv4Addr::new(a, b, c, d), port).into()
    })
    .collect()
}

fn v6(bytes: &[u8]) -> Vec<SocketAddr> {
    let (all, _) = bytes.as_chunks::<18>();
    let some = all.iter().take(PeerExchange::MOST_KEPT);
    some.map(|chunk| {
        let (ip, port) = chunk.split_at(16);
        let mut octets = [0; 16];
        octets.copy_from_slice(ip);
        let port = u16::from_be_bytes([port[0], port[1]]);
        (Ipv6Addr::from(octets), port).into()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn neighbour(text: &str, flags: u8) -> Neighbour {
        Neighbour {
            address: address(text),
            flags,
        }
    }

    #[test]
    fn a_message_is_as_bep_11_writes_it() {
        let message = PeerExchange {
            added: vec![
                neighbour("192.0.2.1:258", Neighbour::REACHABLE),
                neighbour("[2001:db8::7]:1", Neighbour::SEED),
            ],
            dropped: vec![address("192.0.2.9:6881")],
        };
        let mut expected = b"d5:added6:\xc0\x00\x02\x01\x01\x027:added.f1:\x10".to_vec();
        expected.extend(b"6:added618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x00\x01");
        expected.extend(b"8:added6.f1:\x027:dropped6:\xc0\x00\x02\x09\x1a\xe18:dropped60:e");
        let encoded = message.encode();
        assert_eq!(encoded, expected);
        assert_eq!(PeerExchange::decode(&encoded), Ok(message));
    }

    #[test]
    fn what_is_absent_or_odd_is_passed_over_and_much_is_cut() {
        assert_eq!(PeerExchange::decode(b"de"), Ok(PeerExchange::default()));
        let odd = PeerExchange::decode(b"d5:added8:abcdef!!7:added.fi1e7:droppedi5ee").unwrap();
        assert_eq!((odd.added.len(), odd.dropped.len()), (1, 0));
        assert_eq!(odd.added[0].flags, 0);
        let many = |length: usize| {
            PeerExchange::decode(&Encoder::encode(|d| {
                d.string("added").string(vec![7; length]);
                d.string("dropped6").string(vec![7; length]);
            }))
        };
        let cut = many(18 * 1_000).unwrap();
        assert_eq!(cut.added.len(), PeerExchange::MOST_KEPT);
        assert_eq!(cut.dropped.len(), PeerExchange::MOST_KEPT);
        assert!(many(40_000).is_err(), "longer than any message");
        assert!(PeerExchange::decode(b"d5:added0:5:added0:e").is_err());
        assert!(PeerExchange::decode(b"nonsense").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = PeerExchange::decode(&bytes);
            let framed = Encoder::encode(|d| {
                for key in ["added", "added.f", "added6", "added6.f", "dropped", "dropped6"] {
                    d.string(key).string(&bytes);
                }
            });
            let message = PeerExchange::decode(&framed).unwrap();
            prop_assert_eq!(message.added.len(), bytes.len() / 6 + bytes.len() / 18);
        }

        #[test]
        fn messages_round_trip(
            four in proptest::collection::vec((any::<[u8; 4]>(), any::<u16>(), any::<u8>()), 0..50),
            six in proptest::collection::vec((any::<[u8; 16]>(), any::<u16>(), any::<u8>()), 0..50),
        ) {
            let four = four.into_iter().map(|(ip, port, flags)| Neighbour { address: (ip, port).into(), flags });
            let six = six.into_iter().map(|(ip, port, flags)| Neighbour { address: (ip, port).into(), flags });
            let added: Vec<_> = four.chain(six).collect();
            let dropped = added.iter().map(|n| n.address).collect();
            let message = PeerExchange { added, dropped };
            prop_assert_eq!(PeerExchange::decode(&message.encode()), Ok(message));
        }
    }
}
