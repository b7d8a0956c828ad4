//! Invariant: an error that was handed out never changes, so any number of threads may look at it.

use std::error::Error as _;
use std::ffi::{CString, c_char, c_int};

use vmtorrent::Error;

use crate::status::{self, *};
use crate::text::c_string;

/// Why a call failed. Free it with vmt_error_free.
pub struct vmt_error {
    status: vmt_status,
    errno: c_int,
    message: CString,
}

/// An error on its way to the caller.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: vmt_status,
    errno: c_int,
    message: String,
}

/// Numbers that the core has no names for. Linux', and where the others differ, theirs.
mod number {
    use std::ffi::c_int;

    pub(super) const EPERM: c_int = 1;
    pub(super) const ENOENT: c_int = 2;
    pub(super) const EIO: c_int = 5;
    pub(super) const EBUSY: c_int = 16;
    pub(super) const EINVAL: c_int = 22;
    pub(super) const EOPNOTSUPP: c_int = match () {
        () if cfg!(target_vendor = "apple") => 102,
        () if cfg!(windows) => 130,
        () => 95,
    };
    pub(super) const EAGAIN: c_int = if cfg!(target_vendor = "apple") {
        35
    } else {
        11
    };
    pub(super) const EDEADLK: c_int = match () {
        () if cfg!(target_vendor = "apple") => 11,
        () if cfg!(windows) => 36,
        () => 35,
    };
    pub(super) const EILSEQ: c_int = match () {
        () if cfg!(target_vendor = "apple") => 92,
        () if cfg!(windows) => 42,
        () => 84,
    };
    pub(super) const ESHUTDOWN: c_int = if cfg!(target_vendor = "apple") {
        58
    } else {
        108
    };
    pub(super) const ETIMEDOUT: c_int = match () {
        () if cfg!(target_vendor = "apple") => 60,
        () if cfg!(windows) => 138,
        () => 110,
    };
    pub(super) const ECANCELED: c_int = match () {
        () if cfg!(target_vendor = "apple") => 89,
        () if cfg!(windows) => 105,
        () => 125,
    };
}

impl Failure {
    /// An error of this layer: the status tells the number.
    pub(crate) fn new(status: vmt_status, message: impl Into<String>) -> Self {
        let errno = match status {
            VMT_E_UTF8 => number::EILSEQ,
            VMT_E_CANCELLED => number::ECANCELED,
            VMT_E_FORKED => number::EPERM,
            VMT_E_IO | VMT_E_PANIC | VMT_E_POISONED => number::EIO,
            VMT_E_NOT_FOUND => number::ENOENT,
            VMT_E_IN_USE => number::EBUSY,
            VMT_E_UNAVAILABLE => number::EOPNOTSUPP,
            VMT_E_REENTERED => number::EDEADLK,
            VMT_E_AGAIN => number::EAGAIN,
            VMT_E_CLOSED => number::ESHUTDOWN,
            VMT_E_TIMED_OUT => number::ETIMEDOUT,
            _ => number::EINVAL,
        };
        Self {
            status,
            errno,
            message: message.into(),
        }
    }

    pub(crate) fn null(parameter: &str) -> Self {
        Self::new(
            VMT_E_NULL,
            format!("the parameter `{parameter}` is NULL: pass a pointer"),
        )
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(VMT_E_INVALID, message)
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(VMT_E_CLOSED, format!("the {what} was shut down"))
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(
            VMT_E_CANCELLED,
            "the call was given up: its vmt_cancel was triggered",
        )
    }

    /// What a panic left.
    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Self::new(
            VMT_E_PANIC,
            format!("a mistake in the library, please report it: {text}"),
        )
    }

    /// The error as the caller sees it.
    pub(crate) fn into_error(self) -> vmt_error {
        vmt_error {
            status: self.status,
            errno: self.errno,
            message: c_string(self.message),
        }
    }

    /// Stores the error for the caller, and gives its status.
    ///
    /// # Safety
    /// `error` is NULL or may be written to.
    pub(crate) unsafe fn report(self, error: *mut *mut vmt_error) -> vmt_status {
        let status = self.status;
        if !error.is_null() {
            let owned = Box::into_raw(Box::new(self.into_error()));
            // SAFETY: the caller's promise.
            unsafe { error.write(owned) };
        }
        status
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let task = error
            .source()
            .and_then(|s| s.downcast_ref::<tokio::task::JoinError>());
        let status = match task {
            Some(task) if task.is_panic() => VMT_E_PANIC,
            _ => status::of(error.kind()),
        };
        Self {
            status,
            errno: error.errno().raw(),
            message: error.to_string(),
        }
    }
}

/// The status that the failed call returned; VMT_OK for NULL.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_error_status(error: *const vmt_error) -> vmt_status {
    // SAFETY: NULL, or an error that the caller has not freed.
    unsafe { error.as_ref() }.map_or(VMT_OK, |e| e.status)
}

/// The error number of this system that comes nearest, such as EIO; what the system itself reported where it did. For
/// who has to answer a guest with one. 0 for NULL.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_error_errno(error: *const vmt_error) -> c_int {
    // SAFETY: NULL, or an error that the caller has not freed.
    unsafe { error.as_ref() }.map_or(0, |e| e.errno)
}

/// What was being done, to what, and what can be done about it, in one line for people. It belongs to the error. "" for
/// NULL.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_error_message(error: *const vmt_error) -> *const c_char {
    // SAFETY: NULL, or an error that the caller has not freed.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |e| e.message.as_ptr())
}

/// A copy, for who wants to keep an error that a completion was lent. The caller frees it. NULL for NULL.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_error_copy(error: *const vmt_error) -> *mut vmt_error {
    // SAFETY: NULL, or an error that nobody has freed.
    let Some(error) = (unsafe { error.as_ref() }) else {
        return std::ptr::null_mut();
    };
    Box::into_raw(Box::new(vmt_error {
        status: error.status,
        errno: error.errno,
        message: error.message.clone(),
    }))
}

/// Frees an error. NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_error_free(error: *mut vmt_error) {
    if !error.is_null() {
        // SAFETY: it was made by `Box::into_raw`, and the caller gives it up.
        drop(unsafe { Box::from_raw(error) });
    }
}
