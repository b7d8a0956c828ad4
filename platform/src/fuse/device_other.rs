//! Invariant: only the mount that [`Device::open`] made is ever taken away again, however often that is asked.

use std::io;
use std::path::{Path, PathBuf};

use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use parking_lot::Mutex;

use super::error::{MountError, MountErrorKind};
use super::filesystem::VolumeFilesystem;

/// A FUSE device that is mounted on a directory.
#[derive(Debug)]
pub(super) struct Device {
    directory: PathBuf,
    unmounter: Mutex<SessionUnmounter>,
}

/// How a mount is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As the platform does it.
    Any,
}

/// Whether an unmounting went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmounted {
    /// The mount is gone.
    Done,
    /// Someone has files open in it.
    Busy,
}

impl Device {
    /// Mounts on a directory and starts the protocol on the device.
    pub fn open(
        filesystem: VolumeFilesystem,
        directory: &Path,
        source: &str,
        allow_other: bool,
        _threads: usize,
        _way: Way,
    ) -> Result<(Self, Session<VolumeFilesystem>), MountError> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(source.to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoDev,
            MountOption::NoSuid,
        ];
        if allow_other {
            config.acl = SessionACL::All;
        }
        // More threads are refused outside of Linux.
        config.n_threads = Some(1);
        let mut session = Session::new(filesystem, directory, &config).map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => MountErrorKind::NoFuse,
                io::ErrorKind::PermissionDenied => MountErrorKind::NoPermission,
                _ => MountErrorKind::Other,
            };
            let context = format!(
                "mounting on {} failed: check that FUSE is installed and allowed",
                directory.display()
            );
            MountError::new(kind, context).because(error)
        })?;
        let device = Self {
            directory: directory.to_owned(),
            unmounter: Mutex::new(session.unmount_callable()),
        };
        Ok((device, session))
    }

    /// Whether what stands on the directory is a mount whose connection has ended.
    pub fn is_dead(&self) -> bool {
        use rustix::io::Errno;
        rustix::fs::statvfs(&self.directory)
            .is_err_and(|error| matches!(error, Errno::NOTCONN | Errno::NXIO))
    }

    /// Takes the mount away if nobody uses it.
    pub fn unmount(&self) -> io::Result<Unmounted> {
        match self.unmounter.lock().unmount() {
            Ok(()) => Ok(Unmounted::Done),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(Unmounted::Busy),
            Err(error) => Err(error),
        }
    }

    /// Takes the mount away even if files are open in it: their users get errors from now on.
    pub fn detach(&self) -> io::Result<()> {
        let status = std::process::Command::new("umount")
            .arg("-f")
            .arg(&self.directory)
            .status()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("umount -f ended with {status}"))),
        }
    }
}
