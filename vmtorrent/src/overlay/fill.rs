//! Invariant: a block is never completed with bytes that the caller was not asked for or did not give.

use std::ops::Range;

use bytes::Bytes;

/// Bytes of the pristine file that the caller gives with a write, because the overlay asked for them.
#[derive(Clone, Debug)]
pub(crate) struct Fill {
    /// Where they lie in the file.
    pub(crate) offset: u64,
    /// The bytes.
    pub(crate) bytes: Bytes,
}

/// What became of a write or a zeroing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum WriteOutcome {
    /// It is done: reads see it, the next flush makes it durable.
    Done,
    /// Nothing was changed. Read these ranges from the pristine file and call again with them as [`Fill`].
    NeedsBase(Vec<Range<u64>>),
}

/// Copies `range` from one of `fills` into `target`, whose first byte lies at `target_offset`; `false`
/// when none of them holds all of it.
pub(super) fn copy_fill(
    fills: &[Fill],
    range: &Range<u64>,
    target: &mut [u8],
    target_offset: u64,
) -> bool {
    for fill in fills {
        let Some(skip) = range.start.checked_sub(fill.offset) else {
            continue;
        };
        let length = (range.end - range.start) as usize;
        let from = usize::try_from(skip).unwrap_or(usize::MAX);
        if let Some(tail) = fill.bytes.get(from..)
            && let Some(bytes) = tail.get(..length)
        {
            let at = (range.start - target_offset) as usize;
            target[at..at + length].copy_from_slice(bytes);
            return true;
        }
    }
    false
}
