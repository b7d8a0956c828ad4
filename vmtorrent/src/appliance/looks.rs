//! What tells afterwards how a run went.
//!
//! Invariant: looking changes nothing.

use std::time::Duration;

use super::Appliance;
use crate::image::PieceIndex;
use crate::pristine::PieceState;
use crate::profile::RunLog;

impl Appliance {
    /// Whether a piece of the image is here, verified or not. Pieces of zeros always are; a piece that repeats another
    /// is here when that one is.
    pub fn is_present(&self, piece: PieceIndex) -> bool {
        let canonical = self.torrent.image().canonical(piece);
        self.torrent.pristine().state(canonical) != PieceState::Missing
    }

    // STUB, to be deleted when recording is merged: nothing is recorded yet.
    /// What was read first, and when reads waited.
    pub fn run_log(&self) -> RunLog {
        RunLog::default()
    }

    // STUB, to be replaced when recording is merged.
    /// Time since the recording of [`run_log`](Self::run_log) began: what tells where its times lie on another clock.
    pub fn run_time(&self) -> Duration {
        Duration::ZERO
    }
}
