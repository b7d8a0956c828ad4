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

    /// The length in bytes.
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length is an attribute of a file, not a collection's"
    )]
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Cuts the file to `len` bytes, or grows it with a hole.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// Bytes of storage that the file takes.
    pub fn allocated(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.file.metadata()?.blocks() * 512)
    }

    /// Makes `len` bytes from `offset` read as zeros and gives their storage back; the length stays.
    ///
    /// Where the file system cannot do that it writes zeros, inside the length only.
    pub fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::FallocateFlags;
            use rustix::io::Errno;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&self.file, flags, offset, len) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let zeros = [0; 64 * 1024];
        let end = offset.saturating_add(len).min(self.len()?);
        let mut at = offset;
        while at < end {
            let step = (end - at).min(zeros.len() as u64);
            self.write_all_at(&zeros[..step as usize], at)?;
            at += step;
        }
        Ok(())
    }
}
