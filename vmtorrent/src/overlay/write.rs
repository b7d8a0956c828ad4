//! Invariant: a call either asks for base data and changes nothing, or writes all bytes first and changes
//! states then.

use std::ops::Range;
use std::sync::atomic::Ordering;

use vmtorrent_platform::ZeroMode;

use super::block_map::{BlockState, MAX_LENGTH, OVERLAY_BLOCK};
use super::fill::copy_fill;
use super::{Fill, Overlay, State, WriteOutcome, blocks_touching, too_long};
use crate::Result;

const BLOCK: usize = OVERLAY_BLOCK as usize;

/// What a change of some bytes of one block comes to.
enum Edge {
    /// The block is in the data file: change the bytes there.
    InPlace,
    /// Write this whole block: base data or zeros, with zeros where the change goes.
    Whole(Box<[u8; BLOCK]>),
    /// First read these ranges from the pristine file.
    Needs(Vec<Range<u64>>),
}

impl State {
    /// Looks at `block`, of which the bytes `changed` (offsets in the file) are to change.
    fn edge(&self, block: u64, changed: &Range<u64>, fill: &[Fill]) -> Edge {
        let state = self.map.get(block);
        if state == BlockState::Data {
            return Edge::InPlace;
        }
        let mut bytes = Box::new([0; BLOCK]);
        if state == BlockState::Base {
            let start = block * OVERLAY_BLOCK;
            let limit = self.lengths.base_limit.min(start + OVERLAY_BLOCK);
            let kept = [start..changed.start.min(limit), changed.end..limit];
            let missing: Vec<_> = kept
                .into_iter()
                .filter(|range| !range.is_empty() && !copy_fill(fill, range, &mut bytes[..], start))
                .collect();
            if !missing.is_empty() {
                return Edge::Needs(missing);
            }
        }
        Edge::Whole(bytes)
    }
}

/// The blocks that a write of `range` to a file of `length` bytes holds: when it grows, all from the old end on.
fn claimed_by_write(range: &Range<u64>, length: u64) -> Range<u64> {
    if range.end <= length {
        blocks_touching(range)
    } else {
        range.start.min(length) / OVERLAY_BLOCK..u64::MAX
    }
}

/// The part of `range` that lies in `block`.
fn part_in(block: u64, range: &Range<u64>) -> Range<u64> {
    let start = block * OVERLAY_BLOCK;
    range.start.max(start)..range.end.min(start + OVERLAY_BLOCK)
}

/// The first and last block of `range` if they are not filled by it.
fn partial_blocks(range: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
    let (first, last) = (range.start / OVERLAY_BLOCK, (range.end - 1) / OVERLAY_BLOCK);
    let is_partial = {
        let range = range.clone();
        move |block: &u64| {
            let part = part_in(*block, &range);
            part.end - part.start < OVERLAY_BLOCK
        }
    };
    let last = (last != first).then_some(last);
    [Some(first), last].into_iter().flatten().filter(is_partial)
}

impl Overlay {
    /// Writes `data` at `offset`; a write behind the end grows the file.
    ///
    /// Whole blocks, and parts of blocks that were written before, need nothing else. For a part of another
    /// block the rest of it is needed, as `fill`: call with an empty one first.
    ///
    /// # Errors
    /// What the disk reports. Blocks that were written before may then hold a part of `data`, all others are
    /// as before.
    pub(crate) fn write(&self, offset: u64, data: &[u8], fill: &[Fill]) -> Result<WriteOutcome> {
        let range = self.written_range(offset, data)?;
        let _claim = self.claim(|length| claimed_by_write(&range, length));
        self.write_claimed(&range, data, fill)
    }

