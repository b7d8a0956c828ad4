//! What tells afterwards how a run went.
//!
//! Invariant: looking changes nothing.

use std::time::Duration;

use super::Appliance;
use crate::error::Result;
use crate::image::PieceIndex;
use crate::pristine::PieceState;
use crate::profile::{Profile, RunLog};
use crate::session::ended;

impl Appliance {
    /// Whether a piece of the image is here, verified or not. Pieces of zeros always are; a piece that repeats another
    /// is here when that one is.
    pub fn is_present(&self, piece: PieceIndex) -> bool {
        let canonical = self.torrent.image().canonical(piece);
        self.torrent.pristine().state(canonical) != PieceState::Missing
    }

    /// What the guest read first, in which order, and when it waited, since the launch.
    pub fn run_log(&self) -> RunLog {
        self.run.log()
    }

    /// Time since the recording of [`run_log`](Self::run_log) began: what tells where its times lie on another clock.
    pub fn run_time(&self) -> Duration {
        self.run.time()
    }

    /// What the guest read first so far, as a profile of one run: the same that
    /// [`record`](crate::ApplianceOptions::record) writes.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when the session was shut down.
    pub async fn profile(&self) -> Result<Profile> {
        let run = self.run.clone();
        let profile = move || {
            run.look();
            run.profile()
        };
        let made = self.session.handle().spawn_blocking(profile).await;
        made.map_err(ended)
    }
}
