//! Invariant: a [`Magnet`] names exactly one image, by its v1 info-hash.
//!
//! `librqbit-core` has a magnet type too. It is not used because it knows neither `x.pe` nor `ws`, drops the name
//! when it writes a link and leaves values unescaped there, and takes the last of several info-hashes.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use librqbit_core::hash_id::Id20;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::{Host, Url, form_urlencoded};

use super::InfoHash;
use crate::{Error, ErrorKind, Result};

/// Longest link that is read, bytes.
const MAX_LENGTH: usize = 64 << 10;
/// Most trackers, web seeds and peers that are kept, each.
const MAX_ENTRIES: usize = 64;
/// What stands unescaped in a value (RFC 3986, section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A magnet link (BEP 9): an image's identity, and where peers that have it may be found.
///
/// ```
/// use vmtorrent::image::Magnet;
///
/// let link = "magnet:?xt=urn:btih:c12fe1c06bba254a9dc9f519b335aa7c1367a88a&dn=disk.img&x.pe=192.0.2.7:6881";
/// let magnet: Magnet = link.parse()?;
/// assert_eq!(magnet.name(), Some("disk.img"));
/// assert_eq!(magnet.to_string(), link);
/// # Ok::<(), vmtorrent::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Magnet {
    info_hash: InfoHash,
    name: Option<String>,
    trackers: Vec<Url>,
    web_seeds: Vec<Url>,
    peers: Vec<PeerAddress>,
}

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A host name, not looked up yet, and a port.
    Host(String, u16),
}

impl Magnet {
    /// A link that names nothing but the image.
    pub fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            name: None,
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// The image's identity (`xt`).
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// What the image is called (`dn`). Only the image itself says its name for certain.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Trackers (`tr`), in the order in which they are tried.
    pub fn trackers(&self) -> &[Url] {
        &self.trackers
    }

    /// Web seeds (`ws`).
    pub fn web_seeds(&self) -> &[Url] {
        &self.web_seeds
    }

    /// Peers that have the image (`x.pe`).
    pub fn peers(&self) -> &[PeerAddress] {
        &self.peers
    }

    /// Names the image.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds a tracker, unless it is there or there are 64.
    pub fn add_tracker(&mut self, tracker: Url) {
        add(&mut self.trackers, tracker);
    }

    /// Adds a web seed, unless it is there or there are 64.
    pub fn add_web_seed(&mut self, web_seed: Url) {
        add(&mut self.web_seeds, web_seed);
    }

    /// Adds a peer, unless it is there or there are 64.
    pub fn add_peer(&mut self, peer: impl Into<PeerAddress>) {
        add(&mut self.peers, peer.into());
    }

    /// Takes one field of a link; those that are not known are left alone.
    fn take(&mut self, key: &str, value: &str, topic: &mut Topic) -> Result<()> {
        // Several values of one kind may be numbered: `tr.1`, `tr.2`.
        let kind = match key.rsplit_once('.') {
            Some((kind, number)) if number.bytes().all(|b| b.is_ascii_digit()) => kind,
            _ => key,
        };
        match kind.to_ascii_lowercase().as_str() {
            "xt" => topic.take(value)?,
            "dn" if !value.is_empty() => self.name = Some(value.to_owned()),
            "tr" => match url(value, &["http", "https", "udp"]) {
                Some(url) => self.add_tracker(url),
                None => tracing::warn!("magnet link: a tracker that can't be used is left out"),
            },
            "ws" => match url(value, &["http", "https"]) {
                Some(url) => self.add_web_seed(url),
                None => tracing::warn!("magnet link: a web seed that can't be used is left out"),
            },
            "x.pe" => self.add_peer(value.parse::<PeerAddress>()?),
            "so" => tracing::warn!(
                "magnet link: `so` selects some of the files, but an image is always shown whole"
            ),
            _ => {}
        }
        Ok(())
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if list.len() < MAX_ENTRIES && !list.contains(&item) {
        list.push(item);
    }
}

fn url(text: &str, schemes: &[&str]) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    (schemes.contains(&url.scheme()) && url.has_host()).then_some(url)
}

fn wrong(what: fmt::Arguments<'_>) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("magnet link: {what}"))
}

/// What the `xt` fields say.
#[derive(Default)]
struct Topic {
    info_hash: Option<InfoHash>,
    /// There is an info-hash of v2 (BEP 52).
    v2: bool,
}

