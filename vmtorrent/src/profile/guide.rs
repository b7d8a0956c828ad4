//! Which pieces a guest will want next, as its profile has it.
//!
//! Invariant: what is foretold depends on the profile, on the reads so far and on nothing else; a profile that foretells
//! nothing right soon has no pieces fetched.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::recorder::pieces_of;
use super::{BLOCK, Profile};
use crate::Bitfield;
use crate::image::{Image, PieceIndex};

/// Follows a guest through its profile.
///
/// The *cursor* is the time in the profile at which the guest is. It is the guest's own time, shifted by the median of
/// how far the last reads were ahead of the profile or behind it: a read that comes early, late or in another order
/// moves it little, a guest that skips a part takes it along after some reads.
#[derive(Debug)]
pub(crate) struct Guide {
    /// The pieces in the order of their first expected read, and that time in microseconds.
    order: Vec<(u64, PieceIndex)>,
    /// The same pieces.
    pieces: Bitfield,
    /// Every expected block by file and number, with its expected time.
    blocks: Vec<Block>,
    /// Pieces of `order` before this one are neither missing nor to come.
    done: usize,
    /// Blocks by their time; those before `passed` were due so long ago that they count as not read if they were not.
    by_time: Vec<u32>,
    passed: usize,
    /// How far the profile was ahead of the guest at the last reads, microseconds.
    shifts: VecDeque<i64>,
    shift: i64,
    /// When the guest was last heard of, microseconds of guest time.
    guest_time: u64,
    /// First reads so far.
    reads: u32,
    /// The part of the recent first reads that were expected.
    hits: f64,
    /// The part of what was due recently that was read.
    useful: f64,
}

#[derive(Debug)]
struct Block {
    file: u32,
    number: u32,
    time: u64,
    read: bool,
}

/// What the window depends on besides the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// Bytes per second that come in at best.
    pub(crate) rate: u64,
    /// Bytes of a piece.
    pub(crate) piece: u64,
    /// Connected peers that lack pieces too, and may be traded with, for each that has them.
    pub(crate) traders: usize,
}

impl Guide {
    /// Blocks that fewer of the runs read are not expected.
    const LEAST_SHARE: f64 = 0.25;
    /// Reads that the cursor is the median of.
    const SHIFTS: usize = 33;
    /// The weight of one read in `hits` and `useful`.
    const WEIGHT: f64 = 1.0 / 16.0;
    /// Reads that the belief in a profile counts for before there were any.
    const BELIEF: f64 = 3.0;
    /// Below this share of right guesses nothing is fetched for the profile, from `GOOD` on all of it.
    const USELESS: f64 = 0.35;
    const GOOD: f64 = 0.6;
    /// How far ahead of the cursor pieces are fetched, guest time.
    const HORIZON: Duration = Duration::from_secs(60);
    /// What was due so long ago and was not read is taken for skipped.
    const PATIENCE: Duration = Duration::from_secs(2);
    /// Blocks that one read may show to have been skipped.
    const MOST_SKIPPED: i32 = 16;
    /// Pieces that are asked for out of order at least when there is somebody to trade with, for each of them (the
    /// window of the VMTorrent paper, CoNEXT 2012).
    const TRADED: usize = 20;
    /// Pieces that are followed at most, the first ones: as many as the largest default image has.
    const MAX_PIECES: usize = 131_072;
    /// Pieces of a window at most.
    const MAX_WINDOW: usize = 1024;

