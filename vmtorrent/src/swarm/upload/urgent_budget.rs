//! Invariant: over any time t no more than `BURST + RATE x t` bytes of one peer's requests are served before others'.

use std::time::Duration;

use crate::clock::Time;

/// What one peer may be given out of turn because it says that a read waits.
///
/// The burst is four reads of 128 KiB, which is as far as Linux reads ahead by itself. The rate is 16 blocks a second: at
/// 100 peers on 100 Mbit/s twice a peer's share, so that a guest gets ahead that only waits, and a peer that calls
/// everything urgent takes 2 % of the line at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct UrgentBudget {
    tokens: f64,
    updated: Time,
}

impl UrgentBudget {
    /// Bytes after a pause.
    pub(super) const BURST: u64 = 512 << 10;
    /// Bytes per second.
    pub(super) const RATE: u64 = 256 << 10;

    pub(super) fn new(now: Time) -> Self {
        Self {
            tokens: Self::BURST as f64,
            updated: now,
        }
    }

    /// Takes bytes out, or says how long it is until they are there.
    pub(super) fn take(&mut self, now: Time, bytes: u64) -> Result<(), Duration> {
        let gained = now.since(self.updated).as_secs_f64() * Self::RATE as f64;
        self.tokens = (self.tokens + gained).min(Self::BURST as f64);
        self.updated = self.updated.max(now);
        let missing = bytes as f64 - self.tokens;
        if missing > 0.0 {
            let wait = Duration::from_secs_f64(missing / Self::RATE as f64);
            return Err(wait.max(Duration::from_micros(100)));
        }
        self.tokens -= bytes as f64;
        Ok(())
    }
}
