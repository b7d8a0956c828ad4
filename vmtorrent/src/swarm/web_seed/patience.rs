//! Invariant: a server that fails is asked ever less often, and never before the time that it named.

use std::time::Duration;

use super::failure::{Failure, FailureKind};

/// When a web server that failed is tried again.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience {
    /// Failures in a row.
    failures: u32,
    refusals: u32,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Leave it alone for so long.
    Wait(Duration),
    /// Count on it no more; after so long look whether somebody has put it right.
    GiveUp(Duration),
}

impl Patience {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(60);
    /// Refusals in a row from which on nothing is expected of it any more, and how often it is looked at all the same.
    const REFUSALS: u32 = 5;
    const SELDOM: Duration = Duration::from_secs(600);
    /// Most that it may ask us to wait.
    const MOST_RETRY_AFTER: Duration = Duration::from_secs(3600);

    /// It has answered as it should.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Failures since it answered as it should.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn failed(&mut self, failure: &Failure) -> Verdict {
        let wait = Self::FIRST * (1 << self.failures.min(10));
        self.failures += 1;
        let asked = failure.retry_after.unwrap_or_default();
        let wait = wait
            .min(Self::LONGEST)
            .max(asked.min(Self::MOST_RETRY_AFTER));
        match failure.kind {
            FailureKind::Useless => Verdict::GiveUp(wait.max(Self::SELDOM)),
            FailureKind::Broken | FailureKind::Busy => {
                self.refusals = 0;
                Verdict::Wait(wait)
            }
            FailureKind::Refused => {
                self.refusals += 1;
                if self.refusals < Self::REFUSALS {
                    Verdict::Wait(wait)
                } else {
                    Verdict::GiveUp(wait.max(Self::SELDOM))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(patience: &mut Patience, failure: &Failure) -> Duration {
        match patience.failed(failure) {
            Verdict::Wait(wait) => wait,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_pause_doubles_up_to_a_minute_and_begins_anew_after_a_success() {
        let mut patience = Patience::default();
        let gone = Failure::broken("gone");
        let waits: Vec<u64> = (0..9)
            .map(|_| wait(&mut patience, &gone).as_millis() as u64)
            .collect();
        let expected = [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000];
        assert_eq!(waits, expected);
        for _ in 0..100 {
            assert_eq!(wait(&mut patience, &gone), Patience::LONGEST);
        }
        patience.succeeded();
        assert_eq!(wait(&mut patience, &gone), Patience::FIRST);
    }

    #[test]
    fn what_the_server_asks_for_is_heeded_within_bounds() {
        let busy = |seconds| Failure::busy("503").retry_after(Some(Duration::from_secs(seconds)));
        let mut patience = Patience::default();
        assert_eq!(wait(&mut patience, &busy(7)), Duration::from_secs(7));
        assert_eq!(wait(&mut patience, &busy(0)), Patience::FIRST * 2);
        assert_eq!(
            wait(&mut patience, &busy(1_000_000)),
            Patience::MOST_RETRY_AFTER
        );
    }

    #[test]
    fn a_server_that_refuses_again_and_again_is_given_up_and_a_useless_one_at_once() {
        let mut patience = Patience::default();
        let missing = Failure::refused("404");
        for _ in 1..Patience::REFUSALS {
            wait(&mut patience, &missing);
        }
        assert_eq!(patience.failed(&missing), Verdict::GiveUp(Patience::SELDOM));
        patience.succeeded();
        assert_eq!(wait(&mut patience, &missing), Patience::FIRST);
        let useless = Failure::useless("length");
        assert_eq!(patience.failed(&useless), Verdict::GiveUp(Patience::SELDOM));
    }
}
