//! Invariant: what passes here is an existing, empty directory on which nothing is mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{MountError, MountErrorKind};

/// Checks the directory and gives its canonical path. A mount of ours whose process has died is taken away.
pub(super) fn check(directory: &Path) -> Result<PathBuf, MountError> {
    let shown = directory.display();
    let metadata = match fs::metadata(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotConnected && clear_dead(directory) => {
            fs::metadata(directory)
        }
        other => other,
    };
    let metadata = metadata.map_err(|e| unreadable(directory, e))?;
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

/// Takes a dead mount away if it is one of ours; says whether it did. Nobody can be using it any more: every
/// access to it fails.
#[cfg(target_os = "linux")]
fn clear_dead(directory: &Path) -> bool {
    use rustix::mount::UnmountFlags;
    // The directory itself can't be looked at: its parent can.
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return false;
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let Ok(parent) = fs::canonicalize(parent) else {
        return false;
    };
    let path = parent.join(name);
    let Ok(table) = fs::read("/proc/self/mountinfo") else {
        return false;
    };
    if !is_ours(&table, &path) {
        return false;
    }
    tracing::info!(mount = %path.display(), "taking away the mount of a process that has died");
    rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok()
        || super::helper::unmount(&path, true).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn clear_dead(_directory: &Path) -> bool {
    false
}

/// Whether the uppermost mount on `path` is of our type, by the lines of mountinfo (proc(5)).
#[cfg(target_os = "linux")]
fn is_ours(table: &[u8], path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let mut at_path = table.split(|b| *b == b'\n').filter(|line| {
        let point = line.split(|b| *b == b' ').nth(4);
        point.is_some_and(|point| unescape(point) == path.as_os_str().as_bytes())
    });
    let last = at_path.next_back().map(String::from_utf8_lossy);
    last.and_then(|line| Some(line.split_once(" - ")?.1.starts_with("fuse.vmtorrent ")))
        .unwrap_or(false)
}

/// mountinfo writes spaces and their like as a backslash and three octal digits.
#[cfg(target_os = "linux")]
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match octal {
            Some(byte) if first == b'\\' => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
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

    #[cfg(target_os = "linux")]
    #[test]
    fn only_the_uppermost_mount_of_our_type_counts_as_ours() {
        let ours = "30 1 0:40 / /run/a\\040b rw - fuse.vmtorrent vmtorrent:x rw\n";
        let other = "31 30 0:41 / /run/a\\040b rw - tmpfs none rw\n";
        let path = Path::new("/run/a b");
        assert!(is_ours(ours.as_bytes(), path));
        assert!(!is_ours(format!("{ours}{other}").as_bytes(), path));
        assert!(is_ours(format!("{other}{ours}").as_bytes(), path));
        assert!(!is_ours(ours.as_bytes(), Path::new("/run/a")));
        assert!(!is_ours(b"", path));
    }

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
