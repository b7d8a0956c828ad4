//! Invariant: everything that the page tells stands here; drawing asks nobody.

use std::time::Duration;

use crate::image::PieceClass;
use crate::profile::{RunLog, Stall};
use crate::{Appliance, Stats};

use super::micros;
use super::phases::Span;
use super::sampler::{Sample, figure_at};

/// A run that has ended.
pub(crate) struct Data {
    pub(crate) image: ImageFacts,
    pub(crate) line: Option<Line>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) phases: Vec<Span>,
    /// When the recording of `log` began, since the command did.
    pub(crate) recorded_from: Duration,
    pub(crate) log: RunLog,
    pub(crate) stats: Stats,
}

/// What is known of the image.
pub(crate) struct ImageFacts {
    pub(crate) name: String,
    pub(crate) info_hash: String,
    /// Bytes.
    pub(crate) length: u64,
    pub(crate) files: Vec<FileFacts>,
    /// Bytes of a piece.
    pub(crate) piece_length: u32,
    pub(crate) pieces: Vec<Fate>,
}

/// A file of the image.
pub(crate) struct FileFacts {
    pub(crate) path: String,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) padding: bool,
}

/// What became of a piece, apart from its being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is never fetched: zeros, or a copy of another.
    Nothing,
    /// It is not here.
    Missing,
    /// It was here before the run.
    Before,
    /// The run brought it.
    Fetched,
}

impl ImageFacts {
    /// Of an appliance at its end; `had` tells which pieces were here at its start.
    pub(crate) fn of(appliance: &Appliance, had: &[bool]) -> Self {
        let image = appliance.image();
        let fate = |piece| {
            let present = appliance.is_present(piece);
            match image.piece_class(piece) {
                PieceClass::Zero | PieceClass::DuplicateOf(_) => Fate::Nothing,
                PieceClass::Unique if !present => Fate::Missing,
                PieceClass::Unique if had.get(piece.as_usize()) == Some(&true) => Fate::Before,
                PieceClass::Unique => Fate::Fetched,
            }
        };
        let file = |file: &crate::image::ImageFile| FileFacts {
            path: file.path.join("/"),
            offset: file.offset,
            length: file.length,
            padding: file.padding,
        };
        Self {
            name: image.name().to_owned(),
            info_hash: image.info_hash().to_string(),
            length: image.geometry().total_length(),
            files: image.files().iter().map(file).collect(),
            piece_length: image.geometry().nominal_piece_length(),
            pieces: image.geometry().pieces().map(fate).collect(),
        }
    }

    /// Where a block lies in the image, bytes.
    pub(crate) fn place(&self, file: u32, block: u32) -> Option<std::ops::Range<u64>> {
        use crate::profile::BLOCK;
        let file = self.files.get(file as usize)?;
        let start = u64::from(block) * BLOCK;
        let end = (start + BLOCK).min(file.length);
        (start < end).then(|| file.offset + start..file.offset + end)
    }
}

/// What the line gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    /// Bytes per second, as they are in the image: more than go over the wire where blocks come compressed.
    pub(crate) rate: f64,
    pub(crate) known: Known,
}

/// How a rate is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was given.
    Named,
    /// The most payload that came within any second.
    BestSecond,
    /// The run was shorter than a second: the mean of all of it.
    Mean,
}

/// The window in which the most is looked for.
const WINDOW: Duration = Duration::from_secs(1);

impl Line {
    /// A rate that was named is one on the wire: it gives as many bytes more as compression saved of this run.
    pub(crate) fn of_plain_bytes(mut self, stats: &Stats) -> Self {
        if self.known == Known::Named && stats.fetched_wire_bytes > 0 {
            self.rate *= stats.fetched_bytes as f64 / stats.fetched_wire_bytes as f64;
        }
        self
    }

    /// The rate that was named, else the one that was seen; `None` when nothing was fetched.
    pub(crate) fn choose(named: Option<u64>, samples: &[Sample]) -> Option<Self> {
        if let Some(rate) = named {
            return Some(Self {
                rate: rate as f64,
                known: Known::Named,
            });
        }
        let last = samples.last()?;
        let line = if last.at < WINDOW {
            Self {
                rate: last.total() as f64 / last.at.as_secs_f64().max(0.001),
                known: Known::Mean,
            }
        } else {
            // The best window begins or ends at a sample.
            let ends = samples.iter().flat_map(|s| [s.at, s.at + WINDOW]);
            let ends = ends.filter(|end| *end >= WINDOW && *end <= last.at);
            let bytes = |at| figure_at(samples, at, Sample::total);
            let best = ends
                .map(|end| bytes(end) - bytes(end - WINDOW))
                .fold(0.0, f64::max);
            Self {
                rate: best,
                known: Known::BestSecond,
            }
        };
        (line.rate > 0.0).then_some(line)
    }
}

