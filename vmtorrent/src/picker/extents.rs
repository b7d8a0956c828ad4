//! Invariant: extents do not overlap, and each piece lies in one.

use std::ops::Range;

use crate::image::PieceIndex;

/// Parts of an image that are fetched together in the background where nothing else counts, and stored together: what is
/// written at once is read faster later. libtorrent's `piece_extent_affinity` does the first of it with 4 MiB.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    pieces: u32,
}

impl Extents {
    /// Bytes of an extent, or of a piece if that is longer; each begins at a multiple of this.
    pub const LENGTH: u32 = 256 << 10;

    /// Those of an image whose pieces have so many bytes.
    pub fn new(piece_length: u32) -> Self {
        Self {
            pieces: (Self::LENGTH / piece_length).max(1),
        }
    }

    /// Pieces of an extent; the last one of an image may have fewer.
    pub fn pieces(self) -> u32 {
        self.pieces
    }

    /// The pieces of the extent in which a piece lies.
    pub fn around(self, piece: PieceIndex) -> Range<u32> {
        let start = piece.0 - piece.0 % self.pieces;
        start..start.saturating_add(self.pieces)
    }
}
