//! Pieces on their way to the disk, and what the disk says.
//!
//! Invariant: a few threads of the blocking pool at most are busy with one swarm's pieces, so that reads of present
//! data find others; no read waits for a piece that waits for others than those of the same read.

use bytes::Bytes;

use super::store_queue::{Run, Turn};
use super::{Inner, Swarm};
use crate::clock::Time;
use crate::error::Error;
use crate::image::PieceIndex;
use crate::picker::Band;
use crate::pristine::{PieceState, Stored};

/// What the store says besides the piece.
struct StoreState {
    /// Pieces that had to go.
    gone: Vec<PieceIndex>,
    /// Whether the disk takes no more.
    short: bool,
}

impl Swarm {
    /// Has a piece checked and stored. SHA-1 and the disk stay off the threads that serve sockets.
    pub(super) fn store(&self, inner: &Inner, piece: PieceIndex, data: Bytes) {
        let mut completed = Vec::new();
        let waits = inner.waits.get(&piece);
        for wait in waits.into_iter().flatten() {
            if wait.came(piece) {
                completed.extend(wait.left());
            }
        }
        let turn = if !completed.is_empty() {
            Turn::First
        } else if inner.engine.band(piece) == Some(Band::Profile) {
            // Others may be about to read it too.
            Turn::Next
        } else {
            Turn::WithNeighbours
        };
        if self.to_store.push(piece, data, turn) {
            self.start_worker();
        }
        self.hurry(completed);
    }

    /// Reads wait for nothing else than these pieces, which have come.
    pub(super) fn hurry(&self, pieces: Vec<PieceIndex>) {
        if self.to_store.hurry(pieces) {
            self.start_worker();
        }
    }

    fn start_worker(&self) {
        let Some(swarm) = self.me.upgrade() else {
            return;
        };
        self.runtime.spawn_blocking(move || {
            while let Some(Run { first, pieces }) = swarm.to_store.next() {
                let stored = swarm.pristine.store_run(first, &pieces);
                swarm.stored(first, stored);
            }
        });
    }

    fn stored(&self, first: PieceIndex, outcomes: Vec<Result<Stored, Error>>) {
        let state = self.store_state();
        self.drive_inner(|inner, now| {
            for (piece, outcome) in (first.0..).map(PieceIndex).zip(outcomes) {
                self.note_stored(inner, now, piece, outcome);
            }
            self.heed_store(inner, now, &state);
        });
        if !state.gone.is_empty() {
            self.news.notify_one();
        }
    }

    fn note_stored(
        &self,
        inner: &mut Inner,
        now: Time,
        piece: PieceIndex,
        outcome: Result<Stored, Error>,
    ) {
        if !matches!(outcome, Ok(Stored::New | Stored::Already)) {
            for wait in inner.waits.get(&piece).into_iter().flatten() {
                wait.is_to_come(piece);
            }
        }
        if let Some(frames) = inner.frames.remove(&piece)
            && matches!(outcome, Ok(Stored::New))
            && let Some(packer) = &self.packer
        {
            packer.keep(piece, frames);
        }
        match outcome {
            Ok(stored @ (Stored::New | Stored::Already)) => {
                if stored == Stored::New {
                    self.counters.verified.increment();
                }
                if inner.storage_error.take().is_some() {
                    tracing::info!("pieces can be stored again");
                }
                inner.engine.stored(now, piece);
            }
            Ok(Stored::Mismatch) => {
                self.counters.failed.increment();
                if let Some(repeated) = self.log.wrong_hash.admit(now) {
                    tracing::warn!(%piece, repeated, "a piece came with a wrong hash");
                }
                inner.engine.mismatched(now, piece);
            }
            Err(error) => {
                self.counters.storage_errors.increment();
                // Once for each time that it begins: a full disk fails for every piece that comes.
                if inner.storage_error.is_none() {
                    tracing::error!(%piece, %error, "a piece can't be stored; it is tried again until it can: free some space, or check the disk");
                } else {
                    tracing::debug!(%piece, %error, "a piece can't be stored");
                }
                inner.storage_error = Some(error.to_string());
                inner.engine.not_stored(now, piece);
            }
        }
    }

    /// Looks whether the store takes pieces, and tells the engine of those that had to go: they are fetched
    /// again when they are needed. While the disk takes none, nothing is fetched in the background.
    pub(crate) fn look_at_store(&self) {
        let state = self.store_state();
        self.drive_inner(|inner, now| self.heed_store(inner, now, &state));
        if !state.gone.is_empty() {
            self.news.notify_one();
        }
    }

    fn store_state(&self) -> StoreState {
        StoreState {
            gone: self.pristine.take_gone(),
            short: self.pristine.shortage().is_some(),
        }
    }

    fn heed_store(&self, inner: &mut Inner, now: Time, state: &StoreState) {
        for &piece in &state.gone {
            // It may have come back already.
            if self.pristine.state(piece) == PieceState::Missing {
                inner.engine.damaged(now, piece);
            }
        }
        if !state.gone.is_empty() {
            inner.book.end_rests(now);
        }
        if inner.short != state.short {
            inner.short = state.short;
            inner.apply_fill(now);
        }
    }

    /// A stored piece turned out to be damaged.
    pub(crate) fn damaged(&self, piece: PieceIndex) {
        if self.pristine.state(piece) != PieceState::Missing {
            // Somebody else found it out before, and it is here again.
            return;
        }
        // What had to make room for others is missing too, and not damaged.
        self.look_at_store();
        self.drive_inner(|inner, now| {
            if inner.engine.lacks(piece) {
                return;
            }
            if let Some(repeated) = self.log.damaged.admit(now) {
                tracing::warn!(%piece, repeated, "a stored piece is damaged; it is fetched again when it is needed: check the disk");
            }
            inner.engine.damaged(now, piece);
            // Peers that we had no use for any more are needed again.
            inner.book.end_rests(now);
        });
        self.news.notify_one();
    }
}
