//! Invariant: what a tracker answers is bounded: announces at most each second and at least each hour, so many peers, all with usable addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use url::Url;

use super::Event;
use crate::bencode::Node;
use crate::image::InfoHash;
use crate::{Error, ErrorKind, Result};

/// Largest answer that is read, bytes.
pub(super) const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Most peers taken from one answer.
const MAX_PEERS: usize = 2_000;
/// Shortest interval, seconds; and longest.
const MIN_INTERVAL: u64 = 5;
const MAX_INTERVAL: u64 = 3_600;
/// Shortest minimum interval, seconds.
const MIN_MIN_INTERVAL: u64 = 1;
/// Longest tracker id that is given back, bytes.
const MAX_TRACKER_ID: usize = 256;
/// Longest reason that is shown, characters.
pub(super) const MAX_REASON: usize = 200;

/// The bytes that stand for themselves in a query (RFC 3986: unreserved).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What a peer tells a tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announce {
    pub(super) info_hash: InfoHash,
    pub(super) peer_id: [u8; 20],
    /// The TCP port on which the peer listens.
    pub(super) port: u16,
    /// Bytes.
    pub(super) uploaded: u64,
    /// Bytes.
    pub(super) downloaded: u64,
    /// Bytes.
    pub(super) left: u64,
    /// How many peers are wanted at most.
    pub(super) num_want: u32,
    /// Identifies the peer when its address changes.
    pub(super) key: u32,
    pub(super) event: Option<Event>,
    /// What the tracker's earlier answer asked to be given back.
    pub(super) tracker_id: Option<Vec<u8>>,
}

impl Announce {
    /// The URL that says this to a tracker. A query that the tracker's URL has already is kept.
    pub(super) fn url(&self, tracker: &Url) -> Url {
        let mut query = match tracker.query() {
            Some(query) if !query.is_empty() => format!("{query}&"),
            _ => String::new(),
        };
        let bytes = |b: &[u8]| percent_encode(b, UNRESERVED).to_string();
        query += &format!(
            "info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}&compact=1&numwant={}&key={:08x}",
            bytes(&self.info_hash.0),
            bytes(&self.peer_id),
            self.port,
            self.uploaded,
            self.downloaded,
            self.left,
            self.num_want,
            self.key,
        );
        if let Some(event) = self.event {
            query += "&event=";
            query += event.name();
        }
        if let Some(id) = &self.tracker_id {
            query += "&trackerid=";
            query += &bytes(id);
        }
        let mut url = tracker.clone();
        url.set_fragment(None);
        url.set_query(Some(&query));
        url
    }
}

/// What a tracker answers to an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnnounceAnswer {
    pub(super) peers: Vec<SocketAddr>,
    /// When the next announce is wanted.
    pub(super) interval: Duration,
    /// The soonest that another announce is taken.
    pub(super) min_interval: Duration,
    pub(super) tracker_id: Option<Vec<u8>>,
}

