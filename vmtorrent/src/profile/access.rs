//! Invariant: `min <= mean <= max`, the variance is one that times between these can have, and of a single run all three
//! are equal and the variance is 0. So whatever was read from a file and merged can be written and read again.

/// When a block was first read, over the runs that read it. Times are microseconds of guest time: wall time less the time
/// spent waiting for missing data, so that a slow line notes the same as a fast one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Access {
    runs: u32,
    mean: f64,
    /// Sum of the squared distances from the mean.
    spread: f64,
    min: u64,
    max: u64,
    /// CRC-32C of the block's bytes, where it is known: what tells whether another image has the same there.
    content: Option<u32>,
}

/// The latest time that is believed, some 285 years; it is exact as a floating point number.
const MAX_TIME: u64 = 1 << 53;

impl Access {
    /// Read in one run, at this time.
    pub fn once(time: u64, content: Option<u32>) -> Self {
        Self {
            runs: 1,
            mean: time as f64,
            spread: 0.0,
            min: time,
            max: time,
            content,
        }
    }

    /// What a file says, if that can be.
    pub(super) fn from_parts(
        runs: u32,
        mean: f64,
        variance: f64,
        min: u64,
        max: u64,
        content: Option<u32>,
    ) -> Option<Self> {
        let sound = runs > 0
            && (runs > 1 || min == max)
            && mean.is_finite()
            && variance.is_finite()
            && variance >= 0.0
            && min <= max
            && max <= MAX_TIME
            // A rounded mean may stick out by a microsecond.
            && min as f64 <= mean + 1.0
            && mean <= max as f64 + 1.0
            && variance <= Self::most_variance(mean, min, max, 1.0) * 1.000_001;
        sound.then(|| Self {
            runs,
            mean: mean.clamp(min as f64, (max.max(min)) as f64),
            spread: if runs == 1 {
                0.0
            } else {
                variance * f64::from(runs)
            },
            min,
            max,
            content,
        })
    }

    /// The greatest variance of times between `min` and `max` with this mean, if each of the three may be off by `slack`
    /// (R. Bhatia, C. Davis: *A Better Bound on the Variance*, The American Mathematical Monthly 107(4), 2000).
    fn most_variance(mean: f64, min: u64, max: u64, slack: f64) -> f64 {
        (max as f64 - mean + slack) * (mean - min as f64 + slack)
    }

    /// Runs that read the block.
    pub fn runs(&self) -> u32 {
        self.runs
    }

    /// Mean time, microseconds.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Variance of the time over the runs that read the block, square microseconds.
    pub fn variance(&self) -> f64 {
        self.spread / f64::from(self.runs)
    }

    /// Earliest time, microseconds.
    pub fn min(&self) -> u64 {
        self.min
    }

    /// Latest time, microseconds.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// CRC-32C of the block's bytes; `None` when they were gone again before it was taken.
    pub fn content(&self) -> Option<u32> {
        self.content
    }

    /// Adds other runs, which saw the same bytes (T. F. Chan, G. H. Golub, R. J. LeVeque: *Updating Formulae and a
    /// Pairwise Algorithm for Computing Sample Variances*, 1979).
    pub fn add(&mut self, other: &Access) {
        let (a, b) = (f64::from(self.runs), f64::from(other.runs));
        let distance = other.mean - self.mean;
        self.mean += distance * b / (a + b);
        self.spread += other.spread + distance * distance * a * b / (a + b);
        self.runs = self.runs.saturating_add(other.runs);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.content = self.content.or(other.content);
        // Rounding, and counts that reach their end, must not push it out.
        self.mean = self.mean.clamp(self.min as f64, self.max as f64);
        let most = Self::most_variance(self.mean, self.min, self.max, 0.5);
        self.spread = self.spread.min(most * f64::from(self.runs));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// In whatever order runs are merged, the figures are those of all of them at once.
        #[test]
        fn merged_figures_are_those_of_all_runs(
            times in proptest::collection::vec(0u64..600_000_000, 1..40),
            cut in 0usize..40,
        ) {
            let merged = |times: &[u64]| {
                let mut times = times.iter().map(|t| Access::once(*t, Some(7)));
                let first = times.next()?;
                Some(times.fold(first, |mut sum, one| {
                    sum.add(&one);
                    sum
                }))
            };
            let (left, right) = times.split_at(cut.min(times.len()));
            let all = match (merged(left), merged(right)) {
                (Some(mut a), Some(b)) => {
                    a.add(&b);
                    a
                }
                (a, b) => a.or(b).unwrap(),
            };
            let n = times.len() as f64;
            let mean = times.iter().map(|t| *t as f64).sum::<f64>() / n;
            let variance = times.iter().map(|t| (*t as f64 - mean).powi(2)).sum::<f64>() / n;
            prop_assert_eq!(all.runs() as usize, times.len());
            prop_assert_eq!(Some(all.min()), times.iter().min().copied());
            prop_assert_eq!(Some(all.max()), times.iter().max().copied());
            prop_assert!((all.mean() - mean).abs() < 1.0);
            prop_assert!((all.variance() - variance).abs() <= 1e-6 * variance + 1.0);
        }

        /// Whatever a file claimed, what comes of merging it can be told in a file again.
        #[test]
        fn what_was_merged_is_sound(
            rows in proptest::collection::vec(
                (1u32.., 0.0f64..=1.0, 0.0f64..=1.1, 0u64..1_000_000_000_000, 0u64..1_000_000_000_000),
                2..6,
            ),
        ) {
            // Times anywhere between the ends, and variances up to the greatest that these allow, and beyond it.
            let parts = rows.into_iter().filter_map(|(runs, place, share, a, b)| {
                let (min, max) = (a.min(b), a.max(b));
                let mean = min as f64 + (max - min) as f64 * place;
                let half = (max - min) as f64 / 2.0;
                Access::from_parts(runs, mean, half * half * share, min, max, None)
            });
            let merged = parts.reduce(|mut sum, one| {
                sum.add(&one);
                sum
            });
            if let Some(all) = merged {
                let round = |x: f64| (x * 10.0).round() / 10.0;
                let (mean, variance) = (round(all.mean()), round(all.variance()));
                let again = Access::from_parts(all.runs(), mean, variance, all.min(), all.max(), None);
                prop_assert!(again.is_some(), "{:?}", all);
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(Access::from_parts(2, 5.0, 1.0, 4, 6, None).is_some());
        for (runs, mean, variance, min, max) in [
            (0, 5.0, 1.0, 4, 6),
            (2, f64::NAN, 1.0, 4, 6),
            (2, 5.0, f64::INFINITY, 4, 6),
            (2, 5.0, -1.0, 4, 6),
            (2, 5.0, 9.0, 4, 6),
            (2, 5.0, 1.0, 9, 12),
            (2, 50.0, 1.0, 9, 12),
            (2, 10.0, 1.0, 12, 9),
            (2, 10.0, 1.0, 10, 9),
            // One run can't have been at two times, and a mean at one end leaves no room for a variance.
            (1, 5.0, 0.0, 4, 6),
            (9, 0.0, 1e6, 0, 2000),
            (2, 5.0, f64::MAX, 4, 6),
            (
                1,
                1e19,
                0.0,
                10_000_000_000_000_000_000,
                10_000_000_000_000_000_000,
            ),
        ] {
            assert_eq!(
                Access::from_parts(runs, mean, variance, min, max, None),
                None
            );
        }
    }
}
