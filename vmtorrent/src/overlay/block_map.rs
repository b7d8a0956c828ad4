//! Invariant: segments never overlap; a `Mixed` segment covers exactly one chunk, a `Uniform` one at
//! least one; blocks without a segment are `Base`; `data_blocks` is the number of `Data` blocks.
//!
//! Cost: 2 bits for each block of a chunk that holds different states, nothing that grows with the length
//! for a range that is uniform. 64 GiB of written blocks take 4 MiB.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of one overlay block.
pub(crate) const OVERLAY_BLOCK: u64 = 4096;

/// Blocks of a chunk: 16 MiB of the image.
pub(super) const CHUNK_BLOCKS: u64 = 4096;

/// Longest file that an overlay can hold, bytes.
pub(crate) const MAX_LENGTH: u64 = 1 << 60;

/// Number of blocks of the longest file.
pub(super) const MAX_BLOCKS: u64 = MAX_LENGTH / OVERLAY_BLOCK;

/// Where the bytes of a block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockState {
    /// Not written: the pristine image shows through below the base limit, zeros behind it.
    Base = 0,
    /// In the data file.
    Data = 1,
    /// Discarded or zeroed: reads as zeros.
    Zero = 2,
}

impl BlockState {
    /// The state behind a two-bit code; 3 is none.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Base),
            1 => Some(Self::Data),
            2 => Some(Self::Zero),
            _ => None,
        }
    }
}

const BLOCKS_PER_WORD: u64 = 32;
const LOW_BITS: u64 = 0x5555_5555_5555_5555;

/// The states of one chunk, two bits each, block 0 in the lowest bits.
#[derive(Clone)]
struct Chunk {
    words: [u64; (CHUNK_BLOCKS / BLOCKS_PER_WORD) as usize],
}

impl Chunk {
    fn filled(state: BlockState) -> Box<Self> {
        Box::new(Self {
            words: [Self::pattern(state); (CHUNK_BLOCKS / BLOCKS_PER_WORD) as usize],
        })
    }

    fn pattern(state: BlockState) -> u64 {
        LOW_BITS * state as u64
    }

    /// The words that `blocks` touches, each with the mask of the touched bits.
    fn masks(blocks: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
        let words = blocks.start / BLOCKS_PER_WORD..blocks.end.div_ceil(BLOCKS_PER_WORD);
        words.map(move |word| {
            let first = word * BLOCKS_PER_WORD;
            let from = blocks.start.saturating_sub(first);
            let to = (blocks.end - first).min(BLOCKS_PER_WORD);
            let below = |n: u64| {
                if n == BLOCKS_PER_WORD {
                    u64::MAX
                } else {
                    (1 << (2 * n)) - 1
                }
            };
            (word as usize, below(to) & !below(from))
        })
    }

    /// Sets the states and gives the change in the number of `Data` blocks.
    fn set(&mut self, blocks: Range<u64>, state: BlockState) -> i64 {
        let mut change = 0;
        for (word, mask) in Self::masks(blocks) {
            let before = self.words[word];
            let after = (before & !mask) | (Self::pattern(state) & mask);
            self.words[word] = after;
            change += i64::from((after & LOW_BITS).count_ones())
                - i64::from((before & LOW_BITS).count_ones());
        }
        change
    }

    /// The block behind the last `Data` block; 0 when there is none.
    fn data_end(&self) -> u64 {
        let last = self.words.iter().rposition(|w| w & LOW_BITS != 0);
        last.map_or(0, |word| {
            let unused = (self.words[word] & LOW_BITS).leading_zeros() / 2;
            (word as u64 + 1) * BLOCKS_PER_WORD - u64::from(unused)
        })
    }

    fn data_blocks(&self) -> u64 {
        self.words
            .iter()
            .map(|w| u64::from((w & LOW_BITS).count_ones()))
            .sum()
    }

    /// The state of block `at` and the end of the run of that state inside the chunk.
    fn run_at(&self, at: u64) -> (u64, BlockState) {
        let word = self.words[(at / BLOCKS_PER_WORD) as usize];
        let code = (word >> (2 * (at % BLOCKS_PER_WORD))) & 3;
        let state = match code {
            1 => BlockState::Data,
            2 => BlockState::Zero,
            _ => BlockState::Base,
        };
        for (word, mask) in Self::masks(at..CHUNK_BLOCKS) {
            let different = (self.words[word] ^ Self::pattern(state)) & mask;
            if different != 0 {
                let end = word as u64 * BLOCKS_PER_WORD + u64::from(different.trailing_zeros() / 2);
                return (end, state);
            }
        }
        (CHUNK_BLOCKS, state)
    }
}

enum Segment {
    Uniform { end: u64, state: BlockState },
    Mixed(Box<Chunk>),
}