impl Data {
    /// How long it lasted.
    pub(crate) fn wall(&self) -> Duration {
        self.samples.last().map_or(Duration::ZERO, |s| s.at)
    }

    /// Time during which reads waited.
    pub(crate) fn stalled(&self) -> Duration {
        Duration::try_from_secs_f64(self.stats.stall_seconds).unwrap_or_default()
    }

    /// The floor on the line.
    pub(crate) fn floor(&self) -> Option<Duration> {
        self.log.floor(self.line?.rate)
    }

    /// First reads that needed something that was not here at the start, and how many of them did not wait.
    pub(crate) fn hits(&self) -> (u64, u64) {
        let needing = || self.log.first_reads.iter().filter(|r| r.needed > 0);
        let hits = needing().filter(|r| !r.missed).count() as u64;
        (hits, needing().count() as u64)
    }

    /// A time of the log (microseconds since the recording began) as microseconds since the command began.
    pub(crate) fn wall_micros(&self, at: u64) -> f64 {
        micros(self.recorded_from) + at as f64
    }
}

/// Tells how much of the time until a moment of the log the guest could not use.
pub(crate) struct Waits<'a> {
    stalls: &'a [Stall],
    /// Time waited before each stall, microseconds.
    before: Vec<u64>,
}

impl<'a> Waits<'a> {
    pub(crate) fn new(stalls: &'a [Stall]) -> Self {
        let lengths = stalls.iter().map(|s| s.to.saturating_sub(s.from));
        let before = lengths.scan(0_u64, |sum, length| {
            let before = *sum;
            *sum = sum.saturating_add(length);
            Some(before)
        });
        Self {
            before: before.collect(),
            stalls,
        }
    }

    /// Microseconds waited until `at`, both since the recording began.
    pub(crate) fn until(&self, at: u64) -> u64 {
        let begun = self.stalls.partition_point(|s| s.from < at);
        let Some(last) = begun.checked_sub(1) else {
            return 0;
        };
        let stall = self.stalls[last];
        self.before[last] + at.min(stall.to).saturating_sub(stall.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(points: &[(u64, u64)]) -> Vec<Sample> {
        let sample = |&(ms, bytes)| Sample {
            at: Duration::from_millis(ms),
            fetched: [0, bytes, 0, 0],
            stalled: Duration::ZERO,
            peers: 1,
        };
        points.iter().map(sample).collect()
    }

    #[test]
    fn the_rate_is_the_named_one_or_that_of_the_best_second() {
        let run = samples(&[(0, 0), (500, 0), (1000, 4000), (1500, 8000), (2500, 9000)]);
        let line = Line::choose(None, &run).unwrap();
        assert_eq!((line.rate, line.known), (8000.0, Known::BestSecond));
        let line = Line::choose(Some(77), &run).unwrap();
        assert_eq!((line.rate, line.known), (77.0, Known::Named));
        let mut stats = Stats::default();
        assert_eq!(line.of_plain_bytes(&stats), line);
        (stats.fetched_bytes, stats.fetched_wire_bytes) = (3000, 1000);
        assert_eq!(line.of_plain_bytes(&stats).rate, 231.0);
        let line = Line::choose(None, &samples(&[(0, 0), (500, 600)])).unwrap();
        assert_eq!((line.rate, line.known), (1200.0, Known::Mean));
        for nothing in [&[][..], &[(0, 0)], &[(0, 0), (9000, 0)]] {
            assert_eq!(Line::choose(None, &samples(nothing)), None);
        }
    }

    #[test]
    fn the_guest_stands_still_in_a_stall() {
        let stalls = [Stall { from: 10, to: 30 }, Stall { from: 50, to: 55 }];
        let waits = Waits::new(&stalls);
        let found: Vec<u64> = [0, 10, 15, 30, 50, 53, 55, 99]
            .map(|at| waits.until(at))
            .into();
        assert_eq!(found, [0, 0, 5, 20, 20, 23, 25, 25]);
        assert_eq!(Waits::new(&[]).until(7), 0);
    }
}
