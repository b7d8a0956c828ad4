//! The profiles of the guests, on the way to the engine. Invariant: a guide is followed for as long as its handle lives.

use std::sync::{Arc, Weak};

use super::Swarm;
use super::engine::{Followed, Foretold, GuideKey};
use crate::profile::Guide;

/// A guest's profile in use.
pub(crate) struct Guided {
    swarm: Weak<Swarm>,
    key: GuideKey,
    guide: Followed,
}

impl Swarm {
    /// Has fetched what a guest is expected to read; `None` when the swarm was closed.
    pub(crate) fn guide(self: &Arc<Self>, guide: Guide) -> Option<Guided> {
        let guide = Followed::from(guide);
        let mut key = None;
        self.drive(|engine, now| key = Some(engine.add_guide(now, guide.clone())));
        Some(Guided {
            swarm: Arc::downgrade(self),
            key: key?,
            guide,
        })
    }
}

impl Guided {
    /// The guest reads blocks of a file for the first time, at this guest time in microseconds. Does not wait for the engine,
    /// since the guest's read does not.
    pub(crate) fn reads(&self, guest_time: u64, file: u32, blocks: &[u32]) -> Foretold {
        let foretold = self.guide.reads(guest_time, file, blocks);
        if let Some(swarm) = self.swarm.upgrade() {
            swarm.guest_went_on();
        }
        foretold
    }
}

impl Drop for Guided {
    fn drop(&mut self) {
        if let Some(swarm) = self.swarm.upgrade() {
            swarm.drive(|engine, now| engine.remove_guide(now, self.key));
        }
    }
}
