//! Ways to meet a panic and mistakes with memory, for tests. Invariant: no release has them.

use crate::appliance::vmt_appliance;
use crate::completion::{Offered, vmt_completion};
use crate::error::vmt_error;
use crate::guard::guarded_on;
use crate::session::vmt_session;
use crate::status::vmt_status;

/// Panics inside the guard.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_test_panic(
    session: *const vmt_session,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe { guarded_on(session, error, |_| panic!("injected by a test")) }
}

/// Panics in the task of an asynchronous call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_test_panic_in_task(
    appliance: *const vmt_appliance,
    completion: vmt_completion,
    error: *mut *mut vmt_error,
) -> vmt_status {
    let offered = Offered::new(completion);
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            crate::aio::submit_panic(appliance, offered)
        })
    }
}

/// Reads a byte of the heap that was freed, or with `behind` the one behind the end: proof that a sanitizer is on in
/// Rust code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_test_bad_read(behind: bool) -> u8 {
    let room = Box::new([1_u8; 16]);
    let start = std::hint::black_box(room.as_ptr());
    if behind {
        // SAFETY: none, this is the mistake.
        return unsafe { start.add(room.len()).read_volatile() };
    }
    drop(room);
    // SAFETY: none, this is the mistake.
    unsafe { start.read_volatile() }
}
