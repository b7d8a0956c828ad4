//! Invariant: while a `LockFile` lives, no other handle, in this process or another, holds the same file's
//! lock; the system drops the lock with the process, however it ends.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use vmtorrent_platform::PositionedFile;

/// An advisory exclusive lock on a file whose content names the holder.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: PositionedFile,
}

impl LockFile {
    /// Takes the lock and empties the file; `None` when another handle holds the lock.
    pub(crate) fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = PositionedFile::open_or_create(path)?;
        if !file.try_lock_exclusive()? {
            return Ok(None);
        }
        file.set_len(0)?;
        Ok(Some(Self { file }))
    }

    /// Writes who holds the lock: one line.
    pub(crate) fn announce(&self, line: &str) -> io::Result<()> {
        let text = format!("{line}\n");
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }

    /// What the holder of the lock has announced: a whole line, without its end; `None` when it has not (yet).
    pub(crate) fn announced(path: &Path) -> io::Result<Option<String>> {
        let mut text = String::new();
        File::open(path)?.take(256).read_to_string(&mut text)?;
        Ok(text.split_once('\n').map(|(line, _)| line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_handle_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = LockFile::try_acquire(&path).unwrap().unwrap();
        assert_eq!(LockFile::announced(&path).unwrap(), None);
        first.announce("a longer line than the next").unwrap();
        first.announce("12 34").unwrap();
        assert!(LockFile::try_acquire(&path).unwrap().is_none());
        assert_eq!(
            LockFile::announced(&path).unwrap().as_deref(),
            Some("12 34")
        );
        drop(first);
        let second = LockFile::try_acquire(&path).unwrap();
        assert!(second.is_some());
        assert_eq!(LockFile::announced(&path).unwrap(), None);
    }
}
