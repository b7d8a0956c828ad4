//! Invariant: a number that was once given to a status means the same for ever.

use std::ffi::c_char;

use vmtorrent::ErrorKind;

/// How a call ended: VMT_OK, or one of the negative numbers below. Others may be added: treat them as VMT_E_IO.
pub type vmt_status = i32;

/// It is done.
pub const VMT_OK: vmt_status = 0;
/// An argument or option is wrong: change the call. errno EINVAL.
pub const VMT_E_INVALID: vmt_status = -1;
/// The .torrent file is broken or hostile: get it again from its publisher. errno EINVAL.
pub const VMT_E_TORRENT: vmt_status = -2;
/// A file, directory or URL does not exist: check the name. errno ENOENT.
pub const VMT_E_NOT_FOUND: vmt_status = -3;
/// The system refuses: run as another user, or change permissions. errno EACCES.
pub const VMT_E_PERMISSION: vmt_status = -4;
/// A state directory, port or mount point is in use: end the holder, or choose another. errno EBUSY.
pub const VMT_E_IN_USE: vmt_status = -5;
/// This system lacks what is needed (FUSE, for example): install it, or use another way. errno EOPNOTSUPP.
pub const VMT_E_UNAVAILABLE: vmt_status = -6;
/// A tracker, peer or web server could not be reached, or answered nonsense: try again later. errno EIO.
pub const VMT_E_NETWORK: vmt_status = -7;
/// It did not come or end in time: the swarm is dead or too slow. errno EIO, or ETIMEDOUT where a timeout was an
/// argument.
pub const VMT_E_TIMED_OUT: vmt_status = -8;
/// The disk is full: free some space; what was acknowledged is safe. errno ENOSPC.
pub const VMT_E_NO_SPACE: vmt_status = -9;
/// The operating system reported an I/O error. errno as it said.
pub const VMT_E_IO: vmt_status = -10;
/// Local data is damaged beyond what can be fetched again. errno EIO.
pub const VMT_E_CORRUPT: vmt_status = -11;
/// The session or appliance was shut down. errno ESHUTDOWN.
pub const VMT_E_CLOSED: vmt_status = -12;
/// A required pointer is NULL. errno EINVAL.
pub const VMT_E_NULL: vmt_status = -20;
/// A text is not UTF-8. errno EILSEQ.
pub const VMT_E_UTF8: vmt_status = -21;
/// The call was given up because its vmt_cancel was triggered. errno ECANCELED.
pub const VMT_E_CANCELLED: vmt_status = -22;
/// The session was started by another process, of which this one is a fork. errno EPERM.
pub const VMT_E_FORKED: vmt_status = -23;
/// A mistake in the library: please report it. The session can't be used any more. errno EIO.
pub const VMT_E_PANIC: vmt_status = -24;
/// An earlier call met VMT_E_PANIC: free the session's handles. errno EIO.
pub const VMT_E_POISONED: vmt_status = -25;
/// The call would wait for the callback that it is made from, or it is made from a log handler: make it elsewhere.
/// errno EDEADLK.
pub const VMT_E_REENTERED: vmt_status = -26;
/// Nothing is there without waiting: try again when there may be. errno EAGAIN.
pub const VMT_E_AGAIN: vmt_status = -27;

/// The status of an error of the library.
pub(crate) fn of(kind: ErrorKind) -> vmt_status {
    match kind {
        ErrorKind::InvalidInput => VMT_E_INVALID,
        ErrorKind::InvalidTorrent => VMT_E_TORRENT,
        ErrorKind::NotFound => VMT_E_NOT_FOUND,
        ErrorKind::PermissionDenied => VMT_E_PERMISSION,
        ErrorKind::InUse => VMT_E_IN_USE,
        ErrorKind::Unavailable => VMT_E_UNAVAILABLE,
        ErrorKind::Network => VMT_E_NETWORK,
        ErrorKind::TimedOut => VMT_E_TIMED_OUT,
        ErrorKind::NoSpace => VMT_E_NO_SPACE,
        ErrorKind::Corrupt => VMT_E_CORRUPT,
        ErrorKind::Closed => VMT_E_CLOSED,
        // The kinds may grow.
        _ => VMT_E_IO,
    }
}

/// A short name of a status, such as "no space left", for messages. Never NULL; the string is static.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn vmt_status_name(status: vmt_status) -> *const c_char {
    let name = match status {
        VMT_OK => c"ok",
        VMT_E_INVALID => c"invalid input",
        VMT_E_TORRENT => c"invalid torrent",
        VMT_E_NOT_FOUND => c"not found",
        VMT_E_PERMISSION => c"permission denied",
        VMT_E_IN_USE => c"in use",
        VMT_E_UNAVAILABLE => c"unavailable",
        VMT_E_NETWORK => c"network error",
        VMT_E_TIMED_OUT => c"timed out",
        VMT_E_NO_SPACE => c"no space left",
        VMT_E_IO => c"I/O error",
        VMT_E_CORRUPT => c"corrupt data",
        VMT_E_CLOSED => c"closed",
        VMT_E_NULL => c"NULL pointer",
        VMT_E_UTF8 => c"not UTF-8",
        VMT_E_CANCELLED => c"cancelled",
        VMT_E_FORKED => c"used in a forked process",
        VMT_E_PANIC => c"internal error",
        VMT_E_POISONED => c"unusable after an internal error",
        VMT_E_REENTERED => c"called from a callback that it would wait for",
        VMT_E_AGAIN => c"nothing yet",
        _ => c"unknown status",
    };
    name.as_ptr()
}
