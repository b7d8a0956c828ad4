//! The thread in which a session calls back.
//!
//! Invariant: what is posted is done exactly once, in the order of posting, under no lock; what is posted after the end
//! is done by who posts it.

use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::block_on::Deadline;
use crate::error::Failure;
use crate::queue::Queue;
use crate::status::{VMT_E_IO, VMT_E_REENTERED};

/// Something to be done there.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    /// The address of the queue that this thread works on.
    static WORKS_ON: Cell<usize> = const { Cell::new(0) };
}

/// The thread.
pub(crate) struct CallbackThread {
    queue: Arc<Queue<Job>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl CallbackThread {
    pub(crate) fn start() -> Result<Self, Failure> {
        let queue = Arc::new(Queue::new());
        let jobs = queue.clone();
        let thread = thread::Builder::new()
            .name("vmtorrent-calls".to_owned())
            .spawn(move || {
                vmtorrent::leave_signals_to_others();
                WORKS_ON.set(Arc::as_ptr(&jobs).addr());
                while let Some(job) = jobs.pop() {
                    // What C is called does not panic; what is dropped with it may.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })
            .map_err(|e| {
                Failure::new(VMT_E_IO, format!("starting the thread for callbacks: {e}"))
            })?;
        Ok(Self {
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The way there.
    pub(crate) fn poster(&self) -> Poster {
        Poster(self.queue.clone())
    }

    /// Whether this is the thread.
    pub(crate) fn is_current(&self) -> bool {
        WORKS_ON.get() == Arc::as_ptr(&self.queue).addr()
    }

    /// Refuses what would wait for the callback that it is called from.
    pub(crate) fn check_not_current(&self, function: &str) -> Result<(), Failure> {
        if self.is_current() {
            let text = format!(
                "{function} was called from a callback of its session, for whose end it would wait: call it from another thread"
            );
            return Err(Failure::new(VMT_E_REENTERED, text));
        }
        Ok(())
    }

    /// Ends the thread once it has done all; false when that was not so in time. Called in the thread itself, it waits
    /// for nothing.
    pub(crate) fn end(&self, deadline: Deadline) -> bool {
        self.queue.end();
        if self.is_current() {
            return true;
        }
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(thread) = thread else {
            return true;
        };
        while !thread.is_finished() {
            if deadline.has_passed() {
                return false;
            }
            thread::sleep(Duration::from_micros(200));
        }
        thread.join().is_ok()
    }
}

/// The way to a session's thread for callbacks. It keeps no session: what is posted may hold the last handle of it, which is
/// then given up there, and not by who posts it, which may be a thread that the end of the session waits for.
pub(crate) struct Poster(Arc<Queue<Job>>);

impl Poster {
    /// Has something done there.
    pub(crate) fn post(&self, job: Job) {
        if let Err(job) = self.0.push(job) {
            job();
        }
    }
}

/// What a caller wants to have back with each call, until it is freed.
pub(crate) struct User {
    pub(crate) pointer: *mut c_void,
    free: Option<unsafe extern "C" fn(user: *mut c_void)>,
}

// SAFETY: the header says in which thread callbacks are called; the pointer itself is not looked at.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    /// Takes over the duty to free it.
    pub(crate) fn new(
        pointer: *mut c_void,
        free: Option<unsafe extern "C" fn(user: *mut c_void)>,
    ) -> Self {
        Self { pointer, free }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the caller gave both for this, and it is done once.
            unsafe { free(self.pointer) }
        }
    }
}