impl AnnounceAnswer {
    /// Reads an answer.
    ///
    /// A tracker that names no interval gets half an hour; one that names no minimum is asked no more
    /// often than each minute, or than its interval if that is shorter.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when it is malformed, or when the tracker says that it refuses.
    pub(super) fn parse(body: &[u8]) -> Result<Self> {
        let malformed = |what: &str| {
            Error::new(
                ErrorKind::Network,
                format!("the tracker's answer {what}; check the tracker's URL"),
            )
        };
        let root = Node::parse(body).map_err(|e| malformed(&format!("is not bencoded: {e}")))?;
        let get = |key: &str| {
            root.get(key)
                .map_err(|_| malformed(&format!("has {key:?} twice")))
        };
        if root.as_dictionary().is_none() {
            return Err(malformed("is no dictionary"));
        }
        if let Some(reason) = get("failure reason")? {
            let reason = String::from_utf8_lossy(reason.as_bytes().unwrap_or_default());
            let reason: String = reason.chars().take(MAX_REASON).collect();
            return Err(Error::new(
                ErrorKind::Network,
                format!("the tracker refuses: {reason:?}"),
            ));
        }
        let seconds = |key: &str, shortest: u64| {
            Ok::<_, Error>(
                get(key)?
                    .and_then(|n| n.as_integer())
                    .map(|n| u64::try_from(n).unwrap_or(0).clamp(shortest, MAX_INTERVAL)),
            )
        };
        let interval = seconds("interval", MIN_INTERVAL)?.unwrap_or(1_800);
        let min_interval = seconds("min interval", MIN_MIN_INTERVAL)?
            .unwrap_or(60)
            .min(interval);

        let mut peers = Vec::new();
        if let Some(node) = get("peers")? {
            if let Some(bytes) = node.as_bytes() {
                let (entries, _) = bytes.as_chunks::<6>();
                add(
                    &mut peers,
                    entries.iter().map(|&[a, b, c, d, p, q]| {
                        ([a, b, c, d], u16::from_be_bytes([p, q])).into()
                    }),
                );
            }
            add(
                &mut peers,
                node.as_list().into_iter().flatten().filter_map(peer),
            );
        }
        if let Some(bytes) = get("peers6")?.and_then(|n| n.as_bytes()) {
            let (entries, _) = bytes.as_chunks::<18>();
            add(
                &mut peers,
                entries.iter().filter_map(|entry| {
                    let (ip, port) = entry.split_last_chunk::<2>()?;
                    let ip: [u8; 16] = ip.try_into().ok()?;
                    Some((ip, u16::from_be_bytes(*port)).into())
                }),
            );
        }
        let tracker_id = get("tracker id")?
            .and_then(|n| n.as_bytes())
            .filter(|id| id.len() <= MAX_TRACKER_ID)
            .map(<[u8]>::to_vec);
        Ok(Self {
            peers,
            interval: Duration::from_secs(interval),
            min_interval: Duration::from_secs(min_interval),
            tracker_id,
        })
    }

    /// What an answer over UDP (BEP 15) says. It names an interval in seconds but no minimum: what holds for HTTP
    /// trackers that name none holds here too.
    pub(super) fn from_datagram(interval: u32, peers: Vec<SocketAddr>) -> Self {
        let interval = u64::from(interval).clamp(MIN_INTERVAL, MAX_INTERVAL);
        let mut usable = Vec::new();
        add(&mut usable, peers.into_iter());
        Self {
            peers: usable,
            interval: Duration::from_secs(interval),
            min_interval: Duration::from_secs(interval.min(60)),
            tracker_id: None,
        }
    }
}

/// A peer of the old form, a dictionary. Host names are not looked up.
fn peer(node: Node<'_>) -> Option<SocketAddr> {
    let ip: IpAddr = node.get("ip").ok()??.as_str()?.parse().ok()?;
    let port = node.get("port").ok()??.as_integer()?;
    Some((ip, u16::try_from(port).ok()?).into())
}

/// Adds the peers to which one can connect at all.
fn add(peers: &mut Vec<SocketAddr>, more: impl Iterator<Item = SocketAddr>) {
    let room = MAX_PEERS - peers.len();
    peers.extend(more.filter(is_usable).take(room));
}

