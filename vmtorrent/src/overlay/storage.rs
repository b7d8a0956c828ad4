//! Invariant: everything an overlay does to a disk goes through these two traits, so a test can take the
//! power away between any two of the calls.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use vmtorrent_platform::PositionedFile;

use crate::file_pool::{FilePool, Opening, PooledFile, SyncError};

/// One file of an overlay. Calls may come from several threads at once.
pub(super) trait StorageFile: Send + Sync {
    /// Fills `buffer` as far as the file goes and gives the number of bytes.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `buffer` if that needs no waiting, and says whether it did.
    fn try_read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool>;

    /// Whether it is open: else using it waits for the disk, and may wait for a sync of another file that is closed
    /// for it.
    fn is_open(&self) -> bool {
        true
    }

    /// Writes all of `data`; after an error any part of it may have been written.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Makes a range read as zeros and gives its storage back; the length stays.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Cuts, or grows with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Bytes of storage taken.
    #[cfg(test)]
    fn allocated(&self) -> io::Result<u64>;

    /// Makes content and length durable. After [`SyncError::Failed`] some of it may be neither durable nor written by
    /// a later sync, though it is still read.
    fn sync_data(&self) -> Result<(), SyncError>;

    /// Whether a sync failed that nobody waited for. The next [`sync_data`](Self::sync_data) gives the error.
    fn has_lost_writes(&self) -> bool {
        false
    }

    /// Lets later reads see what is on the disk, where that differs from what was written but not synced.
    fn forget_cache(&self) -> io::Result<()>;
}

/// The directory that holds an overlay's files.
pub(super) trait StorageDirectory: Send + Sync {
    /// Opens a file for reading and writing, to be closed soon; `None` if there is none.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageFile>>>;

    /// Opens a file for reading and writing, empty, whether it exists or not; to be closed soon.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;

    /// A file that exists, for long use. It takes a descriptor only while it is used often.
    fn keep(&self, name: &str) -> Box<dyn StorageFile>;

    /// Removes a file, if it is there.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in one step; a file of that name is replaced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes names durable.
    fn sync(&self) -> io::Result<()>;

    /// How an error message names a file.
    fn describe(&self, name: &str) -> String;
}

impl StorageFile for PositionedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        PositionedFile::read_at(self, buffer, offset)
    }

    fn try_read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        PositionedFile::try_read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        PositionedFile::write_all_at(self, data, offset)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        PositionedFile::punch_hole(self, offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        PositionedFile::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        PositionedFile::len(self)
    }

    #[cfg(test)]
    fn allocated(&self) -> io::Result<u64> {
        PositionedFile::allocated(self)
    }

    fn sync_data(&self) -> Result<(), SyncError> {
        PositionedFile::sync_data(self).map_err(SyncError::Failed)
    }

    fn forget_cache(&self) -> io::Result<()> {
        PositionedFile::forget_cache(self)
    }
}

impl StorageFile for PooledFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|file| file.read_at(buffer, offset))
    }

    fn try_read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.with_open(|file| file.try_read_exact_at(buffer, offset))
            .unwrap_or(Ok(false))
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.change(|file| file.write_all_at(data, offset))
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(|file| file.punch_hole(offset, len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|file| file.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(PositionedFile::len)
    }

    #[cfg(test)]
    fn allocated(&self) -> io::Result<u64> {
        self.with(PositionedFile::allocated)
    }

    fn sync_data(&self) -> Result<(), SyncError> {
        self.sync()
    }

    fn has_lost_writes(&self) -> bool {
        self.has_failed_sync()
    }

    fn is_open(&self) -> bool {
        PooledFile::is_open(self)
    }

    fn forget_cache(&self) -> io::Result<()> {
        self.with(PositionedFile::forget_cache)
    }
}

/// A directory of the host.
pub(super) struct HostDirectory {
    path: PathBuf,
}

impl HostDirectory {
    /// The directory must exist when files are opened.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
        }
    }
}

impl StorageDirectory for HostDirectory {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageFile>>> {
        match File::options()
            .read(true)
            .write(true)
            .open(self.path.join(name))
        {
            Ok(file) => Ok(Some(Box::new(PositionedFile::new(file)))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path.join(name))?;
        Ok(Box::new(PositionedFile::new(file)))
    }

    fn keep(&self, name: &str) -> Box<dyn StorageFile> {
        let path = self.path.join(name);
        Box::new(PooledFile::new(
            FilePool::of_process(),
            path,
            Opening::Existing,
        ))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync(&self) -> io::Result<()> {
        crate::durable::sync_directory(&self.path)
    }

    fn describe(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}