impl Topic {
    fn take(&mut self, topic: &str) -> Result<()> {
        let prefix = |prefix: &str| {
            let (head, rest) = topic.split_at_checked(prefix.len())?;
            head.eq_ignore_ascii_case(prefix).then_some(rest)
        };
        if prefix("urn:btmh:").is_some() {
            self.v2 = true;
        }
        let Some(text) = prefix("urn:btih:") else {
            return Ok(());
        };
        // Base32 is in capitals; for hexadecimal digits it makes no difference.
        let Ok(id) = text.to_ascii_uppercase().parse::<Id20>() else {
            return Err(wrong(format_args!(
                "field xt: {text:?} is no info-hash, which has 40 hexadecimal digits or 32 characters of base32; \
                 copy the whole link"
            )));
        };
        let found = InfoHash(id.0);
        match self.info_hash.replace(found) {
            Some(other) if other != found => Err(wrong(format_args!(
                "field xt: two images are named, {other} and {found}; pass a link for one"
            ))),
            _ => Ok(()),
        }
    }

    fn info_hash(self) -> Result<InfoHash> {
        self.info_hash.ok_or_else(|| match self.v2 {
            true => wrong(format_args!(
                "field xt: only a v2 info-hash (btmh) is there, which is not read yet; \
                 pass a link with a v1 info-hash (urn:btih:), or publish the image anew with `vmtorrent publish`"
            )),
            false => wrong(format_args!(
                "field xt is missing; a link has the form magnet:?xt=urn:btih:INFO-HASH"
            )),
        })
    }
}

/// Reads a link. Fields that are not known are ignored, and so are trackers and web seeds that are no URLs of a
/// known kind; of several info-hashes all must be the same.
impl FromStr for Magnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        const SCHEME: &str = "magnet:?";
        if text.len() > MAX_LENGTH {
            return Err(wrong(format_args!(
                "it is longer than 64 KiB; leave out some of its trackers"
            )));
        }
        let query = match text.split_at_checked(SCHEME.len()) {
            Some((scheme, query)) if scheme.eq_ignore_ascii_case(SCHEME) => query,
            _ => {
                return Err(wrong(format_args!(
                    "it does not begin with {SCHEME}; copy the whole link, and quote it in a shell"
                )));
            }
        };
        let mut magnet = Self::new(InfoHash([0; 20]));
        let mut topic = Topic::default();
        for (key, value) in form_urlencoded::parse(query.trim().as_bytes()) {
            magnet.take(&key, &value, &mut topic)?;
        }
        magnet.info_hash = topic.info_hash()?;
        Ok(magnet)
    }
}

