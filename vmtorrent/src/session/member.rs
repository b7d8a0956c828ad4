//! Invariant: a member is among its torrent's users from its making to its end, and no longer.

use std::sync::Arc;

use super::Shared;
use crate::error::Result;
use crate::options::Fill;
use crate::torrent::Torrent;

/// A place among the users of a torrent: while it exists, nobody else's going ends the torrent.
///
/// Dropping it gives the place up. The last one should be given up by [`leave`](Self::leave), which ends the torrent in
/// order.
pub(crate) struct Member {
    session: Arc<Shared>,
    torrent: Arc<Torrent>,
    user: u64,
}

impl Member {
    /// To be called only while nobody can end the torrent: see [`Shared::release`].
    pub(super) fn join(session: &Arc<Shared>, torrent: Arc<Torrent>, fill: Fill) -> Self {
        let user = torrent.join(fill);
        Self {
            session: session.clone(),
            torrent,
            user,
        }
    }

    /// Gives the place up; true with the last one.
    pub(super) fn give_up(self) -> bool {
        self.torrent.leave(self.user)
    }

    pub(crate) fn torrent(&self) -> &Arc<Torrent> {
        &self.torrent
    }

    /// Gives the place up; the last one to do so says good-bye to trackers and peers.
    pub(crate) async fn leave(self) -> Result<()> {
        let session = self.session.clone();
        session.release(self).await
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Harmless after `give_up`.
        self.torrent.leave(self.user);
    }
}
