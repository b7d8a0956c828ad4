//! Invariant: an [`Errno`] is never zero, and its number is the host's own.

use std::fmt;
use std::io;

/// Why a [`Volume`](crate::Volume) operation failed, as the host's own error number.
///
/// Kernels and VMMs understand error numbers only, so this is the error type at the border; richer
/// errors are translated into it one floor above.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident = $unix:ident / $other:literal : $doc:literal),* $(,)?) => {
        impl Errno {
            $(
                #[doc = $doc]
                #[cfg(unix)]
                pub const $name: Self = Self(rustix::io::Errno::$unix.raw_os_error());
                #[doc = $doc]
                #[cfg(not(unix))]
                pub const $name: Self = Self($other);
            )*

            /// The symbolic name, or `E?` for a number without one here.
            pub fn name(self) -> &'static str {
                $(if self == Self::$name { return stringify!($name); })*
                "E?"
            }
        }
    };
}

errnos! {
    EPERM = PERM / 1: "The operation is not permitted on this node.",
    ENOENT = NOENT / 2: "There is no such node.",
    EINTR = INTR / 4: "Whoever asked was killed while it waited.",
    EIO = IO / 5: "The data could not be had: a read past its deadline, a dead swarm, a disk error.",
    EBADF = BADF / 9: "The handle is not open, or not open for this.",
    EACCES = ACCESS / 13: "Permission denied.",
    EBUSY = BUSY / 16: "The node is in use.",
    EEXIST = EXIST / 17: "The name exists already.",
    ENOTDIR = NOTDIR / 20: "A directory was needed.",
    EISDIR = ISDIR / 21: "A file was needed.",
    EINVAL = INVAL / 22: "An argument is out of range.",
    EFBIG = FBIG / 27: "The file would become too large.",
    ENOSPC = NOSPC / 28: "No space is left in the state or cache directory.",
    EROFS = ROFS / 30: "The volume is read-only.",
    ENAMETOOLONG = NAMETOOLONG / 36: "The name is too long.",
    ENOTEMPTY = NOTEMPTY / 39: "The directory is not empty.",
    ENXIO = NXIO / 6: "There is no data or hole past this offset.",
    EOPNOTSUPP = OPNOTSUPP / 95: "The operation is not supported here.",
    ESHUTDOWN = SHUTDOWN / 108: "The volume is being shut down.",
}

impl Errno {
    /// Takes the number out of an I/O error; an error without one becomes the nearest by its kind.
    pub fn from_io(error: &io::Error) -> Self {
        #[cfg(unix)]
        if let Some(raw) = error.raw_os_error()
            && raw != 0
        {
            return Self(raw);
        }
        match error.kind() {
            io::ErrorKind::NotFound => Self::ENOENT,
            io::ErrorKind::PermissionDenied => Self::EACCES,
            io::ErrorKind::AlreadyExists => Self::EEXIST,
            io::ErrorKind::InvalidInput => Self::EINVAL,
            io::ErrorKind::StorageFull => Self::ENOSPC,
            io::ErrorKind::DirectoryNotEmpty => Self::ENOTEMPTY,
            io::ErrorKind::IsADirectory => Self::EISDIR,
            io::ErrorKind::NotADirectory => Self::ENOTDIR,
            io::ErrorKind::Unsupported => Self::EOPNOTSUPP,
            _ => Self::EIO,
        }
    }

    /// The host's number.
    pub fn raw(self) -> i32 {
        self.0
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        Self::from_io(&error)
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        io::Error::from_raw_os_error(errno.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Errno {}