    /// Makes a guide of a profile; `None` when it foretells nothing of this image.
    pub(crate) fn new(profile: &Profile, image: &Image) -> Option<Self> {
        let least = (f64::from(profile.runs()) * Self::LEAST_SHARE).ceil() as u32;
        let mut blocks = Vec::new();
        let mut order = Vec::new();
        let known = profile.files().iter();
        let known: HashMap<_, _> = known.map(|file| (file.path(), file)).collect();
        let files = image.files().iter().enumerate();
        for (index, file) in files.filter(|(_, f)| !f.padding) {
            let Some(known) = known.get(file.path.as_slice()) else {
                continue;
            };
            let end = u32::try_from(file.length.div_ceil(BLOCK)).unwrap_or(u32::MAX);
            for (&number, access) in known.blocks().range(..end) {
                if access.runs() < least {
                    continue;
                }
                let time = access.mean() as u64;
                let before = order.len();
                order.extend(pieces_of(image, index, number).map(|piece| (time, piece)));
                if order.len() > before {
                    blocks.push(Block {
                        file: index as u32,
                        number,
                        time,
                        read: false,
                    });
                }
            }
        }
        if blocks.is_empty() {
            return None;
        }
        // Each piece at its first read.
        order.sort_unstable_by_key(|(time, piece)| (*piece, *time));
        order.dedup_by_key(|(_, piece)| *piece);
        order.sort_unstable();
        order.truncate(Self::MAX_PIECES);
        let mut pieces = Bitfield::new(image.geometry().piece_count());
        for (_, piece) in &order {
            pieces.set(*piece, true);
        }
        blocks.sort_unstable_by_key(|b| (b.file, b.number));
        let mut by_time: Vec<u32> = (0..blocks.len() as u32).collect();
        by_time.sort_unstable_by_key(|i| blocks[*i as usize].time);
        Some(Self {
            order,
            pieces,
            blocks,
            done: 0,
            by_time,
            passed: 0,
            shifts: VecDeque::with_capacity(Self::SHIFTS),
            shift: 0,
            guest_time: 0,
            reads: 0,
            hits: 1.0,
            useful: 1.0,
        })
    }

    /// The guest reads blocks of a file for the first time; tells for each whether it was expected.
    pub(crate) fn on_read(&mut self, guest_time: u64, file: u32, numbers: &[u32]) -> Vec<bool> {
        self.guest_time = self.guest_time.max(guest_time);
        let expected = numbers
            .iter()
            .map(|number| self.on_block(guest_time, file, *number))
            .collect();
        self.pass();
        expected
    }

    fn on_block(&mut self, guest_time: u64, file: u32, number: u32) -> bool {
        // The first reads say more than a belief that rests on nothing.
        let weight = Self::WEIGHT.max(1.0 / (f64::from(self.reads) + Self::BELIEF));
        self.reads = self.reads.saturating_add(1);
        let at = (file, number);
        let found = self
            .blocks
            .binary_search_by_key(&at, |b| (b.file, b.number));
        let Some(block) = found.ok().and_then(|i| self.blocks.get_mut(i)) else {
            self.hits -= self.hits * weight;
            return false;
        };
        self.hits += (1.0 - self.hits) * weight;
        self.useful += (1.0 - self.useful) * Self::WEIGHT;
        if !std::mem::replace(&mut block.read, true) {
            let shift = block.time as i64 - guest_time as i64;
            if self.shifts.len() == Self::SHIFTS {
                self.shifts.pop_front();
            }
            self.shifts.push_back(shift);
            let mut sorted: Vec<i64> = self.shifts.iter().copied().collect();
            sorted.sort_unstable();
            self.shift = sorted[sorted.len() / 2];
        }
        true
    }

    /// Looks which blocks were due and not read.
    fn pass(&mut self) {
        let behind = self.cursor().saturating_sub(micros(Self::PATIENCE));
        let mut unread = 0;
        while let Some(block) = self
            .by_time
            .get(self.passed)
            .map(|i| &self.blocks[*i as usize])
            && block.time < behind
        {
            unread += i32::from(!block.read);
            self.passed += 1;
        }
        // A guest that skips a part at once may well do as foretold behind it.
        self.useful *= (1.0 - Self::WEIGHT).powi(unread.min(Self::MOST_SKIPPED));
    }

    /// Time in the profile at which the guest is, microseconds.
    pub(crate) fn cursor(&self) -> u64 {
        self.guest_time.saturating_add_signed(self.shift)
    }

    /// How much of what was foretold lately was right: 0 to 1.
    pub(crate) fn confidence(&self) -> f64 {
        self.hits.min(self.useful)
    }

    /// Whether the profile knows what the guest is about to do, so that nothing else has to be guessed.
    pub(crate) fn is_trusted(&self) -> bool {
        self.confidence() >= Self::GOOD
    }

    /// All that it has fetched sooner or later.
    pub(crate) fn pieces(&self) -> &Bitfield {
        &self.pieces
    }

    /// Whether it has a piece fetched sooner or later.
    pub(crate) fn foretells(&self, piece: PieceIndex) -> bool {
        self.is_trusted() && self.pieces.get(piece)
    }

