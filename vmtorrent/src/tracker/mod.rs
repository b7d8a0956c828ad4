//! Trackers over HTTP (BEP 3, 7, 12, 23, 48) and UDP (BEP 15, 41): how peers of one image find each other.
//!
//! `TrackerClient` is the session's side; [`TrackerServer`] is a small tracker for a publisher who
//! runs none, as `vmtorrent seed --tracker` does. What they decide is plain data in `schedule` and
//! `table`; the two only add sockets and timers.

mod announce;
mod client;
mod schedule;
mod scrape;
mod server;
mod table;
mod transport;
mod udp;

pub(crate) use client::{TrackerClient, TrackerConfig, TrackerHandle, TransferStats};
pub use scrape::{SwarmCounts, scrape};
pub use server::{TrackerServer, TrackerServerHandle, TrackerServerOptions};

/// What an announce reports, other than that the peer is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The first announce.
    Started,
    /// The peer has just got the last piece.
    Completed,
    /// The last announce.
    Stopped,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
        }
    }
}
