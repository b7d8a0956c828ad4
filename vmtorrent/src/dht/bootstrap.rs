//! Where a session's nodes find their first contacts. Invariant: nobody is asked but whom the user named, or the public
//! routers if he named nobody.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;

use crate::error::{Error, ErrorKind, Result};

/// The nodes that the authors of clients run for everybody.
const ROUTERS: &[&str] = &[
    "router.bittorrent.com:6881",
    "dht.libtorrent.org:25401",
    "dht.transmissionbt.com:6881",
    "router.utorrent.com:6881",
];
/// In place of these where nothing is said in the options: names, with spaces or commas between them.
const VARIABLE: &str = "VMTORRENT_DHT_BOOTSTRAP";
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_NAMES: usize = 32;
const MAX_ADDRESSES: usize = 8;

/// Whether a text says where a node of the DHT may be: `HOST:PORT`.
pub fn is_node(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

/// Whether these are nodes to begin with.
///
/// # Errors
/// [`ErrorKind::InvalidInput`], naming the one that is no `HOST:PORT`.
pub(crate) fn check(given: Option<&[String]>) -> Result<()> {
    let mut given = given.unwrap_or_default().iter();
    match given.find(|name| !is_node(name)) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{name:?} is no node of a DHT; write for example dht.example.org:6881"),
        )),
    }
}

/// Whom to ask first, each as `HOST:PORT`.
pub(super) fn names(given: Option<&[String]>, listener: SocketAddr) -> Vec<String> {
    let names = match given {
        Some(given) => given.to_vec(),
        None => match std::env::var(VARIABLE) {
            Ok(text) => split(&text),
            // From there nobody is reached.
            Err(_) if listener.ip().is_loopback() => Vec::new(),
            Err(_) => ROUTERS.iter().map(|r| (*r).to_owned()).collect(),
        },
    };
    names.into_iter().take(MAX_NAMES).collect()
}

fn split(text: &str) -> Vec<String> {
    let words = text.split([' ', ',']).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// Their addresses. A name that can't be looked up is left out.
pub(super) async fn look_up(names: &[String]) -> Vec<SocketAddr> {
    let lookups = names.iter().map(|name| async move {
        match tokio::time::timeout(PATIENCE, tokio::net::lookup_host(name)).await {
            Ok(Ok(addresses)) => addresses.take(MAX_ADDRESSES).collect(),
            Ok(Err(error)) => {
                tracing::debug!(%name, %error, "a node's name can't be looked up");
                Vec::new()
            }
            Err(_) => {
                tracing::debug!(%name, "looking up a node's name takes too long");
                Vec::new()
            }
        }
    });
    join_all(lookups).await.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_spaces_and_commas() {
        assert_eq!(split(" a:1, [::1]:2,,b:3 "), ["a:1", "[::1]:2", "b:3"]);
        assert!(split("").is_empty());
        let here = ([127, 0, 0, 1], 1).into();
        assert_eq!(names(Some(&[]), here), Vec::<String>::new());
        assert_eq!(names(Some(&["a:1".to_owned()]), here), ["a:1"]);
        assert!(names(None, here).is_empty(), "the public ones were asked");
    }

    #[test]
    fn a_node_has_a_host_and_a_port() {
        let check = |name: &str| check(Some(&[name.to_owned()]));
        for good in ["a:1", "192.0.2.1:6881", "[2001:db8::1]:6881"] {
            check(good).unwrap();
        }
        for bad in ["", "a", "a:", ":1", "a:0", "a:99999", "a:b"] {
            let error = check(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }

    #[tokio::test]
    async fn what_can_not_be_looked_up_is_left_out() {
        let names = ["127.0.0.1:7", "nowhere", "[::1]:8"].map(str::to_owned);
        let expected: Vec<SocketAddr> =
            vec![([127, 0, 0, 1], 7).into(), "[::1]:8".parse().unwrap()];
        assert_eq!(look_up(&names).await, expected);
    }
}
