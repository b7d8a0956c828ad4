//! What a guest reads and when. Invariant: no read is empty, and none ends behind the image.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use vmtorrent::image::{BLOCK_LENGTH, Image};
use vmtorrent::profile::Profile;
use vmtorrent::simulation;

/// A read, and what the guest does before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What the guest does between the read before and this one.
    pub think: Duration,
    /// Where it begins in the image, bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// The reads of a run, one after the other.
#[derive(Clone, Debug)]
pub struct Trace {
    /// In order.
    pub steps: Vec<Step>,
}

/// A boot of the demo's appliance, as `vmtorrent launch --trace` wrote it.
const BOOT: &str = include_str!("../data/boot.trace");
/// Guest time of the boot on a machine with nothing else to do. The one that wrote the trace was busy.
const BOOT_TIME: Duration = Duration::from_secs(13);
/// Bytes of the appliance's image.
pub const IMAGE_LENGTH: u64 = 1 << 30;
/// What is left out of an image, or not.
const REGION: u64 = 256 << 10;
/// How much the times of two runs differ: each pause is multiplied by 1 plus or minus so much at most.
const JITTER: f64 = 0.2;

impl Trace {
    /// The boot of the demo's appliance in its time on a machine that has nothing else to do.
    ///
    /// # Errors
    /// None but those of a damaged trace.
    pub fn boot() -> Result<Self, String> {
        let trace = Self::parse(BOOT, IMAGE_LENGTH)?;
        let speed = trace.guest_time().as_secs_f64() / BOOT_TIME.as_secs_f64();
        Ok(trace.faster(speed))
    }

    /// Reads a trace: on each line `think_us offset length`, lines with `#` are comments.
    ///
    /// # Errors
    /// Names the first line that is not so.
    pub fn parse(text: &str, image_length: u64) -> Result<Self, String> {
        let mut steps = Vec::new();
        for (n, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let numbers: Option<Vec<u64>> =
                line.split_whitespace().map(|w| w.parse().ok()).collect();
            let Some([think, offset, length]) = numbers.as_deref() else {
                return Err(format!("line {} is no `think_us offset length`", n + 1));
            };
            let end = offset.checked_add(*length);
            if *length == 0 || end.is_none_or(|end| end > image_length) {
                return Err(format!("line {} reads nothing, or behind the image", n + 1));
            }
            steps.push(Step {
                think: Duration::from_micros(*think),
                offset: *offset,
                length: *length,
            });
        }
        if steps.is_empty() {
            return Err("the trace holds no read".to_owned());
        }
        Ok(Self { steps })
    }

    /// The same reads of an image that lacks most of what is not read, and its length in bytes.
    ///
    /// Regions of 256 KiB are left out that neither hold a read nor lie beside one that does. Nothing of them is ever
    /// fetched, but each host has to keep in mind that each of its peers lacks them.
    #[must_use]
    pub fn condensed(&self) -> (Self, u64) {
        let mut kept: BTreeMap<u64, u64> = BTreeMap::new();
        for step in &self.steps {
            let first = (step.offset / REGION).saturating_sub(1);
            let last = (step.offset + step.length - 1) / REGION + 1;
            kept.extend((first..=last).map(|region| (region, 0)));
        }
        for (place, region) in kept.values_mut().enumerate() {
            *region = place as u64;
        }
        let length = kept.len() as u64 * REGION;
        let steps = self.steps.iter().map(|step| Step {
            offset: kept[&(step.offset / REGION)] * REGION + step.offset % REGION,
            ..*step
        });
        let steps = steps.collect();
        (Self { steps }, length)
    }

    /// Other work: it reads as many blocks, in as long a time, in any order, all of a part of the image that lies behind
    /// `from` and that this one does not read. Gives the length of an image that has that part too.
    #[must_use]
    pub fn elsewhere(&self, from: u64, rng: &mut StdRng) -> (Self, u64) {
        let block = u64::from(BLOCK_LENGTH);
        let blocks = self.first_reads().len();
        let mut places: Vec<u64> = (0..blocks as u64).collect();
        places.shuffle(rng);
        let think = self.guest_time() / blocks.max(1) as u32;
        let step = |place: u64| Step {
            think,
            offset: from + place * block,
            length: block,
        };
        let steps = places.into_iter().map(step).collect();
        (Self { steps }, from + blocks as u64 * block)
    }

    /// The same reads by a guest of another speed.
    #[must_use]
    pub fn faster(mut self, speed: f64) -> Self {
        for step in &mut self.steps {
            step.think = step.think.div_f64(speed);
        }
        self
    }

