//! Invariant: a cancel that was triggered stays so.

use tokio_util::sync::CancellationToken;

use crate::block_on::block_on;
use crate::error::{Failure, vmt_error};
use crate::guard::{Handle, Out, Owner, free, guarded, look};
use crate::status::vmt_status;

/// Gives up calls that wait: loading, launching, publishing, exporting, replaying. It is passed to the call, and triggered by
/// another thread. One may serve any number of calls, and may be freed while they run.
pub struct vmt_cancel {
    token: CancellationToken,
}

impl Handle for vmt_cancel {
    const NAME: &'static str = "cancel";

    fn owner(&self) -> Option<&Owner> {
        None
    }
}

/// What a call looks at; without a handle it is never triggered.
///
/// # Safety
/// `cancel` is NULL or a handle that is not freed before the call ends.
pub(crate) unsafe fn token(cancel: *const vmt_cancel) -> CancellationToken {
    // SAFETY: the caller's promise.
    unsafe { cancel.as_ref() }.map_or_else(CancellationToken::new, |c| c.token.clone())
}

/// Waits for something in this thread, unless it is given up. What was begun ends as if its future had been dropped.
pub(crate) fn wait<T, E: Into<Failure>>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    block_on(async {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Failure::cancelled()),
            done = work => done.map_err(Into::into),
        }
    })
}

/// Makes one that is not triggered. The caller frees it.
///
/// Errors: VMT_E_NULL. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_cancel_new(
    cancel: *mut *mut vmt_cancel,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            Out::new(cancel, "cancel")?.give(vmt_cancel {
                token: CancellationToken::new(),
            });
            Ok(())
        })
    }
}

/// Triggers it: calls that it was passed to end with VMT_E_CANCELLED soon, and later ones at once. What they had begun
/// is undone; a state directory or port may take a moment to be free again. Again, or with NULL, it does nothing.
/// It does not wait, and takes locks, so it is not for a signal handler.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_cancel_trigger(cancel: *const vmt_cancel) {
    // SAFETY: what the header asks of every caller.
    unsafe { look(cancel, (), |c| c.token.cancel()) }
}

/// Whether it was triggered; false for NULL.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_cancel_is_triggered(cancel: *const vmt_cancel) -> bool {
    // SAFETY: what the header asks of every caller.
    unsafe { look(cancel, false, |c| c.token.is_cancelled()) }
}

/// Frees it; calls that it was passed to go on. NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_cancel_free(cancel: *mut vmt_cancel) {
    // SAFETY: what the header asks of every caller.
    unsafe { free(cancel) }
}
