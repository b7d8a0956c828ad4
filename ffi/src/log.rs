//! Invariant: without a handler nothing is formatted or printed; a handler that was taken back runs nowhere any more;
//! what a handler does logs nothing.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, RwLock};
use std::time::Duration;

use crate::callbacks::User;
use crate::error::{Failure, vmt_error};
use crate::guard::{self, guarded};
#[cfg(feature = "log")]
use crate::log_layer::install;
use crate::status::vmt_status;

/// Nothing is logged.
pub const VMT_LOG_OFF: i32 = 0;
/// What went wrong and needs somebody.
pub const VMT_LOG_ERROR: i32 = 1;
/// What went wrong and was dealt with.
pub const VMT_LOG_WARN: i32 = 2;
/// What happened.
pub const VMT_LOG_INFO: i32 = 3;
/// What developers want to know.
pub const VMT_LOG_DEBUG: i32 = 4;
/// Everything.
pub const VMT_LOG_TRACE: i32 = 5;

/// Told what is logged.
///
/// It is called in any thread of the library or of its callers, at times while the library holds locks: it must
/// return soon, and calls no function of this library but those of vmt_error; others that can fail give it
/// VMT_E_REENTERED.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmt_log_handler {
    /// `level` is a VMT_LOG_ number, `target` the part of the library, `message` a line of text. Both are lent until
    /// it returns.
    pub call: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            level: i32,
            target: *const c_char,
            message: *const c_char,
        ),
    >,
    /// For whatever the caller likes.
    pub user: *mut c_void,
    /// Frees `user`, when the handler is replaced or taken back. May be NULL.
    pub free: Option<unsafe extern "C" fn(user: *mut c_void)>,
}

type Call = unsafe extern "C" fn(*mut c_void, i32, *const c_char, *const c_char);

struct Handler {
    call: Call,
    user: User,
}

static HANDLER: RwLock<Option<Arc<Handler>>> = RwLock::new(None);
static LEVEL: AtomicI32 = AtomicI32::new(VMT_LOG_OFF);
/// Held while the handler is changed.
static CHANGING: Mutex<bool> = Mutex::new(false);

thread_local! {
    static HANDLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a log handler.
pub(crate) fn is_handling() -> bool {
    HANDLING.get()
}

/// Has panics of the library go to the log instead of stderr. Those of a Rust program that it is part of stay as they are.
pub(crate) fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_ours = |name: &str| name.starts_with("vmtorrent") || name.starts_with("fuser");
            if guard::is_inside() || std::thread::current().name().is_some_and(is_ours) {
                tracing::error!(target: "vmtorrent", "a mistake in the library: {panic}");
            } else {
                before(panic);
            }
        }));
    });
}

/// Has what the library logs told to a function, up to a level: VMT_LOG_ERROR to VMT_LOG_TRACE; of the libraries that
/// it is made of no more than warnings. The handler is that of the process: it replaces an earlier one. With a `call`
/// that is NULL, or VMT_LOG_OFF, nothing is logged any more, as at first. When this returns, the earlier handler runs
/// nowhere, and was freed.
///
/// Errors: VMT_E_INVALID for a level that does not exist; VMT_E_IN_USE when a Rust program that the library is part
/// of has a log of its own; VMT_E_UNAVAILABLE when the library was built without the feature `log`. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_log_set(
    level: i32,
    handler: vmt_log_handler,
    error: *mut *mut vmt_error,
) -> vmt_status {
    let user = User::new(handler.user, handler.free);
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            let user = user;
            if !(VMT_LOG_OFF..=VMT_LOG_TRACE).contains(&level) {
                return Err(Failure::invalid(format!(
                    "there is no level {level}: take VMT_LOG_OFF (0) to VMT_LOG_TRACE (5)"
                )));
            }
            let call = handler.call.filter(|_| level > VMT_LOG_OFF);
            set(call.map(|call| Handler { call, user }), level)
        })
    }
}

fn set(handler: Option<Handler>, level: i32) -> Result<(), Failure> {
    let mut installed = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    if handler.is_some() && !*installed {
        install()?;
        *installed = true;
    }
    let level = if handler.is_some() {
        level
    } else {
        VMT_LOG_OFF
    };
    LEVEL.store(level, Ordering::Relaxed);
    let new = handler.map(Arc::new);
    let old = std::mem::replace(
        &mut *HANDLER.write().unwrap_or_else(PoisonError::into_inner),
        new,
    );
    if *installed {
        tracing::callsite::rebuild_interest_cache();
    }
    if let Some(old) = old {
        // Others may be inside; they return soon.
        while Arc::strong_count(&old) > 1 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    Ok(())
}

/// The level up to which somebody wants to know.
pub(crate) fn level() -> i32 {
    LEVEL.load(Ordering::Relaxed)
}

/// Whether there is a handler at all.
pub(crate) fn is_on() -> bool {
    level() > VMT_LOG_OFF && !is_handling()
}

/// Tells the handler.
pub(crate) fn tell(level: i32, target: &CStr, message: &CStr) {
    let handler = HANDLER
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let Some(handler) = handler else {
        return;
    };
    HANDLING.set(true);
    // SAFETY: the caller gave the function for this; both texts live until it returns.
    unsafe {
        (handler.call)(
            handler.user.pointer,
            level,
            target.as_ptr(),
            message.as_ptr(),
        )
    };
    HANDLING.set(false);
}

#[cfg(not(feature = "log"))]
fn install() -> Result<(), Failure> {
    let text = "this build has no log: build it with the feature `log`";
    Err(Failure::new(crate::status::VMT_E_UNAVAILABLE, text))
}
