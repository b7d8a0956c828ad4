//! Invariant: what is fetched ahead is near what was read, and what is guessed is in proportion to how often guesses
//! came true.

use std::collections::VecDeque;
use std::ops::Range;

use super::streams::Streams;

/// Says what to fetch ahead of a guest's reads of one file. There are three reasons:
///
/// - *the rest of the neighbourhood*: pieces may be as small as a block, so that a read waits for little; but file
///   systems put together what is read together, so the 64 KiB around it follow;
/// - *streams*: a guest that reads on and on is run ahead of;
/// - *guesses*: the neighbourhood behind one that is read for the first time, and the next if that often comes true.
///   Random reads soon make that end.
#[derive(Debug, Default)]
pub struct Readahead {
    streams: Streams,
    guesses: Guesses,
}

impl Readahead {
    /// Bytes of a neighbourhood, or a piece if that is more.
    pub const NEIGHBOURHOOD: u64 = 64 << 10;

    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The guest reads `range`, which is not empty, of a file in pieces of `piece` bytes; gives what to fetch ahead, in
    /// that order. `missing` tells whether anything of a range is not here.
    pub fn on_read(
        &mut self,
        range: Range<u64>,
        piece: u64,
        missing: impl Fn(&Range<u64>) -> bool,
    ) -> Vec<Range<u64>> {
        let unit = Self::NEIGHBOURHOOD.next_multiple_of(piece.max(1));
        let first = range.start / unit;
        let last = (range.end - 1) / unit;
        // A guest rather reads on than back.
        let mut ahead = vec![
            range.end..(last + 1) * unit,
            first * unit..range.start,
            self.streams.on_read(range, unit),
        ];
        self.guesses.on_read(first..=last);
        for guess in last + 1..=last + self.guesses.reach(unit) {
            let guessed = guess * unit..(guess + 1) * unit;
            if missing(&guessed) && self.guesses.add(guess) {
                ahead.push(guessed);
            }
        }
        ahead.retain(|range| !range.is_empty());
        ahead
    }
}

/// How good it is to guess that the guest reads on.
#[derive(Debug)]
struct Guesses {
    /// What was guessed last and not read yet.
    open: VecDeque<u64>,
    /// The part of the recent guesses that came true.
    success: f64,
    /// Times at which a guess was left out.
    passed: u32,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            open: VecDeque::new(),
            // A boot reads on more often than not.
            success: 1.0,
            passed: 0,
        }
    }
}

impl Guesses {
    /// A guess that did not come true while so many others were made is taken for wrong.
    const MAX_OPEN: usize = 32;
    /// The weight of one guess in the success.
    const WEIGHT: f64 = 1.0 / 16.0;
    /// Success from which on guesses are made, and from which on they go twice as far.
    const WORTHWHILE: f64 = 0.25;
    const GOOD: f64 = 0.5;
    /// Of those that are not worthwhile one in so many is made, to find out whether that is still so.
    const PROBE: u32 = 16;
    /// Longer pieces cost too much for a guess.
    const MAX_UNIT: u64 = 256 << 10;

    /// Neighbourhoods to fetch behind the one that was read.
    fn reach(&mut self, unit: u64) -> u64 {
        if unit > Self::MAX_UNIT {
            return 0;
        }
        if self.success >= Self::GOOD {
            return 2;
        }
        if self.success >= Self::WORTHWHILE {
            return 1;
        }
        self.passed = (self.passed + 1) % Self::PROBE;
        u64::from(self.passed == 0)
    }

    /// Notes a guess; false when it was made already.
    fn add(&mut self, guess: u64) -> bool {
        if self.open.contains(&guess) {
            return false;
        }
        self.open.push_back(guess);
        if self.open.len() > Self::MAX_OPEN {
            self.open.pop_front();
            self.success -= self.success * Self::WEIGHT;
        }
        true
    }

    /// Finds out which guesses come true.
    fn on_read(&mut self, read: std::ops::RangeInclusive<u64>) {
        let before = self.open.len();
        self.open.retain(|guess| !read.contains(guess));
        for _ in self.open.len()..before {
            self.success += (1.0 - self.success) * Self::WEIGHT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u64 = Readahead::NEIGHBOURHOOD;
    const PIECE: u64 = 16 << 10;

    /// Units that are fetched ahead of reads at the beginning of these units, if nothing was here before.
    fn fetched(reads: impl IntoIterator<Item = u64>) -> std::collections::BTreeSet<u64> {
        let mut readahead = Readahead::new();
        let mut here = std::collections::BTreeSet::new();
        let mut ahead = std::collections::BTreeSet::new();
        for unit in reads {
            here.insert(unit);
            let at = unit * UNIT;
            let missing = |r: &Range<u64>| !here.contains(&(r.start / UNIT));
            for range in readahead.on_read(at..at + 4096, PIECE, missing) {
                for unit in range.start / UNIT..range.end.div_ceil(UNIT) {
                    here.insert(unit);
                    ahead.insert(unit);
                }
            }
        }
        ahead
    }

    #[test]
    fn the_rest_of_the_neighbourhood_follows_a_read_and_what_is_before_it_comes_last() {
        let mut readahead = Readahead::new();
        let at = 10 * UNIT + PIECE;
        let ahead = readahead.on_read(at..at + PIECE, PIECE, |_| false);
        let expected = [at + PIECE..11 * UNIT, 10 * UNIT..at];
        assert_eq!(ahead, expected);
    }

    #[test]
    fn nothing_is_guessed_of_what_is_here() {
        let mut readahead = Readahead::new();
        for unit in [3, 70, 11, 500] {
            let read = unit * UNIT..(unit + 1) * UNIT;
            assert!(readahead.on_read(read, UNIT, |_| false).is_empty());
        }
    }

    #[test]
    fn random_reads_end_the_guessing_but_for_a_few() {
        let reads = 4000;
        // No two of them are near each other.
        let random = (0..reads).map(|n| n * 7919 % 100_003 * 5);
        let ahead = fetched(random);
        let guessed = ahead.iter().filter(|unit| *unit % 5 != 0).count();
        assert!(guessed > 0);
        assert!(guessed < reads as usize / 10, "{guessed} guesses");
    }

    #[test]
    fn reads_of_neighbours_are_guessed() {
        // Two neighbours here and there: no stream, but the second is there before it is read.
        let reads = (0..400).flat_map(|n| [n * 100, n * 100 + 1]);
        let ahead = fetched(reads);
        let good = (0..400).filter(|n| ahead.contains(&(n * 100 + 1))).count();
        assert!(good > 390, "{good}");
    }

    #[test]
    fn guesses_begin_again_when_they_come_true() {
        let random = (0..1000_u64).map(|n| n * 7919 % 100_003 * 5);
        let neighbours = (0..2000).flat_map(|n| {
            let at = (1 << 40) / UNIT + n * 100;
            [at, at + 1]
        });
        let ahead = fetched(random.chain(neighbours));
        let last = (1 << 40) / UNIT + 1999 * 100;
        assert!(ahead.contains(&(last + 1)));
    }

    #[test]
    fn long_pieces_are_not_guessed() {
        let mut readahead = Readahead::new();
        let piece = 4 << 20;
        let ahead = readahead.on_read(0..piece, piece, |_| true);
        assert!(ahead.is_empty(), "{ahead:?}");
    }
}
