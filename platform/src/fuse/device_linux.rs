//! Invariant: only the mount that [`Device::open`] made is ever taken away again, however often that is asked.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use fuser::{Config, Session, SessionACL};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::error::{MountError, MountErrorKind};
use super::filesystem::VolumeFilesystem;
use super::helper;

const DEVICE: &str = "/dev/fuse";

/// A FUSE device that is mounted on a directory.
#[derive(Debug)]
pub(super) struct Device {
    directory: PathBuf,
    /// `None` when it could not be told.
    identity: Option<Identity>,
}

/// How a mount is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By ourselves where we may, else through the helper.
    Any,
    /// Through the helper, to test it.
    #[cfg(test)]
    Helper,
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
        threads: usize,
        way: Way,
    ) -> Result<(Self, Session<VolumeFilesystem>), MountError> {
        let fd = match way {
            Way::Any => match mount_directly(directory, source, allow_other)? {
                Some(fd) => fd,
                None => helper::mount(directory, source, allow_other)?,
            },
            #[cfg(test)]
            Way::Helper => helper::mount(directory, source, allow_other)?,
        };
        let device = Self {
            directory: directory.to_owned(),
            identity: Identity::of(directory),
        };
        let acl = match allow_other {
            true => SessionACL::All,
            false => SessionACL::Owner,
        };
        let mut config = Config::default();
        config.acl = acl;
        config.n_threads = Some(threads);
        // A thread's own descriptor needs the device to be opened again.
        config.clone_fd = File::options().read(true).write(true).open(DEVICE).is_ok();
        match Session::from_fd(filesystem, fd, acl, config) {
            Ok(session) => Ok((device, session)),
            Err(error) => {
                if let Err(error) = device.detach() {
                    tracing::warn!(%error, "a mount that failed could not be taken away");
                }
                let context = format!("the kernel's FUSE on {} did not start", directory.display());
                Err(MountError::new(MountErrorKind::Other, context).because(error))
            }
        }
    }

    /// Whether our mount still stands on the directory.
    fn stands(&self) -> bool {
        match (self.identity, Identity::of(&self.directory)) {
            (Some(ours), Some(found)) => ours == found,
            // Not told: asking to unmount does no harm, as ours was there.
            _ => true,
        }
    }

    /// Whether what stands on the directory is a mount whose connection has ended.
    pub fn is_dead(&self) -> bool {
        rustix::fs::statvfs(&self.directory).is_err_and(|error| error == Errno::NOTCONN)
    }

    /// Takes the mount away if nobody uses it.
    pub fn unmount(&self) -> io::Result<Unmounted> {
        if !self.stands() {
            return Ok(Unmounted::Done);
        }
        match rustix::mount::unmount(&self.directory, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(Unmounted::Done),
            Err(Errno::BUSY) => Ok(Unmounted::Busy),
            // The helper does not tell why it failed in a stable form.
            Err(Errno::PERM) => Ok(helper::unmount(&self.directory, false)
                .map_or(Unmounted::Busy, |()| Unmounted::Done)),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the mount away even if files are open in it: their users get errors from now on.
    pub fn detach(&self) -> io::Result<()> {
        if !self.stands() {
            return Ok(());
        }
        // FORCE ends the connection, so that nobody waits for an answer any more.
        let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(&self.directory, flags) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(Errno::PERM) => {
                self.abort();
                helper::unmount(&self.directory, true)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the connection the way that is open to the user who mounted, where that is provided.
    fn abort(&self) {
        if let Some(Identity { minor, .. }) = self.identity {
            let _ = std::fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
        }
    }
}

/// Mounts with the system call; `None` when this user may not.
fn mount_directly(
    directory: &Path,
    source: &str,
    allow_other: bool,
) -> Result<Option<OwnedFd>, MountError> {
    let device = match File::options().read(true).write(true).open(DEVICE) {
        Ok(device) => device,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => {
            let context = format!(
                "this system has no {DEVICE}: load the module (modprobe fuse), or give the container the \
                 device (--device {DEVICE} --cap-add SYS_ADMIN)"
            );
            return Err(MountError::new(MountErrorKind::NoFuse, context).because(error));
        }
    };
    let mut options = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_fd().as_raw_fd(),
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if allow_other {
        options.push_str(",allow_other");
    }
    let failed = |error: io::Error| {
        let context = format!("mounting on {} failed", directory.display());
        MountError::new(MountErrorKind::Other, context).because(error)
    };
    let options = CString::new(options).map_err(|error| failed(error.into()))?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    match rustix::mount::mount(source, directory, "fuse.vmtorrent", flags, &*options) {
        Ok(()) => Ok(Some(device.into())),
        Err(Errno::PERM | Errno::ACCESS) => Ok(None),
        Err(Errno::NODEV) => {
            let context = "the kernel knows no FUSE: load the module (modprobe fuse)";
            Err(MountError::new(MountErrorKind::NoFuse, context).because(Errno::NODEV))
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// `STATX_MNT_ID_UNIQUE`: numbers of mounts that are never used again, unlike those before Linux 6.8.
const UNIQUE_NUMBER: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Tells a mount from another that may stand at the same place later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    major: u32,
    minor: u32,
    mount: u64,
}

impl Identity {
    /// The identity of what stands at a path, asked without a request to it.
    fn of(path: &Path) -> Option<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        let wanted = StatxFlags::MNT_ID | UNIQUE_NUMBER;
        let stat = rustix::fs::statx(CWD, path, flags, wanted).ok()?;
        Some(Self {
            major: stat.stx_dev_major,
            minor: stat.stx_dev_minor,
            mount: stat.stx_mnt_id,
        })
    }
}
