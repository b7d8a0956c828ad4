//! The end of an asynchronous call.
//!
//! Invariant: an accepted call is completed exactly once, whatever becomes of its task; its user pointer is freed
//! exactly once, also when it was refused.

use std::ffi::c_void;
use std::sync::Arc;

use crate::appliance::{ApplianceCore, Using};
use crate::callbacks::User;
use crate::error::{Failure, vmt_error};
use crate::status::{VMT_E_PANIC, VMT_OK, vmt_status};

/// How an asynchronous call tells of its end.
///
/// When the function that takes it returns VMT_OK, `call` is called exactly once, perhaps before that; else never.
/// `free` is called exactly once in any case: after `call`, or before the function returns what it failed with. Both
/// are called in the session's thread for callbacks, but for a `free` after a refusal.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmt_completion {
    /// `status` is VMT_OK or why it failed; `value` what the function says, else 0; `error` is NULL, or tells more of a
    /// failure and is lent until `call` returns (vmt_error_copy makes a copy). Must not be NULL.
    pub call: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            status: vmt_status,
            value: u64,
            error: *const vmt_error,
        ),
    >,
    /// For whatever the caller likes.
    pub user: *mut c_void,
    /// Frees `user`. May be NULL.
    pub free: Option<unsafe extern "C" fn(user: *mut c_void)>,
}

type Call = unsafe extern "C" fn(*mut c_void, vmt_status, u64, *const vmt_error);

/// A completion whose user pointer is freed in any case, but that nobody has accepted yet.
pub(crate) struct Offered {
    call: Option<Call>,
    user: User,
}

impl Offered {
    pub(crate) fn new(raw: vmt_completion) -> Self {
        Self {
            call: raw.call,
            user: User::new(raw.user, raw.free),
        }
    }

    /// From here on it is called exactly once.
    pub(crate) fn accept(
        self,
        core: Arc<ApplianceCore>,
        using: Using,
    ) -> Result<Completion, Failure> {
        let call = self.call.ok_or_else(|| Failure::null("completion.call"))?;
        Ok(Completion(Some(Pending {
            call,
            user: self.user,
            using,
            core,
        })))
    }
}

/// The duty to tell the caller.
pub(crate) struct Completion(Option<Pending>);

struct Pending {
    call: Call,
    user: User,
    // Dropped in this order: what is used, then what keeps it alive.
    using: Using,
    core: Arc<ApplianceCore>,
}

impl Completion {
    /// The appliance that the call is for.
    pub(crate) fn appliance(&self) -> Option<&vmtorrent::Appliance> {
        self.0.as_ref().map(|pending| &*pending.using)
    }

    /// Tells of the end.
    pub(crate) fn finish(mut self, outcome: Result<u64, Failure>) {
        if let Some(pending) = self.0.take() {
            pending.post(outcome);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        // Its task was dropped with the session's threads.
        if let Some(pending) = self.0.take() {
            pending.post(Err(Failure::closed("session")));
        }
    }
}

impl Pending {
    fn post(self, outcome: Result<u64, Failure>) {
        let session = self.core.session();
        let poster = session.callbacks.poster();
        if let Err(failure) = &outcome
            && failure.status == VMT_E_PANIC
        {
            session.owner.poison();
        }
        let job = move || {
            // As a whole: all of it is dropped here, in the thread for callbacks.
            let pending = self;
            let (status, value, error) = match outcome {
                Ok(value) => (VMT_OK, value, None),
                Err(failure) => (failure.status, 0, Some(failure.into_error())),
            };
            let lent = error.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: the caller gave the function for this; the error lives until it returns.
            unsafe { (pending.call)(pending.user.pointer, status, value, lent) };
        };
        poster.post(Box::new(job));
    }
}
