//! Invariant: nothing is begun or touched in a process that was forked off while there were sessions (locks may be held
//! there for ever by threads that do not exist), and no thread of ours outlives the interpreter.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{LazyLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::failure::Failure;
use crate::wait::{block_on, block_on_for};

/// The process that began a session last.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Sessions and calls that are not gone yet.
static LIVING: AtomicUsize = AtomicUsize::new(0);
/// Calls of `vmtorrent.aio` that have a thread of their own.
static OPERATIONS: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);
/// Cancelled when the interpreter ends.
static EXIT: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);
/// What is to be ended with the interpreter.
static RUNNING: Mutex<Vec<Weak<dyn Running>>> = Mutex::new(Vec::new());

/// What runs until it is ended.
pub(crate) trait Running: Send + Sync {
    /// Ends it at once, if that was not done yet.
    fn break_off(&self);
}

/// Counts a session, or a call that has one.
pub(crate) struct Living(u32);

impl Living {
    pub(crate) fn begin() -> Result<Self, Failure> {
        let process = std::process::id();
        let before = PROCESS.load(Ordering::Acquire);
        if before != process && before != 0 && LIVING.load(Ordering::Acquire) > 0 {
            return Err(Failure::forked(
                "this process was forked from one that uses vmtorrent: fork before the first launch, or use \
                 multiprocessing's spawn method",
            ));
        }
        PROCESS.store(process, Ordering::Release);
        LIVING.fetch_add(1, Ordering::AcqRel);
        Ok(Self(process))
    }

    /// Whether this process is a fork of the one where it began.
    pub(crate) fn is_forked(&self) -> bool {
        self.0 != std::process::id()
    }

    /// Fails in a fork of the process where it began.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.is_forked() {
            false => Ok(()),
            true => Err(Failure::forked(
                "it belongs to the process that this one was forked from: launch one here after multiprocessing's \
                 spawn, or hand the path of its disk over",
            )),
        }
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        if !self.is_forked() {
            LIVING.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Has it ended with the interpreter.
pub(crate) fn run(running: Weak<dyn Running>) {
    let mut all = RUNNING.lock();
    all.retain(|r| r.strong_count() > 0);
    all.push(running);
}

/// Counts a call with a thread of its own, which ends before the interpreter does.
pub(crate) fn operation() -> TaskTrackerToken {
    OPERATIONS.token()
}

/// A token that is cancelled when the interpreter ends.
pub(crate) fn ends_with_interpreter() -> CancellationToken {
    EXIT.child_token()
}

/// How long calls that are under way may take to end with the interpreter.
const GRACE: Duration = Duration::from_secs(20);

/// Ends whatever was not closed, and waits for it. Called by `atexit`, when no exception can be raised any more.
#[pyfunction]
pub(crate) fn end_all(py: Python<'_>) {
    let process = PROCESS.load(Ordering::Acquire);
    if process != std::process::id() {
        return;
    }
    py.detach(|| {
        EXIT.cancel();
        OPERATIONS.close();
        let _ = block_on_for(OPERATIONS.wait(), Some(GRACE));
        let running = std::mem::take(&mut *RUNNING.lock());
        // The last first: a VMM before its disk.
        for one in running.into_iter().rev().filter_map(|r| r.upgrade()) {
            one.break_off();
        }
    });
}

/// Waits for a future unless a token is cancelled before.
pub(crate) fn unless_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    block_on(async {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Failure::cancelled()),
            done = work => done,
        }
    })
}
