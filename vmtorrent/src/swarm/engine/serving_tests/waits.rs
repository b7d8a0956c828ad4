//! How long blocks took that were asked for, each of which came.

use std::time::Duration;

/// Milliseconds.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) median: f64,
    pub(super) p99: f64,
}

impl Waits {
    pub(super) fn of(waits: &[Duration], count: usize) -> Self {
        assert_eq!(waits.len(), count, "each is answered");
        let mut sorted: Vec<f64> = waits.iter().map(|w| w.as_secs_f64() * 1000.0).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        Self {
            median: sorted[count / 2],
            p99: sorted[count * 99 / 100],
        }
    }
}
