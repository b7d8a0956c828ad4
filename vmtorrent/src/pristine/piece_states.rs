//! Invariant: a piece is in exactly one state at any time; `verified` is a subset of `present`, and `in_memory` one of
//! `verified`; a duplicate has the state of its canonical piece, and a piece of zeros is verified from the beginning
//! and for ever.
//!
//! Cost: three bits a piece, and 8 bytes for each duplicate.

use crate::Bitfield;
use crate::image::{Image, PieceClass, PieceIndex};

/// What is known of the bytes of a piece on the local disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PieceState {
    /// They are not there.
    Missing,
    /// They should be there, from an earlier run or because someone published them; their hash was not
    /// checked since this store was opened.
    Unverified,
    /// They are there and their hash is right, or they are zeros.
    Verified,
}

/// The state of every piece of an image.
pub(super) struct PieceStates {
    present: Bitfield,
    verified: Bitfield,
    /// Those that the disk would not take.
    in_memory: Bitfield,
    /// Canonical piece and duplicate, sorted.
    duplicates: Vec<(PieceIndex, PieceIndex)>,
}

impl PieceStates {
    /// Only zeros are there.
    pub(super) fn new(image: &Image) -> Self {
        let count = image.geometry().piece_count();
        let mut states = Self {
            present: Bitfield::new(count),
            verified: Bitfield::new(count),
            in_memory: Bitfield::new(count),
            duplicates: Vec::new(),
        };
        for piece in image.geometry().pieces() {
            match image.piece_class(piece) {
                PieceClass::Unique => {}
                PieceClass::Zero => {
                    states.present.set(piece, true);
                    states.verified.set(piece, true);
                }
                PieceClass::DuplicateOf(canonical) => states.duplicates.push((canonical, piece)),
            }
        }
        states.duplicates.sort_unstable();
        states
    }

    /// The state of a piece; one out of range is missing.
    pub(super) fn get(&self, piece: PieceIndex) -> PieceState {
        if self.verified.get(piece) {
            PieceState::Verified
        } else if self.present.get(piece) {
            PieceState::Unverified
        } else {
            PieceState::Missing
        }
    }

    /// Whether a piece is kept in memory and not on the disk.
    pub(super) fn is_in_memory(&self, piece: PieceIndex) -> bool {
        self.in_memory.get(piece)
    }

    /// Whether a piece is kept on the disk. Those of zeros count too.
    pub(super) fn is_on_disk(&self, piece: PieceIndex) -> bool {
        self.present.get(piece) && !self.in_memory.get(piece)
    }

    /// A canonical piece is verified, and kept in memory.
    pub(super) fn set_in_memory(&mut self, canonical: PieceIndex) {
        self.set(canonical, PieceState::Verified);
        self.in_memory.set(canonical, true);
    }

    /// Sets the state of a canonical piece that is not of zeros, and of its duplicates; one that is present is on
    /// the disk.
    pub(super) fn set(&mut self, canonical: PieceIndex, state: PieceState) {
        self.in_memory.set(canonical, false);
        self.set_one(canonical, state);
        let first = self.duplicates.partition_point(|&(c, _)| c < canonical);
        let mut at = first;
        while let Some(&(c, duplicate)) = self.duplicates.get(at)
            && c == canonical
        {
            self.set_one(duplicate, state);
            at += 1;
        }
    }

    fn set_one(&mut self, piece: PieceIndex, state: PieceState) {
        self.present.set(piece, state != PieceState::Missing);
        self.verified.set(piece, state == PieceState::Verified);
    }

    /// Every piece that is not missing.
    pub(super) fn present(&self) -> &Bitfield {
        &self.present
    }

    /// Every verified piece.
    #[cfg(test)]
    pub(super) fn verified(&self) -> &Bitfield {
        &self.verified
    }
}
