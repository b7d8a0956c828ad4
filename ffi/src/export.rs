//! Invariant: when an export returns, no thread of the session that it needed is left.

use std::ffi::c_char;
use std::path::Path;

use vmtorrent::Session;

use crate::block_on::{Deadline, block_on_until};
use crate::cancel::{self, vmt_cancel};
use crate::error::vmt_error;
use crate::guard::{Out, guarded};
use crate::options::{settings, vmt_options};
use crate::process::Living;
use crate::status::vmt_status;
use crate::text::text;

/// How long the session of an export may take to end, milliseconds.
const ENDING: u64 = 10_000;

/// Ends the session that an export needed.
#[derive(Default)]
struct Ended(Option<Session>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            let deadline = Deadline::after(ENDING);
            // After an export that ended well this was done.
            let _ = block_on_until(session.clone().shutdown(), deadline);
            session.join_threads(deadline.left());
        }
    }
}

/// Writes the image of the state directory `state`, with everything that the guest wrote and flushed, to `output`: a
/// file, or a directory for an image of several files. Its appliance must have ended. What neither the state nor the
/// cache holds is fetched with the peers and trackers that the last launch knew. Waits for all that. `options` may be
/// NULL; `cache` and `read-timeout` of them count. `cancel` may be NULL. `written`, which may be NULL, gets the bytes
/// of data written; holes stay holes. `output` appears only when it is complete.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_NOT_FOUND when `state` is no state directory; VMT_E_IN_USE when its
/// appliance runs, or `output` exists; VMT_E_TIMED_OUT when missing data does not come; VMT_E_NO_SPACE,
/// VMT_E_PERMISSION, VMT_E_IO, VMT_E_CORRUPT; VMT_E_CANCELLED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_export(
    state: *const c_char,
    output: *const c_char,
    options: *const vmt_options,
    cancel: *const vmt_cancel,
    written: *mut u64,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            let _living = Living::begin()?;
            crate::log::quiet_panics();
            let state = Path::new(text(state, "state")?);
            let output = Path::new(text(output, "output")?);
            let (options, cancel) = (settings(options).export, cancel::token(cancel));
            let mut ended = Ended::default();
            let started = |session: &Session| ended.0 = Some(session.clone());
            let exported = vmtorrent::export_in(state, output, options, started);
            let bytes = cancel::wait(&cancel, exported)?;
            if let Ok(written) = Out::new(written, "written") {
                written.set(bytes);
            }
            Ok(())
        })
    }
}
