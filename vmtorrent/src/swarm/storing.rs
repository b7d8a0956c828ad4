//! Pieces on their way to the disk, and what the disk says.
//!
//! Invariant: a few threads of the blocking pool at most are busy with one swarm's pieces, so that reads of present
//! data find others; a piece that a read waits for goes before those that nobody waits for.

use std::collections::{BTreeMap, VecDeque};

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

/// Bytes of pieces in a row that are stored together. SHA-1 of so many takes less than a millisecond, which is how much longer a
/// read may wait for the first of them.
const RUN: usize = 256 * 1024;

/// Pieces that are to be checked and stored. How many is bounded by the engine.
#[derive(Debug, Default)]
pub(super) struct StoreQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pieces: BTreeMap<PieceIndex, Bytes>,
    /// The order in which they are stored; some have gone already, together with a neighbour.
    order: VecDeque<PieceIndex>,
    workers: usize,
}

/// Pieces in a row.
#[derive(Debug)]
struct Run {
    first: PieceIndex,
    pieces: Vec<Bytes>,
}

impl StoreQueue {
    /// Puts a piece in; true when a worker must be started for it.
    fn push(&self, piece: PieceIndex, data: Bytes, urgent: bool) -> bool {
        let mut state = self.state.lock();
        if urgent {
            state.order.push_front(piece);
        } else {
            state.order.push_back(piece);
        }
        state.pieces.insert(piece, data);
        // One does what comes in a row with nobody woken for it.
        let busy = state.workers * PIECES_PER_WORKER < state.pieces.len();
        let start = state.workers < WORKERS && (busy || urgent);
        state.workers += usize::from(start);
        start
    }

    /// The next piece for a worker, and those that wait on either side of it; with `None` the worker ends.
    fn next(&self) -> Option<Run> {
        let mut state = self.state.lock();
        let next = state.next_run();
        if next.is_none() {
            state.workers -= 1;
        }
        next
    }

    /// Nothing of what waits is stored any more.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        state.pieces.clear();
        state.order.clear();
    }
}

impl State {
    fn next_run(&mut self) -> Option<Run> {
        let (piece, data) = loop {
            let piece = self.order.pop_front()?;
            if let Some(data) = self.pieces.remove(&piece) {
                break (piece, data);
            }
        };
        let mut room = RUN.saturating_sub(data.len());
        let mut run = VecDeque::from([data]);
        let mut end = piece.0 + 1;
        while let Some(data) = self.take_within(Some(end), &mut room) {
            run.push_back(data);
            end += 1;
        }
        let mut first = piece.0;
        while let Some(data) = self.take_within(first.checked_sub(1), &mut room) {
            run.push_front(data);
            first -= 1;
        }
        Some(Run {
            first: PieceIndex(first),
            pieces: run.into(),
        })
    }

    /// Takes a piece out of those that wait, unless it is longer than `room`, which becomes less by it.
    fn take_within(&mut self, piece: Option<u32>, room: &mut usize) -> Option<Bytes> {
        let piece = PieceIndex(piece?);
        *room = room.checked_sub(self.pieces.get(&piece)?.len())?;
        self.pieces.remove(&piece)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_read_waits_for_goes_first_and_few_workers_do_the_rest() {
        let queue = StoreQueue::default();
        // None beside another, so that each goes alone.
        let starts = (0..100).filter(|p| queue.push(PieceIndex(p * 2), Bytes::new(), false));
        assert_eq!(starts.count(), WORKERS);
        assert!(!queue.push(PieceIndex(300), Bytes::new(), true));
        let order: Vec<u32> = std::iter::from_fn(|| queue.next())
            .map(|run| run.first.0)
            .collect();
        let expected: Vec<u32> = std::iter::once(300)
            .chain((0..100).map(|p| p * 2))
            .collect();
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

    #[test]
    fn neighbours_that_wait_go_along_up_to_a_bound_and_each_once() {
        let queue = StoreQueue::default();
        let piece = |p: u32| Bytes::from(vec![p as u8; 16384]);
        for p in [9, 7, 0, 8, 10, 12] {
            let _ = queue.push(PieceIndex(p), piece(p), false);
        }
        let mut taken = Vec::new();
        while let Some(run) = queue.next() {
            for (at, data) in run.pieces.iter().enumerate() {
                assert_eq!(data[..], piece(run.first.0 + at as u32)[..]);
            }
            taken.push((run.first.0, run.pieces.len()));
        }
        assert_eq!(taken, [(7, 4), (0, 1), (12, 1)]);

        for p in 0..40 {
            let _ = queue.push(PieceIndex(p), piece(p), false);
        }
        let lengths: Vec<usize> = std::iter::from_fn(|| queue.next())
            .map(|run| run.pieces.len())
            .collect();
        assert_eq!(lengths, [16, 16, 8]);
    }
}
