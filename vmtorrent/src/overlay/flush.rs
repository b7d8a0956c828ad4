//! What makes writes durable. Invariant: what a flush that succeeded found in memory is on the disk, the data first and
//! then the record of it; one that failed forgets nothing (points 3 and 8 to 10 of the [overlay](super)'s promise).

use std::sync::atomic::Ordering;

use parking_lot::RwLockUpgradableReadGuard;

use super::block_map::MAX_BLOCKS;
use super::{Overlay, record};
use crate::file_pool::SyncError;
use crate::{Error, ErrorKind, Result};

impl Overlay {
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
    pub(super) fn mark_lost(&self) {
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
}
