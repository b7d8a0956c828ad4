//! Invariant: a piece leaves the disk or the memory in this order: it counts as missing, readers that are under way are
//! made to look again, and only then its bytes go.
//!
//! What to do when the disk takes no more. Verified pieces that can't be stored are held in memory, so that a guest
//! goes on; the least recently used of them go when there are too many. Where the session bounds what copies
//! may take ([`DiskBudget`]), a piece that comes replaces on the disk what was not read for long, in the copy that takes
//! most.

use std::io::IoSlice;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::budget::{DiskBudget, Other};
use super::piece_states::PieceStates;
use super::{Pristine, Shortage};
use crate::Result;
use crate::image::{PieceClass, PieceIndex};

/// Bytes of pieces that are held in memory; and at least this many pieces, or a guest that copies would never get both.
const HELD_BYTES: u64 = 32 << 20;
const HELD_PIECES: u64 = 2;
/// What is left for guests: a part of the file system, and no more than so many bytes.
const RESERVED_PART: u64 = 20;
const RESERVED_BYTES: u64 = 1 << 30;
/// What besides that makes plenty, and for how long: no line and no guest fills so much in that time, nor does a disk.
const PLENTY: u64 = 1 << 30;
const PLENTY_HOLDS: Duration = Duration::from_millis(100);
/// Bytes in which file systems give storage out, mostly.
const BLOCK: u64 = 4096;
/// After how many pieces that went without giving storage back no more go.
const FUTILE: u32 = 8;
/// How many pieces are tried when one is to go and others use them.
const TRIES: u32 = 16;

/// The most that may be held in memory for pieces of a length.
pub(super) fn held_capacity(piece_length: u32) -> u64 {
    HELD_BYTES.max(HELD_PIECES * u64::from(piece_length))
}

