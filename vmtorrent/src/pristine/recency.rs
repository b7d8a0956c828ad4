//! Invariant: a piece that was used since the hand passed it last is passed over once more before it is named.
//!
//! The clock algorithm: an approximation of least recently used that costs a bit for each piece.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::image::PieceIndex;

/// Which pieces were not used for long.
pub(super) struct Recency {
    used: Vec<AtomicU64>,
    pieces: u32,
    hand: AtomicU32,
}

impl Recency {
    /// Nothing was used yet.
    pub(super) fn new(pieces: u32) -> Self {
        let words = (pieces as usize).div_ceil(64);
        Self {
            used: (0..words).map(|_| AtomicU64::new(0)).collect(),
            pieces,
            hand: AtomicU32::new(0),
        }
    }

    /// A piece is used.
    pub(super) fn touch(&self, piece: PieceIndex) {
        let (word, bit) = (&self.used[piece.as_usize() / 64], 1 << (piece.0 % 64));
        // Mostly set already: a plain load spares the write.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Names pieces that may go, those unused for longest first, until `take` takes one. False when none was taken.
    pub(super) fn sweep(&self, mut take: impl FnMut(PieceIndex) -> bool) -> bool {
        // Twice around: the first time may only take the bits away.
        for _ in 0..2 * u64::from(self.pieces) {
            let piece = PieceIndex(self.hand.fetch_add(1, Ordering::Relaxed) % self.pieces);
            let (word, bit) = (&self.used[piece.as_usize() / 64], 1 << (piece.0 % 64));
            if word.fetch_and(!bit, Ordering::Relaxed) & bit == 0 && take(piece) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_pieces_go_first_and_used_ones_get_another_round() {
        let recency = Recency::new(5);
        for piece in [0, 1, 3] {
            recency.touch(PieceIndex(piece));
        }
        let mut order = Vec::new();
        for _ in 0..5 {
            let mut named = None;
            let free = |p: PieceIndex| !order.contains(&p.0);
            assert!(recency.sweep(|p| free(p) && named.replace(p.0).is_none()));
            order.extend(named);
        }
        assert_eq!(order, [2, 4, 0, 1, 3]);
        assert!(!recency.sweep(|_| false));
    }
}
