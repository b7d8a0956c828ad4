//! Pieces that came and are to be checked and stored, and the workers that do it.
//!
//! Invariant: each piece goes out once; what completes a read goes out at once and before all others; what waits for its
//! neighbours does so no longer than [`LINGER`], and while anything waits a worker is there that will take it.
//!
//! Why wait at all: Linux 6.18 copies out of a file of ext4 that was written in parts of 64 KiB a third faster than out of one
//! that was written in parts of 16 KiB, the length of a small image's pieces. We take larger folios of its page cache for the cause.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::image::PieceIndex;
use crate::picker::Extents;

/// Threads that check and store pieces of one swarm at once. More than the processors, since some wait for the disk.
const WORKERS: usize = 8;

/// Bytes that wait for each worker before another is started. SHA-1 of so many takes about a millisecond.
const BYTES_PER_WORKER: usize = 1 << 20;

/// How long a piece waits for its neighbours at most.
const LINGER: Duration = Duration::from_millis(5);

/// When a piece is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It completes a read.
    First,
    /// As soon as those are that came before it.
    Next,
    /// Together with its neighbours, if they come soon.
    WithNeighbours,
}

/// Pieces in a row.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) first: PieceIndex,
    pub(super) pieces: Vec<Bytes>,
}

/// Pieces that are to be stored. How many is bounded by the engine.
#[derive(Debug)]
pub(super) struct StoreQueue {
    state: Mutex<State>,
    /// There is something to do for the worker that sleeps.
    news: Condvar,
}

#[derive(Debug)]
struct State {
    pieces: BTreeMap<PieceIndex, Bytes>,
    /// Bytes of them.
    bytes: usize,
    extents: Extents,
    /// Those to be stored now, in this order; some have gone already, together with a neighbour.
    due: VecDeque<PieceIndex>,
    /// Those that wait for neighbours, and until when; likewise.
    lingering: VecDeque<(Instant, PieceIndex)>,
    workers: usize,
    /// A worker sleeps until the first of those that linger is due, and was not woken yet.
    asleep: bool,
}

impl StoreQueue {
    /// For pieces of so many bytes.
    pub(super) fn new(piece_length: u32) -> Self {
        let state = State {
            pieces: BTreeMap::new(),
            bytes: 0,
            extents: Extents::new(piece_length),
            due: VecDeque::new(),
            lingering: VecDeque::new(),
            workers: 0,
            asleep: false,
        };
        Self {
            state: Mutex::new(state),
            news: Condvar::new(),
        }
    }

    /// Puts a piece in; true when a worker must be started for it.
    pub(super) fn push(&self, piece: PieceIndex, data: Bytes, turn: Turn) -> bool {
        let mut state = self.state.lock();
        state.bytes += data.len();
        if let Some(old) = state.pieces.insert(piece, data) {
            state.bytes -= old.len();
        }
        match turn {
            Turn::First => state.due.push_front(piece),
            Turn::WithNeighbours if !state.is_extent_full(piece) => {
                state.lingering.push_back((Instant::now() + LINGER, piece));
            }
            Turn::Next | Turn::WithNeighbours => state.due.push_back(piece),
        }
        self.staff(&mut state, turn == Turn::First)
    }

    /// A read is complete with those of these pieces that wait here: they go first. True when a worker must be started.
    pub(super) fn hurry(&self, pieces: impl IntoIterator<Item = PieceIndex>) -> bool {
        let mut state = self.state.lock();
        let mut any = false;
        for piece in pieces {
            if state.pieces.contains_key(&piece) {
                state.due.push_front(piece);
                any = true;
            }
        }
        any && self.staff(&mut state, true)
    }

    fn staff(&self, state: &mut State, first: bool) -> bool {
        if state.asleep {
            // It has nothing else to do.
            if !state.due.is_empty() {
                state.asleep = false;
                self.news.notify_one();
            }
            return false;
        }
        let busy = first || state.bytes > state.workers * BYTES_PER_WORKER;
        let start = state.workers < WORKERS && (state.workers == 0 || busy);
        state.workers += usize::from(start);
        start
    }

    /// The next pieces for a worker. Blocks while all wait for their neighbours; with `None` the worker ends.
    pub(super) fn next(&self) -> Option<Run> {
        let mut state = self.state.lock();
        loop {
            let next = state.next(Instant::now());
            match next {
                Next::Run(run) => return Some(run),
                Next::At(at) if !state.asleep => {
                    state.asleep = true;
                    if self.news.wait_until(&mut state, at).timed_out() {
                        state.asleep = false;
                    }
                }
                // One that sleeps is enough.
                Next::At(_) | Next::Nothing => {
                    state.workers -= 1;
                    return None;
                }
            }
        }
    }

    /// Nothing of what waits is stored any more.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        state.pieces.clear();
        state.bytes = 0;
        state.due.clear();
        state.lingering.clear();
    }
}

enum Next {
    Run(Run),
    At(Instant),
    Nothing,
}

impl State {
    fn next(&mut self, now: Instant) -> Next {
        while let Some(piece) = self.due.pop_front() {
            if self.pieces.contains_key(&piece) {
                return Next::Run(self.take_run(piece));
            }
        }
        while let Some((at, piece)) = self.lingering.front().copied() {
            let waits = self.pieces.contains_key(&piece);
            if waits && now < at {
                return Next::At(at);
            }
            self.lingering.pop_front();
            if waits {
                return Next::Run(self.take_run(piece));
            }
        }
        Next::Nothing
    }

