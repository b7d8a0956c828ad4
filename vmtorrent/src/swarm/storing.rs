//! Pieces on their way to the disk, and what the disk says.
//!
//! Invariant: a few threads of the blocking pool at most are busy with one swarm's pieces, so that reads of present
//! data find others; a piece that a read waits for goes before those that nobody waits for.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Inner, Swarm};
use crate::clock::Time;
use crate::error::Error;
use crate::image::PieceIndex;
use crate::pristine::{PieceState, Stored};

/// Threads that check and store pieces of one swarm at once. More than the processors, since some wait for the disk.
const WORKERS: usize = 8;

/// Pieces that wait for each worker before another is started.
const PIECES_PER_WORKER: usize = 8;

/// Pieces that are to be checked and stored. How many is bounded by the engine.
#[derive(Debug, Default)]
pub(super) struct StoreQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<(PieceIndex, Bytes)>,
    workers: usize,
}

impl StoreQueue {
    /// Puts a piece in; true when a worker must be started for it.
    fn push(&self, piece: PieceIndex, data: Bytes, urgent: bool) -> bool {
        let mut state = self.state.lock();
        if urgent {
            state.pieces.push_front((piece, data));
        } else {
            state.pieces.push_back((piece, data));
        }
        // One does what comes in a row with nobody woken for it.
        let busy = state.workers * PIECES_PER_WORKER < state.pieces.len();
        let start = state.workers < WORKERS && (busy || urgent);
        state.workers += usize::from(start);
        start
    }

    /// The next piece for a worker; with `None` the worker ends.
    fn next(&self) -> Option<(PieceIndex, Bytes)> {
        let mut state = self.state.lock();
        let next = state.pieces.pop_front();
        if next.is_none() {
            state.workers -= 1;
        }
        next
    }

    /// Nothing of what waits is stored any more.
    pub(super) fn clear(&self) {
        self.state.lock().pieces.clear();
    }
}

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
        let urgent = inner.waits.contains_key(&piece);
        if !self.to_store.push(piece, data, urgent) {
            return;
        }
        let Some(swarm) = self.me.upgrade() else {
            return;
        };
        self.runtime.spawn_blocking(move || {
            while let Some((piece, data)) = swarm.to_store.next() {
                let stored = swarm.pristine.store(piece, &data);
                swarm.stored(piece, stored);
            }
        });
    }

    fn stored(&self, piece: PieceIndex, outcome: Result<Stored, Error>) {
        let state = self.store_state();
        self.drive_inner(|inner, now| {
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
            self.heed_store(inner, now, &state);
        });
        if !state.gone.is_empty() {
            self.news.notify_one();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_read_waits_for_goes_first_and_few_workers_do_the_rest() {
        let queue = StoreQueue::default();
        let starts = (0..100).filter(|p| queue.push(PieceIndex(*p), Bytes::new(), false));
        assert_eq!(starts.count(), WORKERS);
        assert!(!queue.push(PieceIndex(100), Bytes::new(), true));
        let order: Vec<u32> = std::iter::from_fn(|| queue.next())
            .map(|(piece, _)| piece.0)
            .collect();
        let expected: Vec<u32> = std::iter::once(100).chain(0..100).collect();
        assert_eq!(order, expected);
        // One has ended, so the next piece may start another; an urgent one always does.
        assert!(queue.push(PieceIndex(1), Bytes::new(), true));
        assert!(
            !queue.push(PieceIndex(2), Bytes::new(), true),
            "all are at work"
        );
        queue.clear();
        assert!(queue.next().is_none());
    }
}