    /// How far ahead of the cursor pieces are fetched, microseconds.
    fn horizon(&self) -> u64 {
        let share = (self.confidence() - Self::USELESS) / (Self::GOOD - Self::USELESS);
        (share.clamp(0.0, 1.0) * micros(Self::HORIZON) as f64) as u64
    }

    /// The pieces to fetch next, in the order in which they are due; `wanted` tells which are missing and not asked for,
    /// `to_come` which are missing.
    pub(crate) fn window(
        &mut self,
        conditions: Conditions,
        wanted: impl Fn(PieceIndex) -> bool,
        to_come: impl Fn(PieceIndex) -> bool,
    ) -> Vec<PieceIndex> {
        let horizon = self.horizon();
        if horizon == 0 {
            return Vec::new();
        }
        while let Some((_, piece)) = self.order.get(self.done)
            && !to_come(*piece)
        {
            self.done += 1;
        }
        let cursor = self.cursor();
        let end = cursor.saturating_add(horizon);
        // What the guest has passed by comes last.
        let begin = cursor.saturating_sub(micros(Self::PATIENCE));
        let first = self
            .order
            .partition_point(|(time, _)| *time < begin)
            .max(self.done);
        let (skipped, ahead) = self.order.split_at(first);
        let due = ahead.iter().take_while(|(time, _)| *time <= end);
        let skipped = skipped.get(self.done..).unwrap_or_default().iter();
        let mut next = due
            .chain(skipped)
            .filter(|(_, piece)| wanted(*piece))
            .peekable();
        let length = match conditions.traders {
            0 => Self::MAX_WINDOW,
            traders => {
                let first_due = next
                    .peek()
                    .map_or(0, |(time, _)| time.saturating_sub(cursor));
                // Of what comes in until the first of them is due, half may as well come in another order.
                let free = u128::from(conditions.rate) * u128::from(first_due) / 2_000_000;
                let free = free / u128::from(conditions.piece.max(1));
                (Self::TRADED * (traders + 1))
                    .max(free.min(1 << 20) as usize)
                    .min(Self::MAX_WINDOW)
            }
        };
        next.map(|(_, piece)| *piece).take(length).collect()
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::Access;
    use super::*;
    use crate::test_image::image_of;

    const ALONE: Conditions = Conditions {
        rate: 12_500_000,
        piece: BLOCK,
        traders: 0,
    };

    /// An image of 2,000 blocks that all differ, and a profile of one run that reads every `step`th, 10 ms apart.
    fn guide(step: u32) -> Guide {
        let content: Vec<u8> = (0..2000_u32)
            .flat_map(|n| n.to_le_bytes().repeat(BLOCK as usize / 4))
            .map(|b| b | 1)
            .collect();
        let content: Vec<u8> = content
            .chunks(BLOCK as usize)
            .enumerate()
            .flat_map(|(n, chunk)| {
                let mut chunk = chunk.to_vec();
                chunk[..4].copy_from_slice(&(n as u32).to_be_bytes());
                chunk
            })
            .collect();
        let image = image_of(&content, BLOCK as u32);
        let mut profile = Profile::new(&image);
        profile.runs = 1;
        for (n, block) in (0..2000).step_by(step as usize).enumerate() {
            profile.files[0]
                .blocks
                .insert(block, Access::once(n as u64 * 10_000, None));
        }
        Guide::new(&profile, &image).unwrap()
    }

    fn window(guide: &mut Guide, conditions: Conditions, here: &HashSet<u32>) -> Vec<u32> {
        let missing = |piece: PieceIndex| !here.contains(&piece.0);
        let window = guide.window(conditions, missing, missing);
        window.iter().map(|p| p.0).collect()
    }

    #[test]
    fn what_is_missing_comes_in_the_order_of_the_profile() {
        let mut guide = guide(3);
        let mut here = HashSet::from([0, 6]);
        assert_eq!(window(&mut guide, ALONE, &here)[..4], [3, 9, 12, 15]);
        here.extend([3, 9, 12]);
        guide.on_read(40_000, 0, &[12]);
        assert_eq!(window(&mut guide, ALONE, &here)[..2], [15, 18]);
    }

    #[test]
    fn the_cursor_follows_a_guest_that_is_late_or_skips_and_bears_reads_in_another_order() {
        let mut guide = guide(1);
        // A second later than the profile, and pairs in turned order.
        for pair in 0..100_u32 {
            let time = 1_000_000 + u64::from(pair) * 20_000;
            guide.on_read(time, 0, &[pair * 2 + 1]);
            guide.on_read(time + 10_000, 0, &[pair * 2]);
        }
        let cursor = guide.cursor();
        assert!(cursor.abs_diff(2_000_000) <= 50_000, "{cursor}");
        // It skips ten seconds' worth.
        for n in 0..60_u32 {
            guide.on_read(3_000_000 + u64::from(n) * 10_000, 0, &[1200 + n]);
        }
        let cursor = guide.cursor();
        assert!(cursor.abs_diff(12_600_000) <= 50_000, "{cursor}");
        let next = window(&mut guide, ALONE, &HashSet::new());
        // From two seconds back on; what lies behind that comes at the end.
        assert!(next[0].abs_diff(1060) <= 2, "{}", next[0]);
        assert!(guide.confidence() > 0.0);
    }

    #[test]
    fn a_guest_that_leaves_the_profile_has_less_and_less_fetched_and_all_again_when_it_returns() {
        let mut guide = guide(2);
        let none = HashSet::new();
        let full = window(&mut guide, ALONE, &none).len();
        let mut horizons = vec![micros(Guide::HORIZON)];
        for n in 0..80 {
            guide.on_read(0, 0, &[n * 2 + 1]);
            horizons.push(guide.horizon());
            // A piece is due each 10 ms.
            let due = (guide.horizon() / 10_000 + 1).min(full as u64) as usize;
            let due = if guide.horizon() == 0 { 0 } else { due };
            assert_eq!(window(&mut guide, ALONE, &none).len(), due);
        }
        assert!(horizons.is_sorted_by(|a, b| a >= b), "{horizons:?}");
        horizons.dedup();
        assert!(horizons.len() >= 4, "it shrinks step by step: {horizons:?}");
        assert!(!guide.is_trusted());
        assert!(window(&mut guide, ALONE, &none).is_empty());
        for n in 0..60 {
            guide.on_read(0, 0, &[n * 2]);
        }
        assert!(guide.is_trusted());
        assert!(!window(&mut guide, ALONE, &none).is_empty());
    }

    #[test]
    fn a_profile_of_which_the_guest_reads_little_is_found_out_by_time() {
        let mut guide = guide(1);
        let none = HashSet::new();
        // All its reads are expected, but it reads one in twenty.
        for n in 0..100_u32 {
            guide.on_read(u64::from(n) * 200_000, 0, &[n * 20]);
        }
        assert!(guide.hits > 0.9);
        assert!(
            window(&mut guide, ALONE, &none).is_empty(),
            "{}",
            guide.useful
        );
    }

    #[test]
    fn with_peers_to_trade_with_the_next_pieces_come_in_any_order() {
        let mut guide = guide(1);
        let none = HashSet::new();
        for traders in [1, 7] {
            let conditions = Conditions { traders, ..ALONE };
            let found = guide.window(conditions, |_| true, |_| true);
            assert_eq!(found.len(), Guide::TRADED * (traders + 1));
        }
        // The first that is missing is due in five seconds: half of what comes in until then.
        let here: HashSet<u32> = (0..500).collect();
        let conditions = Conditions {
            traders: 1,
            rate: 3_000_000,
            piece: BLOCK,
        };
        let wide = window(&mut guide, conditions, &here).len() as u64;
        assert_eq!(wide, 5 * 3_000_000 / 2 / BLOCK);
        assert!(window(&mut guide, ALONE, &none).len() > 100);
    }

    #[test]
    fn blocks_that_few_runs_read_are_not_expected() {
        let image = image_of(
            &(0..=255)
                .cycle()
                .take(8 * BLOCK as usize)
                .collect::<Vec<u8>>(),
            64 << 10,
        );
        let mut profile = Profile::new(&image);
        profile.runs = 8;
        profile.files[0].blocks.insert(0, Access::once(5, None));
        assert!(Guide::new(&profile, &image).is_none());
        profile.runs = 4;
        assert!(Guide::new(&profile, &image).is_some());
    }
}
