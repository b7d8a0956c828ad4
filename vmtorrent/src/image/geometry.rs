//! Invariant: every piece but the last is `piece_length` bytes; the last holds what is left, at least one byte.

use std::fmt;
use std::ops::Range;

/// The unit of a request on the wire: 16 KiB (BEP 3).
pub const BLOCK_LENGTH: u32 = 16 * 1024;

/// The number of a piece, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PieceIndex(pub u32);

impl PieceIndex {
    /// The number as an index into a table with one entry per piece.
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One 16 KiB block of a piece; the last block of the last piece may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockIndex {
    /// The piece.
    pub piece: PieceIndex,
    /// The number of the block inside the piece.
    pub block: u32,
}

/// How the bytes of an image are cut into pieces and blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    total_length: u64,
    piece_length: u32,
    piece_count: u32,
}

impl Geometry {
    /// `None` when a length is zero or there would be more than `u32::MAX` pieces.
    pub fn new(total_length: u64, piece_length: u32) -> Option<Self> {
        if total_length == 0 || piece_length == 0 {
            return None;
        }
        let piece_count = u32::try_from(total_length.div_ceil(u64::from(piece_length))).ok()?;
        Some(Self {
            total_length,
            piece_length,
            piece_count,
        })
    }

    /// Bytes of the image, all files together.
    pub fn total_length(&self) -> u64 {
        self.total_length
    }

    /// Bytes of every piece but the last.
    pub fn nominal_piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Number of pieces.
    pub fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// All pieces in order.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = PieceIndex> + use<> {
        (0..self.piece_count).map(PieceIndex)
    }

    /// Whether there is such a piece.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        piece.0 < self.piece_count
    }

    /// Where a piece begins in the image.
    pub fn piece_offset(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.piece_length)
    }

    /// Bytes of one piece. The piece must exist.
    pub fn piece_length(&self, piece: PieceIndex) -> u32 {
        debug_assert!(self.contains(piece));
        let left = self.total_length - self.piece_offset(piece);
        left.min(u64::from(self.piece_length)) as u32
    }

    /// The bytes of the image that a piece covers.
    pub fn piece_range(&self, piece: PieceIndex) -> Range<u64> {
        let start = self.piece_offset(piece);
        start..start + u64::from(self.piece_length(piece))
    }

    /// The piece that holds the byte at `offset`, which must lie inside the image.
    pub fn piece_at(&self, offset: u64) -> PieceIndex {
        debug_assert!(offset < self.total_length);
        PieceIndex((offset / u64::from(self.piece_length)) as u32)
    }

    /// The pieces that hold a byte of `range` (clipped to the image), as numbers.
    pub fn pieces_in(&self, range: Range<u64>) -> Range<u32> {
        let end = range.end.min(self.total_length);
        if range.start >= end {
            return 0..0;
        }
        self.piece_at(range.start).0..self.piece_at(end - 1).0 + 1
    }

    /// Number of blocks of a piece.
    pub fn block_count(&self, piece: PieceIndex) -> u32 {
        self.piece_length(piece).div_ceil(BLOCK_LENGTH)
    }

    /// Bytes of one block.
    pub fn block_length(&self, block: BlockIndex) -> u32 {
        let begin = block.block * BLOCK_LENGTH;
        (self.piece_length(block.piece) - begin).min(BLOCK_LENGTH)
    }

    /// Bytes of an ordinary block: 16 KiB, less only if the pieces are smaller.
    pub fn nominal_block_length(&self) -> u32 {
        self.piece_length.min(BLOCK_LENGTH)
    }

    /// The block that a peer means by piece and offset; `None` unless it is exactly one of ours.
    pub fn block_from_wire(&self, piece: u32, begin: u32, length: u32) -> Option<BlockIndex> {
        let piece = PieceIndex(piece);
        if !self.contains(piece) || !begin.is_multiple_of(BLOCK_LENGTH) {
            return None;
        }
        let block = BlockIndex {
            piece,
            block: begin / BLOCK_LENGTH,
        };
        (block.block < self.block_count(piece) && self.block_length(block) == length)
            .then_some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_piece_is_short_or_exact() {
        let short = Geometry::new(100_000, 65_536).unwrap();
        assert_eq!(short.piece_count(), 2);
        assert_eq!(short.piece_length(PieceIndex(1)), 34_464);
        assert_eq!(short.block_count(PieceIndex(1)), 3);
        let last = BlockIndex {
            piece: PieceIndex(1),
            block: 2,
        };
        assert_eq!(short.block_length(last), 34_464 - 32_768);
        let exact = Geometry::new(131_072, 65_536).unwrap();
        assert_eq!(exact.piece_count(), 2);
        assert_eq!(exact.piece_length(PieceIndex(1)), 65_536);
    }

    #[test]
    fn ranges_map_to_the_pieces_that_hold_them() {
        let g = Geometry::new(1 << 20, 65_536).unwrap();
        assert_eq!(g.pieces_in(0..1), 0..1);
        assert_eq!(g.pieces_in(65_535..65_537), 0..2);
        assert_eq!(g.pieces_in(5..5), 0..0);
        assert_eq!(g.pieces_in(0..u64::MAX), 0..16);
    }

    #[test]
    fn only_whole_blocks_come_from_the_wire() {
        let g = Geometry::new(100_000, 65_536).unwrap();
        assert!(g.block_from_wire(0, 16_384, 16_384).is_some());
        assert!(g.block_from_wire(0, 16_384, 16_383).is_none());
        assert!(g.block_from_wire(0, 1, 16_384).is_none());
        assert!(g.block_from_wire(0, 65_536, 16_384).is_none());
        assert!(g.block_from_wire(2, 0, 16_384).is_none());
    }
}
