//! The datagrams of BEP 15, and the options of BEP 41.
//!
//! Invariant: a datagram is read completely or not at all, and none makes this code panic or take more memory than
//! the datagram itself.

use std::net::{IpAddr, SocketAddr};

use super::super::Event;
use super::super::announce::Announce;
use crate::image::InfoHash;

/// What stands in place of a connection id in a request for one.
const PROTOCOL: u64 = 0x0417_2710_1980;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// Options behind an announce (BEP 41).
const OPTION_END: u8 = 0;
const OPTION_URL_DATA: u8 = 2;

/// Bytes of an announce without options.
const ANNOUNCE_BYTES: usize = 98;
/// Most images in one scrape.
pub(super) const MAX_SCRAPE: usize = 74;
/// Longest path and query that are told to a tracker, bytes.
const MAX_URL_DATA: usize = 1_024;

/// What a scrape tells of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct ScrapeCounts {
    pub(in super::super) seeders: u32,
    pub(in super::super) completions: u32,
    pub(in super::super) leechers: u32,
}

/// What a tracker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The connection id to use.
    Connected(u64),
    Announced {
        /// Seconds.
        interval: u32,
        peers: Vec<SocketAddr>,
    },
    Scraped(Vec<ScrapeCounts>),
    /// It refuses, and says why.
    Refused(String),
}

/// A request for a connection id.
pub(super) fn connect(transaction: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    head(&mut out, PROTOCOL, CONNECT, transaction);
    out
}

/// An announce. `url_data` is the path and query of the tracker's URL, which may hold the user's key.
pub(super) fn announce(
    connection: u64,
    transaction: u32,
    announce: &Announce,
    url_data: &str,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(ANNOUNCE_BYTES + url_data.len() + 8);
    head(&mut out, connection, ANNOUNCE, transaction);
    out.extend(announce.info_hash.0);
    out.extend(announce.peer_id);
    for bytes in [announce.downloaded, announce.left, announce.uploaded] {
        out.extend(bytes.to_be_bytes());
    }
    let event: u32 = match announce.event {
        None => 0,
        Some(Event::Completed) => 1,
        Some(Event::Started) => 2,
        Some(Event::Stopped) => 3,
    };
    out.extend(event.to_be_bytes());
    // The address that the datagram comes from.
    out.extend([0; 4]);
    out.extend(announce.key.to_be_bytes());
    out.extend(announce.num_want.to_be_bytes());
    out.extend(announce.port.to_be_bytes());
    debug_assert_eq!(out.len(), ANNOUNCE_BYTES);
    if !url_data.is_empty() && url_data.len() <= MAX_URL_DATA {
        for part in url_data.as_bytes().chunks(255) {
            out.extend([OPTION_URL_DATA, part.len() as u8]);
            out.extend(part);
        }
        out.push(OPTION_END);
    }
    out
}

/// A question for the counts of images, at most [`MAX_SCRAPE`] of them.
pub(super) fn scrape(connection: u64, transaction: u32, images: &[InfoHash]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + images.len() * 20);
    head(&mut out, connection, SCRAPE, transaction);
    for image in images.iter().take(MAX_SCRAPE) {
        out.extend(image.0);
    }
    out
}

fn head(out: &mut Vec<u8>, connection: u64, action: u32, transaction: u32) {
    out.extend(connection.to_be_bytes());
    out.extend(action.to_be_bytes());
    out.extend(transaction.to_be_bytes());
}

/// Reads what a tracker says: the transaction that it answers, and the answer. `v6`: the datagram came over IPv6,
/// and so its peers have IPv6 addresses. `None`: it is no such datagram.
pub(super) fn read_reply(datagram: &[u8], v6: bool) -> Option<(u32, Reply)> {
    let mut bytes = Reader(datagram);
    let action = bytes.u32()?;
    let transaction = bytes.u32()?;
    let reply = match action {
        CONNECT => Reply::Connected(bytes.u64()?),
        ANNOUNCE => {
            let interval = bytes.u32()?;
            // Leechers and seeders.
            bytes.u64()?;
            Reply::Announced {
                interval,
                peers: bytes.peers(v6),
            }
        }
        SCRAPE => Reply::Scraped(bytes.counts()),
        ERROR => Reply::Refused(String::from_utf8_lossy(bytes.0).into_owned()),
        _ => return None,
    };
    Some((transaction, reply))
}

/// What a peer asks of a tracker of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServerRequest {
    Connect,
    /// The connection id, and the announce; the address in it is to be ignored.
    Announce(u64, Announce),
    Scrape(u64, Vec<InfoHash>),
}

