//! Invariant: a flush that was acknowledged is never lost, and of what was not flushed each 512-byte sector
//! is after a crash as it was at some moment since the last acknowledged flush: never garbage, never a
//! neighbour's bytes, never something that was cut off.
//!
//! An [`Overlay`] holds what a guest wrote to one file of an image: a sparse data file, in which block `b` lies
//! at `b * 4096`, and a journal that says of each block whether it is `Base` (not written), `Data` or `Zero`.
//! Why it keeps its promise, with `memory(b)` for the state that readers see and `disk(b)` for the state that
//! the durable part of the journal gives:
//!
//! 1. *The data file is looked at only for blocks that are `Data`.* So what lies there for other blocks
//!    (leftovers of writes that a crash took back) is never seen.
//! 2. *A block becomes `Data` in memory only after all of its 4096 bytes were written*: the guest's, and around
//!    them the pristine file's or zeros. Until then it is what it was, also when the write fails half way.
//! 3. *A block becomes `Data` on disk only after a sync of the data file that began when it was `Data` in memory
//!    already.* A flush takes its snapshot of the map first, then syncs the data, then appends the record.
//!    With 1 and 2: whenever `disk(b)` is `Data`, all of the block's sectors are those of the flush, or later ones.
//! 4. A write to a block that is `Data` goes to its place: after a crash each sector is old or new. Zeroing
//!    punches the block at once, even while `disk(b)` is `Data`: zeros are the new content.
//! 5. A block that is `Zero` or `Base` in memory while `disk(b)` is `Data` (zeroed or cut off since the last flush)
//!    may be written anew: by 2 with whole blocks, each of which is newer than the flush.
//! 6. *Cutting* takes blocks back to `Base` and lowers `base_limit`, behind which `Base` reads as zeros; the limit
//!    never rises. The data file is cut too, and zeros are written to the rest of the block that holds the end;
//!    again when an overlay is opened, and after a write failed that would have made the file grow. So there are
//!    zeros behind the end when it grows.
//! 7. A record holds the lengths and the present states of all blocks that may differ from the disk's, taken
//!    under one lock: replaying any prefix of the journal gives a state that the overlay was in.
//! 8. A flush that fails puts its blocks back among the dirty ones; the next one records them again. Bytes of a
//!    failed append are cut off or overwritten. A journal that has grown too long is replaced by a snapshot: new
//!    file, sync, rename, sync of the directory, and only then the flush is acknowledged.
//! 9. After a restart nothing counts as durable: the first flush syncs everything, since an earlier process may
//!    have been killed between writing and syncing.
//! 10. *A sync that failed is never repeated in good faith*: the system takes pages that it could not write for
//!     written, whatever the cause (a full disk below a network file system too). A journal is replaced by a new
//!     file. For the data file all later flushes fail, until the overlay is opened again; a mark beside it
//!     (`N.lost`) lets that opening forget what is only in the page cache, so that reads show what the disk has.
//!
//! Locks: a change holds the blocks that it touches (`claims`) from its look at their states until it has set them,
//! around its disk I/O; one that moves the end holds all blocks from there on. So changes of the same blocks follow
//! each other, and those of others go on meanwhile. `state` is held only while the map is looked at or changed, never
//! around disk I/O; `journal` by one flush at a time. Readers take `state` alone, so they never wait for a disk
//! write. Order: `journal` or a claim, then `state`.

mod block_map;
mod dirty_ranges;
mod extent;
mod fill;
mod journal;
mod lazy;
mod range_locks;
mod record;
#[cfg(test)]
mod simulated_disk;
mod state_dir;
mod storage;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_power;
mod write;

pub(crate) use block_map::{MAX_LENGTH, OVERLAY_BLOCK};
#[cfg(test)]
pub(crate) use extent::Extent;
pub(crate) use extent::{ExtentKind, Extents};
pub(crate) use fill::{Fill, WriteOutcome};
pub(crate) use lazy::LazyOverlay;
pub(crate) use state_dir::StateDirectory;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock, RwLockUpgradableReadGuard};

