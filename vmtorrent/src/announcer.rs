//! Invariant: a tracker sees one peer that starts once, although what it finds serves the search for the info
//! dictionary first and the swarm later.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::tracker::{TrackerClient, TrackerConfig, TrackerHandle, TransferStats};

type Stats = dyn Fn() -> TransferStats + Send + Sync;

/// Announces an image that is known by its info-hash only, until a torrent takes it over.
pub(crate) struct Announcer {
    tracker: TrackerHandle,
    stats: Arc<OnceLock<Box<Stats>>>,
    /// Set back by [`found_by`](Self::found_by).
    found: Option<mpsc::Receiver<SocketAddr>>,
}

impl Announcer {
    /// Begins to announce; what is found comes out of the channel.
    pub(crate) fn start(
        runtime: &Handle,
        config: TrackerConfig,
    ) -> (Self, mpsc::Receiver<SocketAddr>) {
        let (sender, found) = mpsc::channel(256);
        let stats: Arc<OnceLock<Box<Stats>>> = Arc::default();
        let told = stats.clone();
        let tell = move || match told.get() {
            Some(stats) => stats(),
            None => TransferStats {
                left: None,
                ..TransferStats::default()
            },
        };
        let announcer = Self {
            tracker: TrackerClient::spawn(runtime, config, tell, sender),
            stats,
            found: None,
        };
        (announcer, found)
    }

    /// The channel is not needed for the search any more: it is kept for the torrent.
    pub(crate) fn found_by(mut self, found: mpsc::Receiver<SocketAddr>) -> Self {
        self.found = Some(found);
        self
    }

    /// From now on `stats` are told; gives the running client and what it finds.
    pub(crate) fn take_over(
        self,
        stats: impl Fn() -> TransferStats + Send + Sync + 'static,
    ) -> (TrackerHandle, mpsc::Receiver<SocketAddr>) {
        // It can't have been set before: it is set here only, and `self` ends here.
        let _ = self.stats.set(Box::new(stats));
        let closed = || mpsc::channel(1).1;
        (self.tracker, self.found.unwrap_or_else(closed))
    }

    /// Tells the trackers that the peer leaves; takes at most three seconds.
    pub(crate) async fn stop(self) {
        self.tracker.stop().await;
    }
}
