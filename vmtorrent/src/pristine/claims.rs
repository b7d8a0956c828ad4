//! Invariant: at most one thread holds the claim of a piece.

use std::collections::HashSet;

use parking_lot::{Condvar, Mutex};

use crate::image::PieceIndex;

/// Pieces that a thread hashes from the disk or writes to it at this moment.
#[derive(Default)]
pub(super) struct Claims {
    held: Mutex<HashSet<PieceIndex>>,
    released: Condvar,
}

impl Claims {
    /// Waits until no other thread holds the claim of `piece`, and takes it.
    pub(super) fn take(&self, piece: PieceIndex) -> Claim<'_> {
        let mut held = self.held.lock();
        while !held.insert(piece) {
            self.released.wait(&mut held);
        }
        Claim {
            claims: self,
            piece,
        }
    }

    /// Takes the claim of `piece` if nobody holds it.
    pub(super) fn try_take(&self, piece: PieceIndex) -> Option<Claim<'_>> {
        let free = self.held.lock().insert(piece);
        free.then(|| Claim {
            claims: self,
            piece,
        })
    }
}

/// Gives the claim back when it is dropped.
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    piece: PieceIndex,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.held.lock().remove(&self.piece);
        self.claims.released.notify_all();
    }
}
