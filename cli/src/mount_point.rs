//! Invariant: a directory is removed only if it was made here, and never with content: after a failed unmount that
//! would be the guest's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// The directory where the volume appears.
#[derive(Debug)]
pub struct MountPoint {
    path: PathBuf,
    temporary: bool,
}

impl MountPoint {
    /// The given directory, or a new one below `XDG_RUNTIME_DIR` or the directory for temporary files.
    pub fn choose(given: Option<&Path>) -> Result<Self, Failure> {
        if let Some(given) = given {
            let path = std::path::absolute(given)
                .map_err(|e| Failure::new(format!("mount point {}: {e}", given.display())))?;
            return Ok(Self {
                path,
                temporary: false,
            });
        }
        let base = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute() && dir.is_dir())
            .unwrap_or_else(std::env::temp_dir);
        let made = tempfile::Builder::new()
            .prefix("vmtorrent-")
            .tempdir_in(&base)
            .map_err(|e| {
                Failure::new(format!(
                    "can't make a mount point in {}: {e}; name an empty directory with --mount",
                    base.display()
                ))
            })?;
        Ok(Self {
            path: made.keep(),
            temporary: true,
        })
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the mount away at once, whoever still uses it: the last resort of a hasty end.
    pub fn detach(&self) {
        let commands: [(&str, &[&str]); 2] = if cfg!(target_os = "linux") {
            [("fusermount3", &["-u", "-z", "-q"]), ("umount", &["-l"])]
        } else {
            [("umount", &["-f"]), ("diskutil", &["unmount", "force"])]
        };
        for (program, options) in commands {
            let status = Command::new(program)
                .args(options)
                .arg(&self.path)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if status.is_ok_and(|s| s.success()) {
                return;
            }
        }
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        if self.temporary
            && let Err(e) = std::fs::remove_dir(&self.path)
        {
            tracing::warn!(
                "the temporary mount point {} stays: {e}; unmount and remove it by hand",
                self.path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_mount_point_goes_and_a_given_one_stays() {
        let made = MountPoint::choose(None).unwrap();
        let path = made.path().to_owned();
        assert!(path.is_dir() && path.is_absolute());
        drop(made);
        assert!(!path.exists());

        let given = tempfile::tempdir().unwrap();
        drop(MountPoint::choose(Some(given.path())).unwrap());
        assert!(given.path().is_dir());
    }

    #[test]
    fn content_is_never_removed() {
        let made = MountPoint::choose(None).unwrap();
        let path = made.path().to_owned();
        std::fs::write(path.join("guest"), b"data").unwrap();
        drop(made);
        assert_eq!(std::fs::read(path.join("guest")).unwrap(), b"data");
        std::fs::remove_dir_all(path).unwrap();
    }
}