    /// As [`write`](Self::write), but `None` where it would have to wait for another change of the same blocks, or for
    /// its file to be opened.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn try_write(
        &self,
        offset: u64,
        data: &[u8],
        fill: &[Fill],
    ) -> Result<Option<WriteOutcome>> {
        let range = self.written_range(offset, data)?;
        if !self.data.is_open() {
            return Ok(None);
        }
        let Some(_claim) = self.try_claim(|length| claimed_by_write(&range, length)) else {
            return Ok(None);
        };
        self.write_claimed(&range, data, fill).map(Some)
    }

    fn written_range(&self, offset: u64, data: &[u8]) -> Result<Range<u64>> {
        let end = offset.checked_add(data.len() as u64);
        match end.filter(|&end| end <= MAX_LENGTH) {
            Some(end) => Ok(offset..end),
            None => Err(too_long(&self.data_path)),
        }
    }

    fn write_claimed(
        &self,
        range: &Range<u64>,
        data: &[u8],
        fill: &[Fill],
    ) -> Result<WriteOutcome> {
        if range.is_empty() {
            return Ok(WriteOutcome::Done);
        }
        let (offset, end) = (range.start, range.end);
        let blocks = blocks_touching(range);
        let grows = {
            let state = self.state.read();
            let grows = end > state.lengths.length;
            if !grows && state.map.is_all(blocks.clone(), BlockState::Data) {
                drop(state);
                self.put(offset, data)?;
                return Ok(WriteOutcome::Done);
            }
            grows
        };

        let (mut whole, mut needed) = (Vec::new(), Vec::new());
        {
            let state = self.state.read();
            for block in partial_blocks(range) {
                let part = part_in(block, range);
                match state.edge(block, &part, fill) {
                    Edge::InPlace => {}
                    Edge::Needs(ranges) => needed.extend(ranges),
                    Edge::Whole(mut bytes) => {
                        let start = block * OVERLAY_BLOCK;
                        bytes[(part.start - start) as usize..(part.end - start) as usize]
                            .copy_from_slice(slice(data, offset, &part));
                        whole.push((start, bytes));
                    }
                }
            }
        }
        if !needed.is_empty() {
            return Ok(WriteOutcome::NeedsBase(needed));
        }
        if grows {
            self.clear_tail()?;
            self.tail_suspect.store(true, Ordering::Relaxed);
        }
        let mut rest = range.clone();
        for (start, bytes) in &whole {
            self.put(*start, &bytes[..])?;
            if *start <= rest.start {
                rest.start = rest.end.min(start + OVERLAY_BLOCK);
            } else {
                rest.end = *start;
            }
        }
        if !rest.is_empty() {
            self.put(rest.start, slice(data, offset, &rest))?;
        }
        let mut state = self.state.write();
        state.change(blocks, BlockState::Data);
        if grows {
            state.set_length(end);
            self.tail_suspect.store(false, Ordering::Relaxed);
        }
        Ok(WriteOutcome::Done)
    }

    /// Makes `length` bytes from `offset` read as zeros and gives back the storage of whole blocks.
    ///
    /// What lies behind the end is left alone, unless `mode` asks the file to grow. A part of a block that was
    /// not written before may need base data around it, as in [`write`](Self::write).
    ///
    /// # Errors
    /// What the disk reports. Part of the range may then read as zeros already.
    pub(crate) fn zero(
        &self,
        offset: u64,
        length: u64,
        mode: ZeroMode,
        fill: &[Fill],
    ) -> Result<WriteOutcome> {
        let grow = mode == ZeroMode::Zero { keep_size: false };
        let end = offset.saturating_add(length);
        if grow && end > MAX_LENGTH {
            return Err(too_long(&self.data_path));
        }
        let _claim = self.claim(|length| {
            if grow {
                claimed_by_write(&(offset..end), length)
            } else {
                blocks_touching(&(offset..end.min(length)))
            }
        });
        let old_length = self.len();
        let end_inside = end.min(old_length);
        if offset < end_inside {
            // Behind the end there are zeros only, so the last block is zeroed to its own end.
            let end_of_blocks = if end_inside == old_length {
                old_length.next_multiple_of(OVERLAY_BLOCK)
            } else {
                end_inside
            };
            let outcome = self.zero_inside(&(offset..end_of_blocks), fill)?;
            if outcome != WriteOutcome::Done {
                return Ok(outcome);
            }
        }
        if grow && length > 0 && end > old_length {
            self.clear_tail()?;
            self.state.write().set_length(end);
        }
        Ok(WriteOutcome::Done)
    }

    fn zero_inside(&self, range: &Range<u64>, fill: &[Fill]) -> Result<WriteOutcome> {
        let whole_blocks = range.start.div_ceil(OVERLAY_BLOCK)
            ..(range.end / OVERLAY_BLOCK).max(range.start.div_ceil(OVERLAY_BLOCK));
        let (mut copied, mut in_place, mut cleared, mut needed) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut punched = Vec::new();
        let base_blocks;
        {
            let state = self.state.read();
            for block in partial_blocks(range) {
                let part = part_in(block, range);
                let block_state = state.map.get(block);
                let shows_zeros = block_state == BlockState::Zero
                    || block_state == BlockState::Base && part.start >= state.lengths.base_limit;
                if shows_zeros {
                    continue;
                }
                match state.edge(block, &part, fill) {
                    Edge::InPlace => in_place.push(part),
                    Edge::Needs(ranges) => needed.extend(ranges),
                    Edge::Whole(bytes) if bytes.iter().all(|&b| b == 0) => cleared.push(block),
                    Edge::Whole(bytes) => copied.push((block, bytes)),
                }
            }
            for (run, block_state) in state.map.runs(whole_blocks.clone()) {
                if block_state == BlockState::Data {
                    punched.push(run);
                }
            }
            base_blocks = state.lengths.base_limit.div_ceil(OVERLAY_BLOCK);
        }
        if !needed.is_empty() {
            return Ok(WriteOutcome::NeedsBase(needed));
        }
        for part in in_place {
            let zeros = [0; BLOCK];
            self.put(part.start, &zeros[..(part.end - part.start) as usize])?;
        }
        for (block, bytes) in &copied {
            self.put(block * OVERLAY_BLOCK, &bytes[..])?;
        }
        for run in punched {
            let (start, length) = (
                run.start * OVERLAY_BLOCK,
                (run.end - run.start) * OVERLAY_BLOCK,
            );
            let result = self.data.punch_hole(start, length);
            self.unsynced.store(true, Ordering::Release);
            result.map_err(|e| self.failed("punching a hole into", 0, start, e))?;
        }
        let mut state = self.state.write();
        for (block, _) in copied {
            state.change(block..block + 1, BlockState::Data);
        }
        for block in cleared {
            state.change(block..block + 1, BlockState::Zero);
        }
        // Behind the base limit a block that was never written reads as zeros too, and costs nothing.
        let border = base_blocks.clamp(whole_blocks.start, whole_blocks.end);
        state.change(whole_blocks.start..border, BlockState::Zero);
        state.change(border..whole_blocks.end, BlockState::Base);
        Ok(WriteOutcome::Done)
    }

    /// Writes to the data file.
    pub(super) fn put(&self, offset: u64, data: &[u8]) -> Result<()> {
        let result = self.data.write_all_at(data, offset);
        // Behind the write, not before it: a flush that clears the mark must have begun its sync later.
        self.unsynced.store(true, Ordering::Release);
        result.map_err(|e| self.failed("writing", data.len(), offset, e))
    }
}

/// The bytes of `part` in `data`, whose first byte lies at `offset`.
fn slice<'a>(data: &'a [u8], offset: u64, part: &Range<u64>) -> &'a [u8] {
    &data[(part.start - offset) as usize..(part.end - offset) as usize]
}
