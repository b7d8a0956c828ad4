//! Invariant: a run ends after [`Runs::LENGTH`] bytes, so that those who fetch the same image of one source soon have
//! different parts of it.

use super::PeerKey;
use crate::hash::HashMap;
use crate::image::PieceIndex;

/// The peers of which pieces that follow each other are better asked for together.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: HashMap<PeerKey, Run>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Run {
    last: Option<PieceIndex>,
    /// Bytes of the pieces in it.
    bytes: u64,
}

impl Runs {
    const LENGTH: u64 = 1 << 20;

    pub(super) fn add(&mut self, peer: PeerKey) {
        self.runs.insert(peer, Run::default());
    }

    pub(super) fn remove(&mut self, peer: PeerKey) {
        self.runs.remove(&peer);
    }

    /// The piece that the peer's run goes on with.
    pub(super) fn next(&self, peer: PeerKey) -> Option<PieceIndex> {
        let run = self.runs.get(&peer).filter(|r| r.bytes < Self::LENGTH)?;
        Some(PieceIndex(run.last?.0.checked_add(1)?))
    }

    /// A piece of so many bytes was picked for the peer; `goes_on`: as [`next`](Self::next) said.
    pub(super) fn picked(&mut self, peer: PeerKey, piece: PieceIndex, goes_on: bool, length: u32) {
        if let Some(run) = self.runs.get_mut(&peer) {
            let before = if goes_on { run.bytes } else { 0 };
            *run = Run {
                last: Some(piece),
                bytes: before + u64::from(length),
            };
        }
    }
}