use self::block_map::{BlockMap, BlockState, MAX_BLOCKS};
use self::dirty_ranges::DirtyRanges;
use self::extent::push_extent;
use self::journal::Journal;
use self::range_locks::{RangeGuard, RangeLocks};
use self::record::Lengths;
use self::storage::{HostDirectory, StorageDirectory, StorageFile};
use crate::file_pool::SyncError;
use crate::{Error, ErrorKind, Result};

/// From which length on a journal is replaced by a snapshot of at most `bound` bytes.
fn compact_above(bound: u64) -> u64 {
    (4 * bound).max(1 << 20)
}

/// What a guest wrote to one file of an image.
pub(crate) struct Overlay {
    data: Box<dyn StorageFile>,
    data_path: String,
    claims: RangeLocks,
    state: RwLock<State>,
    journal: Mutex<Journal>,
    directory: Arc<dyn StorageDirectory>,
    lost_name: String,
    /// The data file may hold bytes that are not durable. Set after each write to it.
    unsynced: AtomicBool,
    /// A sync of the data file failed.
    lost_writes: AtomicBool,
    /// The file `lost_name` was made.
    marked_lost: AtomicBool,
    /// It is to be made, and could not be.
    mark_due: AtomicBool,
    /// A write that would have grown the file failed: bytes of it may lie behind the end. Used by who
    /// holds the blocks behind the end.
    tail_suspect: AtomicBool,
    /// See [`compact_above`]; tests have less patience.
    compact_above: fn(u64) -> u64,
}

struct State {
    map: BlockMap,
    lengths: Lengths,
    dirty: DirtyRanges,
    lengths_dirty: bool,
}

impl State {
    /// Where a reader finds the bytes of `range`, as far as it lies inside the file. Neighbours may be of one kind, and
    /// some may be empty.
    fn parts(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, ExtentKind)> {
        let bytes = range.start..range.end.min(self.lengths.length);
        let blocks = if bytes.is_empty() {
            0..0
        } else {
            blocks_touching(&bytes)
        };
        self.map.runs(blocks).flat_map(move |(run, state)| {
            let start = (run.start * OVERLAY_BLOCK).max(bytes.start);
            let end = (run.end * OVERLAY_BLOCK).min(bytes.end);
            let (kind, limit) = match state {
                BlockState::Data => (ExtentKind::Data, end),
                BlockState::Zero => (ExtentKind::Zero, end),
                BlockState::Base => (ExtentKind::Base, self.lengths.base_limit.clamp(start, end)),
            };
            [(start..limit, kind), (limit..end, ExtentKind::Zero)]
        })
    }

    /// Sets states and notes them for the next flush.
    fn change(&mut self, blocks: Range<u64>, state: BlockState) {
        if !self.map.is_all(blocks.clone(), state) {
            self.map.set(blocks.clone(), state);
            self.dirty.insert(blocks);
        }
    }

    fn set_length(&mut self, length: u64) {
        self.lengths_dirty |= length != self.lengths.length;
        self.lengths.length = length;
    }
}

impl Overlay {
    /// Opens the overlay `key` in an existing directory, or makes it: `base_length` bytes of pristine file.
    ///
    /// # Errors
    /// `Corrupt` when its files are damaged (a record that a crash has torn is not damage), `InvalidInput`
    /// when it was made for a file of another length or by another version; else what the system reports.
    pub(crate) fn open(directory: &Path, key: &str, base_length: u64) -> Result<Self> {
        let directory = Arc::new(HostDirectory::new(directory));
        Self::open_in(directory, key, base_length, compact_above)
    }

