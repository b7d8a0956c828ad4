//! Invariant: the queue at a peer follows bandwidth x round-trip time, and never falls below two blocks, but for a moment in which
//! the round trip is measured anew.

mod recent;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use self::recent::Recent;
use crate::clock::Time;
use crate::image::BLOCK_LENGTH;

/// What is known of the way to a peer, and how much to keep requested there.
///
/// The model is that of BBR (Cardwell et al., ACM Queue 2016), applied to block requests in place of
/// packets: the largest delivery rate and the smallest round-trip time of the recent past; their
/// product is what must be under way to keep the line busy, and all that is more only waits in the
/// peer's queue, where a demand read would wait behind it.
///
/// It counts bytes on the line. A block may come compressed, and how far is known only then; until it comes, it counts for
/// what the last ones took. The line's rate is so one figure, whatever it carries; the rate of plain bytes would
/// jump with the content, and the largest of the recent past would be that of its emptiest blocks.
#[derive(Clone, Debug)]
pub(crate) struct PathEstimator {
    delivered: u64,
    delivered_at: Time,
    in_flight: u64,
    /// Largest delivery rates, bytes per second, falling; each with its time.
    rates: VecDeque<(Time, f64)>,
    min_rtt: Option<(Time, Duration)>,
    recent: Recent,
    sending: bool,
    startup: bool,
    /// The rate that start-up must exceed by a quarter, and how often it did not.
    plateau: (f64, u32),
    round_ends_at: u64,
    rounds: u32,
    probe: Option<Probe>,
    /// Bytes on the line for a byte that is asked for, in the mean of the last blocks; and of how many.
    share: f64,
    shares: u32,
}

/// A time of few requests, in which the round trip is measured without a queue of our own making.
#[derive(Clone, Debug)]
struct Probe {
    /// When the queue must have drained.
    latest: Time,
    /// When the queue had drained: only what is sent later tells anything.
    began: Option<Time>,
    length: Duration,
    best: Option<Duration>,
}

/// What must be remembered of a request until its block arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendMark {
    sent: Time,
    delivered: u64,
    delivered_at: Time,
    /// What was asked for, and what that was expected to take on the line.
    bytes: u32,
    on_line: u32,
    /// The queue was not full when this was sent: its rate says little of the line.
    limited_by_us: bool,
    /// What comes may be the answer to an earlier request of the same.
    ambiguous: bool,
}

impl SendMark {
    pub(crate) fn sent(&self) -> Time {
        self.sent
    }

    /// The same was asked for before, and an answer may be under way: how long this one takes tells nothing of the round trip
    /// (Karn and Partridge, SIGCOMM 1987).
    pub(crate) fn set_ambiguous(&mut self) {
        self.ambiguous = true;
    }

    /// Bytes that the block counts for until it comes.
    pub(crate) fn on_line(&self) -> u32 {
        self.on_line
    }
}

impl PathEstimator {
    const STARTUP_GAIN: f64 = 2.0;
    /// In one round of eight more is asked for, to see whether the line gives more by now.
    const GAIN: f64 = 1.25;
    const ROUNDS: u32 = 8;
    /// A line that holds fewer blocks is always asked for so much: there it is a block or two.
    const SHORT: u64 = 8 * BLOCK_LENGTH as u64;
    const INITIAL_BLOCKS: u64 = 4;
    const LEAST_BLOCKS: u64 = 2;
    const RTT_WINDOW: Duration = Duration::from_secs(10);
    /// What our own line is believed to add to a round trip.
    const MAX_DELAY: Duration = Duration::from_millis(50);
    const UNKNOWN_RTT: Duration = Duration::from_millis(50);
    const UNKNOWN_RATE: f64 = 1_000_000.0;
    /// Blocks whose mean tells how far the next ones are compressed.
    const SHARES: u32 = 16;
    /// No block is expected to take less than this part of itself: behind a run of nearly empty ones the next may be full.
    /// The line is not kept busy then, which is our own doing.
    const LEAST_SHARE: f64 = 0.2;

