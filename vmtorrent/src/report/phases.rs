//! Invariant: phases follow each other without a gap, from the start of the report on.

use std::time::Duration;

use crate::clock::{SystemClock, Time};

/// What a launch does before the guest runs, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The listener, the cache, and looking for peers.
    Session,
    /// The image's description: read, downloaded, or asked of peers.
    Image,
    /// The state, the copy on the disk, and the mount.
    Appliance,
    /// The VMM's process.
    Vmm,
}

impl Phase {
    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Session => "session: listener and cache opened",
            Self::Image => "image: description loaded",
            Self::Appliance => "appliance: state opened, disk mounted",
            Self::Vmm => "VMM: process started",
        }
    }
}

/// A phase with its times since the report began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) phase: Phase,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

/// Notes when phases end.
#[derive(Debug)]
pub(crate) struct Phases {
    clock: SystemClock,
    began: Time,
    ends: Vec<(Phase, Duration)>,
}

impl Phases {
    /// The first phase begins now.
    pub(crate) fn begin() -> Self {
        let clock = SystemClock::start();
        Self {
            began: clock.now(),
            clock,
            ends: Vec::new(),
        }
    }

    /// Time since the first phase began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.now().since(self.began)
    }

    /// A phase has ended, and the next begins.
    pub(crate) fn mark(&mut self, phase: Phase) {
        let now = self.elapsed();
        self.ends.push((phase, now));
    }

    /// The phases that have ended.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let ends = self.ends.iter();
        let span = |from: &mut Duration, &(phase, to): &(Phase, Duration)| {
            let span = Span {
                phase,
                from: *from,
                to,
            };
            *from = to;
            Some(span)
        };
        ends.scan(Duration::ZERO, span).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_begins_where_the_one_before_ended() {
        let mut phases = Phases::begin();
        assert!(phases.spans().is_empty());
        for phase in [Phase::Session, Phase::Image, Phase::Vmm] {
            phases.mark(phase);
        }
        let spans = phases.spans();
        assert_eq!(spans[0].from, Duration::ZERO);
        assert!(
            spans
                .windows(2)
                .all(|s| s[0].to == s[1].from && s[0].from <= s[0].to)
        );
        assert_eq!(spans.len(), 3);
    }
}
