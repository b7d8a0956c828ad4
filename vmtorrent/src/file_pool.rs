//! Invariant: no more files of a pool are open than its capacity, but for those that are in use at that moment or could
//! not be synced; what was written is synced before its file is closed to make room for another, and an error of that sync is
//! given by the next one. A [`PooledFile`] that is dropped is closed without a sync.
//!
//! Images of many files must not cost a descriptor for each. A [`PooledFile`] is opened at its first use, and
//! closed again when others need the place: that of which the last use is long ago, by second chances.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use vmtorrent_platform::PositionedFile;

/// Fewest and most files that are kept open.
const CAPACITY: std::ops::RangeInclusive<u64> = 16..=1024;

/// The pool of this process: the limit on descriptors is one of the process too.
static PROCESS: LazyLock<Arc<FilePool>> = LazyLock::new(|| {
    // Sockets, mounts and what embeds us need most of them.
    Arc::new(FilePool::new((descriptor_limit() / 4) as usize))
});

#[cfg(unix)]
fn descriptor_limit() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let quarter = limit.unwrap_or(u64::MAX) / 4;
    4 * quarter.clamp(*CAPACITY.start(), *CAPACITY.end())
}

#[cfg(not(unix))]
fn descriptor_limit() -> u64 {
    4 * CAPACITY.end()
}

/// Why a file was not made durable.
#[derive(Debug)]
pub(crate) enum SyncError {
    /// It could not be opened for that: nothing is lost, and a later sync may succeed.
    NotOpened(io::Error),
    /// The disk could not take what was written. A later sync that succeeds proves nothing: the system takes pages
    /// that it could not write for written.
    Failed(io::Error),
}

impl From<SyncError> for io::Error {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::NotOpened(error) | SyncError::Failed(error) => error,
        }
    }
}

/// Files of which only some are open.
pub(crate) struct FilePool {
    capacity: usize,
    /// The open ones, and some that are gone.
    open: Mutex<VecDeque<Weak<Slot>>>,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// For reading; it must exist.
    ReadOnly,
    /// For reading and writing; it must exist.
    Existing,
    /// For reading and writing. It is made, with its directory, when it is absent, and given this length; but
    /// only at its first use: a file that vanishes later is not replaced by an empty one.
    Sparse(u64),
}

/// A file that is open when it is used.
pub(crate) struct PooledFile {
    pool: Arc<FilePool>,
    slot: Arc<Slot>,
}

struct Slot {
    path: PathBuf,
    opening: Opening,
    file: RwLock<Option<PositionedFile>>,
    opened_before: AtomicBool,
    used: AtomicBool,
    /// Set after each change, cleared before each sync.
    unsynced: AtomicBool,
    /// Of a sync that nobody waited for.
    sync_error: Mutex<Option<io::Error>>,
}

impl FilePool {
    /// A pool that keeps `capacity` files open.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            open: Mutex::default(),
        }
    }

    /// The one pool of this process, which keeps a quarter of the descriptors that it may have.
    pub(crate) fn of_process() -> Arc<Self> {
        PROCESS.clone()
    }

    /// Closes what was not used for long until another file has its place.
    fn make_room(&self) {
        let mut open = self.open.lock();
        // Each gets its second chance. In a third round those are closed too that are to be synced before, which takes
        // its time; more looks find nothing new.
        let places = open.len();
        let mut looks = 0;
        while open.len() >= self.capacity && looks < 3 * places {
            looks += 1;
            let Some(slot) = open.pop_front().and_then(|s| s.upgrade()) else {
                continue;
            };
            let costs_a_sync = looks <= 2 * places && slot.unsynced.load(Ordering::Acquire);
            if slot.used.swap(false, Ordering::Relaxed) || costs_a_sync {
                open.push_back(Arc::downgrade(&slot));
                continue;
            }
            let Some(mut file) = slot.file.try_write() else {
                open.push_back(Arc::downgrade(&slot));
                continue;
            };
            // A sync takes its time: others may open files meanwhile.
            drop(open);
            let closed = slot.close(&mut file);
            drop(file);
            open = self.open.lock();
            if !closed {
                open.push_back(Arc::downgrade(&slot));
            }
        }
    }

    #[cfg(test)]
    fn open_files(&self) -> usize {
        let open = self.open.lock();
        let files = open.iter().filter_map(Weak::upgrade);
        files.filter(|s| s.file.read().is_some()).count()
    }
}

impl Slot {
    fn open(&self) -> io::Result<PositionedFile> {
        let first = !self.opened_before.load(Ordering::Acquire);
        let file = match self.opening {
            Opening::ReadOnly => PositionedFile::open_read_only(&self.path)?,
            Opening::Sparse(length) if first => {
                if let Some(parent) = self.path.parent() {
                    fs::create_dir_all(parent)?;
                }
                let file = PositionedFile::open_or_create(&self.path)?;
                if file.len()? != length {
                    file.set_len(length)?;
                }
                file
            }
            Opening::Existing | Opening::Sparse(_) => {
                let file = File::options().read(true).write(true).open(&self.path)?;
                PositionedFile::new(file)
            }
        };
        self.opened_before.store(true, Ordering::Release);
        Ok(file)
    }

