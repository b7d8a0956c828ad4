//! Invariant: the file system is unmounted, whatever the test does.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::requirement::require;

/// Where the files of a [`SmallDisk`] lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskKind {
    /// In memory.
    Tmpfs,
    /// In an image file, on a loop device.
    Ext4,
}

/// A file system of few bytes of its own, mounted on a directory.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    kind: DiskKind,
}

/// Whether file systems can be mounted here.
pub fn may_mount() -> bool {
    require(
        rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists(),
        "the right to mount small file systems (root, /dev/loop-control)",
    )
}

impl SmallDisk {
    /// Mounts a file system of `bytes` bytes on `root/name`.
    ///
    /// # Panics
    /// If it can't be made; ask [`may_mount`] before.
    pub fn mount(root: &Path, name: &str, kind: DiskKind, bytes: u64) -> Self {
        let path = root.join(name);
        std::fs::create_dir_all(&path).unwrap();
        match kind {
            DiskKind::Tmpfs => {
                let size = format!("size={bytes}");
                run("mount", &["-t", "tmpfs", "-o", &size, "none"], &[&path]);
            }
            DiskKind::Ext4 => {
                let image = root.join(format!("{name}.ext4"));
                File::create(&image).unwrap().set_len(bytes).unwrap();
                // No blocks are kept for root, so that full means full for the test too.
                run("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image]);
                run("mount", &["-o", "loop"], &[&image, &path]);
            }
        }
        Self { path, kind }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it larger (tmpfs only).
    ///
    /// # Panics
    /// If it can't be done.
    pub fn grow(&self, bytes: u64) {
        assert_eq!(self.kind, DiskKind::Tmpfs);
        let options = format!("remount,size={bytes}");
        run("mount", &["-o", &options], &[&self.path]);
    }

    /// Takes all the space that is left, in a file that gives it back when it is removed.
    ///
    /// # Panics
    /// If the file can't be made.
    pub fn fill_up(&self) -> PathBuf {
        use std::io::Write;
        let path = self.path.join("ballast");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 20, 1 << 16, 4096, 512, 1] {
            let chunk = vec![0xBA; size];
            while file.write_all(&chunk).is_ok() {}
        }
        let _ = file.sync_all();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        crate::unmount(&self.path);
    }
}

fn run(program: &str, options: &[&str], paths: &[&Path]) {
    let output = Command::new(program)
        .args(options)
        .args(paths)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {options:?} {paths:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