/// What a tracker of ours answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServerReply {
    Connected(u64),
    Announced {
        /// Seconds.
        interval: u32,
        leechers: u32,
        seeders: u32,
        /// All of one family, that of the asker.
        peers: Vec<SocketAddr>,
    },
    Scraped(Vec<ScrapeCounts>),
    Refused(&'static str),
}

/// Reads what a peer asks: its transaction and the request. `None`: it is no such datagram, and is not answered.
pub(super) fn read_request(datagram: &[u8]) -> Option<(u32, ServerRequest)> {
    let mut bytes = Reader(datagram);
    let connection = bytes.u64()?;
    let action = bytes.u32()?;
    let transaction = bytes.u32()?;
    let request = match action {
        CONNECT if connection == PROTOCOL => ServerRequest::Connect,
        ANNOUNCE => {
            let info_hash = InfoHash(bytes.array()?);
            let peer_id = bytes.array()?;
            let downloaded = bytes.u64()?;
            let left = bytes.u64()?;
            let uploaded = bytes.u64()?;
            let event = match bytes.u32()? {
                1 => Some(Event::Completed),
                2 => Some(Event::Started),
                3 => Some(Event::Stopped),
                _ => None,
            };
            bytes.u32()?;
            let key = bytes.u32()?;
            let num_want = bytes.u32()?;
            let port = bytes.u16()?;
            ServerRequest::Announce(
                connection,
                Announce {
                    info_hash,
                    peer_id,
                    port,
                    uploaded,
                    downloaded,
                    left,
                    num_want,
                    key,
                    event,
                    tracker_id: None,
                },
            )
        }
        SCRAPE => {
            let mut images = Vec::new();
            while let Some(image) = bytes.array() {
                images.push(InfoHash(image));
            }
            if images.is_empty() || images.len() > MAX_SCRAPE {
                return None;
            }
            ServerRequest::Scrape(connection, images)
        }
        _ => return None,
    };
    Some((transaction, request))
}

/// The datagram that says it.
pub(super) fn write_reply(transaction: u32, reply: &ServerReply) -> Vec<u8> {
    let mut out = Vec::new();
    let mut numbers = |fields: &[u32]| out.extend(fields.iter().flat_map(|n| n.to_be_bytes()));
    match reply {
        ServerReply::Connected(connection) => {
            numbers(&[CONNECT, transaction]);
            out.extend(connection.to_be_bytes());
        }
        ServerReply::Announced {
            interval,
            leechers,
            seeders,
            peers,
        } => {
            numbers(&[ANNOUNCE, transaction, *interval, *leechers, *seeders]);
            for peer in peers {
                match peer.ip() {
                    IpAddr::V4(ip) => out.extend(ip.octets()),
                    IpAddr::V6(ip) => out.extend(ip.octets()),
                }
                out.extend(peer.port().to_be_bytes());
            }
        }
        ServerReply::Scraped(counts) => {
            numbers(&[SCRAPE, transaction]);
            for c in counts {
                numbers(&[c.seeders, c.completions, c.leechers]);
            }
        }
        ServerReply::Refused(reason) => {
            numbers(&[ERROR, transaction]);
            out.extend(reason.as_bytes());
        }
    }
    out
}

