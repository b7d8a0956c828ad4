//! One address of the book. Invariant: what the user named is never of so little use that it goes for another.

use crate::clock::Time;

/// What is known of an address.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) failures: u32,
    /// The user named it: it is tried for ever.
    pub(super) named: bool,
    /// An earlier run knew it.
    pub(super) remembered: bool,
    /// When a peer was last connected there.
    pub(super) seen: Option<Time>,
    /// The peer id of who is there, while that peer is connected by another way.
    pub(super) twin: Option<[u8; 20]>,
}

/// What becomes of it at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Idle { due: Time },
    Dialling,
    Connected { since: Time },
    Banned { until: Time },
}

impl Entry {
    pub(super) fn new(state: State, named: bool) -> Self {
        Self {
            state,
            failures: 0,
            named,
            remembered: false,
            seen: None,
            twin: None,
        }
    }

    /// Whether it was banned, and is no longer.
    pub(super) fn is_over(&self, now: Time) -> bool {
        matches!(self.state, State::Banned { until } if until <= now)
    }

    /// How little is lost with it; `None`: it stays.
    pub(super) fn uselessness(&self, now: Time) -> Option<u32> {
        match self.state {
            _ if self.named => None,
            State::Idle { .. } => Some(self.failures).filter(|f| *f > 0),
            _ => self.is_over(now).then_some(u32::MAX),
        }
    }

    pub(super) fn connect(&mut self, now: Time) {
        self.state = State::Connected { since: now };
        self.twin = None;
    }
}
