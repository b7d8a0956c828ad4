//! Invariant: a run ends with its extent, one of a peer that prefers long ones after [`Runs::LONG`] bytes, so that those who
//! fetch the same image of one source soon have different parts of it.

use std::ops::Range;

use super::{Extents, PeerKey};
use crate::hash::{HashMap, HashSet};
use crate::image::PieceIndex;

/// Pieces that follow each other, each asked of the peer that was asked for the one before it.
#[derive(Debug)]
pub(super) struct Runs {
    extents: Extents,
    runs: HashMap<PeerKey, Run>,
    /// The peers of which many pieces are better asked for together.
    long: HashSet<PeerKey>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    last: PieceIndex,
    /// Bytes of the pieces in it.
    bytes: u64,
}

impl Runs {
    const LONG: u64 = 1 << 20;

    /// Pieces have so many bytes.
    pub(super) fn new(piece_length: u32) -> Self {
        Self {
            extents: Extents::new(piece_length),
            runs: HashMap::default(),
            long: HashSet::default(),
        }
    }

    /// A peer prefers long runs.
    pub(super) fn prefer_long(&mut self, peer: PeerKey) {
        self.long.insert(peer);
    }

    pub(super) fn is_long(&self, peer: PeerKey) -> bool {
        self.long.contains(&peer)
    }

    pub(super) fn remove(&mut self, peer: PeerKey) {
        self.runs.remove(&peer);
        self.long.remove(&peer);
    }

    /// The piece that the peer's run goes on with.
    pub(super) fn next(&self, peer: PeerKey) -> Option<PieceIndex> {
        let run = self.runs.get(&peer)?;
        let next = run.last.0.checked_add(1)?;
        let goes_on = match self.is_long(peer) {
            true => run.bytes < Self::LONG,
            false => self.extents.around(run.last).contains(&next),
        };
        goes_on.then_some(PieceIndex(next))
    }

    /// The pieces of an extent that come before `piece`.
    pub(super) fn before(&self, piece: PieceIndex) -> Range<u32> {
        self.extents.around(piece).start..piece.0
    }

    /// A piece of so many bytes was picked for the peer; `goes_on`: as [`next`](Self::next) said.
    pub(super) fn picked(&mut self, peer: PeerKey, piece: PieceIndex, goes_on: bool, length: u32) {
        let before = self.runs.get(&peer).filter(|_| goes_on);
        let bytes = before.map_or(0, |run| run.bytes) + u64::from(length);
        self.runs.insert(peer, Run { last: piece, bytes });
    }
}
