//! Invariant: every operation names its offset; the file's cursor is never relied on, so threads share a
//! file freely.

use std::fs::{File, TryLockError};
use std::io::{self, IoSlice};
use std::path::Path;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicBool, Ordering};

/// Zeros are written in pieces of this size where a hole can't be punched.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A file with positioned I/O, safe to use from many threads at once.
///
/// On Windows, files that are to take little room where nothing was written must be marked sparse by
/// whoever makes them; here, holes are then written as zeros.
#[derive(Debug)]
pub struct PositionedFile {
    file: File,
    /// The file system has refused a read that does not wait: it is not asked again.
    #[cfg(target_os = "linux")]
    plain_reads: AtomicBool,
}

impl PositionedFile {
    /// Wraps an open file.
    pub fn new(file: File) -> Self {
        Self {
            file,
            #[cfg(target_os = "linux")]
            plain_reads: AtomicBool::new(false),
        }
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

    /// The length in bytes.
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length is an attribute of a file, not a collection's"
    )]
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Sets the length: grows with a hole, or cuts off.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    /// Bytes of storage that the file takes, which is less than its length when it has holes. Where the
    /// system does not tell, the length.
    pub fn allocated(&self) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        #[cfg(unix)]
        return Ok(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512);
        #[cfg(not(unix))]
        Ok(metadata.len())
    }

    /// Takes the advisory lock of the file, exclusively, without waiting; `false`: someone else holds it.
    ///
    /// The lock ends when the file is closed, also by the death of the process.
    pub fn try_lock_exclusive(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Fills `buffer` from `offset`; an early end of the file is an error (`UnexpectedEof`).
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(buffer, offset)? == buffer.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Fills `buffer` from `offset` as far as the file goes and gives the number of bytes.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match read_some(&self.file, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Fills `buffer` from `offset` if the page cache holds all of it, and says whether it did. `false`
    /// also when the file ends earlier; the content of `buffer` is then undefined.
    ///
    /// On systems and file systems without such a read (other than Linux; some network file systems) it
    /// reads plainly, and an early end is an error (`UnexpectedEof`).
    pub fn try_read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        if let Some(read) = self.read_cached(buffer, offset)? {
            return Ok(read == buffer.len());
        }
        self.read_exact_at(buffer, offset).map(|()| true)
    }

    /// Like [`read_at`](Self::read_at), but only from the page cache: `None` when that does not hold all
    /// that the file has there.
    pub fn try_read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        #[cfg(target_os = "linux")]
        if let Some(read) = self.read_cached(buffer, offset)? {
            // A short read ends at the end of the file or at the first page that is not cached.
            let whole = read == buffer.len() || offset + read as u64 >= self.len()?;
            return Ok(whole.then_some(read));
        }
        self.read_at(buffer, offset).map(Some)
    }

    /// Reads what the page cache holds from `offset` on; `None` when the file system can't tell.
    #[cfg(target_os = "linux")]
    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        use rustix::io::{Errno, ReadWriteFlags};
        if self.plain_reads.load(Ordering::Relaxed) {
            return Ok(None);
        }
        loop {
            let mut target = [io::IoSliceMut::new(buffer)];
            return match rustix::io::preadv2(
                &self.file,
                &mut target,
                offset,
                ReadWriteFlags::NOWAIT,
            ) {
                Ok(read) => Ok(Some(read)),
                Err(Errno::AGAIN) => Ok(Some(0)),
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.plain_reads.store(true, Ordering::Relaxed);
                    Ok(None)
                }
                Err(e) => Err(e.into()),
            };
        }
    }

    /// Writes all of `data` at `offset`.
    pub fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            match write_some(&self.file, &data[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes all of `parts`, one behind the other, from `offset` on: with one call of the system on Linux, if that takes it
    /// all. Elsewhere each part is written alone. `parts` is used up.
    pub fn write_all_vectored_at(
        &self,
        parts: &mut [IoSlice<'_>],
        mut offset: u64,
    ) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let mut parts = parts;
            // Leaves out what is empty, in front too.
            IoSlice::advance_slices(&mut parts, 0);
            while !parts.is_empty() {
                match rustix::io::pwritev(&self.file, parts, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(n) => {
                        offset += n as u64;
                        IoSlice::advance_slices(&mut parts, n);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        for part in parts {
            self.write_all_at(part, offset)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    /// Makes `length` bytes from `offset` read as zeros and gives their storage back where the file
    /// system can; elsewhere it writes zeros. Never changes the length.
    pub fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::FallocateFlags;
            use rustix::io::Errno;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            loop {
                match rustix::fs::fallocate(&self.file, flags, offset, length) {
                    Ok(()) => return Ok(()),
                    Err(Errno::INTR) => {}
                    Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
                    Err(e) => return Err(e.into()),
                }
            }
        }
        self.write_zeros(offset, length)
    }

    /// Writes zeros over the part of the range that lies inside the file.
    fn write_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.saturating_add(length).min(self.len()?);
        let mut at = offset;
        while at < end {
            let piece = (end - at).min(ZEROS.len() as u64);
            self.write_all_at(&ZEROS[..piece as usize], at)?;
            at += piece;
        }
        Ok(())
    }

    /// The first offset at or behind `offset` that may hold data. `Ok(None)`: the system can't tell. The
    /// error is `ENXIO` when only holes follow, or `offset` is not inside the file.
    pub fn seek_data(&self, offset: u64) -> io::Result<Option<u64>> {
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        return seek(&self.file, rustix::fs::SeekFrom::Data(offset));
        #[cfg(not(any(target_os = "linux", target_os = "macos")))]
        {
            let _ = offset;
            Ok(None)
        }
    }

    /// The first offset at or behind `offset` that lies in a hole; the end of the file counts as one.
    /// `Ok(None)`: the system can't tell. The error is `ENXIO` when `offset` is not inside the file.
    pub fn seek_hole(&self, offset: u64) -> io::Result<Option<u64>> {
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        return seek(&self.file, rustix::fs::SeekFrom::Hole(offset));
        #[cfg(not(any(target_os = "linux", target_os = "macos")))]
        {
            let _ = offset;
            Ok(None)
        }
    }

    /// Has the system forget the pages that hold nothing newer than the disk. After a sync that failed those are also
    /// pages that could not be written: reads then show what the disk has. Does nothing where the system can't.
    pub fn forget_cache(&self) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }

    /// Makes the data durable (not necessarily times and other metadata that reading does not need).
    pub fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn seek(file: &File, target: rustix::fs::SeekFrom) -> io::Result<Option<u64>> {
    use rustix::io::Errno;
    match rustix::fs::seek(file, target) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(unix)]
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(unix)]
fn write_some(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, data, offset)
}

#[cfg(windows)]
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

#[cfg(windows)]
fn write_some(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, data, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PositionedFile {
        PositionedFile::new(tempfile::tempfile().unwrap())
    }

    #[test]
    fn cached_read_is_whole_or_nothing() {
        let file = scratch();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        let mut buffer = [0; 4096];
        assert!(file.try_read_exact_at(&mut buffer, 100).unwrap());
        assert_eq!(buffer, [7; 4096]);
        // Past the end: either a plain "no", or an error where the file system can't read without waiting.
        assert!(!matches!(
            file.try_read_exact_at(&mut buffer, 9_000),
            Ok(true)
        ));
        assert_eq!(file.try_read_at(&mut buffer, 9_000).unwrap(), Some(1_000));
        assert_eq!(file.try_read_at(&mut buffer, 20_000).unwrap(), Some(0));
    }

    #[test]
    fn punched_range_reads_zero_and_gives_storage_back() {
        let file = scratch();
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        file.sync_data().unwrap();
        let before = file.allocated().unwrap();
        file.punch_hole(65_536, 1 << 19).unwrap();
        assert!(file.allocated().unwrap() < before);
        assert_eq!(file.len().unwrap(), 1 << 20);
        let mut buffer = vec![9; 1 << 20];
        file.read_exact_at(&mut buffer, 0).unwrap();
        let hole = 65_536..65_536 + (1 << 19);
        assert!(
            buffer
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == u8::from(!hole.contains(&at)))
        );
    }

    #[test]
    fn zeros_written_in_place_of_a_hole_stay_inside_the_file() {
        let file = scratch();
        file.write_all_at(&vec![1; 200_000], 0).unwrap();
        file.write_zeros(1_000, 1 << 40).unwrap();
        assert_eq!(file.len().unwrap(), 200_000);
        let mut buffer = vec![9; 200_000];
        file.read_exact_at(&mut buffer, 0).unwrap();
        assert!(buffer[..1_000].iter().all(|b| *b == 1));
        assert!(buffer[1_000..].iter().all(|b| *b == 0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn seek_tells_data_from_holes() {
        let file = scratch();
        file.set_len(4 << 20).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        assert_eq!(file.seek_data(0).unwrap(), Some(1 << 20));
        assert_eq!(file.seek_hole(1 << 20).unwrap(), Some((1 << 20) + 4096));
        let none = file.seek_data(2 << 20).unwrap_err();
        assert_eq!(crate::Errno::from_io(&none), crate::Errno::ENXIO);
    }

    #[test]
    fn parts_are_written_one_behind_the_other() {
        let file = scratch();
        // More than a call of the system takes, and empty ones among them.
        let bytes: Vec<u8> = (0..6000_u32).map(|n| n as u8).collect();
        let mut parts: Vec<IoSlice<'_>> = std::iter::once(IoSlice::new(&[]))
            .chain(bytes.chunks(3).map(IoSlice::new))
            .chain([IoSlice::new(&[]), IoSlice::new(b"end")])
            .collect();
        file.write_all_vectored_at(&mut parts, 70).unwrap();
        file.write_all_vectored_at(&mut [], 7).unwrap();
        let mut read = vec![9; 6073];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read[..70], [0; 70]);
        assert_eq!(read[70..6070], bytes);
        assert_eq!(read[6070..], *b"end");
        assert_eq!(file.len().unwrap(), 6073);
    }

    #[test]
    fn second_lock_of_the_same_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = PositionedFile::open_or_create(&path).unwrap();
        let second = PositionedFile::open_or_create(&path).unwrap();
        assert!(first.try_lock_exclusive().unwrap());
        assert!(!second.try_lock_exclusive().unwrap());
        drop(first);
        assert!(second.try_lock_exclusive().unwrap());
    }
}