/// The state of every block of an overlay.
#[derive(Default)]
pub(super) struct BlockMap {
    /// Keyed by first chunk.
    segments: BTreeMap<u64, Segment>,
    data_blocks: u64,
}

impl BlockMap {
    /// Number of blocks in the data file.
    pub(super) fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// The block behind the last one in the data file; 0 when there is none.
    pub(super) fn data_end(&self) -> u64 {
        for (&first, segment) in self.segments.iter().rev() {
            match segment {
                Segment::Uniform { end, state } if *state == BlockState::Data => {
                    return end * CHUNK_BLOCKS;
                }
                Segment::Uniform { .. } => {}
                Segment::Mixed(states) => match states.data_end() {
                    0 => {}
                    end => return first * CHUNK_BLOCKS + end,
                },
            }
        }
        0
    }

    /// Upper bound of what a snapshot of the map takes in the journal, bytes.
    pub(super) fn encoded_bound(&self) -> u64 {
        self.segments.len() as u64 * (CHUNK_BLOCKS / 4 + 64)
    }

    /// The state of block `at` and the end of a run of that state, at most `limit`. The next run may
    /// have the same state.
    fn run_at(&self, at: u64, limit: u64) -> (u64, BlockState) {
        let chunk = at / CHUNK_BLOCKS;
        let first = chunk * CHUNK_BLOCKS;
        let (end, state) = match self.segments.range(..=chunk).next_back() {
            Some((&key, Segment::Mixed(states))) if key == chunk => {
                let (end, state) = states.run_at(at - first);
                (first + end, state)
            }
            Some((_, &Segment::Uniform { end, state })) if end > chunk => {
                (end * CHUNK_BLOCKS, state)
            }
            _ => {
                let next = self.segments.range(chunk..).next();
                let end = next.map_or(u64::MAX, |(&key, _)| key * CHUNK_BLOCKS);
                (end, BlockState::Base)
            }
        };
        (end.min(limit), state)
    }

    /// The runs of equal states in `blocks`, in order; neighbours differ.
    pub(super) fn runs(
        &self,
        blocks: Range<u64>,
    ) -> impl Iterator<Item = (Range<u64>, BlockState)> {
        let mut at = blocks.start;
        std::iter::from_fn(move || {
            if at >= blocks.end {
                return None;
            }
            let start = at;
            let (mut end, state) = self.run_at(start, blocks.end);
            while end < blocks.end {
                let (next, other) = self.run_at(end, blocks.end);
                if other != state {
                    break;
                }
                end = next;
            }
            at = end;
            Some((start..end, state))
        })
    }

    /// The state of one block.
    pub(super) fn get(&self, block: u64) -> BlockState {
        self.run_at(block, u64::MAX).1
    }

    /// Whether every block of `blocks` has this state.
    pub(super) fn is_all(&self, blocks: Range<u64>, state: BlockState) -> bool {
        self.runs(blocks.clone())
            .next()
            .is_none_or(|(run, found)| found == state && run == blocks)
    }

    /// Sets the state of all of `blocks`.
    pub(super) fn set(&mut self, blocks: Range<u64>, state: BlockState) {
        if blocks.is_empty() {
            return;
        }
        let whole = blocks.start.div_ceil(CHUNK_BLOCKS)..blocks.end / CHUNK_BLOCKS;
        if whole.start > whole.end {
            self.set_in_chunk(blocks, state);
            return;
        }
        let (head_end, tail_start) = (whole.start * CHUNK_BLOCKS, whole.end * CHUNK_BLOCKS);
        if blocks.start < head_end {
            self.set_in_chunk(blocks.start..head_end, state);
        }
        if !whole.is_empty() {
            self.set_chunks(whole, state);
        }
        if tail_start < blocks.end {
            self.set_in_chunk(tail_start..blocks.end, state);
        }
    }

    /// Sets blocks that lie in one chunk and do not fill it.
    fn set_in_chunk(&mut self, blocks: Range<u64>, state: BlockState) {
        let chunk = blocks.start / CHUNK_BLOCKS;
        let first = chunk * CHUNK_BLOCKS;
        if !matches!(self.segments.get(&chunk), Some(Segment::Mixed(_))) {
            let (_, before) = self.run_at(blocks.start, u64::MAX);
            if before == state {
                return;
            }
            self.carve(chunk..chunk + 1);
            if before == BlockState::Data {
                self.data_blocks += CHUNK_BLOCKS;
            }
            self.segments
                .insert(chunk, Segment::Mixed(Chunk::filled(before)));
        }
        if let Some(Segment::Mixed(states)) = self.segments.get_mut(&chunk) {
            let change = states.set(blocks.start - first..blocks.end - first, state);
            self.data_blocks = self.data_blocks.saturating_add_signed(change);
        }
    }

