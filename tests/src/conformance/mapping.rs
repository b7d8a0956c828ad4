//! Invariant: a mapping is touched only inside the file: behind its end the kernel sends SIGBUS.

use std::fs::File;
use std::path::Path;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use vmtorrent_platform::SeekTarget;

use super::surface::{OpenFile, Result, Space, Stat, Surface, WRITE};

/// Memory that shows a file from its beginning.
pub struct Mapping {
    at: *mut u8,
    length: usize,
}

// SAFETY: the mapping stays where it is until it is dropped, and its bytes are only copied in and out.
#[expect(unsafe_code, reason = "a mapping is an address")]
unsafe impl Send for Mapping {}
// SAFETY: as above; who writes the same bytes at the same time gets some mixture of both.
#[expect(unsafe_code, reason = "a mapping is an address")]
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes, which may reach behind the end.
    #[expect(unsafe_code, reason = "mapping memory is what is tested")]
    pub fn new(file: &File, length: usize, flags: MapFlags) -> Self {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { mmap(std::ptr::null_mut(), length, protection, flags, file, 0) };
        Self {
            at: at.unwrap().cast(),
            length,
        }
    }

    /// Copies bytes out, all of which must lie inside the file.
    #[expect(unsafe_code, reason = "a mapping is an address")]
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        assert!(offset as usize + length <= self.length);
        let mut bytes = vec![0; length];
        // SAFETY: inside the mapping, as asserted; the two are apart.
        unsafe {
            let from = self.at.add(offset as usize);
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), length);
        }
        bytes
    }

    /// Copies bytes in; all of them must lie inside the file.
    #[expect(unsafe_code, reason = "a mapping is an address")]
    pub fn write(&self, offset: u64, data: &[u8]) {
        assert!(offset as usize + data.len() <= self.length);
        // SAFETY: inside the mapping, as asserted; the two are apart.
        unsafe {
            let to = self.at.add(offset as usize);
            std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len());
        }
    }

    /// Writes changed pages to the file.
    #[expect(unsafe_code, reason = "a mapping is an address")]
    pub fn sync(&self) {
        // SAFETY: the whole mapping, which exists.
        unsafe { msync(self.at.cast(), self.length, MsyncFlags::SYNC) }.unwrap();
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "a mapping is an address")]
    fn drop(&mut self) {
        // SAFETY: nothing points into the mapping any more.
        let _ = unsafe { munmap(self.at.cast(), self.length) };
    }
}

/// An open file that is read and written through shared mappings, and otherwise by system calls.
pub struct MappedFile {
    mapped: File,
    kept: Option<Mapping>,
    other: Box<dyn OpenFile>,
}

impl MappedFile {
    /// Opens a file; with a length, one mapping of it stays until it is closed.
    pub fn open(path: &Path, kept: Option<usize>) -> Self {
        let mapped = File::options().read(true).write(true).open(path).unwrap();
        let kept = kept.map(|length| Mapping::new(&mapped, length, MapFlags::SHARED));
        let directory = super::mounted::Mounted::new(path.parent().unwrap());
        let name = path.file_name().unwrap().to_str().unwrap();
        Self {
            mapped,
            kept,
            other: directory.open(name, WRITE).unwrap(),
        }
    }

    fn size(&self) -> u64 {
        self.mapped.metadata().unwrap().len()
    }

    fn with(&self, end: usize, work: impl FnOnce(&Mapping)) {
        match &self.kept {
            Some(kept) => work(kept),
            None => work(&Mapping::new(&self.mapped, end, MapFlags::SHARED)),
        }
    }
}

impl OpenFile for MappedFile {
    fn stat(&self) -> Result<Stat> {
        self.other.stat()
    }

    fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let length = self.size().saturating_sub(offset).min(length as u64) as usize;
        let mut found = Vec::new();
        if length > 0 {
            self.with(offset as usize + length, |map| {
                found = map.read(offset, length)
            });
        }
        Ok(found)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset as usize + data.len();
        if !data.is_empty() {
            assert!(end as u64 <= self.size());
            self.with(end, |map| map.write(offset, data));
        }
        Ok(())
    }

    fn append(&self, data: &[u8]) -> Result<()> {
        self.other.append(data)
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.other.set_length(length)
    }

    fn space(&self, how: Space, offset: u64, length: u64) -> Result<()> {
        self.other.space(how, offset, length)
    }

    fn seek(&self, offset: u64, target: SeekTarget) -> Result<u64> {
        self.other.seek(offset, target)
    }

    fn sync(&self) -> Result<()> {
        if let Some(kept) = &self.kept {
            kept.sync();
        }
        self.other.sync()
    }
}
