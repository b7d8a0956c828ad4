//! Invariant: the context of a [`MountError`] names the mount point or the missing part, and what to do.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a volume could not be mounted or unmounted.
#[derive(Debug)]
pub struct MountError {
    kind: MountErrorKind,
    context: String,
    source: Option<io::Error>,
}

/// What kind of trouble a [`MountError`] is, so that a caller can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountErrorKind {
    /// The mount point does not exist: make it.
    Missing,
    /// The mount point is not a directory: name another.
    NotDirectory,
    /// Something is in the mount point or is mounted there (perhaps left by a process that died), or the
    /// unmounting could not end in time: empty or unmount it, or name another.
    Busy,
    /// The system has no FUSE device: load or install FUSE, or give the container the device.
    NoFuse,
    /// The user may not mount: install `fusermount3`, or allow what it refused.
    NoPermission,
    /// Anything else, told by the context and the source.
    Other,
}

impl MountError {
    pub(super) fn new(kind: MountErrorKind, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            source: None,
        }
    }

    #[cfg_attr(not(feature = "fuse"), expect(dead_code, reason = "of a real mount"))]
    pub(super) fn because(mut self, source: impl Into<io::Error>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of trouble it is.
    pub fn kind(&self) -> MountErrorKind {
        self.kind
    }

    /// What it happened to, and what to do about it.
    pub fn context(&self) -> &str {
        &self.context
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for MountError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
