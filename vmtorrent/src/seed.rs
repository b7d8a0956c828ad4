//! Invariant: the published data is only ever read.

use std::sync::Arc;

use crate::error::Result;
use crate::image::Image;
use crate::options::Fill;
use crate::session::Shared;
use crate::stats::Stats;
use crate::torrent::Torrent;

/// A published file or directory that is being served to the swarm.
///
/// Dropping it ends the serving at once; [`shutdown`](Seed::shutdown) also tells the trackers.
pub struct Seed {
    session: Arc<Shared>,
    torrent: Arc<Torrent>,
    user: u64,
}

impl Seed {
    pub(crate) fn new(session: Arc<Shared>, torrent: Arc<Torrent>) -> Self {
        let user = torrent.join(Fill::None);
        Self {
            session,
            torrent,
            user,
        }
    }

    /// What is served.
    pub fn image(&self) -> &Image {
        self.torrent.image()
    }

    /// Bytes sent so far, peers, and so on.
    pub fn stats(&self) -> Stats {
        self.torrent.stats()
    }

    /// Says good-bye to trackers and peers.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when the session was shut down before.
    pub async fn shutdown(self) -> Result<Stats> {
        let stats = self.stats();
        let Self {
            session,
            torrent,
            user,
        } = self;
        session.release(torrent, user).await?;
        Ok(stats)
    }
}
