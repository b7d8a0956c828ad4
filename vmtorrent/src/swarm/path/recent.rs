//! Invariant: what is older than a second counts no more once there is something newer.

use std::time::Duration;

use crate::clock::Time;

/// The least round trips of this half second and of the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recent {
    began: Time,
    this: Option<Duration>,
    before: Option<Duration>,
}

impl Recent {
    const SPAN: Duration = Duration::from_millis(500);

    pub(super) fn note(&mut self, now: Time, rtt: Duration) {
        if now.since(self.began) > Self::SPAN {
            (self.before, self.this, self.began) = (self.this, None, now);
        }
        self.this = Some(self.this.map_or(rtt, |this| this.min(rtt)));
    }

    /// The least of them; `None` before there was any.
    pub(super) fn least(&self) -> Option<Duration> {
        self.this.into_iter().chain(self.before).min()
    }
}