/// The link, with its values escaped.
impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |text| utf8_percent_encode(text, ESCAPED);
        write!(f, "magnet:?xt=urn:btih:{}", self.info_hash)?;
        if let Some(name) = &self.name {
            write!(f, "&dn={}", escaped(name))?;
        }
        for tracker in &self.trackers {
            write!(f, "&tr={}", escaped(tracker.as_str()))?;
        }
        for web_seed in &self.web_seeds {
            write!(f, "&ws={}", escaped(web_seed.as_str()))?;
        }
        // Colons and brackets may stand in a query, and some clients take them only so.
        self.peers
            .iter()
            .try_for_each(|peer| write!(f, "&x.pe={peer}"))
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl FromStr for PeerAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            if let Ok(address) = text.parse::<SocketAddr>() {
                return (address.port() != 0).then_some(Self::Ip(address));
            }
            let (host, port) = text.rsplit_once(':')?;
            let port = port.parse::<u16>().ok().filter(|p| *p != 0)?;
            match Host::parse(host).ok()? {
                Host::Domain(name) => Some(Self::Host(name, port)),
                // In an abbreviated form, or it would have been read above.
                Host::Ipv4(_) | Host::Ipv6(_) => None,
            }
        };
        parse().ok_or_else(|| {
            wrong(format_args!(
                "field x.pe: {text:?} is no address of a peer; \
                 write for example 192.0.2.7:6881, [2001:db8::7]:6881 or seed.example.org:6881"
            ))
        })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Host(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a";

    fn parse(text: &str) -> Result<Magnet> {
        text.parse()
    }

    #[test]
    fn every_field_is_read() {
        let magnet = parse(&format!(
            "MAGNET:?dn=A+b%20c%26d&xt=urn:btih:{HEX}&tr=http%3A%2F%2Ft.example%2Fannounce%3Fkey%3D1&tr.2=udp://u.example:80\
             &x.pe=192.0.2.7:6881&x.pe=%5B2001:db8::7%5D:1&x.pe=Seed.example.org:6882&ws=https://w.example/d%20e&so=0-3&xl=9"
        ))
        .unwrap();
        assert_eq!(magnet.info_hash().to_string(), HEX);
        assert_eq!(magnet.name(), Some("A b c&d"));
        let trackers: Vec<_> = magnet.trackers().iter().map(Url::as_str).collect();
        assert_eq!(
            trackers,
            ["http://t.example/announce?key=1", "udp://u.example:80"]
        );
        assert_eq!(magnet.web_seeds()[0].as_str(), "https://w.example/d%20e");
        assert_eq!(
            magnet.peers(),
            [
                PeerAddress::Ip(([192, 0, 2, 7], 6881).into()),
                PeerAddress::Ip("[2001:db8::7]:1".parse().unwrap()),
                PeerAddress::Host("seed.example.org".into(), 6882),
            ]
        );
        assert_eq!(parse(&magnet.to_string()).unwrap(), magnet);
    }

    #[test]
    fn hexadecimal_and_base32_name_one_image() {
        let base32 = "yex6dqdlxisuvhoj6um3gnnkpqjwpkek";
        let expected = parse(&format!("magnet:?xt=urn:btih:{HEX}")).unwrap();
        for text in [
            format!("magnet:?xt=urn:btih:{base32}"),
            format!("magnet:?xt=urn:btih:{}", base32.to_uppercase()),
            format!("magnet:?xt=URN:BTIH:{}", HEX.to_uppercase()),
            format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{base32}"),
            format!("magnet:?xt=urn:btmh:1220{HEX}&xt=urn:btih:{HEX}&xt=urn:sha1:x"),
            format!("magnet:?xt.1=urn:btih:{HEX}&tr=nonsense&tr=wss://t.example/&ws=ftp://x/"),
        ] {
            assert_eq!(parse(&text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_the_remedy() {
        let other = HEX.replace('c', "d");
        for (text, why) in [
            ("magnet:".to_owned(), "quote it"),
            (format!("magnet:xt=urn:btih:{HEX}"), "magnet:?"),
            ("magnet:?dn=x".to_owned(), "xt is missing"),
            ("magnet:?xt=urn:sha1:x".to_owned(), "xt is missing"),
            ("magnet:?xt=urn:btih:00".to_owned(), "40 hexadecimal digits"),
            (
                format!("magnet:?xt=urn:btih:{}é", &HEX[2..]),
                "copy the whole link",
            ),
            (format!("magnet:?xt=urn:btih:{}", "0".repeat(32)), "base32"),
            (format!("magnet:?xt=urn:btmh:1220{HEX}"), "v2"),
            (
                format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{other}"),
                "two images",
            ),
            (format!("magnet:?xt=urn:btih:{HEX}&x.pe=127.1:80"), "x.pe"),
            (format!("magnet:?xt=urn:btih:{HEX}&x.pe=::1:80"), "x.pe"),
            (
                format!("magnet:?xt=urn:btih:{HEX}&x.pe=192.0.2.7:0"),
                "x.pe",
            ),
            (
                format!("magnet:?xt=urn:btih:{HEX}&x.pe=host"),
                "192.0.2.7:6881",
            ),
            (
                format!("magnet:?xt=urn:btih:{HEX}&dn={}", "x".repeat(MAX_LENGTH)),
                "longer",
            ),
        ] {
            let e = parse(&text).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidInput);
            assert!(e.to_string().contains(why), "{text:.80}: {e}");
        }
    }

    #[test]
    fn the_lists_are_bounded() {
        let mut text = format!("magnet:?xt=urn:btih:{HEX}");
        for n in 1..=1000 {
            text += &format!("&tr=http://{n}.example/&x.pe=10.0.0.1:{n}");
        }
        let magnet = parse(&text).unwrap();
        assert_eq!(magnet.trackers().len(), MAX_ENTRIES);
        assert_eq!(magnet.peers().len(), MAX_ENTRIES);
    }

    proptest! {
        #[test]
        fn any_name_survives_and_garbage_never_panics(name in "\\PC{1,40}", text in "\\PC{0,60}") {
            let magnet = Magnet::new(InfoHash([9; 20])).with_name(name);
            prop_assert_eq!(parse(&magnet.to_string()).unwrap(), magnet);
            let _ = parse(&text);
            let _ = parse(&format!("magnet:?{text}"));
            let _ = parse(&format!("magnet:?xt=urn:btih:{text}"));
            let _ = text.parse::<PeerAddress>();
        }
    }
}
