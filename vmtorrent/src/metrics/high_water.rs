//! Invariant: what is shown never falls, whatever order scrapes come in.

use parking_lot::Mutex;

/// Makes counters of what may be taken back later.
///
/// Bytes of a piece whose hash turns out wrong move from the fetched to the wasted ones. A monitoring
/// system takes a counter that falls for a restart and would count all of it again, so the highest value stands until
/// it is passed.
#[derive(Debug, Default)]
pub(crate) struct HighWater(Mutex<[u64; 4]>);

impl HighWater {
    /// The highest values so far, these included.
    pub(crate) fn raise(&self, values: [u64; 4]) -> [u64; 4] {
        let mut shown = self.0.lock();
        for (shown, value) in shown.iter_mut().zip(values) {
            *shown = value.max(*shown);
        }
        *shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_falls_is_shown_again_only_when_it_is_passed() {
        let water = HighWater::default();
        assert_eq!(water.raise([10, 0, 0, 1]), [10, 0, 0, 1]);
        assert_eq!(water.raise([4, 2, 0, 1]), [10, 2, 0, 1]);
        assert_eq!(water.raise([11, 2, 0, 1]), [11, 2, 0, 1]);
    }
}
