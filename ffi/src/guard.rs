//! What every call of the ABI goes through.
//!
//! Invariant: no panic passes the border; whoever met one can't go on with that session; nothing is done in a process
//! that was forked off, nor inside a log handler.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Failure, vmt_error};
use crate::log;
use crate::status::*;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a call.
pub(crate) fn is_inside() -> bool {
    INSIDE.get()
}

/// Whose a session is, and whether it is sound.
#[derive(Debug)]
pub(crate) struct Owner {
    process: u32,
    poisoned: AtomicBool,
}

impl Owner {
    /// Of this process.
    pub(crate) fn new() -> Self {
        Self {
            process: std::process::id(),
            poisoned: AtomicBool::new(false),
        }
    }

    /// Whether this process is a fork of the one that started the session.
    pub(crate) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    fn check(&self) -> Result<(), Failure> {
        if self.is_forked() {
            return Err(Failure::new(
                VMT_E_FORKED,
                "the session belongs to the process that this one was forked from: start one here",
            ));
        }
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Failure::new(
                VMT_E_POISONED,
                "an earlier call met a mistake in the library: free the session's handles and start another",
            ));
        }
        Ok(())
    }
}

/// What C holds a pointer to.
pub(crate) trait Handle {
    /// The parameter's name in messages.
    const NAME: &'static str;

    /// Whose it is, if it is a session's.
    fn owner(&self) -> Option<&Owner>;
}

/// Where a result goes.
pub(crate) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// # Safety
    /// `out` is NULL or may be written to until the call ends.
    pub(crate) unsafe fn new(out: *mut T, parameter: &str) -> Result<Self, Failure> {
        NonNull::new(out)
            .map(Self)
            .ok_or_else(|| Failure::null(parameter))
    }

    /// Stores the result; what was there is not dropped.
    pub(crate) fn set(self, value: T) {
        // SAFETY: promised to `new`.
        unsafe { self.0.write(value) };
    }
}

impl<T> Out<*mut T> {
    /// Gives the caller a handle.
    pub(crate) fn give(self, value: T) {
        self.set(Box::into_raw(Box::new(value)));
    }
}

/// Runs the body of a call that has no handle of a session.
///
/// # Safety
/// `error` is NULL or may be written to.
pub(crate) unsafe fn guarded(
    error: *mut *mut vmt_error,
    body: impl FnOnce() -> Result<(), Failure>,
) -> vmt_status {
    match caught(body) {
        Ok(()) => VMT_OK,
        // SAFETY: the caller's promise.
        Err(failure) => unsafe { failure.report(error) },
    }
}

/// Runs the body of a call with a handle.
///
/// # Safety
/// `handle` is NULL or a handle that is not freed before the call ends; `error` is NULL or may be written to.
pub(crate) unsafe fn guarded_on<H: Handle>(
    handle: *const H,
    error: *mut *mut vmt_error,
    body: impl FnOnce(&H) -> Result<(), Failure>,
) -> vmt_status {
    // SAFETY: the caller's promise.
    let outcome = match unsafe { handle.as_ref() } {
        None => Err(Failure::null(H::NAME)),
        Some(handle) => on(handle, body),
    };
    match outcome {
        Ok(()) => VMT_OK,
        // SAFETY: the caller's promise.
        Err(failure) => unsafe { failure.report(error) },
    }
}

fn on<H: Handle, T>(handle: &H, body: impl FnOnce(&H) -> Result<T, Failure>) -> Result<T, Failure> {
    let Some(owner) = handle.owner() else {
        return caught(|| body(handle));
    };
    owner.check()?;
    caught(|| body(handle)).inspect_err(|failure| {
        if failure.status == VMT_E_PANIC {
            owner.poison();
        }
    })
}

