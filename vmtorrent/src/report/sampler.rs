//! Invariant: samples are in the order of their time, and however long a run lasts there are at most [`MOST`].

use std::time::Duration;

use crate::Stats;

/// The figures at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Since the command began.
    pub(crate) at: Duration,
    /// Bytes fetched by band: demand, read-ahead, profile, background.
    pub(crate) fetched: [u64; 4],
    /// Time during which reads waited, so far.
    pub(crate) stalled: Duration,
    /// Connected peers.
    pub(crate) peers: u32,
}

impl Sample {
    /// Bytes fetched by all bands.
    pub(crate) fn total(&self) -> u64 {
        self.fetched.iter().sum()
    }
}

/// Samples that are kept; when they are more, every other one goes.
pub(crate) const MOST: usize = 20_000;

/// Until when it is looked closely.
const OPENING: Duration = Duration::from_secs(3);
const CLOSE: Duration = Duration::from_millis(20);
const NORMAL: Duration = Duration::from_millis(100);

/// Collects samples.
#[derive(Debug)]
pub(crate) struct Sampler {
    samples: Vec<Sample>,
    pause: Duration,
}

impl Sampler {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            samples: Vec::new(),
            pause: NORMAL,
        }
    }

    /// Notes the figures at a time; gives the time until the next sample is due.
    pub(crate) fn note(&mut self, at: Duration, stats: &Stats) -> Duration {
        if self.samples.len() >= MOST {
            let mut n = 0;
            self.samples.retain(|_| {
                n += 1;
                n % 2 == 1
            });
            self.pause *= 2;
        }
        self.samples.push(Sample {
            at,
            fetched: [
                stats.demand_bytes,
                stats.readahead_bytes,
                stats.profile_bytes,
                stats.background_bytes,
            ],
            stalled: Duration::try_from_secs_f64(stats.stall_seconds).unwrap_or_default(),
            peers: stats.peers,
        });
        if at < OPENING { CLOSE } else { self.pause }
    }

    /// What was collected.
    pub(crate) fn samples(&self) -> &[Sample] {
        &self.samples
    }
}

/// A figure at any time: between two samples as if it grew evenly, before the first one as it was then.
pub(crate) fn figure_at(samples: &[Sample], at: Duration, figure: impl Fn(&Sample) -> u64) -> f64 {
    let after = samples.partition_point(|s| s.at <= at);
    let before = after.checked_sub(1).and_then(|n| samples.get(n));
    match (before, samples.get(after)) {
        (Some(before), Some(after)) => {
            let (from, to) = (figure(before) as f64, figure(after) as f64);
            let part = (at - before.at).as_secs_f64() / (after.at - before.at).as_secs_f64();
            from + (to - from) * part
        }
        (Some(one), None) | (None, Some(one)) => figure(one) as f64,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_looked_at_closely_and_a_long_run_coarsely() {
        let mut sampler = Sampler::new();
        let stats = Stats::default();
        let mut at = Duration::ZERO;
        assert_eq!(sampler.note(at, &stats), CLOSE);
        let day = Duration::from_secs(86_400);
        while at < day {
            at += sampler.note(at, &stats);
        }
        let samples = sampler.samples();
        assert!(
            (MOST / 2..=MOST).contains(&samples.len()),
            "{}",
            samples.len()
        );
        assert!(samples.windows(2).all(|s| s[0].at < s[1].at));
        assert!(sampler.pause > NORMAL);
        assert_eq!(samples[0].at, Duration::ZERO);
    }

    #[test]
    fn between_samples_a_figure_grows_evenly() {
        let sample = |ms, bytes| Sample {
            at: Duration::from_millis(ms),
            fetched: [bytes, 0, 0, 0],
            stalled: Duration::ZERO,
            peers: 0,
        };
        let samples = [sample(100, 10), sample(200, 30), sample(200, 50)];
        let at = |ms| figure_at(&samples, Duration::from_millis(ms), Sample::total);
        assert_eq!(
            [at(0), at(100), at(150), at(200), at(900)],
            [10.0, 10.0, 20.0, 50.0, 50.0]
        );
        assert_eq!(figure_at(&[], Duration::ZERO, Sample::total), 0.0);
    }
}
