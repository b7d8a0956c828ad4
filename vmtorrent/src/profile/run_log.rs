//! Invariant: first reads stand in the order in which they came, and no two stalls overlap.

use std::time::Duration;

use serde::Serialize;

/// The first read of a block of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FirstRead {
    /// Index of the file in [`Image::files`](crate::image::Image::files).
    pub file: u32,
    /// Number of the block of [`BLOCK`](super::BLOCK) bytes in that file.
    pub block: u32,
    /// Wall time since the recording began, microseconds.
    pub at: u64,
    /// Guest time: the same less the time during which at least one read waited for missing data, microseconds.
    pub guest_time: u64,
    /// Bytes of the pieces that this read was the first to need and that were not here when the recording began: what
    /// a profile that knew everything would have had to fetch for it.
    pub needed: u32,
    /// Whether it had to wait for the swarm.
    pub missed: bool,
    /// Whether the profile in use expected it.
    pub expected: bool,
}

/// A time during which at least one read waited for the swarm, microseconds since the recording began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stall {
    /// When the first of these reads began to wait.
    pub from: u64,
    /// When the last of them went on.
    pub to: u64,
}

/// What an appliance read first, and when it waited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunLog {
    /// Blocks that were read, by the time of their first read.
    pub first_reads: Vec<FirstRead>,
    /// Times of waiting, in order.
    pub stalls: Vec<Stall>,
    /// More was read, or waited for, than is kept here.
    pub truncated: bool,
}

impl RunLog {
    /// The least time that this run would have had to wait on a line that gives `rate` bytes per second, with a profile
    /// that knew every read before: the largest over t of (bytes needed by t - rate x t) / rate.
    ///
    /// Time t is guest time: with such a profile the transfer begins with the guest. `None` when the rate is not a
    /// positive number.
    pub fn floor(&self, rate: f64) -> Option<Duration> {
        if !(rate.is_finite() && rate > 0.0) {
            return None;
        }
        let mut needed = 0_u64;
        let mut floor = 0.0_f64;
        for read in &self.first_reads {
            needed += u64::from(read.needed);
            let lag = needed as f64 / rate - read.guest_time as f64 / 1e6;
            floor = floor.max(lag);
        }
        Duration::try_from_secs_f64(floor).ok()
    }

    /// Bytes that the reads needed and that were not here when the recording began.
    pub fn needed_bytes(&self) -> u64 {
        self.first_reads.iter().map(|r| u64::from(r.needed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(guest_time: u64, needed: u32) -> FirstRead {
        FirstRead {
            file: 0,
            block: 0,
            at: guest_time,
            guest_time,
            needed,
            missed: false,
            expected: false,
        }
    }

    #[test]
    fn the_floor_is_the_largest_lag_of_the_line_behind_the_guest() {
        let log = RunLog {
            first_reads: vec![read(0, 0), read(1_000_000, 3_000), read(9_000_000, 4_000)],
            ..RunLog::default()
        };
        // 3,000 bytes take 3 s and are needed after 1 s; 7,000 take 7 s and are needed after 9 s.
        assert_eq!(log.floor(1000.0), Some(Duration::from_secs(2)));
        assert_eq!(log.floor(1e9), Some(Duration::ZERO));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(log.floor(rate), None);
        }
        assert_eq!(log.needed_bytes(), 7000);
    }
}
