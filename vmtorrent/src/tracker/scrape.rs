//! Invariant: a scrape registers nobody; it only asks how many peers there are.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use url::Url;

use super::announce::MAX_ANSWER_BYTES;
use super::udp::UdpTransport;
use crate::bencode::Node;
use crate::http::HttpClient;
use crate::image::InfoHash;
use crate::{Error, ErrorKind, Result};

/// How many peers a tracker knows of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwarmCounts {
    /// Peers that have all of it.
    pub seeders: u64,
    /// Peers that don't yet.
    pub leechers: u64,
    /// How many have told that they got the last piece.
    pub completions: u64,
}

/// Asks a tracker (http, https: BEP 48; udp: BEP 15) how many peers it knows of an image, within `timeout`. `None`:
/// it doesn't know the image. `seed`: what the numbers of UDP requests start from; any that can't be guessed will do.
/// To be called on a tokio runtime.
///
/// # Errors
/// [`ErrorKind::TimedOut`], or [`ErrorKind::Network`] when it can't be reached, refuses or answers nonsense;
/// [`ErrorKind::InvalidInput`] when the URL is none that can be scraped.
pub async fn scrape(
    tracker: &Url,
    image: InfoHash,
    seed: u64,
    timeout: Duration,
) -> Result<Option<SwarmCounts>> {
    match tracker.scheme() {
        "udp" => {
            let udp = UdpTransport::new(seed);
            let counts = udp.scrape(tracker, &[image], timeout).await?;
            Ok(counts.first().map(|c| SwarmCounts {
                seeders: c.seeders.into(),
                leechers: c.leechers.into(),
                completions: c.completions.into(),
            }))
        }
        "http" | "https" => {
            let url = scrape_url(tracker, image)?;
            let http = HttpClient::new()?;
            let answer = http.get_directly(url, MAX_ANSWER_BYTES, timeout).await?;
            parse(&answer.body, image)
        }
        other => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("no tracker is asked by {other}: use an http, https or udp URL"),
        )),
    }
}

/// BEP 48: the last `announce` of the path becomes `scrape`.
fn scrape_url(tracker: &Url, image: InfoHash) -> Result<Url> {
    let (directory, last) = tracker.path().rsplit_once('/').unwrap_or(("", ""));
    let Some(rest) = last.strip_prefix("announce") else {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "this tracker can't be scraped: the last part of its URL's path does not begin with \"announce\"",
        ));
    };
    let hash = percent_encode(&image.0, NON_ALPHANUMERIC);
    let query = match tracker.query() {
        Some(query) if !query.is_empty() => format!("{query}&info_hash={hash}"),
        _ => format!("info_hash={hash}"),
    };
    let mut url = tracker.clone();
    url.set_path(&format!("{directory}/scrape{rest}"));
    url.set_query(Some(&query));
    url.set_fragment(None);
    Ok(url)
}

fn parse(body: &[u8], image: InfoHash) -> Result<Option<SwarmCounts>> {
    let malformed = || {
        Error::new(
            ErrorKind::Network,
            "the tracker's answer to a scrape is malformed; check the tracker's URL",
        )
    };
    let root = Node::parse(body).map_err(|_| malformed())?;
    if let Ok(Some(reason)) = root.get("failure reason") {
        let reason = String::from_utf8_lossy(reason.as_bytes().unwrap_or_default());
        let reason: String = reason.chars().take(super::announce::MAX_REASON).collect();
        let text = format!("the tracker refuses: {reason:?}");
        return Err(Error::new(ErrorKind::Network, text));
    }
    let files = root.get("files").map_err(|_| malformed())?;
    let entries = files
        .and_then(|f| f.as_dictionary())
        .ok_or_else(malformed)?;
    let Some((_, counts)) = entries.into_iter().find(|(key, _)| *key == image.0) else {
        return Ok(None);
    };
    let number = |key: &str| {
        let number = counts.get(key).ok().flatten().and_then(|n| n.as_integer());
        number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
    };
    Ok(Some(SwarmCounts {
        seeders: number("complete"),
        leechers: number("incomplete"),
        completions: number("downloaded"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: InfoHash = InfoHash(*b"aaaaaaaaaaaaaaaaaaa&");

    #[test]
    fn the_last_announce_of_the_path_becomes_scrape() {
        let url = |text: &str| scrape_url(&text.parse().unwrap(), IMAGE).map(|u| u.to_string());
        assert_eq!(
            url("http://t/announce/x/announce.php?key=1#f").unwrap(),
            "http://t/announce/x/scrape.php?key=1&info_hash=aaaaaaaaaaaaaaaaaaa%26"
        );
        let error = url("http://t/a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn counts_refusals_and_garbage_are_told_apart() {
        let body =
            b"d5:filesd20:aaaaaaaaaaaaaaaaaaa&d8:completei3e10:downloadedi-1e10:incompletei5eeee";
        let counts = SwarmCounts {
            seeders: 3,
            leechers: 5,
            completions: 0,
        };
        assert_eq!(parse(body, IMAGE).unwrap(), Some(counts));
        assert_eq!(parse(body, InfoHash([1; 20])).unwrap(), None);
        let refused = parse(b"d14:failure reason4:nopee", IMAGE).unwrap_err();
        assert!(refused.to_string().contains("\"nope\""));
        for garbage in [&b"<html>"[..], b"de", b"le", b"d5:filesi1ee"] {
            assert_eq!(
                parse(garbage, IMAGE).unwrap_err().kind(),
                ErrorKind::Network
            );
        }
    }
}
