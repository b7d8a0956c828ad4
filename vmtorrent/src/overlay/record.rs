//! Invariant: decoding what was encoded from a map and applying it to any map gives the ranges the states
//! that they had in the first; decoding anything else gives an error, and touches no block out of range.
//!
//! A payload is the file's length and the base limit (u64 each), then items:
//!
//! | item | |
//! |---|---|
//! | run | state code (u8: 0 to 2), first block (u64), number of blocks (u64) |
//! | packed | 16 (u8), first block (u64), number of blocks (u32), states, 2 bits each, lowest bits first |

use super::block_map::{BlockMap, BlockState, CHUNK_BLOCKS, MAX_BLOCKS, MAX_LENGTH};
use std::ops::Range;

const PACKED: u8 = 16;
/// From this length on a run is smaller as an item of its own.
const LONG_RUN: u64 = 64;

/// What a record says beside the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Bytes of the file.
    pub(super) length: u64,
    /// Bytes of the pristine file that can still show through.
    pub(super) base_limit: u64,
}

/// Encodes the lengths and the states of `ranges`.
pub(super) fn encode(
    lengths: Lengths,
    map: &BlockMap,
    ranges: impl Iterator<Item = Range<u64>>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend(lengths.length.to_le_bytes());
    out.extend(lengths.base_limit.to_le_bytes());
    let mut packed = Packed::default();
    for range in ranges {
        for (run, state) in map.runs(range) {
            if run.end - run.start >= LONG_RUN {
                packed.finish(&mut out);
                put_run(&mut out, run, state);
            } else {
                if packed.next() != Some(run.start) || packed.states.len() as u64 >= CHUNK_BLOCKS {
                    packed.finish(&mut out);
                }
                packed.push(run, state);
            }
        }
    }
    packed.finish(&mut out);
    out
}

fn put_run(out: &mut Vec<u8>, run: Range<u64>, state: BlockState) {
    out.push(state as u8);
    out.extend(run.start.to_le_bytes());
    out.extend((run.end - run.start).to_le_bytes());
}

/// Short runs that follow each other.
#[derive(Default)]
struct Packed {
    first: u64,
    states: Vec<BlockState>,
}

impl Packed {
    /// The block that would follow.
    fn next(&self) -> Option<u64> {
        (!self.states.is_empty()).then(|| self.first + self.states.len() as u64)
    }

    fn push(&mut self, run: Range<u64>, state: BlockState) {
        if self.states.is_empty() {
            self.first = run.start;
        }
        self.states.extend(run.map(|_| state));
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let Some(&state) = self.states.first() else {
            return;
        };
        if self.states.iter().all(|&s| s == state) {
            put_run(
                out,
                self.first..self.first + self.states.len() as u64,
                state,
            );
        } else {
            out.push(PACKED);
            out.extend(self.first.to_le_bytes());
            out.extend((self.states.len() as u32).to_le_bytes());
            out.extend(self.states.chunks(4).map(|four| {
                let codes = four.iter().enumerate();
                codes.fold(0, |byte, (i, &s)| byte | ((s as u8) << (2 * i)))
            }));
        }
        self.states.clear();
    }
}

/// Applies a payload to `map` and gives the lengths, or what is wrong with it.
pub(super) fn apply(payload: &[u8], map: &mut BlockMap) -> Result<Lengths, &'static str> {
    let mut rest = payload;
    let lengths = Lengths {
        length: take_u64(&mut rest)?,
        base_limit: take_u64(&mut rest)?,
    };
    if lengths.length > MAX_LENGTH || lengths.base_limit > lengths.length {
        return Err("its lengths are out of range");
    }
    while let Some((&tag, tail)) = rest.split_first() {
        rest = tail;
        let first = take_u64(&mut rest)?;
        if tag == PACKED {
            let count = u64::from(u32::from_le_bytes(take(&mut rest)?));
            check_range(first, count)?;
            let size = count.div_ceil(4) as usize;
            let (states, tail) = rest.split_at_checked(size).ok_or("an item is cut short")?;
            rest = tail;
            for i in 0..count {
                let code = (states[(i / 4) as usize] >> (2 * (i % 4))) & 3;
                let state = BlockState::from_code(code).ok_or("a state is unknown")?;
                map.set(first + i..first + i + 1, state);
            }
        } else {
            let state = BlockState::from_code(tag).ok_or("an item is unknown")?;
            let count = take_u64(&mut rest)?;
            check_range(first, count)?;
            map.set(first..first + count, state);
        }
    }
    Ok(lengths)
}

fn check_range(first: u64, count: u64) -> Result<(), &'static str> {
    match first.checked_add(count) {
        Some(end) if end <= MAX_BLOCKS => Ok(()),
        _ => Err("an item lies out of range"),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (head, tail) = rest
        .split_first_chunk::<N>()
        .ok_or("an item is cut short")?;
    *rest = tail;
    Ok(*head)
}

fn take_u64(rest: &mut &[u8]) -> Result<u64, &'static str> {
    Ok(u64::from_le_bytes(take(rest)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn built(runs: &[(u64, u64, u8)]) -> BlockMap {
        let mut map = BlockMap::default();
        for &(start, count, code) in runs {
            map.set(start..start + count, BlockState::from_code(code).unwrap());
        }
        map
    }

    fn runs() -> impl Strategy<Value = Vec<(u64, u64, u8)>> {
        let count = prop_oneof![1..4_u64, 1..200_u64, 1..3 * CHUNK_BLOCKS];
        proptest::collection::vec((0..3 * CHUNK_BLOCKS, count, 0..3_u8), 0..60)
    }

    proptest! {
        #[test]
        fn applying_a_record_restores_exactly_its_ranges(a in runs(), b in runs(), cut in 0..6 * CHUNK_BLOCKS) {
            let (from, mut to) = (built(&a), built(&b));
            let before = built(&b);
            let lengths = Lengths { length: 5 << 20, base_limit: 7 };
            let all = 6 * CHUNK_BLOCKS;
            let payload = encode(lengths, &from, std::iter::once(0..cut));
            prop_assert!(payload.len() as u64 <= 64 + from.encoded_bound() + 17 * 64);
            prop_assert_eq!(apply(&payload, &mut to), Ok(lengths));
            prop_assert!(to.runs(0..cut).eq(from.runs(0..cut)));
            prop_assert!(to.runs(cut..all).eq(before.runs(cut..all)));
        }

        #[test]
        fn nonsense_is_an_error_or_harmless(payload in proptest::collection::vec(any::<u8>(), 0..80), code in 0..20_u8) {
            let mut map = BlockMap::default();
            let _ = apply(&payload, &mut map);
            let mut bytes = vec![0; 16];
            bytes.push(code);
            bytes.extend(payload);
            let _ = apply(&bytes, &mut map);
            prop_assert!(map.runs(MAX_BLOCKS..u64::MAX).all(|(_, state)| state == BlockState::Base));
        }
    }
}