    /// The same reads in as much time, each a little earlier or later, as in another run.
    #[must_use]
    pub fn another_run(&self, rng: &mut StdRng) -> Self {
        let mut other = self.clone();
        for step in &mut other.steps {
            step.think = step
                .think
                .mul_f64(rng.random_range(1.0 - JITTER..1.0 + JITTER));
        }
        let speed = other.guest_time().as_secs_f64() / self.guest_time().as_secs_f64();
        other.faster(speed)
    }

    /// Time that the guest needs if no read takes any.
    pub fn guest_time(&self) -> Duration {
        self.steps.iter().map(|step| step.think).sum()
    }

    /// When each 16 KiB block is read first, microseconds of guest time.
    pub fn first_reads(&self) -> BTreeMap<u32, u64> {
        let mut first = BTreeMap::new();
        let mut time = Duration::ZERO;
        for step in &self.steps {
            time += step.think;
            for block in blocks(step, BLOCK_LENGTH) {
                first.entry(block).or_insert(time.as_micros() as u64);
            }
        }
        first
    }

    /// Bytes that the guest needs: those of all pieces that it reads a part of.
    pub fn needed(&self, image: &Image) -> u64 {
        let geometry = image.geometry();
        let mut pieces: Vec<u32> = self
            .steps
            .iter()
            .flat_map(|step| blocks(step, geometry.nominal_piece_length()))
            .collect();
        pieces.sort_unstable();
        pieces.dedup();
        pieces
            .into_iter()
            .map(|p| u64::from(geometry.piece_length(vmtorrent::image::PieceIndex(p))))
            .sum()
    }

    /// What three runs like this one tell of the next.
    pub fn profile(&self, image: &Image, rng: &mut StdRng) -> Profile {
        let runs: Vec<_> = (0..3)
            .map(|_| self.another_run(rng).first_reads())
            .collect();
        simulation::profile(image, &runs)
    }
}

/// The blocks of a read.
pub fn blocks(step: &Step, length: u32) -> std::ops::Range<u32> {
    let length = u64::from(length);
    (step.offset / length) as u32..(step.offset + step.length).div_ceil(length) as u32
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_boot_is_the_one_that_the_documentation_tells_of() {
        let boot = Trace::boot().unwrap();
        assert!(boot.guest_time().abs_diff(BOOT_TIME) < Duration::from_millis(1));
        let image = simulation::image(IMAGE_LENGTH, 64 << 10).unwrap();
        assert_eq!(boot.needed(&image), 1195 << 16);
        assert_eq!(boot.first_reads().len(), 4283);
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, line) in [
            ("1 2", 1),
            ("# a\n1 2 x", 2),
            ("1 0 1\n1 0 0", 2),
            ("1 9 2", 1),
        ] {
            let error = Trace::parse(text, 10).unwrap_err();
            assert!(error.contains(&format!("line {line} ")), "{error}");
        }
        assert!(Trace::parse("# nothing", 10).is_err());
    }

    #[test]
    fn a_condensed_image_has_the_same_reads_next_to_each_other() {
        let boot = Trace::boot().unwrap();
        let (condensed, length) = boot.condensed();
        assert!(length < IMAGE_LENGTH / 4, "{length}");
        let mut before = None;
        for (old, new) in boot.steps.iter().zip(&condensed.steps) {
            assert_eq!((old.think, old.length), (new.think, new.length));
            assert_eq!(old.offset % REGION, new.offset % REGION);
            assert!(new.offset + new.length <= length);
            // What is read behind each other still is.
            if let Some((old_before, new_before)) = before {
                assert_eq!(old.offset == old_before, new.offset == new_before);
            }
            before = Some((old.offset + old.length, new.offset + new.length));
        }
        for piece in [16 << 10, 64 << 10] {
            let whole = simulation::image(IMAGE_LENGTH, piece).unwrap();
            let small = simulation::image(length, piece).unwrap();
            assert_eq!(boot.needed(&whole), condensed.needed(&small));
        }
    }

    #[test]
    fn other_work_reads_as_much_in_the_same_time_and_nothing_of_the_same() {
        let (boot, length) = Trace::boot().unwrap().condensed();
        let (other, end) = boot.elsewhere(length, &mut StdRng::seed_from_u64(1));
        assert_eq!(other.first_reads().len(), boot.first_reads().len());
        let difference = other.guest_time().abs_diff(boot.guest_time());
        assert!(difference < Duration::from_millis(10));
        let known = boot.first_reads();
        assert!(!other.first_reads().keys().any(|b| known.contains_key(b)));
        let steps = other.steps.iter();
        assert_eq!(steps.map(|s| s.offset + s.length).max(), Some(end));
    }
}
