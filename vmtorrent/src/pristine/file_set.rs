//! Invariant: a writable file has its full length from its first use on, so no read meets an early end unless somebody
//! cut it; files that were not asked for are not opened, and few are open at any time.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmtorrent_platform::PositionedFile;

use crate::file_pool::{FilePool, Opening, PooledFile, SyncError};
use crate::image::Image;
use crate::{Error, Result};

/// The files of an image below a directory, opened at their first use.
pub(super) struct FileSet {
    files: Vec<Entry>,
}

struct Entry {
    file: PooledFile,
    /// What it took on the disk when it was measured last, bytes.
    measured: AtomicU64,
}

impl FileSet {
    /// Opens nothing yet. `writable` files are made when they are absent.
    pub(super) fn new(
        pool: &Arc<FilePool>,
        image: &Image,
        directory: &Path,
        writable: bool,
    ) -> Self {
        let files = image.files().iter().map(|file| {
            let path = directory.join(file.path.iter().collect::<PathBuf>());
            let opening = if writable {
                Opening::Sparse(file.length)
            } else {
                Opening::ReadOnly
            };
            Entry {
                file: PooledFile::new(pool.clone(), path, opening),
                measured: AtomicU64::new(0),
            }
        });
        Self {
            files: files.collect(),
        }
    }

    /// The path of a file.
    pub(super) fn path(&self, index: usize) -> &Path {
        self.files[index].file.path()
    }

    /// Fills `buffer`; with `nowait` only if the page cache holds it all, else `false`.
    pub(super) fn read(
        &self,
        index: usize,
        offset: u64,
        buffer: &mut [u8],
        nowait: bool,
    ) -> Result<bool> {
        let file = &self.files[index].file;
        let length = buffer.len();
        let result = if nowait {
            // Opening a file may wait for the disk.
            file.with_open(|f| f.try_read_exact_at(buffer, offset))
                .unwrap_or(Ok(false))
        } else {
            file.with(|f| f.read_exact_at(buffer, offset))
                .map(|()| true)
        };
        result.map_err(|e| self.failed("reading", length, index, offset, e))
    }

    /// Fills as much of `buffer` as the file has and gives the number of bytes.
    pub(super) fn read_some(&self, index: usize, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let length = buffer.len();
        let result = self.files[index].file.with(|f| f.read_at(buffer, offset));
        result.map_err(|e| self.failed("reading", length, index, offset, e))
    }

    /// Writes all of these parts, one behind the other; uses them up.
    pub(super) fn write(&self, index: usize, offset: u64, parts: &mut [IoSlice<'_>]) -> Result<()> {
        let file = &self.files[index].file;
        let length = parts.iter().map(|part| part.len()).sum();
        let result = file.change(|f| f.write_all_vectored_at(parts, offset));
        result.map_err(|e| self.failed("writing", length, index, offset, e))
    }

    /// Gives the storage of a range back.
    pub(super) fn punch(&self, index: usize, offset: u64, length: u64) -> Result<()> {
        let file = &self.files[index].file;
        let result = file.change(|f| f.punch_hole(offset, length));
        result.map_err(|e| self.failed("punching a hole into", length as usize, index, offset, e))
    }

    /// Looks at what a file takes on the disk, and gives what it took when it was looked at before and what it takes
    /// now, bytes.
    pub(super) fn measure(&self, index: usize) -> (u64, u64) {
        let entry = &self.files[index];
        let before = entry.measured.load(Ordering::Relaxed);
        // Where it can't be told, it is taken to be as before.
        let now = match entry.file.with_open(PositionedFile::allocated) {
            Some(Ok(now)) => now,
            _ => allocated(entry.file.path()).unwrap_or(before),
        };
        // Two that measure at once must not count one change twice.
        let before = entry.measured.swap(now, Ordering::Relaxed);
        (before, now)
    }

    /// What all files took when they were measured last, bytes.
    pub(super) fn measured(&self) -> u64 {
        let files = self.files.iter();
        files.map(|e| e.measured.load(Ordering::Relaxed)).sum()
    }

    /// Number of files.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Makes durable what was written. After an error the rest is tried, and all that failed again next time.
    ///
    /// `lost` is told of each file that the disk could not take: what was written to it may be gone, though a later sync
    /// succeeds. The page cache has forgotten what the disk lacks.
    pub(super) fn sync(&self, mut lost: impl FnMut(usize, &Error)) -> Result<()> {
        let mut result = Ok(());
        for (index, Entry { file, .. }) in self.files.iter().enumerate() {
            let Err(error) = file.sync_changes() else {
                continue;
            };
            let has_lost = matches!(error, SyncError::Failed(_));
            let context = format!("syncing {}", file.path().display());
            let error = Error::io(context, error.into());
            if has_lost {
                if let Err(error) = file.with(PositionedFile::forget_cache) {
                    let path = file.path().display();
                    tracing::warn!(%path, %error, "the page cache may show what the disk has lost");
                }
                lost(index, &error);
            }
            result = Err(error);
        }
        result
    }

    /// Has the next sync of a file fail, as the disk would.
    #[cfg(test)]
    pub(super) fn fail_next_sync(&self, index: usize) {
        self.files[index].file.fail_next_sync();
    }

    fn failed(
        &self,
        what: &str,
        length: usize,
        index: usize,
        offset: u64,
        source: io::Error,
    ) -> Error {
        let path = self.path(index).display();
        Error::io(
            format!("{what} {length} bytes at offset {offset} of {path}"),
            source,
        )
    }
}

/// Bytes of storage that a file takes; an absent one takes none.
fn allocated(path: &Path) -> Option<u64> {
    match std::fs::metadata(path) {
        #[cfg(unix)]
        Ok(metadata) => Some(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512),
        #[cfg(not(unix))]
        Ok(metadata) => Some(metadata.len()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Some(0),
        Err(_) => None,
    }
}
