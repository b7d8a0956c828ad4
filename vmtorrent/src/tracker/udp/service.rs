//! The tracker's side of BEP 15.
//!
//! Invariant: nobody is registered, or sent more bytes than it sent itself, before it has shown that datagrams to its
//! address reach it; and nothing is kept of who asks but what the table keeps. No I/O.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sha1::{Digest, Sha1};

use super::packet::{ScrapeCounts, ServerReply, ServerRequest, read_request, write_reply};
use crate::clock::Time;
use crate::image::InfoHash;
use crate::tracker::Event;
use crate::tracker::table::{Counts, Query};

/// Longest datagram that is read: an announce with a long URL, or a scrape of 74 images.
pub(in super::super) const MAX_REQUEST: usize = 2_048;
/// Most peers in an answer: the datagram must not need fragments.
const MAX_PEERS_V4: usize = 200;
const MAX_PEERS_V6: usize = 70;
/// A connection id holds in the slot of time in which it was given, and in the next one.
const SLOT: Duration = Duration::from_secs(60);

/// What the service asks of the tracker.
pub(in super::super) trait Desk {
    /// Registers the asker and names others; `None`: the image isn't tracked here.
    fn announce(&self, query: &Query) -> Option<(Vec<SocketAddr>, Counts)>;
    /// What is known of an image.
    fn counts(&self, image: &InfoHash) -> Option<Counts>;
    /// How often peers shall announce, seconds.
    fn interval(&self) -> u64;
}

/// Answers datagrams.
pub(in super::super) struct UdpService {
    secret: [u8; 20],
}

impl UdpService {
    /// `secret` must be unknown to others: who knows it can ask in the name of any address.
    pub(in super::super) fn new(secret: [u8; 20]) -> Self {
        Self { secret }
    }

    /// The answer to a datagram, if it gets one. `local` tells our own address, as the asker reaches it.
    pub(in super::super) fn answer(
        &self,
        now: Time,
        datagram: &[u8],
        from: SocketAddr,
        local: impl FnOnce() -> IpAddr,
        desk: &impl Desk,
    ) -> Option<Vec<u8>> {
        let (transaction, request) = read_request(datagram)?;
        let reply = match request {
            ServerRequest::Connect => ServerReply::Connected(self.connection(from, slot(now))),
            ServerRequest::Announce(id, _) | ServerRequest::Scrape(id, _)
                if !self.is_valid(id, from, now) =>
            {
                ServerReply::Refused("the connection id is not valid: connect again")
            }
            ServerRequest::Announce(_, announce) => {
                if announce.port == 0 {
                    return Some(write_reply(transaction, &ServerReply::Refused("port 0")));
                }
                let ip = from.ip().to_canonical();
                let most = if ip.is_ipv4() {
                    MAX_PEERS_V4
                } else {
                    MAX_PEERS_V6
                };
                let query = Query {
                    info_hash: announce.info_hash,
                    peer_id: announce.peer_id,
                    address: SocketAddr::new(ip, announce.port),
                    local: local(),
                    seeding: announce.left == 0,
                    event: announce.event,
                    // -1 stands for as many as the tracker likes.
                    num_want: match announce.event {
                        Some(Event::Stopped) => 0,
                        _ => (announce.num_want as usize).min(most),
                    },
                };
                match desk.announce(&query) {
                    Some((mut peers, counts)) => {
                        peers.retain(|p| p.is_ipv4() == ip.is_ipv4());
                        ServerReply::Announced {
                            interval: desk.interval().try_into().unwrap_or(u32::MAX),
                            leechers: clamp(counts.leechers as u64),
                            seeders: clamp(counts.seeders as u64),
                            peers,
                        }
                    }
                    None => ServerReply::Refused("this image is not tracked here"),
                }
            }
            ServerRequest::Scrape(_, images) => {
                let count = |image: &InfoHash| {
                    let counts = desk.counts(image);
                    ScrapeCounts {
                        seeders: counts.map_or(0, |c| clamp(c.seeders as u64)),
                        completions: counts.map_or(0, |c| clamp(c.completions)),
                        leechers: counts.map_or(0, |c| clamp(c.leechers as u64)),
                    }
                };
                ServerReply::Scraped(images.iter().map(count).collect())
            }
        };
        Some(write_reply(transaction, &reply))
    }

    fn is_valid(&self, id: u64, from: SocketAddr, now: Time) -> bool {
        let slot = slot(now);
        id == self.connection(from, slot)
            || slot
                .checked_sub(1)
                .is_some_and(|s| id == self.connection(from, s))
    }

