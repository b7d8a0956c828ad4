//! Invariant: every error says what was being done, to what, and what the reader can do about it.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use vmtorrent_platform::Errno;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a program can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or option is wrong: change the call.
    InvalidInput,
    /// The metainfo is broken or hostile: get the .torrent file again from its publisher.
    InvalidTorrent,
    /// A file, directory or URL does not exist: check the name.
    NotFound,
    /// The system refuses: run as another user, or change permissions.
    PermissionDenied,
    /// A state directory, port or mount point is in use: end the holder or choose another.
    InUse,
    /// This system lacks what is needed (FUSE, for example): install it, or use another way.
    Unavailable,
    /// A tracker, peer or web server could not be reached, or answered nonsense: try again later.
    Network,
    /// The data did not come in time: the swarm is dead or too slow.
    TimedOut,
    /// The disk is full: free some space; what was acknowledged is safe.
    NoSpace,
    /// The operating system reported an I/O error.
    Io,
    /// Local data is damaged beyond what can be fetched again.
    Corrupt,
    /// The session or appliance was shut down.
    Closed,
}

impl ErrorKind {
    /// A short name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid input",
            Self::InvalidTorrent => "invalid torrent",
            Self::NotFound => "not found",
            Self::PermissionDenied => "permission denied",
            Self::InUse => "in use",
            Self::Unavailable => "unavailable",
            Self::Network => "network error",
            Self::TimedOut => "timed out",
            Self::NoSpace => "no space left",
            Self::Io => "I/O error",
            Self::Corrupt => "corrupt data",
            Self::Closed => "closed",
        }
    }
}

/// The one public error: match on [`kind`](Error::kind), show the rest.
///
/// `Display` gives the context and the chain of sources in one line.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync + 'static>>,
}

impl Error {
    /// An error without a deeper cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// An error caused by `source`.
    pub fn with_source(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync + 'static>>,
    ) -> Self {
        Self {
            kind,
            context: context.into(),
            source: Some(source.into()),
        }
    }

    /// An I/O error with the kind that its cause suggests; `context` names path and operation.
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ErrorKind::PermissionDenied
            }
            io::ErrorKind::AddrInUse | io::ErrorKind::ResourceBusy => ErrorKind::InUse,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            io::ErrorKind::TimedOut => ErrorKind::TimedOut,
            io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            _ => ErrorKind::Io,
        };
        Self::with_source(kind, context, source)
    }

    /// What a program can match on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was being done, to what, and the remedy.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The nearest error number for a guest or a C caller.
    pub fn errno(&self) -> Errno {
        if let Some(io) = self
            .source
            .as_ref()
            .and_then(|s| s.downcast_ref::<io::Error>())
        {
            return Errno::from_io(io);
        }
        match self.kind {
            ErrorKind::InvalidInput | ErrorKind::InvalidTorrent => Errno::EINVAL,
            ErrorKind::NotFound => Errno::ENOENT,
            ErrorKind::PermissionDenied => Errno::EACCES,
            ErrorKind::InUse => Errno::EBUSY,
            ErrorKind::Unavailable => Errno::EOPNOTSUPP,
            ErrorKind::NoSpace => Errno::ENOSPC,
            ErrorKind::Closed => Errno::ESHUTDOWN,
            ErrorKind::Network | ErrorKind::TimedOut | ErrorKind::Io | ErrorKind::Corrupt => {
                Errno::EIO
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        let mut cause: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(e) = cause {
            write!(f, ": {e}")?;
            cause = e.source();
        }
        Ok(())
    }
}

#[cfg(unix)]
impl From<vmtorrent_platform::fuse::MountError> for Error {
    fn from(error: vmtorrent_platform::fuse::MountError) -> Self {
        use vmtorrent_platform::fuse::MountErrorKind;
        let kind = match error.kind() {
            MountErrorKind::Missing => ErrorKind::NotFound,
            MountErrorKind::NotDirectory => ErrorKind::InvalidInput,
            MountErrorKind::Busy => ErrorKind::InUse,
            MountErrorKind::NoFuse => ErrorKind::Unavailable,
            MountErrorKind::NoPermission => ErrorKind::PermissionDenied,
            _ => ErrorKind::Io,
        };
        let context = error.to_string();
        Self::new(kind, context)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|s| s as &(dyn StdError + 'static))
    }
}
