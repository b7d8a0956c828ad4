//! Invariant: a web seed has no address of ours to remember or to shut out, so it never gets where peers' addresses go.

use std::fmt;
use std::net::SocketAddr;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remote {
    /// A peer, and the other end of its connection.
    Peer(SocketAddr),
    /// A web server (BEP 19), by its number among the web seeds of the image.
    WebSeed(usize),
}

impl Remote {
    pub(crate) fn is_web_seed(self) -> bool {
        matches!(self, Self::WebSeed(_))
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(address) => address.fmt(f),
            Self::WebSeed(number) => write!(f, "web seed {number}"),
        }
    }
}