    /// The id that an address gets in a slot: it can be computed again, so none has to be kept.
    fn connection(&self, from: SocketAddr, slot: u64) -> u64 {
        let mut hash = Sha1::new();
        hash.update(self.secret);
        match from.ip().to_canonical() {
            IpAddr::V4(ip) => hash.update(ip.octets()),
            IpAddr::V6(ip) => hash.update(ip.octets()),
        }
        hash.update(from.port().to_be_bytes());
        hash.update(slot.to_be_bytes());
        let digest: [u8; 20] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

fn slot(now: Time) -> u64 {
    now.since(Time::default()).as_secs() / SLOT.as_secs()
}

fn clamp(count: u64) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::super::packet::{self, Reply, read_reply};
    use super::*;
    use crate::tracker::announce::Announce;
    use crate::tracker::table::PeerTable;

    const IMAGE: InfoHash = InfoHash([1; 20]);

    struct Table(RefCell<PeerTable>);

    impl Desk for Table {
        fn announce(&self, query: &Query) -> Option<(Vec<SocketAddr>, Counts)> {
            self.0.borrow_mut().announce(query, at(0))
        }
        fn counts(&self, image: &InfoHash) -> Option<Counts> {
            self.0.borrow_mut().counts(image, at(0))
        }
        fn interval(&self) -> u64 {
            30
        }
    }

    fn desk() -> Table {
        let table = PeerTable::new(Some(&[IMAGE]), Duration::from_secs(90), 100, 1);
        Table(RefCell::new(table))
    }

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn ask(desk: &Table, seconds: u64, from: &str, datagram: &[u8]) -> Option<Reply> {
        let from: SocketAddr = from.parse().unwrap();
        let service = UdpService::new([9; 20]);
        let local = IpAddr::from([10, 0, 0, 254]);
        let answer = service.answer(at(seconds), datagram, from, || local, desk)?;
        Some(read_reply(&answer, from.is_ipv6()).unwrap().1)
    }

    fn connect(seconds: u64, from: &str) -> u64 {
        match ask(&desk(), seconds, from, &packet::connect(1)) {
            Some(Reply::Connected(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    fn announce(id: u64, image: InfoHash) -> Vec<u8> {
        let announce = Announce {
            info_hash: image,
            peer_id: [2; 20],
            port: 6881,
            uploaded: 0,
            downloaded: 0,
            left: 5,
            num_want: u32::MAX,
            key: 0,
            event: None,
            tracker_id: None,
        };
        packet::announce(id, 1, &announce, "/announce")
    }

    #[test]
    fn a_connection_holds_for_its_address_and_for_one_to_two_minutes() {
        let id = connect(59, "10.0.0.1:5");
        let valid = |seconds, from| {
            !matches!(
                ask(&desk(), seconds, from, &announce(id, IMAGE)),
                Some(Reply::Refused(_))
            )
        };
        assert!(valid(59, "10.0.0.1:5"));
        assert!(valid(119, "10.0.0.1:5"));
        assert!(!valid(120, "10.0.0.1:5"));
        assert!(!valid(59, "10.0.0.1:6"));
        assert!(!valid(59, "10.0.0.2:5"));
    }

    #[test]
    fn peers_find_each_other_by_family_and_unknown_images_are_refused() {
        let desk = desk();
        let say = |from: &str, image| ask(&desk, 0, from, &announce(connect(0, from), image));
        let found = |reply| match reply {
            Some(Reply::Announced {
                peers,
                interval: 30,
            }) => peers,
            other => panic!("{other:?}"),
        };
        assert_eq!(found(say("10.0.0.1:5", IMAGE)), []);
        assert_eq!(found(say("[2001:db8::1]:5", IMAGE)), []);
        // All use one peer id here; another one sees them.
        let mut other = announce(connect(0, "10.0.0.2:5"), IMAGE);
        other[36] = 3;
        let seen = found(ask(&desk, 0, "10.0.0.2:5", &other));
        assert_eq!(seen, ["10.0.0.1:6881".parse().unwrap()]);
        assert!(matches!(
            say("10.0.0.1:5", InfoHash([7; 20])),
            Some(Reply::Refused(_))
        ));

        let id = connect(0, "10.0.0.1:5");
        let images = [InfoHash([7; 20]), IMAGE];
        let reply = ask(&desk, 0, "10.0.0.1:5", &packet::scrape(id, 1, &images));
        let Some(Reply::Scraped(counts)) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(
            counts.iter().map(|c| c.leechers).collect::<Vec<_>>(),
            [0, 3]
        );
    }

    proptest! {
        #[test]
        fn strangers_get_no_more_bytes_than_they_send_beyond_a_refusal(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let from = "10.0.0.1:5".parse().unwrap();
            let service = UdpService::new([9; 20]);
            let answer = service.answer(at(0), &bytes, from, || from.ip(), &desk());
            prop_assert!(answer.is_none_or(|a| a.len() <= 64));
        }
    }
}
