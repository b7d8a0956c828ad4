//! Invariant: the core never asks the system for the time; it is handed a [`Time`] with every event.

use std::ops::{Add, Sub};
use std::time::{Duration, Instant};

/// A point on a monotonic clock, counted from an arbitrary start. Passed into the protocol core, so
/// that a simulator can pass virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Duration);

impl Time {
    /// The time that lies `since_start` behind the clock's start.
    #[cfg(test)]
    pub fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The time from `earlier` to here; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, d: Duration) -> Time {
        Time(self.0.saturating_add(d))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, d: Duration) -> Time {
        Time(self.0.saturating_sub(d))
    }
}

/// The system's monotonic clock as [`Time`]; only the drivers around the core hold one.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Now.
    pub fn now(&self) -> Time {
        Time(self.start.elapsed())
    }

    /// The instant that `time` stands for.
    pub fn instant(&self, time: Time) -> Instant {
        self.start + time.0
    }
}