fn is_usable(address: &SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn announce() -> Announce {
        Announce {
            info_hash: InfoHash(*b"\x00\xff\n&=?%+ /aAzZ09-._~"),
            peer_id: *b"-VT0010-abcdefghijkl",
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: u64::MAX,
            num_want: 50,
            key: 0xabc,
            event: None,
            tracker_id: None,
        }
    }

    #[test]
    fn the_query_says_everything_and_keeps_what_was_there() {
        let tracker = Url::parse("http://t.example/a?pass%20key=x%2Fy#part").unwrap();
        assert_eq!(
            announce().url(&tracker).as_str(),
            "http://t.example/a?pass%20key=x%2Fy&info_hash=%00%FF%0A%26%3D%3F%25%2B%20%2FaAzZ09-._~\
             &peer_id=-VT0010-abcdefghijkl&port=6881&uploaded=1&downloaded=2&left=18446744073709551615\
             &compact=1&numwant=50&key=00000abc"
        );
        let last = Announce {
            event: Some(Event::Stopped),
            tracker_id: Some(b"\x01&".to_vec()),
            ..announce()
        };
        let url = last.url(&Url::parse("http://t.example/a").unwrap());
        assert!(url.as_str().starts_with("http://t.example/a?info_hash="));
        assert!(url.as_str().ends_with("&event=stopped&trackerid=%01%26"));
    }

    #[test]
    fn all_forms_of_peers_are_read() {
        let mut body = b"d8:intervali40e12:min intervali7e5:peers12:".to_vec();
        body.extend([1, 2, 3, 4, 0x1a, 0xe1, 5, 6, 7, 8, 0, 80]);
        body.extend(b"6:peers618:");
        body.extend([
            0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 81,
        ]);
        body.extend(b"10:tracker id2:xye");
        let answer = AnnounceAnswer::parse(&body).unwrap();
        let peers: Vec<String> = answer.peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["1.2.3.4:6881", "5.6.7.8:80", "[2001:db8::1]:81"]);
        assert_eq!(answer.interval, Duration::from_secs(40));
        assert_eq!(answer.min_interval, Duration::from_secs(7));
        assert_eq!(answer.tracker_id.as_deref(), Some(&b"xy"[..]));

        let old =
            b"d5:peersld2:ip7:1.2.3.44:porti80eed2:ip3:::14:porti81eed2:ip6:host.x4:porti80eeee";
        let answer = AnnounceAnswer::parse(old).unwrap();
        let peers: Vec<String> = answer.peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["1.2.3.4:80", "[::1]:81"]);
    }

    #[test]
    fn addresses_that_lead_nowhere_are_left_out() {
        let mut body = b"d5:peers30:".to_vec();
        body.extend([1, 2, 3, 4, 0, 0]);
        body.extend([0, 0, 0, 0, 0, 80]);
        body.extend([224, 0, 0, 1, 0, 80]);
        body.extend([255, 255, 255, 255, 0, 80]);
        body.extend([9, 9, 9, 9, 0, 80]);
        body.push(b'e');
        let answer = AnnounceAnswer::parse(&body).unwrap();
        assert_eq!(answer.peers, ["9.9.9.9:80".parse().unwrap()]);
    }

    #[test]
    fn absurd_values_are_clamped() {
        let intervals = |body: &str| {
            let a = AnnounceAnswer::parse(body.as_bytes()).unwrap();
            (a.interval.as_secs(), a.min_interval.as_secs())
        };
        assert_eq!(intervals("de"), (1_800, 60));
        assert_eq!(intervals("d8:intervali30ee"), (30, 30));
        assert_eq!(intervals("d8:intervali0ee"), (5, 5));
        assert_eq!(intervals("d8:intervali-9e12:min intervali-9ee"), (5, 1));
        assert_eq!(intervals("d8:intervali9223372036854775807ee"), (3_600, 60));
        assert_eq!(intervals("d8:intervali60e12:min intervali900ee"), (60, 60));
        assert_eq!(intervals("d8:interval1:xe"), (1_800, 60));

        let peers = [b"d5:peers60000:".as_slice(), &[1; 60_000], b"e"].concat();
        assert_eq!(
            AnnounceAnswer::parse(&peers).unwrap().peers.len(),
            MAX_PEERS
        );
    }

    #[test]
    fn refusals_and_garbage_are_errors() {
        let error = |body: &[u8]| AnnounceAnswer::parse(body).unwrap_err().to_string();
        assert!(
            error(b"d14:failure reason7:go\x1baway5:peers0:e")
                .contains(r#"refuses: "go\u{1b}away""#)
        );
        assert!(error(b"<html>").contains("is not bencoded"));
        assert!(error(b"le").contains("is no dictionary"));
        assert!(error(b"d5:peers0:5:peers0:e").contains("twice"));
        let long = format!("d14:failure reason5000:{}e", "x".repeat(5_000));
        assert!(error(long.as_bytes()).len() < 300);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(body in "d(8:interval|5:peers|6:peers6|i-?[0-9]{1,20}e|[0-9]{1,2}:|[a-z]|l|d|e){0,12}e") {
            let _ = AnnounceAnswer::parse(body.as_bytes());
        }
    }
}
