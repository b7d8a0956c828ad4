//! Invariant: a writable file has its full length from its opening on, so no read meets an early end; files
//! that were not asked for are not opened.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use vmtorrent_platform::PositionedFile;

use crate::image::Image;
use crate::{Error, Result};

/// The files of an image below a directory, opened at their first use.
pub(super) struct FileSet {
    writable: bool,
    files: Vec<Entry>,
}

struct Entry {
    path: PathBuf,
    length: u64,
    file: OnceLock<PositionedFile>,
    unsynced: AtomicBool,
}

impl FileSet {
    /// Opens nothing yet. `writable` files are made when they are absent.
    pub(super) fn new(image: &Image, directory: &Path, writable: bool) -> Self {
        let files = image.files().iter().map(|file| Entry {
            path: directory.join(file.path.iter().collect::<PathBuf>()),
            length: file.length,
            file: OnceLock::new(),
            unsynced: AtomicBool::new(false),
        });
        Self {
            writable,
            files: files.collect(),
        }
    }

    /// The path of a file.
    pub(super) fn path(&self, index: usize) -> &Path {
        &self.files[index].path
    }

    fn get(&self, index: usize) -> Result<&PositionedFile> {
        let entry = &self.files[index];
        if let Some(file) = entry.file.get() {
            return Ok(file);
        }
        let file = self
            .open(entry)
            .map_err(|e| Error::io(format!("opening {}", entry.path.display()), e))?;
        // Two threads may get here; the second file is closed again, unused.
        Ok(entry.file.get_or_init(|| file))
    }

    fn open(&self, entry: &Entry) -> io::Result<PositionedFile> {
        if !self.writable {
            return PositionedFile::open_read_only(&entry.path);
        }
        if let Some(parent) = entry.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = PositionedFile::open_or_create(&entry.path)?;
        if file.len()? != entry.length {
            file.set_len(entry.length)?;
        }
        Ok(file)
    }

    /// Fills `buffer`; with `nowait` only if the page cache holds it all, else `false`.
    pub(super) fn read(
        &self,
        index: usize,
        offset: u64,
        buffer: &mut [u8],
        nowait: bool,
    ) -> Result<bool> {
        let file = self.get(index)?;
        let result = if nowait {
            file.try_read_exact_at(buffer, offset)
        } else {
            file.read_exact_at(buffer, offset).map(|()| true)
        };
        result.map_err(|e| self.failed("reading", buffer.len(), index, offset, e))
    }

    /// Fills as much of `buffer` as the file has and gives the number of bytes.
    pub(super) fn read_some(&self, index: usize, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let result = self.get(index)?.read_at(buffer, offset);
        result.map_err(|e| self.failed("reading", buffer.len(), index, offset, e))
    }

    /// Writes all of `data`.
    pub(super) fn write(&self, index: usize, offset: u64, data: &[u8]) -> Result<()> {
        let result = self.get(index)?.write_all_at(data, offset);
        self.files[index].unsynced.store(true, Ordering::Release);
        result.map_err(|e| self.failed("writing", data.len(), index, offset, e))
    }

    /// Makes durable what was written. After an error the rest is tried, and all that failed again next time.
    pub(super) fn sync(&self) -> Result<()> {
        let mut result = Ok(());
        for entry in &self.files {
            if let Some(file) = entry.file.get()
                && entry.unsynced.swap(false, Ordering::AcqRel)
                && let Err(e) = file.sync_data()
            {
                entry.unsynced.store(true, Ordering::Release);
                result = Err(Error::io(format!("syncing {}", entry.path.display()), e));
            }
        }
        result
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
