//! Invariant: what is said through a limit is said at most once in ten seconds, and how often it happened
//! unsaid is said the next time.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Time;

/// Keeps a warning that may repeat itself a thousand times a second from filling the log.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Time>,
    unsaid: u64,
}

impl LogLimit {
    const PERIOD: Duration = Duration::from_secs(10);

    /// Whether to say it now, and how many times it was not said since the last time.
    pub(crate) fn admit(&self, now: Time) -> Option<u64> {
        let mut state = self.0.lock();
        if state
            .last
            .is_some_and(|last| now.since(last) < Self::PERIOD)
        {
            state.unsaid += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_line_a_period_that_tells_how_many_there_were() {
        let limit = LogLimit::default();
        let at = |ms| Time::from_start(Duration::from_millis(ms));
        assert_eq!(limit.admit(at(5)), Some(0));
        for ms in 6..106 {
            assert_eq!(limit.admit(at(ms)), None);
        }
        assert_eq!(limit.admit(at(10_005)), Some(100));
        assert_eq!(limit.admit(at(60_000)), Some(0));
    }
}