    fn set_chunks(&mut self, chunks: Range<u64>, state: BlockState) {
        self.carve(chunks.clone());
        if state == BlockState::Base {
            return;
        }
        if state == BlockState::Data {
            self.data_blocks += (chunks.end - chunks.start) * CHUNK_BLOCKS;
        }
        if let Some((_, Segment::Uniform { end, state: left })) =
            self.segments.range_mut(..chunks.start).next_back()
            && *end == chunks.start
            && *left == state
        {
            *end = chunks.end;
            return;
        }
        self.segments.insert(
            chunks.start,
            Segment::Uniform {
                end: chunks.end,
                state,
            },
        );
    }

    /// Makes all of `chunks` `Base`, cutting uniform segments at the borders.
    fn carve(&mut self, chunks: Range<u64>) {
        if let Some((_, Segment::Uniform { end, state })) =
            self.segments.range_mut(..chunks.start).next_back()
            && *end > chunks.start
        {
            let rest = Segment::Uniform {
                end: *end,
                state: *state,
            };
            *end = chunks.start;
            self.segments.insert(chunks.start, rest);
        }
        while let Some((&first, _)) = self.segments.range(chunks.clone()).next() {
            match self.segments.remove(&first) {
                Some(Segment::Uniform { end, state }) => {
                    if end > chunks.end {
                        self.segments
                            .insert(chunks.end, Segment::Uniform { end, state });
                    }
                    if state == BlockState::Data {
                        self.data_blocks -= (end.min(chunks.end) - first) * CHUNK_BLOCKS;
                    }
                }
                Some(Segment::Mixed(states)) => self.data_blocks -= states.data_blocks(),
                None => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> impl Strategy<Value = BlockState> {
        prop_oneof![
            Just(BlockState::Base),
            Just(BlockState::Data),
            Just(BlockState::Zero)
        ]
    }

    /// Ranges that are short, or that lie near chunk borders and span several chunks.
    fn range() -> impl Strategy<Value = Range<u64>> {
        let point = prop_oneof![
            0..4 * CHUNK_BLOCKS,
            (0..5_u64, 0..3_u64).prop_map(|(c, d)| (c * CHUNK_BLOCKS + d).saturating_sub(1)),
        ];
        (point.clone(), point, 1..40_u64, any::<bool>()).prop_map(|(a, b, short, long)| {
            if long {
                a.min(b)..a.max(b)
            } else {
                a..a + short
            }
        })
    }

    proptest! {
        #[test]
        fn map_equals_a_plain_array(ops in proptest::collection::vec((range(), state()), 1..40), look in range()) {
            let mut map = BlockMap::default();
            let mut plain = vec![BlockState::Base; 6 * CHUNK_BLOCKS as usize];
            for (range, state) in ops {
                map.set(range.clone(), state);
                plain[range.start as usize..range.end as usize].fill(state);
            }
            let mut seen = Vec::new();
            let mut last = None;
            for (run, state) in map.runs(0..plain.len() as u64) {
                prop_assert_ne!(last, Some(state));
                last = Some(state);
                seen.extend(std::iter::repeat_n(state, (run.end - run.start) as usize));
            }
            prop_assert!(seen == plain);
            prop_assert_eq!(map.data_blocks(), plain.iter().filter(|s| **s == BlockState::Data).count() as u64);
            let end = plain.iter().rposition(|s| *s == BlockState::Data).map_or(0, |last| last as u64 + 1);
            prop_assert_eq!(map.data_end(), end);
            let part: Vec<_> = map.runs(look.clone()).flat_map(|(r, s)| r.map(move |_| s)).collect();
            prop_assert!(part[..] == plain[look.start as usize..look.end as usize]);
            prop_assert_eq!(map.get(look.start), plain[look.start as usize]);
        }
    }

    #[test]
    fn huge_uniform_ranges_cost_a_few_segments() {
        let mut map = BlockMap::default();
        map.set(5..MAX_BLOCKS - 5, BlockState::Zero);
        map.set(1 << 40..(1 << 40) + 1, BlockState::Data);
        assert!(map.segments.len() <= 6);
        assert_eq!(map.runs(0..MAX_BLOCKS).count(), 5);
        map.set(0..MAX_BLOCKS, BlockState::Base);
        assert_eq!(map.segments.len(), 0);
        assert_eq!(map.data_blocks(), 0);
    }

    #[test]
    fn sixty_four_gibibytes_of_scattered_blocks_take_about_four_mebibytes() {
        let mut map = BlockMap::default();
        for block in (0..(64 << 30) / OVERLAY_BLOCK).step_by(2) {
            map.set(block..block + 1, BlockState::Data);
        }
        assert_eq!(map.segments.len(), 4096);
        assert_eq!(size_of::<Chunk>(), 1024);
    }
}
