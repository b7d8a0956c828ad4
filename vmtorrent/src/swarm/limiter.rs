//! Invariant: over any time t no more than `burst + rate x t` bytes are let through, except that the
//! last one may overdraw, which the following ones pay for.

use std::time::Duration;

use crate::clock::Time;

/// A token bucket over bytes.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    /// Bytes per second; `None`: no limit.
    rate: Option<f64>,
    tokens: f64,
    updated: Time,
}

impl Limiter {
    /// How much may pass at once after a pause, in time at the limit's rate.
    const BURST: Duration = Duration::from_millis(20);
    /// But at least this many bytes, so that a block fits.
    const MIN_BURST: f64 = 32.0 * 1024.0;

    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        let rate = bytes_per_second.map(|r| r.max(1) as f64);
        Self {
            rate,
            tokens: rate.map_or(0.0, Self::burst),
            updated: Time::default(),
        }
    }

    /// Bytes per second; `None`: no limit.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Whether bytes may pass now, or how long to wait until then.
    pub(crate) fn ready(&mut self, now: Time) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        let gained = now.since(self.updated).as_secs_f64() * rate;
        self.tokens = (self.tokens + gained).min(Self::burst(rate));
        self.updated = self.updated.max(now);
        if self.tokens > 0.0 {
            return Ok(());
        }
        Err(Duration::from_secs_f64(-self.tokens / rate).max(Duration::from_micros(500)))
    }

    /// Bytes pass. To be called after [`ready`](Self::ready) said yes.
    pub(crate) fn charge(&mut self, bytes: u32) {
        if self.rate.is_some() {
            self.tokens -= f64::from(bytes);
        }
    }

    /// Bytes that were charged do not come: others may pass in their place.
    pub(crate) fn refund(&mut self, bytes: u64) {
        if let Some(rate) = self.rate {
            self.tokens = (self.tokens + bytes as f64).min(Self::burst(rate));
        }
    }

    fn burst(rate: f64) -> f64 {
        (rate * Self::BURST.as_secs_f64()).max(Self::MIN_BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time() {
        let mut limiter = Limiter::new(Some(1_000_000));
        let mut now = Time::default();
        let mut passed = 0u64;
        while now.since(Time::default()) < Duration::from_secs(10) {
            match limiter.ready(now) {
                Ok(()) => {
                    limiter.charge(16_384);
                    passed += 16_384;
                }
                Err(wait) => now = now + wait,
            }
        }
        assert!((9_900_000..=10_100_000).contains(&passed), "{passed}");
    }

    #[test]
    fn no_limit_lets_everything_pass() {
        let mut limiter = Limiter::new(None);
        for _ in 0..1000 {
            assert!(limiter.ready(Time::default()).is_ok());
            limiter.charge(u32::MAX);
        }
    }
}
