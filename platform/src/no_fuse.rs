//! Invariant: what the module `fuse` shows is there in a build without it, and every mount is refused with the reason.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

#[path = "fuse/error.rs"]
mod error;

pub use error::{MountError, MountErrorKind};

use crate::Volume;

/// How a volume would be mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Where requests that have to wait would run.
    pub runtime: Handle,
    /// What would stand in the table of mounts.
    pub name: String,
    /// Whether other users would be let in.
    pub allow_other: bool,
    /// How many threads it would have.
    pub threads: usize,
}

impl MountOptions {
    /// The usual options.
    pub fn new(runtime: Handle, name: impl Into<String>) -> Self {
        Self {
            runtime,
            name: name.into(),
            allow_other: false,
            threads: 0,
        }
    }
}

/// A mounted volume, of which there is none.
#[derive(Debug)]
pub struct Mount(Infallible);

impl Mount {
    /// Takes it away.
    ///
    /// # Errors
    /// None: there is no mount.
    pub fn unmount(self) -> Result<(), MountError> {
        match self.0 {}
    }
}

/// Refuses.
///
/// # Errors
/// Always [`MountErrorKind::NoFuse`].
pub fn mount(
    _volume: Arc<dyn Volume>,
    _directory: &Path,
    _options: MountOptions,
) -> Result<Mount, MountError> {
    Err(MountError::new(
        MountErrorKind::NoFuse,
        "this build has no FUSE: read and write through calls, or build with the feature `fuse`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TreeVolume;

    #[test]
    fn without_fuse_a_mount_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let volume = Arc::new(TreeVolume::new(Vec::new(), folder.path()).unwrap());
        let options = MountOptions::new(runtime.handle().clone(), "disk");
        let refused = mount(volume, folder.path(), options).unwrap_err();
        assert_eq!(refused.kind(), MountErrorKind::NoFuse);
        assert!(refused.context().contains("the feature `fuse`"));
    }
}