/// Looks something up; `default` when it can't be had.
///
/// # Safety
/// `handle` is NULL or a handle that is not freed before the call ends.
pub(crate) unsafe fn look<H: Handle, T>(
    handle: *const H,
    default: T,
    body: impl FnOnce(&H) -> T,
) -> T {
    // SAFETY: the caller's promise.
    let Some(handle) = (unsafe { handle.as_ref() }) else {
        return default;
    };
    on(handle, |handle| Ok(body(handle))).unwrap_or(default)
}

/// Frees a handle. In a forked process its memory is left: what it needs to be taken apart belongs to threads that do
/// not exist there.
///
/// # Safety
/// `handle` is NULL or was given by [`Out::give`] and not freed yet.
pub(crate) unsafe fn free<H: Handle>(handle: *mut H) {
    // SAFETY: the caller's promise.
    let forked = match unsafe { handle.as_ref() } {
        None => return,
        Some(handle) => handle.owner().is_some_and(Owner::is_forked),
    };
    if forked {
        return;
    }
    // SAFETY: the caller gives it up.
    let handle = unsafe { Box::from_raw(handle) };
    // There is nobody to tell.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(handle)));
}

fn caught<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    if log::is_handling() {
        return Err(Failure::new(
            VMT_E_REENTERED,
            "called from a log handler, which may be at work under any lock: call from another thread",
        ));
    }
    let outer = INSIDE.replace(true);
    // Unwind safety: what a panic leaves half done belongs to a session, and is not used any more.
    let outcome = catch_unwind(AssertUnwindSafe(body));
    INSIDE.set(outer);
    outcome.unwrap_or_else(|payload| Err(Failure::panicked(&*payload)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{vmt_error_free, vmt_error_message, vmt_error_status};
    use std::ffi::CStr;

    struct Thing {
        owner: Owner,
    }

    impl Handle for Thing {
        const NAME: &'static str = "thing";
        fn owner(&self) -> Option<&Owner> {
            Some(&self.owner)
        }
    }

    fn message(error: *mut vmt_error) -> String {
        // SAFETY: it was just made.
        unsafe {
            let text = CStr::from_ptr(vmt_error_message(error));
            let text = text.to_str().unwrap().to_owned();
            vmt_error_free(error);
            text
        }
    }

    #[test]
    fn a_panic_becomes_a_status_and_ends_the_use_of_its_session() {
        let thing = Thing {
            owner: Owner::new(),
        };
        let mut error = std::ptr::null_mut();
        // SAFETY: all pointers are good.
        unsafe {
            let status = guarded_on(&thing, &mut error, |_| panic!("of {}", "wood"));
            assert_eq!(status, VMT_E_PANIC);
            assert_eq!(vmt_error_status(error), VMT_E_PANIC);
            assert!(message(error).contains("of wood"));
            let status = guarded_on(&thing, &mut error, |_| panic!("never run"));
            assert_eq!(status, VMT_E_POISONED);
            assert!(message(error).contains("free the session's handles"));
            assert_eq!(look(&thing, 7, |_| 8), 7);
        }
    }

    #[test]
    fn null_and_other_processes_are_refused_and_an_error_may_go_unread() {
        let foreign = Thing {
            owner: Owner {
                process: std::process::id() + 1,
                poisoned: AtomicBool::new(false),
            },
        };
        let nobody = std::ptr::null_mut();
        // SAFETY: all pointers are good or NULL.
        unsafe {
            assert_eq!(guarded_on(&foreign, nobody, |_| Ok(())), VMT_E_FORKED);
            let null = std::ptr::null::<Thing>();
            let mut error = std::ptr::null_mut();
            assert_eq!(guarded_on(null, &mut error, |_| Ok(())), VMT_E_NULL);
            assert!(message(error).contains("`thing`"));
            assert_eq!(guarded(nobody, || panic!("{}", 1)), VMT_E_PANIC);
            // It stays where it is.
            let kept = Box::into_raw(Box::new(foreign));
            free(kept);
            assert!((*kept).owner.is_forked());
            drop(Box::from_raw(kept));
            free(null.cast_mut());
        }
    }
}
