//! Calls for those who hold a VMM's buffer in their hands.
//!
//! Invariant: nothing here waits for the swarm; what is present is copied once, into the caller's buffer.

use std::sync::Arc;

use super::Appliance;
use super::disk::Disk;
use crate::error::{Error, ErrorKind, Result};

impl Appliance {
    /// Fills `buffer` from `offset` of a file if all of it is at hand, and gives the number of bytes: fewer than
    /// asked only at the end of the file. `None`: something is missing or has to come from the disk, and what
    /// `buffer` holds is undefined; use [`read_at`](Self::read_at).
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at).
    pub fn try_read_at(
        &self,
        file: usize,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<usize>> {
        let disk = self.disk_of(file)?;
        disk.read_if_at_hand(offset, buffer)
            .map_err(|e| disk.told("read", &e))
    }

    /// Fills `buffer` from `offset` of a file if all of it is on this host, waiting for the disk, and gives the number of
    /// bytes: fewer than asked only at the end of the file. Blocks the thread. `None`: something is missing, and what
    /// `buffer` holds is undefined; use [`read_at`](Self::read_at).
    ///
    /// To be asked where [`try_read_at`](Self::try_read_at) gave nothing: it is what the disk has to bring, or what Linux
    /// for a moment does not give without waiting although it is in its page cache.
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at).
    pub fn read_local_at(
        &self,
        file: usize,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<usize>> {
        let disk = self.disk_of(file)?;
        disk.read_if_here(offset, buffer)
            .map_err(|e| disk.told("read", &e))
    }

    /// Writes all of `data` at `offset` if that needs nothing that is missing and little time. `None`: nothing was
    /// written; use [`write_at`](Self::write_at).
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    pub fn try_write_at(&self, file: usize, offset: u64, data: &[u8]) -> Result<Option<()>> {
        let disk = self.disk_of(file)?;
        disk.write_at_once(offset, data)
            .map_err(|e| disk.told("write", &e))
    }

    /// Has the missing pieces of a range fetched soon: behind what reads wait for, before what is fetched in the
    /// background. Gives the bytes of these pieces.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is no such file.
    pub fn prefetch(&self, file: usize, offset: u64, length: u64) -> Result<u64> {
        let disk = self.disk_of(file)?;
        let range = offset..offset.saturating_add(length);
        let missing = disk.missing_in(&disk.bases_in(range));
        if missing.is_empty() {
            return Ok(0);
        }
        self.torrent.swarm().read_ahead(&missing);
        let geometry = self.torrent.image().geometry();
        let lengths = missing.iter().map(|p| u64::from(geometry.piece_length(*p)));
        Ok(lengths.sum())
    }

    pub(super) fn disk_of(&self, file: usize) -> Result<&Arc<Disk>> {
        self.disks.get(file).ok_or_else(|| {
            let text = format!("no file {file}: the image has {}", self.disks.len());
            Error::new(ErrorKind::InvalidInput, text)
        })
    }
}
