//! Invariant: no path is ever resolved by the host: each component is opened by itself, relative to the
//! one above, and never through a symbolic link. So nothing outside the host folder can be reached.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno as HostErrno;

use crate::{Errno, OpenMode, PositionedFile, StatFs};

/// One directory of the host folder, open.
#[derive(Debug)]
pub(super) struct HostDirectory {
    fd: OwnedFd,
}

/// What the host says of a file or directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostStat {
    pub size: u64,
    pub allocated: u64,
    pub permissions: u16,
    pub links: u32,
    pub modified: SystemTime,
}

/// What a name in the host folder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostKind {
    Directory,
    File,
    /// A symbolic link, a socket, a device: not shown.
    Other,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl HostDirectory {
    /// Opens the top of the host folder, making it when it is absent.
    pub fn open_top(path: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Opens a directory in this one.
    pub fn open_directory(&self, name: &str) -> Result<Self, Errno> {
        let fd = rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty()).map_err(refused)?;
        Ok(Self { fd })
    }

    /// Makes a directory in this one, with exactly these permissions.
    pub fn make_directory(&self, name: &str, permissions: u16) -> Result<(), Errno> {
        rustix::fs::mkdirat(&self.fd, name, Mode::RWXU).map_err(refused)?;
        // The process's umask does not apply to what the VMM asks for.
        self.set_permissions(name, permissions)
    }

    /// Opens a regular file in this directory.
    pub fn open_file(&self, name: &str, mode: OpenMode) -> Result<PositionedFile, Errno> {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | access(mode);
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(refused)?;
        let stat = rustix::fs::fstat(&fd).map_err(refused)?;
        if kind_of(&stat) != HostKind::File {
            return Err(Errno::EACCES);
        }
        Ok(PositionedFile::new(File::from(fd)))
    }

    /// Makes a file that must not exist, with exactly these permissions, and opens it.
    pub fn create_file(
        &self,
        name: &str,
        permissions: u16,
        mode: OpenMode,
    ) -> Result<PositionedFile, Errno> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | access(mode);
        let fd =
            rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR).map_err(refused)?;
        let file = PositionedFile::new(File::from(fd));
        set_file_permissions(&file, permissions)?;
        Ok(file)
    }

    /// What a name stands for, links not followed.
    pub fn stat(&self, name: &str) -> Result<(HostKind, HostStat), Errno> {
        let stat =
            rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(refused)?;
        Ok((kind_of(&stat), HostStat::from(stat)))
    }

    /// The directory's own attributes.
    pub fn stat_self(&self) -> Result<HostStat, Errno> {
        Ok(rustix::fs::fstat(&self.fd).map_err(refused)?.into())
    }

    /// Sets the permissions of a file or directory in this one.
    pub fn set_permissions(&self, name: &str, permissions: u16) -> Result<(), Errno> {
        let (kind, _) = self.stat(name)?;
        if kind == HostKind::Other {
            return Err(Errno::EACCES);
        }
        rustix::fs::chmodat(&self.fd, name, mode_of(permissions), AtFlags::empty()).map_err(refused)
    }

    /// Sets the time of last change of a file or directory in this one.
    pub fn set_modified(&self, name: &str, modified: SystemTime) -> Result<(), Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(&self.fd, name, &times(modified), flags).map_err(refused)
    }

    /// Removes a file's name.
    pub fn remove_file(&self, name: &str) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()).map_err(refused)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, name: &str) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).map_err(refused)
    }

    /// Renames `name` to `new_name` in `target`; what is there already is replaced when `replace`.
    pub fn rename(
        &self,
        name: &str,
        target: &Self,
        new_name: &str,
        replace: bool,
    ) -> Result<(), Errno> {
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        if !replace {
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&self.fd, name, &target.fd, new_name, flags) {
                Err(HostErrno::INVAL | HostErrno::NOSYS | HostErrno::OPNOTSUPP) => {}
                result => return result.map_err(refused),
            }
        }
        if !replace && target.stat(new_name).is_ok() {
            return Err(Errno::EEXIST);
        }
        rustix::fs::renameat(&self.fd, name, &target.fd, new_name).map_err(refused)
    }

    /// The names in this directory; those that are not UTF-8 can't be shown and are left out.
    pub fn list(&self) -> Result<Vec<(String, HostKind)>, Errno> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(refused)? {
            let entry = entry.map_err(refused)?;
            let raw = entry.file_name().to_bytes();
            if raw == b"." || raw == b".." {
                continue;
            }
            let Ok(name) = std::str::from_utf8(raw) else {
                let name = OsStr::from_bytes(raw);
                tracing::warn!(
                    ?name,
                    "a name in the host folder is not UTF-8 and is not shown"
                );
                continue;
            };
            // Removed in between: not there.
            if let Ok((kind, _)) = self.stat(name) {
                found.push((name.to_owned(), kind));
            }
        }
        Ok(found)
    }

    /// Makes the names in this directory durable.
    pub fn sync(&self) -> Result<(), Errno> {
        match rustix::fs::fsync(&self.fd) {
            // Some file systems have nothing to sync in a directory.
            Ok(()) | Err(HostErrno::INVAL) => Ok(()),
            Err(e) => Err(refused(e)),
        }
    }

    /// The storage below.
    pub fn statfs(&self) -> Result<StatFs, Errno> {
        let stat = rustix::fs::fstatvfs(&self.fd).map_err(refused)?;
        let unit = stat.f_frsize.max(1);
        Ok(StatFs {
            total: stat.f_blocks.saturating_mul(unit),
            free: stat.f_bavail.saturating_mul(unit),
        })
    }
}

