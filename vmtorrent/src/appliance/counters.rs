//! Invariant: counters only grow; the stall clock runs exactly while at least one read waits.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::clock::Time;

/// The unit in which distinct reads are counted, bytes.
const UNIT: u64 = 64 << 10;

/// What an appliance counts of its guest's reads and writes.
#[derive(Debug)]
pub(crate) struct Counters {
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    /// One bit for each 64 KiB of the image that was read through to the pristine copy.
    touched: Vec<AtomicU64>,
    image_bytes: u64,
    stalls: Mutex<Stalls>,
}

#[derive(Debug)]
struct Stalls {
    count: u64,
    waiting: u32,
    since: Time,
    total: Duration,
    /// Waits in microseconds.
    waits: Option<Histogram<u64>>,
}

/// The waits of reads so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StallSummary {
    pub(crate) count: u64,
    pub(crate) total: Duration,
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
}

impl Counters {
    pub(crate) fn new(image_bytes: u64) -> Self {
        let words = image_bytes.div_ceil(UNIT * 64) as usize;
        let stalls = Stalls {
            count: 0,
            waiting: 0,
            since: Time::default(),
            total: Duration::ZERO,
            // Two digits from a microsecond to an hour.
            waits: Histogram::new_with_bounds(1, 3_600_000_000, 2).ok(),
        };
        Self {
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            touched: (0..words).map(|_| AtomicU64::new(0)).collect(),
            image_bytes,
            stalls: Mutex::new(stalls),
        }
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn written(&self, bytes: usize) {
        self.written_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// The guest read `range` of the image through to the pristine copy.
    pub(crate) fn touch(&self, range: Range<u64>) {
        for unit in range.start / UNIT..range.end.min(self.image_bytes).div_ceil(UNIT) {
            let Some(word) = self.touched.get((unit / 64) as usize) else {
                return;
            };
            let bit = 1 << (unit % 64);
            // Mostly set already: a plain load spares the write.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Bytes of the distinct 64 KiB blocks that were touched.
    pub(crate) fn touched_bytes(&self) -> u64 {
        let units: u64 = self
            .touched
            .iter()
            .map(|w| u64::from(w.load(Ordering::Relaxed).count_ones()))
            .sum();
        (units * UNIT).min(self.image_bytes)
    }

    /// A read begins to wait.
    pub(crate) fn stall_begins(&self, now: Time) {
        let mut stalls = self.stalls.lock();
        stalls.count += 1;
        stalls.waiting += 1;
        if stalls.waiting == 1 {
            stalls.since = now;
        }
    }

    /// A read that began to wait at `began` goes on, or gave up.
    pub(crate) fn stall_ends(&self, now: Time, began: Time) {
        let mut stalls = self.stalls.lock();
        stalls.waiting = stalls.waiting.saturating_sub(1);
        if stalls.waiting == 0 {
            let wait = now.since(stalls.since);
            stalls.total += wait;
        }
        let wait = now.since(began).as_micros().min(u128::from(u64::MAX)) as u64;
        if let Some(waits) = &mut stalls.waits {
            waits.saturating_record(wait.max(1));
        }
    }

    pub(crate) fn stalls(&self, now: Time) -> StallSummary {
        let stalls = self.stalls.lock();
        let running = if stalls.waiting > 0 {
            now.since(stalls.since)
        } else {
            Duration::ZERO
        };
        let quantile = |q| match &stalls.waits {
            Some(waits) if !waits.is_empty() => Duration::from_micros(waits.value_at_quantile(q)),
            _ => Duration::ZERO,
        };
        StallSummary {
            count: stalls.count,
            total: stalls.total + running,
            median: quantile(0.5),
            p99: quantile(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn overlapping_waits_count_their_common_time_once() {
        let c = Counters::new(1 << 20);
        c.stall_begins(at(0));
        c.stall_begins(at(10));
        c.stall_ends(at(30), at(0));
        c.stall_ends(at(40), at(10));
        c.stall_begins(at(100));
        let s = c.stalls(at(105));
        assert_eq!((s.count, s.total), (3, Duration::from_millis(45)));
        assert!(s.median.as_millis().abs_diff(30) <= 1);
    }

    #[test]
    fn distinct_blocks_are_counted_once_and_end_with_the_image() {
        let c = Counters::new(UNIT * 2 + 100);
        c.touch(0..1);
        c.touch(10..UNIT + 1);
        assert_eq!(c.touched_bytes(), 2 * UNIT);
        c.touch(0..u64::MAX);
        assert_eq!(c.touched_bytes(), UNIT * 2 + 100);
    }
}