    fn open_in(
        directory: Arc<dyn StorageDirectory>,
        key: &str,
        base_length: u64,
        compact_above: fn(u64) -> u64,
    ) -> Result<Self> {
        let name = |suffix| format!("{key}.{suffix}");
        let (data_name, map_name, lost_name) = (name("data"), name("map"), name("lost"));
        let data_path = directory.describe(&data_name);
        let failed = |e| Error::io(format!("opening the overlay file {data_path}"), e);
        if base_length > MAX_LENGTH {
            return Err(too_long(&data_path));
        }
        let found_data = directory.open(&data_name).map_err(failed)?;
        let data_length = found_data.as_ref().map(|data| data.len()).transpose();
        let data_length = data_length.map_err(failed)?;
        drop(found_data);
        let lost = directory.open(&lost_name).map_err(failed)?.is_some();

        let mut map = BlockMap::default();
        let mut lengths = Lengths {
            length: base_length,
            base_limit: base_length,
        };
        let journal = Journal::open(directory.clone(), &map_name, base_length, |payload| {
            lengths = record::apply(payload, &mut map)?;
            if lengths.base_limit > base_length {
                return Err("its base limit lies behind the pristine file");
            }
            Ok(())
        })?;
        // Only behind this check: an empty file in its place would pass for it at the next opening.
        if data_length.is_none() && map.data_blocks() > 0 {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the overlay file {data_path} is gone, but its block map is there: restore it from \
                     a backup, or start over with another state directory"
                ),
            ));
        }
        // Nothing is written before the map is durable.
        if journal.is_none() && data_length.is_some_and(|length| length > 0) {
            let map_path = directory.describe(&map_name);
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the block map {map_path} is gone, but what the guest wrote is still in {data_path}: restore \
                     the block map from a backup, or start over with another state directory"
                ),
            ));
        }
        if data_length.is_none() {
            directory.create(&data_name).map_err(failed)?;
        }
        let mut journal = match journal {
            Some(journal) => journal,
            None => {
                let payload = record::encode(lengths, &map, std::iter::empty());
                Journal::create(directory.clone(), &map_name, base_length, &payload)?
            }
        };
        let data = directory.keep(&data_name);
        if lost {
            tracing::warn!(path = %data_path, "the disk lost writes when this was used last; what it has counts");
            data.sync_data().map_err(|e| failed(e.into()))?;
            data.forget_cache().map_err(failed)?;
            let all = std::iter::once(0..MAX_BLOCKS);
            journal.rewrite(&record::encode(lengths, &map, all))?;
            directory.remove(&lost_name).map_err(failed)?;
        }
        let mut state = State {
            map,
            lengths,
            dirty: DirtyRanges::default(),
            lengths_dirty: false,
        };
        state.change(blocks_behind(lengths.length), BlockState::Base);
        let overlay = Self {
            data,
            data_path,
            claims: RangeLocks::default(),
            state: RwLock::new(state),
            journal: Mutex::new(journal),
            directory,
            lost_name,
            unsynced: AtomicBool::new(true),
            lost_writes: AtomicBool::new(false),
            marked_lost: AtomicBool::new(false),
            mark_due: AtomicBool::new(false),
            tail_suspect: AtomicBool::new(false),
            compact_above,
        };
        overlay.cut_data(lengths.length)?;
        overlay.cover_data()?;
        Ok(overlay)
    }

    /// Length of the file as the guest sees it, bytes.
    pub(crate) fn len(&self) -> u64 {
        self.state.read().lengths.length
    }

    /// Bytes of local storage that the written blocks take.
    #[cfg(test)]
    pub(crate) fn allocated(&self) -> Result<u64> {
        let allocated = self.data.allocated();
        allocated.map_err(|e| self.failed("looking at", 0, 0, e))
    }

    /// Number of 4 KiB blocks that are in the data file.
    pub(crate) fn data_blocks(&self) -> u64 {
        self.state.read().map.data_blocks()
    }

    /// Where the bytes of `range` are, as far as it lies inside the file.
    pub(crate) fn extents(&self, range: Range<u64>) -> Extents {
        let state = self.state.read();
        let mut extents = Extents::new();
        for (part, kind) in state.parts(range) {
            push_extent(&mut extents, part, kind);
        }
        extents
    }

    /// The first thing that `look` finds in the parts of `range`, in order. Nothing is collected for it.
    pub(crate) fn find<T>(
        &self,
        range: Range<u64>,
        mut look: impl FnMut(&Range<u64>, ExtentKind) -> Option<T>,
    ) -> Option<T> {
        let state = self.state.read();
        let mut parts = state.parts(range).filter(|(part, _)| !part.is_empty());
        parts.find_map(|(part, kind)| look(&part, kind))
    }

    /// Reads bytes of a [`Data`](ExtentKind::Data) extent. With `nowait`, `false` means that the bytes are
    /// not cached and the call would have to wait for the disk; `buffer` is then undefined.
    pub(crate) fn read_data(&self, offset: u64, buffer: &mut [u8], nowait: bool) -> Result<bool> {
        let length = buffer.len();
        let failed = |e| self.failed("reading", length, offset, e);
        if nowait {
            return self.data.try_read_exact_at(buffer, offset).map_err(failed);
        }
        // Behind the end of the data file lie zeros: the file was cut and grew again.
        let read = self.data.read_at(buffer, offset).map_err(failed)?;
        buffer[read..].fill(0);
        Ok(true)
    }

    /// Changes the length. What is added reads as zeros; what is cut off is gone, also when the file
    /// grows again. Needs no data of the pristine file.
    pub(crate) fn set_len(&self, length: u64) -> Result<()> {
        if length > MAX_LENGTH {
            return Err(too_long(&self.data_path));
        }
        let _claim = self.claim(|old| length.min(old) / OVERLAY_BLOCK..u64::MAX);
        if length < self.len() {
            self.cut_data(length)?;
        } else {
            self.clear_tail()?;
        }
        let mut state = self.state.write();
        state.change(blocks_behind(length), BlockState::Base);
        if state.lengths.base_limit > length {
            state.lengths.base_limit = length;
        }
        state.set_length(length);
        Ok(())
    }

    /// Waits for the blocks that a change needs, which depends on the length of the file.
    ///
    /// Whoever moves the end holds all blocks from there on: so what was computed from the length is right for as
    /// long as the claim lives.
    fn claim(&self, blocks: impl Fn(u64) -> Range<u64>) -> RangeGuard<'_> {
        loop {
            let claimed = blocks(self.len());
            let guard = self.claims.lock(claimed.clone());
            // The length may have changed before the claim was there.
            if covers(&claimed, &blocks(self.len())) {
                return guard;
            }
        }
    }

    /// As [`claim`](Self::claim), if nobody else holds one of the blocks.
    fn try_claim(&self, blocks: impl Fn(u64) -> Range<u64>) -> Option<RangeGuard<'_>> {
        let claimed = blocks(self.len());
        let guard = self.claims.try_lock(claimed.clone())?;
        covers(&claimed, &blocks(self.len())).then_some(guard)
    }

    /// Cuts the data file, so that zeros lie behind `length` when it grows again.
    ///
    /// It is cut to whole blocks, the rest is written: a length inside a sector could survive a power loss
    /// that the sector's bytes do not, or the other way round, and half of the sector would be lost.
    fn cut_data(&self, length: u64) -> Result<()> {
        let failed = |e| self.failed("cutting", 0, length, e);
        let end = length.next_multiple_of(OVERLAY_BLOCK);
        let last = length / OVERLAY_BLOCK;
        if end > length && self.state.read().map.get(last) == BlockState::Data {
            let zeros = [0; OVERLAY_BLOCK as usize];
            self.put(length, &zeros[..(end - length) as usize])?;
        }
        if self.data.len().map_err(failed)? > end {
            let result = self.data.set_len(end);
            self.unsynced.store(true, Ordering::Release);
            result.map_err(failed)?;
        }
        Ok(())
    }

    /// Makes the data file as long as its blocks need, in case a process cut it and was killed before it
    /// recorded that. Else a write into a block could leave it with a length inside a sector.
    fn cover_data(&self) -> Result<()> {
        let failed = |e| self.failed("extending", 0, 0, e);
        let end = self.state.read().map.data_end() * OVERLAY_BLOCK;
        if self.data.len().map_err(failed)? < end {
            self.data.set_len(end).map_err(failed)?;
        }
        Ok(())
    }

    /// To be called before the file grows: removes what a failed write left behind the end.
    fn clear_tail(&self) -> Result<()> {
        if self.tail_suspect.load(Ordering::Relaxed) {
            self.cut_data(self.len())?;
            self.tail_suspect.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes durable every write, zeroing and change of length that had returned before the call.
    ///
    /// Calls that come while one is at work wait for it and then find their part done.
    ///
    /// # Errors
    /// What the disk reports. Nothing is forgotten: call again when the cause is gone. But when the disk could not
    /// sync the data file, every later call fails too: the overlay must be opened anew.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut journal = self.journal.lock();
        let mark_was_due = self.mark_due.load(Ordering::Acquire);
        let state = self.state.upgradable_read();
        let changed = state.lengths_dirty || !state.dirty.is_empty();
        let too_long = changed && journal.end() > (self.compact_above)(state.map.encoded_bound());
        let rewrite = too_long || journal.is_suspect();
        let payload = if rewrite {
            let all = std::iter::once(0..MAX_BLOCKS);
            record::encode(state.lengths, &state.map, all)
        } else {
            record::encode(state.lengths, &state.map, state.dirty.iter())
        };
        let mut state = RwLockUpgradableReadGuard::upgrade(state);
        let taken = std::mem::take(&mut state.dirty);
        state.lengths_dirty = false;
        drop(state);

        let result = self.sync_data().and_then(|()| match (rewrite, changed) {
            (true, _) => journal.rewrite(&payload),
            (false, true) => journal.append(&payload),
            (false, false) => journal.settle(),
        });
        if result.is_err() && changed {
            let mut state = self.state.write();
            state.dirty.merge(taken);
            state.lengths_dirty = true;
        }
        if result.is_ok() && !journal.is_suspect() {
            // If a journal has failed, it is a new file now, and the data file never failed.
            self.mark_due.store(false, Ordering::Release);
            if self.marked_lost.swap(false, Ordering::AcqRel) {
                let _ = self.directory.remove(&self.lost_name);
            }
        } else if journal.is_suspect() || mark_was_due {
            self.mark_lost();
        }
        result
    }

    fn sync_data(&self) -> Result<()> {
        if self.lost_writes.load(Ordering::Acquire) {
            let path = &self.data_path;
            return Err(Error::new(
                ErrorKind::Io,
                format!(
                    "the disk lost writes to the overlay file {path} at an earlier sync: check the disk and its \
                     free space, then launch the appliance again"
                ),
            ));
        }
        if self.unsynced.swap(false, Ordering::AcqRel) {
            self.data.sync_data().map_err(|error| match error {
                SyncError::NotOpened(error) => {
                    self.unsynced.store(true, Ordering::Release);
                    self.failed("opening", 0, 0, error)
                }
                SyncError::Failed(error) => {
                    self.lost_writes.store(true, Ordering::Release);
                    self.mark_lost();
                    self.failed("syncing", 0, 0, error)
                }
            })?;
        }
        Ok(())
    }

    /// Notes for the next opening that the page cache may hold what the disk does not. A loss of power empties
    /// the cache, so this need not be durable. What fails is tried again at each flush, and at the end.
    fn mark_lost(&self) {
        let made = self.directory.create(&self.lost_name);
        match made {
            Ok(_) => self.marked_lost.store(true, Ordering::Release),
            Err(ref error) if !self.mark_due.load(Ordering::Acquire) => {
                let path = self.directory.describe(&self.lost_name);
                tracing::error!(%path, %error, "a disk that lost writes could not be marked; trying again");
            }
            Err(_) => {}
        }
        self.mark_due.store(made.is_err(), Ordering::Release);
    }

    fn failed(&self, what: &str, length: usize, offset: u64, source: io::Error) -> Error {
        let path = &self.data_path;
        Error::io(
            format!("{what} the overlay file {path} ({length} bytes at offset {offset})"),
            source,
        )
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // A file that was closed to make room may have failed to be synced, and no flush came since.
        if self.mark_due.load(Ordering::Acquire) || self.data.has_lost_writes() {
            self.mark_lost();
        }
    }
}

/// Whether `outer` holds all of `inner`.
fn covers(outer: &Range<u64>, inner: &Range<u64>) -> bool {
    inner.is_empty() || outer.start <= inner.start && inner.end <= outer.end
}

/// The blocks that hold a byte of `bytes`.
fn blocks_touching(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / OVERLAY_BLOCK..bytes.end.div_ceil(OVERLAY_BLOCK)
}

/// The blocks that lie wholly behind a file of `length` bytes.
fn blocks_behind(length: u64) -> Range<u64> {
    length.div_ceil(OVERLAY_BLOCK)..MAX_BLOCKS
}

fn too_long(path: &str) -> Error {
    let errno = io::Error::from(vmtorrent_platform::Errno::EFBIG);
    Error::with_source(
        ErrorKind::InvalidInput,
        format!("the overlay file {path} cannot hold more than {MAX_LENGTH} bytes"),
        errno,
    )
}
