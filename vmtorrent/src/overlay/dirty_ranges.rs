//! Invariant: ranges do not overlap, and no two of them touch the same chunk; so there are never more
//! ranges than touched chunks.
//!
//! A range may hold blocks that did not change: recording the present state of such a block once more
//! changes nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use super::block_map::CHUNK_BLOCKS;

/// The blocks whose state may differ from what the journal says.
#[derive(Default)]
pub(super) struct DirtyRanges {
    /// First block to end.
    ranges: BTreeMap<u64, u64>,
}

impl DirtyRanges {
    /// Adds blocks; what touches the same chunks grows together with them.
    pub(super) fn insert(&mut self, blocks: Range<u64>) {
        if blocks.is_empty() {
            return;
        }
        let first = blocks.start / CHUNK_BLOCKS * CHUNK_BLOCKS;
        let behind = blocks.end.div_ceil(CHUNK_BLOCKS) * CHUNK_BLOCKS;
        let (mut start, mut end) = (blocks.start, blocks.end);
        while let Some((&low, &high)) = self.ranges.range(..behind).next_back()
            && high > first
        {
            self.ranges.remove(&low);
            start = start.min(low);
            end = end.max(high);
        }
        self.ranges.insert(start, end);
    }

    /// Adds all of `other`.
    pub(super) fn merge(&mut self, other: DirtyRanges) {
        for (start, end) in other.ranges {
            self.insert(start..end);
        }
    }

    /// Whether nothing is dirty.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_inserted_block_is_covered_and_chunks_are_not_shared(
            inserted in proptest::collection::vec((0..20 * CHUNK_BLOCKS, 1..3 * CHUNK_BLOCKS), 1..30)
        ) {
            let mut dirty = DirtyRanges::default();
            for &(start, count) in &inserted {
                dirty.insert(start..start + count);
            }
            let ranges: Vec<_> = dirty.iter().collect();
            for &(start, count) in &inserted {
                prop_assert!(ranges.iter().any(|r| r.start <= start && start + count <= r.end));
            }
            for pair in ranges.windows(2) {
                prop_assert!((pair[0].end - 1) / CHUNK_BLOCKS < pair[1].start / CHUNK_BLOCKS);
            }
        }
    }
}