    /// Syncs the file and closes it. One whose sync fails stays open, so that who uses it can still be told and look
    /// at it; the second time it is closed all the same.
    fn close(&self, file: &mut RwLockWriteGuard<'_, Option<PositionedFile>>) -> bool {
        let failed_before = self.sync_error.lock().is_some();
        if let Some(open) = file.as_ref()
            && !failed_before
            && self.unsynced.swap(false, Ordering::AcqRel)
            && let Err(error) = open.sync_data()
        {
            tracing::warn!(path = %self.path.display(), %error, "a file could not be synced");
            *self.sync_error.lock() = Some(error);
            self.unsynced.store(true, Ordering::Release);
            return false;
        }
        **file = None;
        true
    }
}

impl PooledFile {
    /// A file that is not open yet.
    pub(crate) fn new(pool: Arc<FilePool>, path: PathBuf, opening: Opening) -> Self {
        let slot = Slot {
            path,
            opening,
            file: RwLock::new(None),
            opened_before: AtomicBool::new(false),
            used: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
            sync_error: Mutex::new(None),
        };
        Self {
            pool,
            slot: Arc::new(slot),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.slot.path
    }

    /// Uses the file, opening it when it is closed.
    ///
    /// # Errors
    /// Those of opening it, and of `work`.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&PositionedFile) -> io::Result<T>,
    ) -> io::Result<T> {
        self.run(&self.opened()?, work)
    }

