//! Invariant: what passes here is an existing, empty directory on which nothing is mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{MountError, MountErrorKind};

/// Checks the directory and gives its canonical path.
pub(super) fn check(directory: &Path) -> Result<PathBuf, MountError> {
    let shown = directory.display();
    let metadata = fs::metadata(directory).map_err(|e| unreadable(directory, e))?;
    if !metadata.is_dir() {
        let context = format!("mount point {shown} is not a directory: name a directory");
        return Err(MountError::new(MountErrorKind::NotDirectory, context));
    }
    let directory = fs::canonicalize(directory).map_err(|e| unreadable(directory, e))?;
    if is_mounted(&directory) {
        let context = format!(
            "something is mounted on {shown} already: unmount it first (fusermount3 -u {shown}), or name \
             another directory"
        );
        return Err(MountError::new(MountErrorKind::Busy, context));
    }
    let mut entries = fs::read_dir(&directory).map_err(|e| unreadable(&directory, e))?;
    if entries.next().is_some() {
        let context = format!("mount point {shown} is not empty: name an empty directory");
        return Err(MountError::new(MountErrorKind::Busy, context));
    }
    Ok(directory)
}

fn unreadable(directory: &Path, error: io::Error) -> MountError {
    let shown = directory.display();
    let (kind, context) = match error.kind() {
        io::ErrorKind::NotFound => (
            MountErrorKind::Missing,
            format!("mount point {shown} does not exist: make it first (mkdir -p {shown})"),
        ),
        io::ErrorKind::NotADirectory => (
            MountErrorKind::NotDirectory,
            format!("mount point {shown} leads through something that is not a directory"),
        ),
        io::ErrorKind::NotConnected => (
            MountErrorKind::Busy,
            format!(
                "a process that mounted on {shown} has died: unmount it (fusermount3 -u {shown})"
            ),
        ),
        io::ErrorKind::PermissionDenied => (
            MountErrorKind::NoPermission,
            format!("mount point {shown} can't be read: give yourself access, or name another"),
        ),
        _ => (
            MountErrorKind::Other,
            format!("mount point {shown} can't be read"),
        ),
    };
    MountError::new(kind, context).because(error)
}

#[cfg(target_os = "linux")]
fn is_mounted(directory: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    rustix::fs::statx(CWD, directory, flags, StatxFlags::BASIC_STATS)
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mounted(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    directory
        .parent()
        .is_none_or(|parent| device(parent) != device(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unfit_mount_point_has_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |path: &Path| check(path).map_err(|e| e.kind());
        assert_eq!(
            kind(&folder.path().join("none")),
            Err(MountErrorKind::Missing)
        );
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(kind(&file), Err(MountErrorKind::NotDirectory));
        assert_eq!(kind(&file.join("below")), Err(MountErrorKind::NotDirectory));
        assert_eq!(kind(folder.path()), Err(MountErrorKind::Busy));
        assert_eq!(kind(Path::new("/")), Err(MountErrorKind::Busy));
        fs::remove_file(&file).unwrap();
        assert_eq!(
            kind(folder.path()),
            Ok(folder.path().canonicalize().unwrap())
        );
    }
}
