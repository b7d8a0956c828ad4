//! Invariant: a datagram is read completely or not at all, gives at most [`MAX_IMAGES`] images, and never makes this
//! code panic.

use std::net::SocketAddr;

use crate::image::InfoHash;

/// Most images in one datagram: it must fit into one packet.
pub(super) const MAX_IMAGES: usize = 20;
/// Longest cookie that is looked at, bytes.
const MAX_COOKIE: usize = 64;

/// What a peer announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Search {
    /// The TCP port on which it listens.
    pub(super) port: u16,
    pub(super) images: Vec<InfoHash>,
    /// By this a peer knows its own announces.
    pub(super) cookie: Option<String>,
}

impl Search {
    /// The datagram for a multicast group.
    pub(super) fn encode(&self, group: SocketAddr) -> String {
        let mut text = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: {group}\r\nPort: {}\r\n",
            self.port
        );
        for image in self.images.iter().take(MAX_IMAGES) {
            text += &format!("Infohash: {image}\r\n");
        }
        if let Some(cookie) = &self.cookie {
            text += &format!("cookie: {cookie}\r\n");
        }
        text + "\r\n\r\n"
    }

    /// Reads a datagram; `None`: it is no announce.
    pub(super) fn parse(datagram: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram).ok()?;
        let mut lines = text.lines();
        if lines.next()?.trim_end() != "BT-SEARCH * HTTP/1.1" {
            return None;
        }
        let (mut port, mut images, mut cookie) = (None, Vec::new(), None);
        for line in lines.take_while(|l| !l.is_empty()) {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("port") {
                port = Some(value.parse().ok().filter(|p: &u16| *p != 0)?);
            } else if name.eq_ignore_ascii_case("infohash") && images.len() < MAX_IMAGES {
                images.extend(info_hash(value));
            } else if name.eq_ignore_ascii_case("cookie") && value.len() <= MAX_COOKIE {
                cookie = Some(value.to_owned());
            }
        }
        (!images.is_empty()).then_some(Self {
            port: port?,
            images,
            cookie,
        })
    }
}

/// 40 hexadecimal digits.
fn info_hash(text: &str) -> Option<InfoHash> {
    let digits: &[u8; 40] = text.as_bytes().try_into().ok()?;
    let mut hash = [0; 20];
    let (pairs, _) = digits.as_chunks::<2>();
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(InfoHash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GROUP: &str = "239.192.152.143:6771";

    #[test]
    fn an_announce_looks_as_in_bep_14_and_is_read_back() {
        let search = Search {
            port: 6881,
            images: vec![InfoHash([0xab; 20]), InfoHash([1; 20])],
            cookie: Some("c1".into()),
        };
        let text = search.encode(GROUP.parse().unwrap());
        let expected = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: {GROUP}\r\nPort: 6881\r\nInfohash: {}\r\nInfohash: {}\r\ncookie: c1\r\n\r\n\r\n",
            "ab".repeat(20),
            "01".repeat(20)
        );
        assert_eq!(text, expected);
        assert_eq!(Search::parse(text.as_bytes()), Some(search));
    }

    #[test]
    fn other_clients_ways_of_writing_are_read() {
        let hash = "AB".repeat(20);
        let text = format!(
            "BT-SEARCH * HTTP/1.1\r\nHOST:{GROUP}\r\nport: 80 \r\nX: y\r\nINFOHASH:{hash}\r\n\r\n"
        );
        let search = Search::parse(text.as_bytes()).unwrap();
        assert_eq!((search.port, search.cookie), (80, None));
        assert_eq!(search.images, [InfoHash([0xab; 20])]);
    }

    #[test]
    fn what_names_no_port_or_no_image_is_none() {
        let hash = "ab".repeat(20);
        let with = |rest: &str| {
            Search::parse(format!("BT-SEARCH * HTTP/1.1\r\n{rest}\r\n\r\n").as_bytes())
        };
        assert!(with(&format!("Port: 1\r\nInfohash: {hash}")).is_some());
        assert_eq!(with(&format!("Infohash: {hash}")), None);
        assert_eq!(with(&format!("Port: 0\r\nInfohash: {hash}")), None);
        assert_eq!(with(&format!("Port: 65536\r\nInfohash: {hash}")), None);
        assert_eq!(with("Port: 1\r\nInfohash: abc"), None);
        assert_eq!(
            with(&format!("Port: 1\r\nInfohash: {}", "xy".repeat(20))),
            None
        );
        assert_eq!(Search::parse(b"M-SEARCH * HTTP/1.1\r\n\r\n"), None);
        assert_eq!(Search::parse(b"\xff"), None);
    }

    #[test]
    fn what_one_datagram_says_is_bounded_and_fits_one_packet() {
        let images: Vec<InfoHash> = (0..200).map(|n| InfoHash([n; 20])).collect();
        let search = Search {
            port: 65_535,
            images,
            cookie: Some("0123456789abcdef".into()),
        };
        let group = "[ff15::efc0:988f]:6771".parse().unwrap();
        let text = search.encode(group);
        assert!(text.len() < 1_200, "{}", text.len());
        let lines = "Infohash: abababababababababababababababababababab\r\n".repeat(500);
        let text = format!(
            "BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n{lines}cookie: {}\r\n\r\n",
            "x".repeat(999)
        );
        let search = Search::parse(text.as_bytes()).unwrap();
        assert_eq!((search.images.len(), search.cookie), (MAX_IMAGES, None));
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_or_refused(
            head in prop::bool::ANY,
            body in "(\r\n|Port:|Infohash:|cookie:| |[0-9a-f]{1,40}|\u{e9}){0,20}",
            bytes in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut datagram = if head { b"BT-SEARCH * HTTP/1.1\r\n".to_vec() } else { Vec::new() };
            datagram.extend(body.as_bytes());
            let _ = Search::parse(&datagram);
            datagram.extend(bytes);
            let _ = Search::parse(&datagram);
        }
    }
}
