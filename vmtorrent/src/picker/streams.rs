//! Invariant: a stream's window never exceeds half of what was read of it without a gap, so a wrong
//! guess costs at most half again of what the guest read.

use std::ops::Range;

/// Detects sequential streams in the reads of one file and says how far to run ahead of them.
///
/// Several streams are followed at once, since a guest reads several files at once. A stream begins
/// with a second read that goes on where one ended; its window doubles with every unit that the
/// guest enters, up to [`MAX_WINDOW`](Streams::MAX_WINDOW); a read elsewhere begins another stream and leaves
/// this one to be forgotten.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: Vec<Stream>,
    reads: u64,
}

#[derive(Debug)]
struct Stream {
    /// The stream's first byte.
    start: u64,
    /// Where the next read is expected.
    next: u64,
    /// Bytes to run ahead.
    window: u64,
    /// End of what was asked for ahead.
    ahead: u64,
    last_read: u64,
}

impl Streams {
    /// The most that is fetched ahead of one stream, bytes.
    pub(super) const MAX_WINDOW: u64 = 2 << 20;
    /// Streams that are followed at once.
    pub(super) const MAX_STREAMS: usize = 16;
    /// Bytes that a read may skip and still go on with its stream, or a unit if that is more.
    const SLACK: u64 = 64 << 10;

    /// The guest reads `range`; gives the bytes to fetch ahead (empty: none). Windows are multiples of
    /// `unit`.
    pub(super) fn on_read(&mut self, range: Range<u64>, unit: u64) -> Range<u64> {
        self.reads += 1;
        let unit = unit.max(1);
        let slack = Self::SLACK.max(unit);
        let goes_on = |s: &Stream| {
            range.start <= s.next + slack && range.start + slack >= s.next && range.end >= s.next
        };
        let Some(stream) = self
            .streams
            .iter_mut()
            .filter(|s| goes_on(s))
            .max_by_key(|s| s.last_read)
        else {
            self.begin(&range);
            return 0..0;
        };
        stream.last_read = self.reads;
        if range.end <= stream.next {
            // Read before: it says nothing of where the guest goes.
            return 0..0;
        }
        let entered = range.end.div_ceil(unit) > stream.next.div_ceil(unit);
        stream.next = stream.next.max(range.end);
        if entered || stream.window == 0 {
            let read = stream.next - stream.start;
            let grown = (stream.window * 2).max(unit).min(Self::MAX_WINDOW);
            stream.window = grown.min((read / 2).next_multiple_of(unit));
        }
        let from = stream.ahead.max(stream.next);
        let to = (stream.next + stream.window).next_multiple_of(unit);
        stream.ahead = stream.ahead.max(to);
        from..to.max(from)
    }

    fn begin(&mut self, range: &Range<u64>) {
        if self.streams.len() == Self::MAX_STREAMS
            && let Some(oldest) = (0..self.streams.len()).min_by_key(|&i| self.streams[i].last_read)
        {
            self.streams.swap_remove(oldest);
        }
        self.streams.push(Stream {
            start: range.start,
            next: range.end,
            window: 0,
            ahead: range.end,
            last_read: self.reads,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u64 = 64 << 10;

    #[test]
    fn a_lone_read_fetches_nothing_ahead() {
        let mut r = Streams::default();
        assert!(r.on_read(0..4096, UNIT).is_empty());
        assert!(r.on_read(10 << 20..(10 << 20) + 4096, UNIT).is_empty());
    }

    #[test]
    fn a_stream_doubles_its_window_up_to_the_limit() {
        let mut r = Streams::default();
        let mut at = 0;
        let mut widest = 0;
        for _ in 0..400 {
            let ahead = r.on_read(at..at + UNIT, UNIT);
            at += UNIT;
            if !ahead.is_empty() {
                assert!(ahead.start >= at);
                widest = widest.max(ahead.end - at);
                assert!(ahead.end - at <= (at / 2).next_multiple_of(UNIT));
            }
        }
        assert_eq!(widest, Streams::MAX_WINDOW);
    }

    #[test]
    fn streams_are_followed_side_by_side_and_nothing_is_asked_twice() {
        let mut r = Streams::default();
        let bases = [0u64, 1 << 30, 2 << 30];
        let mut asked = std::collections::HashSet::new();
        for step in 0..64 {
            for base in bases {
                let start = base + step * UNIT;
                for unit in r.on_read(start..start + UNIT, UNIT).step_by(UNIT as usize) {
                    assert!(asked.insert(unit), "asked twice for {unit}");
                }
            }
        }
        for base in bases {
            assert!(asked.iter().any(|a| *a > base && *a < base + (1 << 20)));
        }
    }

    #[test]
    fn a_seek_collapses_the_window() {
        let mut r = Streams::default();
        for step in 0..32 {
            r.on_read(step * UNIT..(step + 1) * UNIT, UNIT);
        }
        let far = 1 << 40;
        assert!(r.on_read(far..far + UNIT, UNIT).is_empty());
        let ahead = r.on_read(far + UNIT..far + 2 * UNIT, UNIT);
        assert_eq!(ahead.end - ahead.start, UNIT);
    }

    #[test]
    fn small_reads_inside_a_unit_do_not_widen_the_window() {
        let mut r = Streams::default();
        let mut total = 0;
        for step in 0..16 {
            let ahead = r.on_read(step * 4096..(step + 1) * 4096, UNIT);
            total += ahead.end - ahead.start;
        }
        assert!(total <= 2 * UNIT, "{total}");
    }
}
