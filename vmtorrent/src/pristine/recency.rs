//! Invariant: of two pieces, the one whose last use lies in an earlier epoch goes first. An epoch lasts from one piece
//! that comes to the next.
//!
//! Cost: four bytes for each piece; and a look at all pieces to find the one that goes, which is little beside
//! fetching the one that comes.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::image::PieceIndex;

/// When each piece was used last.
pub(super) struct Recency {
    last_use: Vec<AtomicU32>,
    epoch: AtomicU32,
}

impl Recency {
    /// Nothing was used yet.
    pub(super) fn new(pieces: u32) -> Self {
        Self {
            last_use: (0..pieces).map(|_| AtomicU32::new(0)).collect(),
            epoch: AtomicU32::new(1),
        }
    }

    /// A piece is used.
    pub(super) fn touch(&self, piece: PieceIndex) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        if let Some(last) = self.last_use.get(piece.as_usize())
            && last.load(Ordering::Relaxed) != epoch
        {
            last.store(epoch, Ordering::Relaxed);
        }
    }

    /// A piece comes: what is used from now on is used later.
    pub(super) fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// The piece that was not used for longest, of those that `may_go`.
    pub(super) fn oldest(&self, may_go: impl Fn(PieceIndex) -> bool) -> Option<PieceIndex> {
        let pieces = (0..).map(PieceIndex).zip(&self.last_use);
        pieces
            .filter(|(piece, _)| may_go(*piece))
            .min_by_key(|(_, last)| last.load(Ordering::Relaxed))
            .map(|(piece, _)| piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_piece_whose_use_is_longest_ago_goes_first() {
        let recency = Recency::new(5);
        for piece in [3, 1, 0, 1] {
            recency.touch(PieceIndex(piece));
            recency.advance();
        }
        let mut order: Vec<u32> = Vec::new();
        while let Some(piece) = recency.oldest(|p| !order.contains(&p.0)) {
            order.push(piece.0);
        }
        assert_eq!(order, [2, 4, 3, 0, 1]);
    }
}