    fn opened(&self) -> io::Result<RwLockReadGuard<'_, Option<PositionedFile>>> {
        let guard = self.slot.file.read();
        if guard.is_some() {
            return Ok(guard);
        }
        drop(guard);
        self.open()
    }

    /// Whether it is open, so that using it opens none and closes no other.
    pub(crate) fn is_open(&self) -> bool {
        self.slot.file.try_read().is_some_and(|file| file.is_some())
    }

    /// Uses the file if it is open; `None` when it is not.
    pub(crate) fn with_open<T>(
        &self,
        work: impl FnOnce(&PositionedFile) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        let guard = self.slot.file.try_read()?;
        guard.as_ref()?;
        Some(self.run(&guard, work))
    }

    fn run<T>(
        &self,
        guard: &RwLockReadGuard<'_, Option<PositionedFile>>,
        work: impl FnOnce(&PositionedFile) -> io::Result<T>,
    ) -> io::Result<T> {
        if !self.slot.used.load(Ordering::Relaxed) {
            self.slot.used.store(true, Ordering::Relaxed);
        }
        match guard.as_ref() {
            Some(file) => work(file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open(&self) -> io::Result<RwLockReadGuard<'_, Option<PositionedFile>>> {
        let mut guard = self.slot.file.write();
        if guard.is_none() {
            self.pool.make_room();
            *guard = Some(self.slot.open()?);
            let entry = Arc::downgrade(&self.slot);
            self.pool.open.lock().push_back(entry);
        }
        Ok(RwLockWriteGuard::downgrade(guard))
    }

    /// Changes the file: a sync is due afterwards, also when `work` fails.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub(crate) fn change<T>(
        &self,
        work: impl FnOnce(&PositionedFile) -> io::Result<T>,
    ) -> io::Result<T> {
        self.with(|file| {
            let result = work(file);
            // Behind the change: a sync that clears the mark must have begun later.
            self.slot.unsynced.store(true, Ordering::Release);
            result
        })
    }

    /// Makes durable what was changed through this file, if anything was.
    ///
    /// # Errors
    /// What the disk reports, also of a sync that became due in between. What failed is due again.
    pub(crate) fn sync_changes(&self) -> Result<(), SyncError> {
        if self.slot.unsynced.load(Ordering::Acquire) || self.slot.sync_error.lock().is_some() {
            return self.sync();
        }
        Ok(())
    }

    /// Has the next sync fail, as the disk would.
    #[cfg(test)]
    pub(crate) fn fail_next_sync(&self) {
        *self.slot.sync_error.lock() = Some(io::ErrorKind::StorageFull.into());
    }

    /// Whether a sync failed that nobody waited for: the next one gives the error.
    pub(crate) fn has_failed_sync(&self) -> bool {
        self.slot.sync_error.lock().is_some()
    }

    /// Makes content and length durable, whoever wrote it.
    ///
    /// # Errors
    /// As [`sync_changes`](Self::sync_changes).
    pub(crate) fn sync(&self) -> Result<(), SyncError> {
        let earlier = || self.slot.sync_error.lock().take();
        let guard = self.opened().map_err(|error| match earlier() {
            Some(earlier) => SyncError::Failed(earlier),
            None => SyncError::NotOpened(error),
        })?;
        // No closing comes between: the file is in use.
        self.slot.unsynced.store(false, Ordering::Release);
        let result = self.run(&guard, PositionedFile::sync_data);
        let result = earlier().map_or(Ok(()), Err).and(result);
        if result.is_err() {
            self.slot.unsynced.store(true, Ordering::Release);
        }
        result.map_err(SyncError::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pool: &Arc<FilePool>, dir: &Path, count: usize) -> Vec<PooledFile> {
        let file = |i| {
            let path = dir.join(format!("d{}/f{i}", i % 3));
            PooledFile::new(pool.clone(), path, Opening::Sparse(100))
        };
        (0..count).map(file).collect()
    }

    #[test]
    fn more_files_than_places_are_read_and_written_and_no_more_are_open() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(FilePool::new(4));
        let files = files(&pool, dir.path(), 50);
        assert!(files[0].with_open(|f| f.len()).is_none());
        for round in 0..3_u8 {
            for (i, file) in files.iter().enumerate() {
                file.change(|f| f.write_all_at(&[i as u8, round], 10))
                    .unwrap();
                assert!(pool.open_files() <= 4);
            }
            for (i, file) in files.iter().enumerate() {
                let mut found = [9; 3];
                file.with(|f| f.read_exact_at(&mut found, 9)).unwrap();
                assert_eq!(found, [0, i as u8, round]);
                assert_eq!(file.with(|f| f.len()).unwrap(), 100);
            }
        }
        drop(files);
        assert_eq!(pool.open_files(), 0);
    }

    #[test]
    fn a_file_in_use_stays_open_and_one_that_is_used_often_too() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(FilePool::new(3));
        let files = files(&pool, dir.path(), 12);
        let mut reopened = 0;
        files[0]
            .with(|_| {
                for file in &files[2..] {
                    reopened += u32::from(files[1].with_open(|_| Ok(())).is_none());
                    files[1].with(|_| Ok(()))?;
                    file.with(|_| Ok(()))?;
                }
                Ok(())
            })
            .unwrap();
        assert!(files[0].with_open(|_| Ok(())).is_some());
        assert!(reopened <= files.len() as u32 / 2, "{reopened}");
        assert!(pool.open_files() <= 4);
    }

    #[test]
    fn a_file_that_vanished_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(FilePool::new(1));
        let files = files(&pool, dir.path(), 2);
        files[0].change(|f| f.write_all_at(b"x", 0)).unwrap();
        files[1].with(|_| Ok(())).unwrap();
        fs::remove_file(files[0].path()).unwrap();
        let error = files[0].with(|f| f.len()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_needs_no_sync_is_closed_before_what_does() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(FilePool::new(3));
        let files = files(&pool, dir.path(), 8);
        for written in [0, 2] {
            files[written].change(|f| f.write_all_at(b"x", 0)).unwrap();
        }
        for (clean, file) in files
            .iter()
            .enumerate()
            .filter(|(i, _)| ![0, 2].contains(i))
        {
            file.with(|_| Ok(())).unwrap();
            assert!(files[0].is_open() && files[2].is_open(), "{clean}");
            assert!(pool.open_files() <= 3);
        }
        // Where all are to be synced, one of them goes.
        files[7].change(|f| f.write_all_at(b"x", 0)).unwrap();
        files[1].with(|_| Ok(())).unwrap();
        assert!(files[1].is_open() && pool.open_files() <= 3);
    }

    #[test]
    fn a_sync_tells_a_file_that_is_not_opened_from_a_disk_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(FilePool::new(1));
        let files = files(&pool, dir.path(), 2);
        files[0].change(|f| f.write_all_at(b"x", 0)).unwrap();
        files[1].with(|_| Ok(())).unwrap();
        let aside = dir.path().join("aside");
        fs::rename(files[0].path(), &aside).unwrap();
        assert!(matches!(files[0].sync(), Err(SyncError::NotOpened(_))));
        // What the disk told before counts, whether the file can be opened or not.
        files[0].fail_next_sync();
        assert!(matches!(files[0].sync(), Err(SyncError::Failed(_))));
        fs::rename(&aside, files[0].path()).unwrap();
        assert!(files[0].sync().is_ok());
    }

    #[test]
    fn threads_share_a_pool_that_is_too_small_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(FilePool::new(3));
        let files = files(&pool, dir.path(), 20);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let files = &files;
                scope.spawn(move || {
                    for round in 0..300 {
                        let file = &files[(round * 7 + thread as usize * 5) % 20];
                        let value = [round as u8; 8];
                        file.change(|f| f.write_all_at(&value, thread * 8)).unwrap();
                        let mut found = [0; 8];
                        file.with(|f| f.read_exact_at(&mut found, thread * 8))
                            .unwrap();
                        assert_eq!(found, value);
                        file.sync_changes().unwrap();
                    }
                });
            }
        });
        assert!(pool.open_files() <= 3);
    }
}
