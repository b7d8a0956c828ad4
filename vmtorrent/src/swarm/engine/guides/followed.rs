//! Invariant: the lock is held for a look at the profile, and nobody who holds it waits for another; so a guest's read waits
//! neither for the engine nor for who waits for that.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::Foretold;
use crate::profile::Guide;

/// A guide that the engine follows and that a guest's reads go to at the same time.
#[derive(Clone, Debug)]
pub(crate) struct Followed(Arc<Mutex<Guide>>);

impl Followed {
    /// The guest reads blocks of a file for the first time, at this guest time in microseconds. The engine is to be told
    /// ([`guest_went_on`](crate::swarm::engine::Engine::guest_went_on)).
    pub(crate) fn reads(&self, guest_time: u64, file: u32, blocks: &[u32]) -> Foretold {
        let mut guide = self.guide();
        Foretold {
            expected: guide.on_read(guest_time, file, blocks),
            trusted: guide.is_trusted(),
        }
    }

    pub(super) fn guide(&self) -> MutexGuard<'_, Guide> {
        self.0.lock()
    }
}

impl From<Guide> for Followed {
    fn from(guide: Guide) -> Self {
        Self(Arc::new(Mutex::new(guide)))
    }
}
