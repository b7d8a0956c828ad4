//! Invariant: a file in which nothing was changed has no overlay on the disk, costs no descriptor, and reads as its
//! base does.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use parking_lot::Mutex;
use vmtorrent_platform::ZeroMode;

use super::extent::push_extent;
use super::{ExtentKind, Extents, Fill, Overlay, WriteOutcome};
use crate::{Error, Result};

/// An [`Overlay`] that is made by the first change.
pub(crate) struct LazyOverlay {
    directory: PathBuf,
    key: String,
    base_length: u64,
    made: OnceLock<Overlay>,
    making: Mutex<()>,
}

impl LazyOverlay {
    /// Opens the overlay `key` in an existing directory, if it was made before.
    ///
    /// # Errors
    /// Those of [`Overlay::open`], and what the system reports when it can't tell whether there is one.
    pub(crate) fn open(directory: &Path, key: &str, base_length: u64) -> Result<Self> {
        let lazy = Self {
            directory: directory.to_path_buf(),
            key: key.to_owned(),
            base_length,
            made: OnceLock::new(),
            making: Mutex::new(()),
        };
        // An error is none of absence: what the guest wrote would vanish behind the pristine file.
        let exists = |suffix| {
            let path = directory.join(format!("{key}.{suffix}"));
            path.try_exists().map_err(|e| {
                Error::io(
                    format!("looking for the overlay file {}", path.display()),
                    e,
                )
            })
        };
        if exists("map")? || exists("data")? {
            lazy.make()?;
        }
        Ok(lazy)
    }

    fn make(&self) -> Result<&Overlay> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let _making = self.making.lock();
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let overlay = Overlay::open(&self.directory, &self.key, self.base_length)?;
        Ok(self.made.get_or_init(|| overlay))
    }

    /// Whether anything was ever changed.
    pub(crate) fn is_made(&self) -> bool {
        self.made.get().is_some()
    }

    /// As [`Overlay::len`].
    pub(crate) fn len(&self) -> u64 {
        self.made.get().map_or(self.base_length, Overlay::len)
    }

    /// As [`Overlay::data_blocks`].
    pub(crate) fn data_blocks(&self) -> u64 {
        self.made.get().map_or(0, Overlay::data_blocks)
    }

    /// As [`Overlay::extents`].
    pub(crate) fn extents(&self, range: Range<u64>) -> Extents {
        if let Some(made) = self.made.get() {
            return made.extents(range);
        }
        let mut extents = Extents::new();
        let bytes = range.start..range.end.min(self.base_length);
        push_extent(&mut extents, bytes, ExtentKind::Base);
        extents
    }

    /// As [`Overlay::find`].
    pub(crate) fn find<T>(
        &self,
        range: Range<u64>,
        mut look: impl FnMut(&Range<u64>, ExtentKind) -> Option<T>,
    ) -> Option<T> {
        if let Some(made) = self.made.get() {
            return made.find(range, look);
        }
        let bytes = range.start..range.end.min(self.base_length);
        if bytes.is_empty() {
            return None;
        }
        look(&bytes, ExtentKind::Base)
    }

    /// As [`Overlay::read_data`].
    pub(crate) fn read_data(&self, offset: u64, buffer: &mut [u8], nowait: bool) -> Result<bool> {
        self.make()?.read_data(offset, buffer, nowait)
    }

    /// As [`Overlay::write`].
    pub(crate) fn write(&self, offset: u64, data: &[u8], fill: &[Fill]) -> Result<WriteOutcome> {
        self.make()?.write(offset, data, fill)
    }

    /// As [`Overlay::try_write`]; `None` also when the overlay has to be made, which waits for the disk.
    pub(crate) fn try_write(
        &self,
        offset: u64,
        data: &[u8],
        fill: &[Fill],
    ) -> Result<Option<WriteOutcome>> {
        match self.made.get() {
            Some(made) => made.try_write(offset, data, fill),
            None => Ok(None),
        }
    }

    /// As [`Overlay::zero`].
    pub(crate) fn zero(
        &self,
        offset: u64,
        length: u64,
        mode: ZeroMode,
        fill: &[Fill],
    ) -> Result<WriteOutcome> {
        self.make()?.zero(offset, length, mode, fill)
    }

    /// As [`Overlay::set_len`].
    pub(crate) fn set_len(&self, length: u64) -> Result<()> {
        if !self.is_made() && length == self.base_length {
            return Ok(());
        }
        self.make()?.set_len(length)
    }

    /// As [`Overlay::flush`].
    pub(crate) fn flush(&self) -> Result<()> {
        self.made.get().map_or(Ok(()), Overlay::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Extent;
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_looked_at_is_an_error_and_no_empty_overlay() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        // ENOTDIR stands for what a failing disk or server says.
        assert!(LazyOverlay::open(&file, "3", 10_000).is_err());
    }

    #[test]
    fn reading_makes_nothing_and_the_first_change_makes_the_overlay() {
        let dir = tempfile::tempdir().unwrap();
        let open = || LazyOverlay::open(dir.path(), "3", 10_000).unwrap();
        let files = || std::fs::read_dir(dir.path()).unwrap().count();
        let lazy = open();
        let whole = Extent {
            range: 0..10_000,
            kind: ExtentKind::Base,
        };
        assert_eq!(lazy.extents(0..u64::MAX).as_slice(), [whole]);
        assert_eq!((lazy.len(), lazy.data_blocks()), (10_000, 0));
        assert!(lazy.extents(10_000..20_000).is_empty());
        lazy.flush().unwrap();
        lazy.set_len(10_000).unwrap();
        assert_eq!(lazy.try_write(0, &[1; 4096], &[]).unwrap(), None);
        assert_eq!(files(), 0);
        drop(lazy);

        let lazy = open();
        let written = lazy.write(4096, &[1; 4096], &[]).unwrap();
        assert_eq!(written, WriteOutcome::Done);
        let again = lazy.try_write(4096, &[2; 4096], &[]).unwrap();
        assert_eq!(again, Some(WriteOutcome::Done));
        lazy.set_len(9000).unwrap();
        lazy.flush().unwrap();
        assert_eq!(files(), 2);
        drop(lazy);
        let lazy = open();
        assert!(lazy.is_made());
        assert_eq!((lazy.len(), lazy.data_blocks()), (9000, 1));
    }
}
