//! Invariant: every operation names its offset; the file's cursor is never used, so threads share a file freely.

use std::fs::File;
use std::io;
use std::path::Path;

/// A file with positioned I/O, safe to use from many threads at once.
#[derive(Debug)]
pub struct PositionedFile {
    file: File,
}

#[cfg(unix)]
impl PositionedFile {
    /// Wraps an open file.
    pub fn new(file: File) -> Self {
        Self { file }
    }

    /// Opens a file read-only.
    pub fn open_read_only(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::open(path)?))
    }

    /// Opens a file for reading and writing, making it when it is absent.
    pub fn open_or_create(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Self::new(file))
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills `buffer` from `offset`; an early end of the file is an error (`UnexpectedEof`).
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    /// Fills `buffer` from `offset` as far as the file goes and gives the number of bytes.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match std::os::unix::fs::FileExt::read_at(
                &self.file,
                &mut buffer[done..],
                offset + done as u64,
            ) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Fills `buffer` from `offset` if the page cache holds all of it, and says whether it did.
    ///
    /// On systems and file systems without such a read (other than Linux; tmpfs) it reads plainly.
    pub fn try_read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        {
            use rustix::io::{Errno, ReadWriteFlags};
            let wanted = buffer.len();
            return match rustix::io::preadv2(
                &self.file,
                &mut [io::IoSliceMut::new(buffer)],
                offset,
                ReadWriteFlags::NOWAIT,
            ) {
                Ok(n) => Ok(n == wanted),
                Err(Errno::AGAIN) => Ok(false),
                Err(Errno::OPNOTSUPP) => self.read_exact_at(buffer, offset).map(|()| true),
                Err(e) => Err(e.into()),
            };
        }
        #[cfg(not(target_os = "linux"))]
        self.read_exact_at(buffer, offset).map(|()| true)
    }

    /// Writes all of `data` at `offset`.
    pub fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, data, offset)
    }

    /// Makes the data durable (not necessarily times and other metadata that reading does not need).
    pub fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