impl Pristine {
    /// Why the disk takes no more pieces at the moment, if it does not.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        self.shortage.lock().clone()
    }

    /// The pieces that went to make room since the last call, to be told to the swarm.
    pub(crate) fn take_gone(&self) -> Vec<PieceIndex> {
        std::mem::take(&mut *self.gone.lock())
    }

    /// Tries to bring what is held in memory to the disk, and finds out whether that takes pieces again. Blocks.
    pub(crate) fn store_held(&self) {
        let pieces = self.held.lock().pieces();
        for piece in pieces {
            let _claim = self.claims.take(piece);
            let Some(data) = self.held.lock().get(piece) else {
                continue;
            };
            if self.write_piece(piece, &data).is_err() {
                return;
            }
            self.let_go(piece);
        }
        let bounded = self.budget.as_deref().is_some_and(|b| !has_slack(b));
        // Twice what is reserved, so that it does not begin and end with each piece.
        let enough = self
            .space()
            .is_none_or(|(left, reserved)| left >= 2 * reserved);
        if !bounded && enough {
            *self.shortage.lock() = None;
        }
    }

    /// Writes a piece to the disk and notes that it is there, or says why not.
    pub(super) fn write_piece(&self, piece: PieceIndex, data: &[u8]) -> Result<(), Shortage> {
        let Some(budget) = self.budget.as_deref() else {
            self.write_spans(piece, data)
                .map_err(Shortage::from_error)?;
            self.look_at_space();
            return Ok(());
        };
        let cost: u64 = self
            .layout
            .piece_spans(piece)
            .filter(|s| s.file.is_some())
            .map(|s| {
                let end = s.offset + s.length as u64;
                end.next_multiple_of(BLOCK) - s.offset / BLOCK * BLOCK
            })
            .sum();
        if !self.take_room(budget, cost) {
            return Err(Shortage::Bound {
                limit: budget.limit(),
            });
        }
        let written = self.write_spans(piece, data);
        // From here on what the files really take counts.
        for span in self.layout.piece_spans(piece) {
            self.measure(span.file);
        }
        budget.change(cost, 0);
        if let Some(recency) = &self.recency {
            recency.advance();
            recency.touch(piece);
        }
        if budget.left() < u64::from(self.image.geometry().nominal_piece_length()) {
            self.note_shortage(Shortage::Bound {
                limit: budget.limit(),
            });
        } else {
            self.look_at_space();
        }
        written.map_err(Shortage::from_error)
    }

    /// Takes `cost` bytes of the budget, for which other pieces go if they have to.
    fn take_room(&self, budget: &DiskBudget, cost: u64) -> bool {
        cost <= budget.limit() && self.evict_until(budget, || budget.try_take(cost))
    }

    /// Has pieces go until there is room `enough`; false when there is none.
    fn evict_until(&self, budget: &DiskBudget, enough: impl Fn() -> bool) -> bool {
        while !enough() {
            if !self.evict_somewhere(budget) {
                return false;
            }
        }
        true
    }

    /// Has a piece go of the copy that takes most, or else of the next; false when none may go. So images that are used
    /// at the same time come to equal parts, and one that needs less than its part keeps all of it.
    fn evict_somewhere(&self, budget: &DiskBudget) -> bool {
        let own = self.taken();
        let mut others = budget.others(self);
        let smaller = others.split_off(others.partition_point(|o| o.pristine.taken() > own));
        let evict = |other: &Other| {
            let gone = other.pristine.evict_one();
            if gone {
                (other.tell)();
            }
            gone
        };
        others.iter().any(evict) || self.evict_one() || smaller.iter().any(evict)
    }

    /// Bytes that the copy took on the disk when it was looked at last.
    pub(super) fn taken(&self) -> u64 {
        self.files.measured()
    }

    /// Lets pieces go for those of other copies with the same budget, if there is one. `tell` is called after each.
    pub(crate) fn share_budget(self: &Arc<Self>, tell: impl Fn() + Send + Sync + 'static) {
        if let Some(budget) = &self.budget {
            budget.join(self, Arc::new(tell));
        }
    }

    /// To be called after each write. Where there was plenty a moment ago there is enough.
    pub(super) fn look_at_space(&self) {
        // What is worse was told already.
        if self.shortage.lock().is_some() {
            return;
        }
        let mut plenty = self.plenty.lock();
        if plenty.is_some_and(|at| at.elapsed() < PLENTY_HOLDS) {
            return;
        }
        let Some((left, reserved)) = self.space() else {
            return;
        };
        *plenty = (left >= reserved + PLENTY).then(Instant::now);
        drop(plenty);
        if left < reserved {
            self.note_shortage(Shortage::LittleSpace { left });
        }
    }

    /// What is left on the disk of the copy, and what of it is reserved for guests; bytes.
    fn space(&self) -> Option<(u64, u64)> {
        let (left, total) = free_space(self.place.as_deref()?)?;
        Some((left, (total / RESERVED_PART).min(RESERVED_BYTES)))
    }

    fn write_spans(&self, piece: PieceIndex, data: &[u8]) -> Result<()> {
        self.write_run(&(piece.0..piece.0 + 1), &[data])
    }

    /// Writes the bytes of pieces in a row to the disk and notes that they are there.
    pub(super) fn write_run(&self, pieces: &Range<u32>, data: &[&[u8]]) -> Result<()> {
        let geometry = self.image.geometry();
        let start = geometry.piece_range(PieceIndex(pieces.start)).start;
        let length: usize = data.iter().map(|piece| piece.len()).sum();
        let mut rest = data.iter().copied();
        // What is left of a piece whose begin lies in the file before.
        let mut left: &[u8] = &[];
        for span in self.layout.spans(start..start + length as u64) {
            let mut parts = Vec::with_capacity(data.len());
            let mut wanted = span.length;
            while wanted > 0 {
                if left.is_empty() {
                    let Some(next) = rest.next() else { break };
                    left = next;
                }
                let (part, behind) = left.split_at(wanted.min(left.len()));
                parts.push(IoSlice::new(part));
                (left, wanted) = (behind, wanted - part.len());
            }
            if let Some(file) = span.file {
                self.files.write(file, span.offset, &mut parts)?;
            }
        }
        self.set_on_disk(pieces)
    }

    /// Holds a verified piece in memory, because the disk would not take it.
    pub(super) fn hold(&self, piece: PieceIndex, data: &[u8], shortage: Shortage) {
        if shortage.refuses() {
            self.refused.increment();
        }
        self.note_shortage(shortage);
        let mut held = self.held.lock();
        let gone = held.insert(piece, Bytes::copy_from_slice(data));
        self.held_pieces.store(held.len(), Ordering::SeqCst);
        drop(held);
        for old in gone {
            self.forget(old);
            let mut held = self.held.lock();
            held.left(old);
            self.held_pieces.store(held.len(), Ordering::SeqCst);
        }
        self.change_states(|states| states.set_in_memory(piece));
    }

    fn let_go(&self, piece: PieceIndex) {
        let mut held = self.held.lock();
        held.remove(piece);
        self.held_pieces.store(held.len(), Ordering::SeqCst);
    }

    pub(super) fn note_shortage(&self, shortage: Shortage) {
        let mut noted = self.shortage.lock();
        if !noted.as_ref().is_some_and(|n| n.is_like(&shortage)) {
            tracing::warn!(image = self.image.name(), %shortage, "the pristine copy can't grow");
            *noted = Some(shortage);
        }
    }

    /// A piece is missing from now on; readers that are copying it find that out before they give anything.
    fn forget(&self, piece: PieceIndex) {
        // Held until it is noted, so that who finds it missing and asks why does not take it for damaged.
        let mut gone = self.gone.lock();
        // Before, for who sees that it is missing; and after, for who still saw it here.
        self.evictions.fetch_add(1, Ordering::SeqCst);
        self.set_missing(piece);
        gone.push(piece);
        self.evictions.fetch_add(1, Ordering::SeqCst);
    }

    fn may_go(&self, states: &PieceStates, piece: PieceIndex) -> bool {
        self.image.piece_class(piece) == PieceClass::Unique && states.is_on_disk(piece)
    }

    /// Takes the piece from the disk that was not used for longest; false when none may go.
    fn evict_one(&self) -> bool {
        let Some(recency) = &self.recency else {
            return false;
        };
        if self.futile.load(Ordering::Relaxed) {
            return false;
        }
        for _ in 0..TRIES {
            let oldest = {
                let states = self.states.read();
                recency.oldest(|piece| self.may_go(&states, piece))
            };
            let Some(piece) = oldest else {
                return false;
            };
            let Some(_claim) = self.claims.try_take(piece) else {
                // Somebody hashes or writes it, so it is in use.
                recency.touch(piece);
                continue;
            };
            if !self.may_go(&self.states.read(), piece) {
                continue;
            }
            self.forget(piece);
            // Not every file system gives storage back: there, all would go for nothing.
            if self.give_back(piece) > 0 {
                self.fruitless.store(0, Ordering::Relaxed);
            } else if self.fruitless.fetch_add(1, Ordering::Relaxed) + 1 >= FUTILE {
                self.futile.store(true, Ordering::Relaxed);
            }
            return true;
        }
        false
    }

    /// Gives the storage of a piece back that went. Where files are not aligned to pieces, a block of the file system
    /// may hold bytes of a neighbour too: it is given back with the one that goes last. Gives the bytes.
    fn give_back(&self, piece: PieceIndex) -> u64 {
        let mut freed = 0;
        for span in self.layout.piece_spans(piece) {
            let Some(file) = span.file else { continue };
            let file_at = self.image.files()[file].offset;
            let (mut start, mut end) = (span.offset, span.offset + span.length as u64);
            let mut claims = Vec::new();
            let mut is_free = |at: u64| {
                let other = self
                    .image
                    .geometry()
                    .pieces_in(file_at + at..file_at + at + 1);
                let other = other.map(PieceIndex).find(|p| *p != piece);
                let kept = other.filter(|p| self.image.piece_class(*p) == PieceClass::Unique);
                kept.is_none_or(|other| {
                    let claim = self.claims.try_take(other);
                    let free = claim.is_some() && !self.states.read().is_on_disk(other);
                    claims.extend(claim);
                    free
                })
            };
            let (low, high) = (start / BLOCK * BLOCK, end.next_multiple_of(BLOCK));
            if low < start && is_free(low) {
                start = low;
            }
            if end < high && (end == self.image.files()[file].length || is_free(end)) {
                end = high;
            }
            if let Err(error) = self.files.punch(file, start, end - start) {
                tracing::warn!(%piece, %error, "the storage of a piece was not given back");
            }
            let (before, now) = self.measure(Some(file));
            freed += before.saturating_sub(now);
        }
        freed
    }

    /// Goes below the bound, in case it was higher before.
    pub(super) fn shrink(&self) {
        let Some(budget) = self.budget.as_deref() else {
            return;
        };
        self.evict_until(budget, || !budget.is_exceeded());
        // The swarm learns what is there only now.
        self.take_gone();
        if budget.left() < u64::from(self.image.geometry().nominal_piece_length()) {
            self.note_shortage(Shortage::Bound {
                limit: budget.limit(),
            });
        }
    }

    /// Looks at what a file takes now: what it took before, and now.
    fn measure(&self, file: Option<usize>) -> (u64, u64) {
        let (Some(file), Some(budget)) = (file, self.budget.as_deref()) else {
            return (0, 0);
        };
        let (before, now) = self.files.measure(file);
        budget.change(before, now);
        (before, now)
    }

    /// A use of the pieces of a range, where that matters.
    pub(crate) fn touch(&self, range: &std::ops::Range<u64>) {
        if let Some(recency) = &self.recency {
            for piece in self.image.geometry().pieces_in(range.clone()) {
                recency.touch(self.image.canonical(PieceIndex(piece)));
            }
        }
    }
}

/// Bytes that are left to us on a file system, and all that it has.
fn free_space(path: &Path) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        let space = rustix::fs::statvfs(path).ok()?;
        Some((
            space.f_bavail.saturating_mul(space.f_frsize),
            space.f_blocks.saturating_mul(space.f_frsize),
        ))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Whether enough is left of a budget that fetching in the background is worth beginning again.
fn has_slack(budget: &DiskBudget) -> bool {
    budget.left() >= budget.limit() / 8
}

impl Drop for Pristine {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.change(self.files.measured(), 0);
        }
    }
}
