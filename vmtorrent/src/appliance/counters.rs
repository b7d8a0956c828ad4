//! Invariant: counters only grow; the stall clock runs exactly while at least one read waits.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::clock::Time;
use crate::metrics::Counter;

/// The unit in which distinct reads are counted, bytes.
const UNIT: u64 = 64 << 10;
/// Most units: images of more than 4 TiB are counted in larger ones.
const MAX_UNITS: u64 = 1 << 26;

/// What an appliance counts of its guest's reads and writes.
#[derive(Debug)]
pub(crate) struct Counters {
    reads: Counter,
    read_bytes: Counter,
    writes: Counter,
    written_bytes: Counter,
    discards: Counter,
    discarded_bytes: Counter,
    flushes: Counter,
    read_timeouts: Counter,
    errors: [Counter; OPERATIONS.len()],
    /// One bit for each unit of the image that was read through to the pristine copy.
    touched: Vec<AtomicU64>,
    /// Bytes.
    unit: u64,
    image_bytes: u64,
    stalls: Mutex<Stalls>,
}

/// What a guest's request can be, as errors name it.
pub(crate) const OPERATIONS: [&str; 5] = ["read", "write", "zero", "flush", "set length"];

/// The place of an operation among [`OPERATIONS`].
pub(crate) fn operation_index(operation: &str) -> usize {
    let index = OPERATIONS.iter().position(|known| *known == operation);
    debug_assert!(index.is_some(), "{operation}");
    index.unwrap_or_default()
}

/// Upper bounds of the waits that are counted together, milliseconds: from a peer in the next rack to the
/// usual read timeout.
const WAIT_BOUNDS: [u64; 15] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000,
];

#[derive(Debug)]
struct Stalls {
    count: u64,
    waiting: u32,
    since: Time,
    total: Duration,
    /// The sum of all waits that ended.
    waited: Duration,
    /// Waits in microseconds.
    waits: Option<Histogram<u64>>,
    /// The times during which reads waited, at most so many.
    spans: Vec<(Time, Time)>,
}

/// Times of waiting that are kept: 1 MiB of them.
const MAX_SPANS: usize = 1 << 16;
impl Stalls {
    /// The time during which at least one read waited, a wait that still lasts included.
    fn total_until(&self, now: Time) -> Duration {
        match self.waiting {
            0 => self.total,
            _ => self.total + now.since(self.since),
        }
    }
}

/// The waits of reads so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StallSummary {
    pub(crate) count: u64,
    pub(crate) total: Duration,
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
}

/// What a guest asked for so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GuestFigures {
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) writes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) discards: u64,
    pub(crate) discarded_bytes: u64,
    pub(crate) flushes: u64,
    pub(crate) read_timeouts: u64,
    /// Requests that failed, in the order of [`OPERATIONS`].
    pub(crate) errors: [u64; OPERATIONS.len()],
}

/// How long reads waited, as a monitoring system takes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WaitFigures {
    /// Reads that wait now.
    pub(crate) waiting: u32,
    /// Upper bounds in seconds, each with the number of waits that were not longer.
    pub(crate) buckets: Vec<(f64, u64)>,
    /// Waits that ended.
    pub(crate) count: u64,
    /// All of these together.
    pub(crate) sum: Duration,
}

impl Counters {
    pub(crate) fn new(image_bytes: u64) -> Self {
        // What an image's description claims must not cost memory without a bound.
        let unit = image_bytes
            .div_ceil(MAX_UNITS)
            .max(UNIT)
            .checked_next_power_of_two()
            .unwrap_or(1 << 63);
        let words = image_bytes.div_ceil(unit).div_ceil(64) as usize;
        let stalls = Stalls {
            count: 0,
            waiting: 0,
            since: Time::default(),
            total: Duration::ZERO,
            waited: Duration::ZERO,
            // Two digits from a microsecond to an hour.
            waits: Histogram::new_with_bounds(1, 3_600_000_000, 2).ok(),
            spans: Vec::new(),
        };
        Self {
            reads: Counter::default(),
            read_bytes: Counter::default(),
            writes: Counter::default(),
            written_bytes: Counter::default(),
            discards: Counter::default(),
            discarded_bytes: Counter::default(),
            flushes: Counter::default(),
            read_timeouts: Counter::default(),
            errors: Default::default(),
            touched: (0..words).map(|_| AtomicU64::new(0)).collect(),
            unit,
            image_bytes,
            stalls: Mutex::new(stalls),
        }
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.reads.increment();
        self.read_bytes.add(bytes as u64);
    }

