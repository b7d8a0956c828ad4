//! Invariant: of a region whose first blocks saved nothing no other is tried; one byte for each region.

use std::sync::atomic::{AtomicU8, Ordering};

/// What is known of 256 KiB, or of a piece if that is more: files that are compressed already lie together.
#[derive(Debug)]
pub(super) struct Verdicts {
    region: u64,
    /// Blocks that saved nothing, or [`SAVES`].
    regions: Vec<AtomicU8>,
}

/// Blocks that are tried in vain.
const TRIES: u8 = 4;
/// A block of it saved something: each one is tried.
const SAVES: u8 = u8::MAX;
const REGION: u64 = 256 << 10;

impl Verdicts {
    pub(super) fn new(total_length: u64, piece_length: u64) -> Self {
        let region = REGION.max(piece_length);
        let count = usize::try_from(total_length.div_ceil(region)).unwrap_or(0);
        Self {
            region,
            regions: (0..count).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    /// Whether it is worth trying the block at this place.
    pub(super) fn worth_a_try(&self, offset: u64) -> bool {
        self.region(offset).is_some_and(|known| {
            let known = known.load(Ordering::Relaxed);
            known < TRIES || known == SAVES
        })
    }

    /// A block was tried. Two threads may lose one count between them.
    pub(super) fn note(&self, offset: u64, saves: bool) {
        let Some(known) = self.region(offset) else {
            return;
        };
        let tried = known.load(Ordering::Relaxed);
        if saves {
            known.store(SAVES, Ordering::Relaxed);
        } else if tried < TRIES {
            known.store(tried + 1, Ordering::Relaxed);
        }
    }

    fn region(&self, offset: u64) -> Option<&AtomicU8> {
        self.regions
            .get(usize::try_from(offset / self.region).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_given_up_after_a_few_blocks_and_only_that_one() {
        let verdicts = Verdicts::new(1 << 20, 16 << 10);
        for n in 0..4 {
            assert!(verdicts.worth_a_try(n * 16_384), "{n}");
            verdicts.note(n * 16_384, false);
        }
        assert!(!verdicts.worth_a_try(4 * 16_384));
        assert!(verdicts.worth_a_try(REGION));
        assert!(!verdicts.worth_a_try(1 << 20), "behind the end");
    }

    #[test]
    fn where_one_block_saves_something_each_is_tried() {
        let verdicts = Verdicts::new(1 << 20, 1 << 20);
        verdicts.note(0, true);
        for _ in 0..100 {
            verdicts.note(0, false);
        }
        assert!(verdicts.worth_a_try((1 << 20) - 1));
    }
}