/// The attributes of an open file.
pub(super) fn stat_file(file: &PositionedFile) -> Result<HostStat, Errno> {
    Ok(rustix::fs::fstat(file.file()).map_err(refused)?.into())
}

/// Sets the permissions of an open file.
pub(super) fn set_file_permissions(file: &PositionedFile, permissions: u16) -> Result<(), Errno> {
    rustix::fs::fchmod(file.file(), mode_of(permissions)).map_err(refused)
}

/// Sets the time of last change of an open file.
pub(super) fn set_file_modified(file: &PositionedFile, modified: SystemTime) -> Result<(), Errno> {
    rustix::fs::futimens(file.file(), &times(modified)).map_err(refused)
}

impl From<Stat> for HostStat {
    fn from(stat: Stat) -> Self {
        let seconds = Duration::from_secs(stat.st_mtime.unsigned_abs());
        let modified = if stat.st_mtime >= 0 {
            UNIX_EPOCH.checked_add(seconds + Duration::new(0, stat.st_mtime_nsec as u32))
        } else {
            UNIX_EPOCH.checked_sub(seconds)
        };
        Self {
            size: stat.st_size as u64,
            allocated: stat.st_blocks as u64 * 512,
            permissions: (stat.st_mode & 0o7777) as u16,
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            modified: modified.unwrap_or(UNIX_EPOCH),
        }
    }
}

/// A link where a file or directory is expected is as good as no permission.
fn refused(errno: HostErrno) -> Errno {
    match errno {
        HostErrno::LOOP | HostErrno::MLINK => Errno::EACCES,
        other => Errno::from_io(&other.into()),
    }
}

fn access(mode: OpenMode) -> OFlags {
    match (mode.read, mode.write) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    }
}

fn kind_of(stat: &Stat) -> HostKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => HostKind::Directory,
        FileType::RegularFile => HostKind::File,
        _ => HostKind::Other,
    }
}

/// Permission bits only: a set-user-id bit has no business in the host folder.
fn mode_of(permissions: u16) -> Mode {
    Mode::from_bits_truncate((permissions & 0o777).into())
}

fn times(modified: SystemTime) -> Timestamps {
    let (seconds, nanoseconds) = match modified.duration_since(UNIX_EPOCH) {
        Ok(since) => (since.as_secs() as i64, since.subsec_nanos()),
        Err(before) => (-(before.duration().as_secs() as i64), 0),
    };
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT as _,
        },
        last_modification: Timespec {
            tv_sec: seconds as _,
            tv_nsec: nanoseconds as _,
        },
    }
}