    pub(crate) fn written(&self, bytes: usize) {
        self.writes.increment();
        self.written_bytes.add(bytes as u64);
    }

    /// The guest made a range zeros, or gave it up.
    pub(crate) fn discarded(&self, bytes: u64) {
        self.discards.increment();
        self.discarded_bytes.add(bytes);
    }

    pub(crate) fn flushed(&self) {
        self.flushes.increment();
    }

    pub(crate) fn read_timed_out(&self) {
        self.read_timeouts.increment();
    }

    /// A request of this kind, one of [`OPERATIONS`], ended with an error.
    pub(crate) fn failed(&self, operation: &str) {
        self.errors[operation_index(operation)].increment();
    }

    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.get()
    }

    /// All counts of requests.
    pub(crate) fn guest(&self) -> GuestFigures {
        GuestFigures {
            reads: self.reads.get(),
            read_bytes: self.read_bytes.get(),
            writes: self.writes.get(),
            written_bytes: self.written_bytes.get(),
            discards: self.discards.get(),
            discarded_bytes: self.discarded_bytes.get(),
            flushes: self.flushes.get(),
            read_timeouts: self.read_timeouts.get(),
            errors: std::array::from_fn(|index| self.errors[index].get()),
        }
    }

    /// The guest read `range` of the image through to the pristine copy.
    pub(crate) fn touch(&self, range: Range<u64>) {
        for unit in range.start / self.unit..range.end.min(self.image_bytes).div_ceil(self.unit) {
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

    /// Bytes of the distinct 64 KiB blocks that were touched; the blocks are larger in images of more than 4 TiB.
    pub(crate) fn touched_bytes(&self) -> u64 {
        let units: u64 = self
            .touched
            .iter()
            .map(|w| u64::from(w.load(Ordering::Relaxed).count_ones()))
            .sum();
        units.saturating_mul(self.unit).min(self.image_bytes)
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
            if stalls.spans.len() < MAX_SPANS {
                let since = stalls.since;
                stalls.spans.push((since, now));
            }
        }
        let wait = now.since(began);
        stalls.waited += wait;
        let wait = wait.as_micros().min(u128::from(u64::MAX)) as u64;
        if let Some(waits) = &mut stalls.waits {
            waits.saturating_record(wait.max(1));
        }
    }

    /// Guest time from `began` to `now`, microseconds: wall time less the time during which at least one read waited for
    /// the swarm. No read may have waited before `began`.
    pub(crate) fn guest_micros(&self, began: Time, now: Time) -> u64 {
        let stalled = self.stalls.lock().total_until(now);
        let guest = now.since(began).saturating_sub(stalled);
        u64::try_from(guest.as_micros()).unwrap_or(u64::MAX)
    }

    /// The distribution of the waits that ended. Bounds are exact to one per cent.
    pub(crate) fn waits(&self) -> WaitFigures {
        let stalls = self.stalls.lock();
        let Some(waits) = &stalls.waits else {
            return WaitFigures::default();
        };
        let mut buckets = Vec::with_capacity(WAIT_BOUNDS.len());
        let (mut below, mut at_most) = (0, 0);
        for bound in WAIT_BOUNDS {
            let bound_micros = bound * 1000;
            at_most += waits.count_between(below, bound_micros);
            // Values that the histogram can't tell from the bound were counted with it.
            below = waits.highest_equivalent(bound_micros) + 1;
            buckets.push((bound as f64 / 1000.0, at_most));
        }
        WaitFigures {
            waiting: stalls.waiting,
            buckets,
            count: waits.len(),
            sum: stalls.waited,
        }
    }

    /// The times during which at least one read waited, in order; the last may still run. False: there were more.
    pub(crate) fn stall_spans(&self, now: Time) -> (Vec<(Time, Time)>, bool) {
        let stalls = self.stalls.lock();
        let mut spans = stalls.spans.clone();
        if stalls.waiting > 0 {
            spans.push((stalls.since, now));
        }
        (spans, stalls.spans.len() < MAX_SPANS)
    }

    pub(crate) fn stalls(&self, now: Time) -> StallSummary {
        let stalls = self.stalls.lock();
        let quantile = |q| match &stalls.waits {
            Some(waits) if !waits.is_empty() => Duration::from_micros(waits.value_at_quantile(q)),
            _ => Duration::ZERO,
        };
        StallSummary {
            count: stalls.count,
            total: stalls.total_until(now),
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
    fn guest_time_stands_still_while_a_read_waits() {
        let c = Counters::new(1 << 20);
        assert_eq!(c.guest_micros(at(100), at(103)), 3_000);
        c.stall_begins(at(110));
        assert_eq!(c.guest_micros(at(100), at(125)), 10_000);
        c.stall_begins(at(120));
        c.stall_ends(at(130), at(110));
        assert_eq!(c.guest_micros(at(100), at(135)), 10_000);
        c.stall_ends(at(140), at(120));
        assert_eq!(c.guest_micros(at(100), at(147)), 17_000);
        let (spans, all) = c.stall_spans(at(150));
        assert_eq!((spans, all), (vec![(at(110), at(140))], true));
    }

    #[test]
    fn waits_fall_into_cumulative_buckets_each_once() {
        let c = Counters::new(1);
        let waits = [0, 1, 7, 10, 400, 59_000, 7_200_000];
        for wait in waits {
            c.stall_begins(at(0));
            c.stall_ends(at(wait), at(0));
        }
        c.stall_begins(at(0));
        let figures = c.waits();
        assert_eq!(figures.waiting, 1);
        assert_eq!(figures.count, waits.len() as u64);
        assert_eq!(figures.sum, Duration::from_millis(waits.iter().sum()));
        for (bound, count) in &figures.buckets {
            let expected = waits
                .iter()
                .filter(|w| **w as f64 <= bound * 1000.0)
                .count();
            assert_eq!(*count, expected as u64, "at most {bound} s");
        }
        assert_eq!(figures.buckets.last().map(|b| b.0), Some(60.0));
    }

    #[test]
    fn requests_are_counted_by_kind() {
        let c = Counters::new(1);
        c.read(4096);
        c.read(1);
        c.written(10);
        c.discarded(70);
        c.flushed();
        c.read_timed_out();
        for operation in OPERATIONS {
            c.failed(operation);
        }
        c.failed("flush");
        let expected = GuestFigures {
            reads: 2,
            read_bytes: 4097,
            writes: 1,
            written_bytes: 10,
            discards: 1,
            discarded_bytes: 70,
            flushes: 1,
            read_timeouts: 1,
            errors: [1, 1, 1, 2, 1],
        };
        assert_eq!(c.guest(), expected);
    }

    #[test]
    fn an_image_of_any_length_costs_little_memory() {
        for image_bytes in [0, 1, 4 << 40, (4 << 40) + 1, 400 << 40, u64::MAX] {
            let c = Counters::new(image_bytes);
            assert!(c.touched.len() as u64 <= MAX_UNITS / 64);
            c.touch(image_bytes.saturating_sub(10)..image_bytes);
            assert!(c.touched_bytes() <= image_bytes);
            assert_eq!(c.touched_bytes() > 0, image_bytes > 0);
        }
        assert_eq!(Counters::new(4 << 40).unit, UNIT);
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
