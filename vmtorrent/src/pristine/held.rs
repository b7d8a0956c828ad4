//! Invariant: never more bytes than the capacity are held, but for a single piece; the piece that goes first is the one
//! that was used least recently.

use std::collections::HashMap;

use bytes::Bytes;

use crate::image::PieceIndex;

/// Verified pieces in memory, because the disk would not take them.
pub(super) struct Held {
    capacity: u64,
    bytes: u64,
    pieces: HashMap<PieceIndex, (Bytes, u64)>,
    /// Counts uses.
    now: u64,
}

impl Held {
    /// Holds up to `capacity` bytes.
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            bytes: 0,
            pieces: HashMap::new(),
            now: 0,
        }
    }

    /// Number of pieces.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The bytes of a piece, which counts as a use.
    pub(super) fn get(&mut self, piece: PieceIndex) -> Option<Bytes> {
        self.now += 1;
        let (bytes, used) = self.pieces.get_mut(&piece)?;
        *used = self.now;
        Some(bytes.clone())
    }

    /// Takes a piece in and gives those that had to go for it.
    pub(super) fn insert(&mut self, piece: PieceIndex, bytes: Bytes) -> Vec<PieceIndex> {
        self.remove(piece);
        let mut gone = Vec::new();
        while self.bytes + bytes.len() as u64 > self.capacity
            && let Some(oldest) = self.oldest()
        {
            self.remove(oldest);
            gone.push(oldest);
        }
        self.now += 1;
        self.bytes += bytes.len() as u64;
        self.pieces.insert(piece, (bytes, self.now));
        gone
    }

    /// Lets a piece go.
    pub(super) fn remove(&mut self, piece: PieceIndex) {
        if let Some((bytes, _)) = self.pieces.remove(&piece) {
            self.bytes -= bytes.len() as u64;
        }
    }

    /// Every piece that is held, the one used last first.
    pub(super) fn pieces(&self) -> Vec<PieceIndex> {
        let mut pieces: Vec<_> = self
            .pieces
            .iter()
            .map(|(p, (_, used))| (*used, *p))
            .collect();
        pieces.sort_unstable_by(|a, b| b.cmp(a));
        pieces.into_iter().map(|(_, piece)| piece).collect()
    }

    fn oldest(&self) -> Option<PieceIndex> {
        let pieces = self.pieces.iter();
        pieces.min_by_key(|(_, (_, used))| *used).map(|(p, _)| *p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays_and_no_more_than_the_capacity() {
        let mut held = Held::new(100);
        let piece = |n: usize| Bytes::from(vec![n as u8; n]);
        assert_eq!(held.insert(PieceIndex(1), piece(40)), []);
        assert_eq!(held.insert(PieceIndex(2), piece(40)), []);
        assert_eq!(held.get(PieceIndex(1)), Some(piece(40)));
        assert_eq!(held.insert(PieceIndex(3), piece(30)), [PieceIndex(2)]);
        assert_eq!(held.pieces(), [PieceIndex(3), PieceIndex(1)]);
        assert_eq!(held.insert(PieceIndex(3), piece(60)), []);
        assert_eq!((held.bytes, held.len()), (100, 2));
        // One that is too large is held alone.
        let gone = held.insert(PieceIndex(4), piece(101));
        assert_eq!((gone.len(), held.len()), (2, 1));
        held.remove(PieceIndex(4));
        assert_eq!((held.bytes, held.get(PieceIndex(4))), (0, None));
    }
}
