//! The profiles of the guests, on the way to the engine. Invariant: a guide is followed for as long as its handle lives.

use std::sync::{Arc, Weak};

use super::Swarm;
use super::engine::{Foretold, GuideKey};
use crate::profile::Guide;

/// A guest's profile in use.
pub(crate) struct Guided {
    swarm: Weak<Swarm>,
    key: GuideKey,
}

impl Swarm {
    /// Has fetched what a guest is expected to read; `None` when the swarm was closed.
    pub(crate) fn guide(self: &Arc<Self>, guide: Guide) -> Option<Guided> {
        let mut key = None;
        self.drive(|engine, now| key = Some(engine.add_guide(now, guide)));
        Some(Guided {
            swarm: Arc::downgrade(self),
            key: key?,
        })
    }
}

impl Guided {
    /// The guest reads blocks of a file for the first time, at this guest time in microseconds.
    pub(crate) fn reads(&self, guest_time: u64, file: u32, blocks: &[u32]) -> Foretold {
        let mut foretold = Foretold::default();
        if let Some(swarm) = self.swarm.upgrade() {
            swarm.drive(|engine, now| {
                foretold = engine.guest_reads(now, self.key, guest_time, file, blocks);
            });
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
