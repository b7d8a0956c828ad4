//! Invariant: never more bytes than the capacity are held, but for a single piece and those that are leaving; the piece
//! that goes first is the one that was used least recently.

use std::collections::HashMap;

use bytes::Bytes;

use crate::image::PieceIndex;

/// Verified pieces in memory, because the disk would not take them.
pub(super) struct Held {
    capacity: u64,
    bytes: u64,
    pieces: HashMap<PieceIndex, (Bytes, u64)>,
    /// They had to go, but who reads does not know that yet.
    leaving: Vec<(PieceIndex, Bytes)>,
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
            leaving: Vec::new(),
            now: 0,
        }
    }

    /// Number of pieces, with those that are leaving.
    pub(super) fn len(&self) -> usize {
        self.pieces.len() + self.leaving.len()
    }

    /// The bytes of a piece, which counts as a use.
    pub(super) fn get(&mut self, piece: PieceIndex) -> Option<Bytes> {
        self.now += 1;
        let Some((bytes, used)) = self.pieces.get_mut(&piece) else {
            let mut leaving = self.leaving.iter();
            return leaving.find(|l| l.0 == piece).map(|l| l.1.clone());
        };
        *used = self.now;
        Some(bytes.clone())
    }

    /// Takes a piece in and gives those that have to go for it: they are leaving until [`left`](Self::left) is told.
    pub(super) fn insert(&mut self, piece: PieceIndex, bytes: Bytes) -> Vec<PieceIndex> {
        self.remove(piece);
        let mut gone = Vec::new();
        while self.bytes + bytes.len() as u64 > self.capacity
            && let Some(oldest) = self.oldest()
        {
            if let Some((bytes, _)) = self.pieces.remove(&oldest) {
                self.bytes -= bytes.len() as u64;
                self.leaving.push((oldest, bytes));
            }
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

    /// A piece that was leaving counts as missing now: its bytes go.
    pub(super) fn left(&mut self, piece: PieceIndex) {
        if let Some(at) = self.leaving.iter().position(|l| l.0 == piece) {
            self.leaving.swap_remove(at);
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
        // Until it is known that it goes, it is read.
        assert_eq!(held.get(PieceIndex(2)), Some(piece(40)));
        held.left(PieceIndex(2));
        assert_eq!((held.get(PieceIndex(2)), held.len()), (None, 2));
        assert_eq!(held.pieces(), [PieceIndex(3), PieceIndex(1)]);
        assert_eq!(held.insert(PieceIndex(3), piece(60)), []);
        assert_eq!((held.bytes, held.len()), (100, 2));
        // One that is too large is held alone.
        let gone = held.insert(PieceIndex(4), piece(101));
        gone.iter().for_each(|gone| held.left(*gone));
        assert_eq!((gone.len(), held.len()), (2, 1));
        held.remove(PieceIndex(4));
        assert_eq!((held.bytes, held.get(PieceIndex(4))), (0, None));
    }
}
