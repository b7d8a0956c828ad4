//! Invariant: over any time t no origin is answered more than `burst + rate x t` times, and all together not more than that
//! for all.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::clock::Time;
use crate::swarm::Origin;

/// Answers at once and for each second: to one origin, and in all. This host's programs are bounded by the whole alone.
const ONE: (f64, f64) = (50.0, 10.0);
const ALL: (f64, f64) = (500.0, 250.0);
/// Origins that are remembered.
const MAX_ORIGINS: usize = 1_024;

/// How often others are answered. A datagram's sender may be forged, and an answer is longer than its question.
#[derive(Debug)]
pub(super) struct Quota {
    all: Bucket,
    origins: HashMap<Origin, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    updated: Time,
}

impl Bucket {
    fn new(now: Time, (burst, _): (f64, f64)) -> Self {
        Self {
            tokens: burst,
            updated: now,
        }
    }

    fn level(&self, now: Time, (burst, rate): (f64, f64)) -> f64 {
        (self.tokens + now.since(self.updated).as_secs_f64() * rate).min(burst)
    }

    fn take(&mut self, now: Time, limit: (f64, f64)) -> bool {
        self.tokens = self.level(now, limit);
        self.updated = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

impl Quota {
    pub(super) fn new(now: Time) -> Self {
        Self {
            all: Bucket::new(now, ALL),
            origins: HashMap::new(),
        }
    }

    /// Whether this one is answered now.
    pub(super) fn admits(&mut self, now: Time, ip: IpAddr) -> bool {
        if let Some(origin) = Origin::of(ip) {
            if self.origins.len() >= MAX_ORIGINS && !self.origins.contains_key(&origin) {
                self.origins.retain(|_, b| b.level(now, ONE) < ONE.0);
                if self.origins.len() >= MAX_ORIGINS {
                    // Many at once: they share what there is for all.
                    return self.all.take(now, ALL);
                }
            }
            let bucket = self.origins.entry(origin);
            if !bucket
                .or_insert_with(|| Bucket::new(now, ONE))
                .take(now, ONE)
            {
                return false;
            }
        }
        self.all.take(now, ALL)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn one_that_asks_much_is_answered_in_part_and_others_are_served() {
        let mut quota = Quota::new(at(0));
        let mut answered = 0;
        for n in 0..10_000 {
            answered += u32::from(quota.admits(at(n), [192, 0, 2, 1].into()));
            if n % 500 == 0 {
                assert!(quota.admits(at(n), [192, 0, 2, 2].into()));
            }
        }
        assert!((145..=151).contains(&answered), "{answered}");
    }

    #[test]
    fn a_crowd_is_bounded_in_answers_and_in_memory() {
        let mut quota = Quota::new(at(0));
        let mut answered = 0;
        for n in 0..100_000_u32 {
            let [_, a, b, c] = n.to_be_bytes();
            answered += u32::from(quota.admits(at(u64::from(n) / 100), [20, a, b, c].into()));
            assert!(quota.origins.len() <= MAX_ORIGINS);
        }
        assert!((740..=760).contains(&answered), "{answered}");
    }
}
