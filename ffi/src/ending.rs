//! Invariant: what ends something is done once, and whoever asks for it waits until it is done.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::block_on::Deadline;
use crate::error::Failure;
use crate::status::VMT_E_TIMED_OUT;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Before,
    Now,
    Done,
}

/// How far the end is.
pub(crate) struct Ending {
    stage: Mutex<Stage>,
    changed: Condvar,
}

/// Says that it is done, also when it was left by a panic.
struct Doing<'a>(&'a Ending);

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        *self.0.lock() = Stage::Done;
        self.0.changed.notify_all();
    }
}

impl Ending {
    pub(crate) fn new() -> Self {
        Self {
            stage: Mutex::new(Stage::Before),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the work if nobody did; else waits for who does. `None`: another one did it.
    pub(crate) fn run<T>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let mut stage = self.lock();
        while *stage == Stage::Now {
            let left = deadline.left();
            if left.is_zero() {
                return Err(timed_out());
            }
            let waited = self.changed.wait_timeout(stage, left);
            stage = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if *stage == Stage::Done {
            return Ok(None);
        }
        *stage = Stage::Now;
        drop(stage);
        let _doing = Doing(self);
        work().map(Some)
    }
}

/// It did not end in time.
pub(crate) fn timed_out() -> Failure {
    Failure::new(
        VMT_E_TIMED_OUT,
        "it did not end in order within the timeout: what was not flushed may be lost; allow more time",
    )
}
