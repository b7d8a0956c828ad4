//! Invariant: every operation is one system call on the mount (reads and writes one for each part that the kernel
//! takes at once).

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom, Timespec, Timestamps,
};
use vmtorrent_platform::{Errno, SeekTarget};

use super::surface::{Create, Kind, Open, OpenFile, Result, Space, Stat, Surface};

/// A volume as the kernel shows it.
pub struct Mounted {
    directory: PathBuf,
}

struct MountedFile {
    file: File,
}

impl Mounted {
    /// What is mounted on a directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }
}

fn host(errno: rustix::io::Errno) -> Errno {
    std::io::Error::from(errno).into()
}

fn stat(found: &std::fs::Metadata) -> Stat {
    Stat {
        number: found.ino(),
        kind: match found.is_dir() {
            true => Kind::Directory,
            false => Kind::File,
        },
        size: found.len(),
        allocated: found.blocks() * 512,
        permissions: (found.mode() & 0o7777) as u16,
        links: found.nlink() as u32,
        modified: found.modified().unwrap(),
    }
}

impl Surface for Mounted {
    fn open(&self, path: &str, how: Open) -> Result<Box<dyn OpenFile>> {
        let mut flags = OFlags::CLOEXEC;
        flags |= match (how.read, how.write || how.append) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        for (wanted, flag) in [
            (how.truncate, OFlags::TRUNC),
            (how.append, OFlags::APPEND),
            (how.direct, OFlags::DIRECT),
        ] {
            flags.set(flag, wanted);
        }
        let mut mode = Mode::empty();
        if let Create::IfMissing(bits) | Create::Exclusive(bits) = how.create {
            flags |= OFlags::CREATE;
            flags.set(OFlags::EXCL, matches!(how.create, Create::Exclusive(_)));
            mode = Mode::from_bits_retain(bits.into());
        }
        let file = rustix::fs::open(self.path(path), flags, mode).map_err(host)?;
        Ok(Box::new(MountedFile { file: file.into() }))
    }

    fn stat(&self, path: &str) -> Result<Stat> {
        Ok(stat(&self.path(path).symlink_metadata()?))
    }

    fn list(&self, path: &str) -> Result<Vec<(String, Kind)>> {
        let entries = std::fs::read_dir(self.path(path))?;
        entries
            .map(|entry| {
                let entry = entry?;
                let kind = match entry.file_type()?.is_dir() {
                    true => Kind::Directory,
                    false => Kind::File,
                };
                Ok((entry.file_name().into_string().unwrap(), kind))
            })
            .collect()
    }

    fn make_directory(&self, path: &str, permissions: u16) -> Result<()> {
        let mode = Mode::from_bits_retain(permissions.into());
        rustix::fs::mkdir(self.path(path), mode).map_err(host)
    }

    fn remove_directory(&self, path: &str) -> Result<()> {
        rustix::fs::rmdir(self.path(path)).map_err(host)
    }

    fn unlink(&self, path: &str) -> Result<()> {
        rustix::fs::unlink(self.path(path)).map_err(host)
    }

    fn rename(&self, from: &str, to: &str, no_replace: bool) -> Result<()> {
        let mut flags = RenameFlags::empty();
        flags.set(RenameFlags::NOREPLACE, no_replace);
        let (from, to) = (self.path(from), self.path(to));
        rustix::fs::renameat_with(CWD, from, CWD, to, flags).map_err(host)
    }

    fn set_length(&self, path: &str, length: u64) -> Result<()> {
        let file = rustix::fs::open(self.path(path), OFlags::WRONLY, Mode::empty());
        rustix::fs::ftruncate(file.map_err(host)?, length).map_err(host)
    }

    fn set_permissions(&self, path: &str, permissions: u16) -> Result<()> {
        let mode = Mode::from_bits_retain(permissions.into());
        rustix::fs::chmod(self.path(path), mode).map_err(host)
    }

    fn set_modified(&self, path: &str, modified: SystemTime) -> Result<()> {
        let since = modified.duration_since(UNIX_EPOCH).unwrap();
        let time = Timespec {
            tv_sec: since.as_secs() as i64,
            tv_nsec: since.subsec_nanos().into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(CWD, self.path(path), &times, AtFlags::empty()).map_err(host)
    }

    fn sync_directory(&self, path: &str) -> Result<()> {
        Ok(File::open(self.path(path))?.sync_all()?)
    }

    fn storage(&self) -> Result<(u64, u64)> {
        let found = rustix::fs::statvfs(&self.directory).map_err(host)?;
        assert_eq!(found.f_namemax, 255);
        Ok((
            found.f_blocks * found.f_frsize,
            found.f_bavail * found.f_bsize,
        ))
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.directory)
    }
}

impl OpenFile for MountedFile {
    fn stat(&self) -> Result<Stat> {
        Ok(stat(&self.file.metadata()?))
    }

    fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0xEE; length];
        let mut done = 0;
        while done < length {
            match self
                .file
                .read_at(&mut buffer[done..], offset + done as u64)?
            {
                0 => break,
                read => done += read,
            }
        }
        buffer.truncate(done);
        Ok(buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return self
                .file
                .write_at(data, offset)
                .map(drop)
                .map_err(Errno::from);
        }
        Ok(self.file.write_all_at(data, offset)?)
    }

    fn append(&self, data: &[u8]) -> Result<()> {
        Ok(std::io::Write::write_all(&mut &self.file, data)?)
    }

    fn set_length(&self, length: u64) -> Result<()> {
        rustix::fs::ftruncate(&self.file, length).map_err(host)
    }

    fn space(&self, how: Space, offset: u64, length: u64) -> Result<()> {
        let (mut flags, keep_size) = match how {
            Space::Allocate { keep_size } => (FallocateFlags::empty(), keep_size),
            Space::Zero { keep_size } => (FallocateFlags::ZERO_RANGE, keep_size),
            Space::Punch => (FallocateFlags::PUNCH_HOLE, true),
        };
        flags.set(FallocateFlags::KEEP_SIZE, keep_size);
        rustix::fs::fallocate(&self.file, flags, offset, length).map_err(host)
    }

    fn seek(&self, offset: u64, target: SeekTarget) -> Result<u64> {
        let target = match target {
            SeekTarget::Data => SeekFrom::Data(offset),
            SeekTarget::Hole => SeekFrom::Hole(offset),
        };
        rustix::fs::seek(&self.file, target).map_err(host)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }
}
