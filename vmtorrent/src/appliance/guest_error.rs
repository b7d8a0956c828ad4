//! What a guest is told when something goes wrong.
//!
//! Invariant: every error that a guest sees is counted, and its text is in the log unless the log was full of it.

use vmtorrent_platform::Errno;

use super::counters::operation_index;
use super::disk::Disk;
use crate::error::{Error, ErrorKind};

impl Disk {
    /// Turns an error into what the guest sees, counts it, and keeps its text in the log.
    pub(super) fn to_errno(&self, operation: &str, error: &Error) -> Errno {
        self.config.counters.failed(operation);
        // An explicit parent would be missing from the JSON form of the log.
        let _named = self.config.span.enter();
        let file = self.file.path.join("/");
        let limit = &self.config.log[operation_index(operation)];
        match error.kind() {
            ErrorKind::Closed | ErrorKind::InvalidInput => {
                tracing::debug!(file, operation, %error, "the guest sees an error");
            }
            kind => {
                // A guest asks again and again, and for many blocks at once.
                let Some(repeated) = limit.admit(self.config.clock.now()) else {
                    return guest_errno(error);
                };
                if matches!(kind, ErrorKind::TimedOut | ErrorKind::Network) {
                    tracing::warn!(file, operation, %error, repeated, "the guest sees an error");
                } else {
                    tracing::error!(file, operation, %error, repeated, "the guest sees an error");
                }
            }
        }
        guest_errno(error)
    }

    /// An error for who calls the disk in place of a guest: it is counted as that guest's, names file and operation, and its
    /// number is what the guest is to see.
    pub(super) fn told(&self, operation: &str, error: &Error) -> Error {
        let errno = self.to_errno(operation, error);
        let name = self.file.path.join("/");
        let text = format!("{operation} of {name}: {error}");
        let kind = match error.kind() {
            // They are of the host's files, and no answer to the guest.
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::InUse
            | ErrorKind::Unavailable => ErrorKind::Io,
            kind => kind,
        };
        let told = Error::new(kind, text);
        if told.errno() == errno {
            told
        } else {
            Error::with_source(kind, told.context(), std::io::Error::from(errno))
        }
    }
}

/// What a guest is told. The host's number for what went wrong with its files (`ENOENT`, `EMFILE`, `EACCES`) would mean
/// something else of the guest's disk: of these only those go through on which a VMM may act.
fn guest_errno(error: &Error) -> Errno {
    let errno = error.errno();
    // EDQUOT has no constant there.
    let is_full = error.kind() == ErrorKind::NoSpace;
    let is_ours = std::error::Error::source(error).is_none() && errno == Errno::EINVAL;
    let acted_on = [
        Errno::ENOSPC,
        Errno::EFBIG,
        Errno::EROFS,
        Errno::EINTR,
        Errno::ESHUTDOWN,
    ];
    if is_full || is_ours || acted_on.contains(&errno) {
        errno
    } else {
        Errno::EIO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_sees_no_number_of_the_hosts_files() {
        let told = |errno: Errno| guest_errno(&Error::io("a file", errno.into()));
        for errno in [Errno::ENOSPC, Errno::EFBIG, Errno::EROFS, Errno::EINTR] {
            assert_eq!(told(errno), errno);
        }
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::EINVAL, Errno::EBADF] {
            assert_eq!(told(errno), Errno::EIO);
        }
        let told = |kind| guest_errno(&Error::new(kind, "the guest's request"));
        assert_eq!(told(ErrorKind::InvalidInput), Errno::EINVAL);
        assert_eq!(told(ErrorKind::Closed), Errno::ESHUTDOWN);
        assert_eq!(told(ErrorKind::NotFound), Errno::EIO);
        #[cfg(target_os = "linux")]
        {
            let quota = rustix::io::Errno::DQUOT.raw_os_error();
            let error = std::io::Error::from_raw_os_error(quota);
            assert_eq!(guest_errno(&Error::io("a file", error)).raw(), quota);
        }
    }
}