    /// Nothing is known but, perhaps, how long the connection took to open.
    pub(crate) fn new(now: Time, connect_time: Option<Duration>) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            in_flight: 0,
            rates: VecDeque::new(),
            min_rtt: connect_time.map(|d| (now, d)),
            recent: Recent::default(),
            sending: false,
            startup: true,
            plateau: (0.0, 0),
            round_ends_at: 0,
            rounds: 0,
            probe: None,
            share: 1.0,
            shares: 0,
        }
    }

    /// Bytes on the line that are requested and have not arrived.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Bytes of the line that have arrived in all.
    #[cfg(test)]
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Smallest round-trip time of a block in the recent past.
    pub(crate) fn round_trip(&self) -> Duration {
        self.min_rtt.map_or(Self::UNKNOWN_RTT, |(_, rtt)| rtt)
    }

    /// Largest delivery rate of the recent past, bytes per second; a guess before there was any.
    pub(crate) fn rate(&self) -> f64 {
        self.measured_rate().unwrap_or(Self::UNKNOWN_RATE)
    }

    /// The same, but nothing before there was any.
    pub(crate) fn measured_rate(&self) -> Option<f64> {
        self.rates.front().map(|(_, rate)| *rate)
    }

    /// The same in bytes of blocks, as they are behind the decompression.
    pub(crate) fn plain_rate(&self) -> Option<f64> {
        let share = self.share.max(Self::LEAST_SHARE);
        self.measured_rate().map(|rate| rate / share)
    }

    /// Bytes that so many bytes of a block are expected to take on the line.
    pub(crate) fn on_line(&self, bytes: u32) -> u32 {
        (f64::from(bytes) * self.share.max(Self::LEAST_SHARE)).ceil() as u32
    }

    /// Bytes on the line to keep requested at the peer.
    pub(crate) fn target(&self) -> u64 {
        let block = u64::from(BLOCK_LENGTH);
        if self.rates.is_empty() {
            return Self::INITIAL_BLOCKS * block;
        }
        if self.probe.is_some() {
            return self.probe_target();
        }
        let product = self.rate() * self.present_round_trip().as_secs_f64();
        if self.startup {
            return (product * Self::STARTUP_GAIN) as u64 + Self::INITIAL_BLOCKS * block;
        }
        let short = product < Self::SHORT as f64;
        let gain = if short || self.rounds.is_multiple_of(Self::ROUNDS) {
            Self::GAIN
        } else {
            1.0
        };
        // With one block under way, the peer would have nothing to send to us from one block's leaving to the next request.
        ((product * gain) as u64 + block).max(Self::LEAST_BLOCKS * block)
    }

    /// How soon a block of `bytes` would be here if it were asked for now.
    pub(crate) fn expected(&self, bytes: u32) -> Duration {
        self.expected_behind(self.in_flight, bytes)
    }

    /// The same if `queued` bytes of the line were in flight. What is in flight arrives at the peer's rate from now on, and the
    /// block comes behind it, but no sooner than after a round trip.
    pub(crate) fn expected_behind(&self, queued: u64, bytes: u32) -> Duration {
        let seconds =
            |bytes: f64| Duration::from_secs_f64((bytes / self.rate().max(1.0)).min(3600.0));
        seconds(queued as f64).max(self.round_trip()) + seconds(f64::from(self.on_line(bytes)))
    }

    /// Tells whether we send blocks to anybody.
    pub(crate) fn note_sending(&mut self, sending: bool) {
        self.sending = sending;
    }

    /// The round trip as it is at present, while we send: our requests then wait in our own line behind what we send, and with the
    /// least round trip of ten seconds too little would be requested to keep the peer's line busy. A queue of our own making at
    /// the peer looks the same, so not all of the difference is believed.
    fn present_round_trip(&self) -> Duration {
        let least = self.round_trip();
        match self.recent.least() {
            Some(present) if self.sending => present.clamp(least, least + Self::MAX_DELAY),
            _ => least,
        }
    }

    /// Bytes that keep the line busy with nothing queued at the peer: bandwidth x round trip.
    pub(crate) fn pipe(&self) -> u64 {
        (self.rate() * self.round_trip().as_secs_f64()) as u64
    }

    /// A request goes out.
    pub(crate) fn on_send(&mut self, now: Time, bytes: u32) -> SendMark {
        if self.in_flight == 0 {
            // An idle time is not a slow one.
            self.delivered_at = now;
        }
        let on_line = self.on_line(bytes);
        let mark = SendMark {
            sent: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            bytes,
            on_line,
            limited_by_us: self.share < Self::LEAST_SHARE
                || self.in_flight + u64::from(on_line) < self.pipe().min(self.target() / 2),
            ambiguous: false,
        };
        self.in_flight += u64::from(on_line);
        self.start_probe_when_due(now);
        mark
    }

    /// A request will not be answered.
    pub(crate) fn on_drop(&mut self, mark: &SendMark) {
        self.in_flight = self.in_flight.saturating_sub(u64::from(mark.on_line));
    }

    /// A block has arrived, as it is.
    #[cfg(test)]
    pub(crate) fn on_receive(&mut self, now: Time, mark: &SendMark) {
        self.on_receive_of(now, mark, mark.bytes);
    }

    /// A block has arrived and took `wire` bytes.
    pub(crate) fn on_receive_of(&mut self, now: Time, mark: &SendMark, wire: u32) {
        self.on_drop(mark);
        self.on_late_receive(now, mark, wire);
    }

    /// A block has arrived after all whose request was dropped.
    pub(crate) fn on_late_receive(&mut self, now: Time, mark: &SendMark, wire: u32) {
        self.note_share(mark, wire);
        self.delivered += u64::from(wire);
        self.delivered_at = now;
        self.begin_probe_when_drained(now);
        if !mark.ambiguous {
            self.sample_rtt(now, mark.sent);
        }
        let span = now.since(mark.delivered_at).as_secs_f64().max(1e-6);
        let rate = (self.delivered - mark.delivered) as f64 / span;
        self.sample_rate(now, rate, mark.limited_by_us);
        if mark.delivered >= self.round_ends_at {
            self.round_ends_at = self.delivered;
            self.end_round(mark.limited_by_us);
        }
    }

    fn note_share(&mut self, mark: &SendMark, wire: u32) {
        let share = (f64::from(wire) / f64::from(mark.bytes.max(1))).clamp(1e-3, 1.0);
        self.shares = (self.shares + 1).min(Self::SHARES);
        self.share += (share - self.share) / f64::from(self.shares);
    }

    /// Bytes to keep requested while the round trip is measured anew.
    fn probe_target(&self) -> u64 {
        self.pipe() / 2 + u64::from(BLOCK_LENGTH)
    }

    fn begin_probe_when_drained(&mut self, now: Time) {
        let drained = self.in_flight <= self.probe_target();
        if let Some(probe) = &mut self.probe
            && probe.began.is_none()
            // Demand may never let it drain.
            && (drained || now > probe.latest)
        {
            probe.began = Some(now);
        }
    }

    fn sample_rtt(&mut self, now: Time, sent: Time) {
        let rtt = now.since(sent).max(Duration::from_micros(20));
        self.recent.note(now, rtt);
        if let Some(probe) = &mut self.probe
            && let Some(began) = probe.began
            && sent >= began
        {
            let best = probe.best.map_or(rtt, |b| b.min(rtt));
            probe.best = Some(best);
            if now >= began + probe.length {
                // What the probe saw replaces what was believed before.
                self.min_rtt = Some((now, best));
                self.probe = None;
            }
        }
        match self.min_rtt {
            Some((_, min)) if min < rtt => {}
            _ => self.min_rtt = Some((now, rtt)),
        }
    }

    fn sample_rate(&mut self, now: Time, rate: f64, limited_by_us: bool) {
        if limited_by_us && !self.rates.is_empty() && rate < self.rate() {
            return;
        }
        // A maximum filter over the last ten round trips, but at least half a second.
        let window = (self.round_trip() * 10).max(Duration::from_millis(500));
        while self.rates.back().is_some_and(|(_, r)| *r <= rate) {
            self.rates.pop_back();
        }
        self.rates.push_back((now, rate));
        while self.rates.len() > 1
            && self
                .rates
                .front()
                .is_some_and(|(at, _)| now.since(*at) > window)
        {
            self.rates.pop_front();
        }
    }

    fn end_round(&mut self, limited_by_us: bool) {
        self.rounds = self.rounds.wrapping_add(1);
        if !self.startup || limited_by_us {
            return;
        }
        let rate = self.rate();
        if rate > self.plateau.0 * 1.25 {
            self.plateau = (rate, 0);
        } else {
            self.plateau.1 += 1;
            self.startup = self.plateau.1 < 3;
        }
    }

    fn start_probe_when_due(&mut self, now: Time) {
        let Some((measured, rtt)) = self.min_rtt else {
            return;
        };
        if self.probe.is_none() && now.since(measured) > Self::RTT_WINDOW {
            let length = (rtt * 2).max(Duration::from_millis(50));
            let queue = self.expected_behind(self.in_flight, 0);
            self.probe = Some(Probe {
                latest: now + queue * 2 + length,
                began: None,
                length,
                best: None,
            });
            // Due again a window later even if the probe sees no smaller time.
            self.min_rtt = Some((now, rtt));
            self.begin_probe_when_drained(now);
        }
    }
}