/// Takes fields off the front of a datagram.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The peers up to the end; a part of one is left out.
    fn peers(&mut self, v6: bool) -> Vec<SocketAddr> {
        let mut peers = Vec::new();
        loop {
            let ip = if v6 {
                self.array::<16>().map(IpAddr::from)
            } else {
                self.array::<4>().map(IpAddr::from)
            };
            let (Some(ip), Some(port)) = (ip, self.u16()) else {
                return peers;
            };
            peers.push(SocketAddr::new(ip, port));
        }
    }

    fn counts(&mut self) -> Vec<ScrapeCounts> {
        let mut counts = Vec::new();
        while let (Some(seeders), Some(completions), Some(leechers)) =
            (self.u32(), self.u32(), self.u32())
        {
            counts.push(ScrapeCounts {
                seeders,
                completions,
                leechers,
            });
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(event: Option<Event>) -> Announce {
        Announce {
            info_hash: InfoHash([7; 20]),
            peer_id: [8; 20],
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: 3,
            num_want: 100,
            key: 0x1234_5678,
            event,
            tracker_id: None,
        }
    }

    #[test]
    fn a_connect_and_an_announce_have_the_bytes_of_bep_15() {
        let datagram = connect(0x0102_0304);
        let expected = b"\x00\x00\x04\x17\x27\x10\x19\x80\x00\x00\x00\x00\x01\x02\x03\x04";
        assert_eq!(datagram, expected);

        let datagram = announce(0xaabb, 5, &sample(Some(Event::Started)), "");
        let mut expected =
            b"\x00\x00\x00\x00\x00\x00\xaa\xbb\x00\x00\x00\x01\x00\x00\x00\x05".to_vec();
        expected.extend([7; 20]);
        expected.extend([8; 20]);
        expected.extend(b"\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03");
        expected.extend(b"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00");
        expected.extend(b"\x12\x34\x56\x78\x00\x00\x00\x64\x1a\xe1");
        assert_eq!(datagram, expected);
    }

    #[test]
    fn path_and_query_follow_in_options_of_at_most_255_bytes() {
        let datagram = announce(1, 2, &sample(None), "/a?k=v");
        assert_eq!(&datagram[98..], b"\x02\x06/a?k=v\x00");
        let long = format!("/{}", "x".repeat(300));
        let options = announce(1, 2, &sample(None), &long)[98..].to_vec();
        assert_eq!(options[..2], [2, 255]);
        assert_eq!(options[257..259], [2, 46]);
        assert_eq!(options.last(), Some(&0));
        assert_eq!(options.len(), 2 + 255 + 2 + 46 + 1);
        let absurd = "x".repeat(5_000);
        assert_eq!(announce(1, 2, &sample(None), &absurd).len(), 98);
    }

    #[test]
    fn requests_are_read_as_they_were_written() {
        for event in [
            None,
            Some(Event::Started),
            Some(Event::Completed),
            Some(Event::Stopped),
        ] {
            let datagram = announce(9, 5, &sample(event), "/path");
            let request = ServerRequest::Announce(9, sample(event));
            assert_eq!(read_request(&datagram), Some((5, request)));
        }
        assert_eq!(read_request(&connect(3)), Some((3, ServerRequest::Connect)));
        let images = vec![InfoHash([1; 20]), InfoHash([2; 20])];
        let request = ServerRequest::Scrape(9, images.clone());
        assert_eq!(read_request(&scrape(9, 4, &images)), Some((4, request)));
        let mut other_protocol = connect(3);
        other_protocol[0] = 1;
        assert_eq!(read_request(&other_protocol), None);
    }

    #[test]
    fn replies_are_read_as_they_were_written_in_both_families() {
        for peers in [
            vec!["1.2.3.4:5".parse().unwrap(), "6.7.8.9:10".parse().unwrap()],
            vec!["[2001:db8::1]:5".parse::<SocketAddr>().unwrap()],
        ] {
            let v6 = peers[0].is_ipv6();
            let reply = ServerReply::Announced {
                interval: 30,
                leechers: 1,
                seeders: 2,
                peers: peers.clone(),
            };
            let mut datagram = write_reply(7, &reply);
            let expected = Reply::Announced {
                interval: 30,
                peers,
            };
            assert_eq!(read_reply(&datagram, v6), Some((7, expected.clone())));
            // A part of a peer behind them is left out.
            datagram.extend([1, 2, 3]);
            assert_eq!(read_reply(&datagram, v6), Some((7, expected)));
        }
        let connected = write_reply(7, &ServerReply::Connected(11));
        assert_eq!(
            read_reply(&connected, false),
            Some((7, Reply::Connected(11)))
        );
        let refused = write_reply(7, &ServerReply::Refused("no"));
        assert_eq!(
            read_reply(&refused, false),
            Some((7, Reply::Refused("no".into())))
        );
        let counts = vec![
            ScrapeCounts {
                seeders: 1,
                completions: 2,
                leechers: 3
            };
            2
        ];
        let scraped = write_reply(7, &ServerReply::Scraped(counts.clone()));
        assert_eq!(
            read_reply(&scraped, false),
            Some((7, Reply::Scraped(counts)))
        );
    }

    #[test]
    fn short_and_foreign_datagrams_are_no_replies() {
        let whole = write_reply(7, &ServerReply::Connected(11));
        for length in 0..whole.len() {
            assert_eq!(read_reply(&whole[..length], false), None, "{length}");
        }
        assert_eq!(read_reply(b"\x00\x00\x00\x09\x00\x00\x00\x07", false), None);
        assert_eq!(read_reply(b"HTTP/1.1 200 OK\r\n\r\n", false), None);
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_or_refused(
            action in 0u32..5,
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            v6: bool,
        ) {
            let _ = read_reply(&bytes, v6);
            let _ = read_request(&bytes);
            let mut framed = action.to_be_bytes().to_vec();
            framed.extend(&bytes);
            if let Some((_, Reply::Announced { peers, .. })) = read_reply(&framed, v6) {
                prop_assert!(peers.len() * 6 <= framed.len());
            }
            let mut request = PROTOCOL.to_be_bytes().to_vec();
            request.extend(framed);
            let _ = read_request(&request);
        }
    }
}
