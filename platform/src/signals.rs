//! Signals of the program that embeds this library.
//!
//! Invariant: a thread of the library runs no signal handler, and a peer that went away ends no process by SIGPIPE.

/// Leaves signals to the threads of others: none that is sent to the process is delivered to this thread from now on. Only
/// what the thread does wrong itself (SIGSEGV and its like) still comes. Threads that it starts are the same.
#[expect(
    unsafe_code,
    reason = "there is no safe form of it in the crates that are used here"
)]
#[cfg(unix)]
pub fn leave_signals_to_others() {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is filled by the first call before it is used, and no memory is kept.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for own in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
        ] {
            libc::sigdelset(set.as_mut_ptr(), own);
        }
        // It fails only for arguments that make no sense.
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Lets the program that the command starts take all signals, whatever the thread that starts it leaves to others: a
/// started program inherits what is blocked, and one that does not get SIGTERM can't be asked to end.
#[expect(
    unsafe_code,
    reason = "the standard library has no safe way to change what a child has blocked"
)]
#[cfg(unix)]
pub fn take_all_signals(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only async-signal-safe calls are made (sigemptyset, pthread_sigmask), and nothing is
    // allocated. Signals that are pending for us are not pending for the child.
    unsafe {
        command.pre_exec(|| {
            let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            match libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) {
                0 => Ok(()),
                error => Err(std::io::Error::from_raw_os_error(error)),
            }
        });
    }
}

/// There are none here.
#[cfg(not(unix))]
pub fn take_all_signals(_command: &mut std::process::Command) {}

/// There are none here.
#[cfg(not(unix))]
pub fn leave_signals_to_others() {}