    /// Takes a piece that waits, and of its extent those that wait beside it.
    fn take_run(&mut self, piece: PieceIndex) -> Run {
        let extent = self.extents.around(piece);
        let waits = |p: &u32| self.pieces.contains_key(&PieceIndex(*p));
        let first = (extent.start..piece.0).rev().take_while(waits).last();
        let first = first.unwrap_or(piece.0);
        let end = (piece.0..extent.end).take_while(waits).last();
        let end = end.unwrap_or(piece.0) + 1;
        let pieces: Vec<Bytes> = (first..end)
            .filter_map(|p| self.pieces.remove(&PieceIndex(p)))
            .collect();
        self.bytes -= pieces.iter().map(Bytes::len).sum::<usize>();
        Run {
            first: PieceIndex(first),
            pieces,
        }
    }

    fn is_extent_full(&self, piece: PieceIndex) -> bool {
        let Range { start, end } = self.extents.around(piece);
        let waiting = self.pieces.range(PieceIndex(start)..PieceIndex(end));
        waiting.count() == self.extents.pieces() as usize
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const PIECE: u32 = 16 << 10;

    fn piece(p: u32) -> Bytes {
        Bytes::from(vec![p as u8; PIECE as usize])
    }

    fn queue() -> StoreQueue {
        StoreQueue::new(PIECE)
    }

    /// The first piece and the number of pieces of all that comes out, up to the end of the worker.
    fn taken(queue: &StoreQueue) -> Vec<(u32, usize)> {
        let runs = std::iter::from_fn(|| queue.next());
        runs.map(|run| {
            for (at, data) in run.pieces.iter().enumerate() {
                assert_eq!(data[..], piece(run.first.0 + at as u32)[..]);
            }
            (run.first.0, run.pieces.len())
        })
        .collect()
    }

    #[test]
    fn what_completes_a_read_goes_first_and_few_workers_do_the_rest() {
        let queue = queue();
        // None beside another, so that each goes alone.
        let pushed = (0..700).filter(|p| queue.push(PieceIndex(p * 2), piece(p * 2), Turn::Next));
        assert_eq!(pushed.count(), WORKERS);
        assert!(!queue.push(PieceIndex(1401), piece(1401), Turn::First));
        let order: Vec<u32> = taken(&queue).into_iter().map(|(first, _)| first).collect();
        let expected: Vec<u32> = std::iter::once(1401)
            .chain((0..700).map(|p| p * 2))
            .collect();
        assert_eq!(order, expected);
        // One has ended; what completes a read starts another.
        assert!(queue.push(PieceIndex(1), piece(1), Turn::First));
        assert!(
            !queue.push(PieceIndex(9), piece(9), Turn::First),
            "all are at work"
        );
        queue.clear();
        assert!(queue.next().is_none());
    }

    #[test]
    fn neighbours_that_wait_go_along_within_their_extent_and_each_once() {
        let queue = queue();
        for p in [9, 7, 0, 8, 10, 12, 16, 15] {
            let _ = queue.push(PieceIndex(p), piece(p), Turn::Next);
        }
        assert_eq!(
            taken(&queue),
            [(7, 4), (0, 1), (12, 1), (16, 1), (15, 1)],
            "the extent ends before 16"
        );
    }

    #[test]
    fn a_full_extent_goes_at_once_and_a_part_of_one_waits_for_more() {
        let queue = queue();
        let begun = Instant::now();
        for p in 16..40 {
            let started = queue.push(PieceIndex(p), piece(p), Turn::WithNeighbours);
            assert_eq!(started, p == 16, "one worker looks after all that linger");
        }
        let run = queue.next().unwrap();
        assert_eq!((run.first.0, run.pieces.len()), (16, 16));
        assert_eq!(taken(&queue), [(32, 8)]);
        assert!(begun.elapsed() >= LINGER);
    }

    #[test]
    fn whoever_sleeps_is_woken_for_what_completes_a_read() {
        let queue = Arc::new(queue());
        assert!(queue.push(PieceIndex(3), piece(3), Turn::WithNeighbours));
        queue.state.lock().lingering[0].0 += Duration::from_secs(1000);
        let worker = std::thread::spawn({
            let queue = queue.clone();
            move || (queue.next().unwrap().first.0, taken(&queue))
        });
        while !queue.state.lock().asleep {
            std::thread::yield_now();
        }
        assert!(
            !queue.push(PieceIndex(50), piece(50), Turn::First),
            "the sleeper does it"
        );
        while queue.state.lock().pieces.contains_key(&PieceIndex(50)) || !queue.state.lock().asleep
        {
            std::thread::yield_now();
        }
        assert!(!queue.hurry([PieceIndex(3), PieceIndex(4)]));
        assert_eq!(worker.join().unwrap(), (50, vec![(3, 1)]));
        assert!(!queue.hurry([PieceIndex(3)]), "it has gone");
    }

    #[test]
    fn long_pieces_wait_for_nobody() {
        let queue = StoreQueue::new(Extents::LENGTH);
        let begun = queue.push(
            PieceIndex(7),
            Bytes::from_static(b"7"),
            Turn::WithNeighbours,
        );
        assert!(begun);
        let state = queue.state.lock();
        assert_eq!((state.due.len(), state.lingering.len()), (1, 0));
    }
}
