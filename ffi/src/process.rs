//! Invariant: no session begins in a process that was forked off while there were sessions: locks may be held there for
//! ever by threads that do not exist.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::error::Failure;
use crate::status::VMT_E_FORKED;

/// The process that began a session last.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Sessions that are not gone yet.
static LIVING: AtomicUsize = AtomicUsize::new(0);

/// Counts a session.
pub(crate) struct Living(());

impl Living {
    /// Another session begins.
    pub(crate) fn begin() -> Result<Self, Failure> {
        let process = std::process::id();
        let before = PROCESS.load(Ordering::Acquire);
        if before != process && before != 0 && LIVING.load(Ordering::Acquire) > 0 {
            return Err(Failure::new(
                VMT_E_FORKED,
                "this process was forked from one that had sessions: fork before the first one, or call exec",
            ));
        }
        PROCESS.store(process, Ordering::Release);
        LIVING.fetch_add(1, Ordering::AcqRel);
        Ok(Self(()))
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        LIVING.fetch_sub(1, Ordering::AcqRel);
    }
}
