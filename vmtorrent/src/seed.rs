//! Invariant: the published data is only ever read.

use crate::error::Result;
use crate::image::Image;
use crate::session::Member;
use crate::stats::Stats;

/// A published file or directory that is being served to the swarm.
///
/// Dropping it ends the serving at once; [`shutdown`](Seed::shutdown) also tells the trackers.
pub struct Seed {
    member: Member,
}

impl Seed {
    pub(crate) fn new(member: Member) -> Self {
        Self { member }
    }

    /// What is served.
    pub fn image(&self) -> &Image {
        self.member.torrent().image()
    }

    /// Bytes sent so far, peers, and so on.
    pub fn stats(&self) -> Stats {
        self.member.torrent().stats()
    }

    /// Says good-bye to trackers and peers.
    ///
    /// # Errors
    /// None today, also when the session was shut down before; the result leaves room for a report.
    pub async fn shutdown(self) -> Result<Stats> {
        let stats = self.stats();
        self.member.leave().await?;
        Ok(stats)
    }
}
