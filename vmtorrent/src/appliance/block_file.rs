//! A disk as the floor below shows it to VMMs. Invariant: what does not wait is answered here, the rest
//! goes to the disk's waiting forms; errors become error numbers, and their text goes to the log.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use vmtorrent_platform::{BlockFile, Errno, SeekTarget, VolumeFuture, ZeroMode};

use super::disk::Disk;
use crate::error::{Error, Result};
use crate::image::{PieceClass, PieceIndex};
use crate::overlay::{ExtentKind, WriteOutcome};

/// Bytes that a seek looks at first.
const SEEK_WINDOW: u64 = 16 << 20;
/// The most that is written in the caller's thread, bytes: the disk may hold up a larger write.
const MAX_INLINE_WRITE: usize = 256 << 10;

impl BlockFile for Disk {
    fn len(&self) -> u64 {
        self.overlay().len()
    }

    fn allocated(&self) -> u64 {
        // What is not a hole, wherever it is: programs take a file without blocks for one of zeros.
        self.base_data
            .saturating_add(self.overlay().data_blocks() * 4096)
            .min(self.len().next_multiple_of(4096))
    }

    fn modified(&self) -> SystemTime {
        *self.modified.lock()
    }

    fn set_len(&self, length: u64) -> Result<(), Errno> {
        self.overlay()
            .set_len(length)
            .map_err(|e| self.to_errno("set length", &e))?;
        self.touch_time();
        Ok(())
    }

    fn try_read(&self, offset: u64, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        let length = self.clip(offset, buffer.len());
        if length == 0 {
            return Ok(Some(0));
        }
        let present = self
            .read_present(offset, &mut buffer[..length])
            .map_err(|e| self.to_errno("read", &e))?;
        let Some(extents) = present else {
            return Ok(None);
        };
        self.config.counters.read(length);
        for extent in extents.iter().filter(|e| e.kind == ExtentKind::Base) {
            self.note_read(&extent.range, false);
        }
        Ok(Some(length))
    }

    fn read(self: Arc<Self>, offset: u64, length: usize) -> VolumeFuture<Bytes> {
        Box::pin(async move {
            self.clone()
                .read_waiting(offset, length)
                .await
                .map_err(|e| self.to_errno("read", &e))
        })
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Result<Option<()>, Errno> {
        if data.len() > MAX_INLINE_WRITE {
            return Ok(None);
        }
        let failed = |e: Error| self.to_errno("write", &e);
        let mut outcome = self
            .overlay()
            .try_write(offset, data, &[])
            .map_err(failed)?;
        if let Some(WriteOutcome::NeedsBase(ranges)) = &outcome {
            let Some(fills) = self.bases_present(ranges).map_err(failed)? else {
                return Ok(None);
            };
            let again = self.overlay().try_write(offset, data, &fills);
            outcome = again.map_err(failed)?;
        }
        Ok(match outcome {
            Some(WriteOutcome::Done) => {
                self.wrote(data.len());
                Some(())
            }
            // Base data is missing, or somebody else changes the same blocks.
            Some(WriteOutcome::NeedsBase(_)) | None => None,
        })
    }

    fn write(self: Arc<Self>, offset: u64, data: Bytes) -> VolumeFuture<()> {
        Box::pin(async move {
            self.clone()
                .write_waiting(offset, data)
                .await
                .map_err(|e| self.to_errno("write", &e))
        })
    }

    fn zero(self: Arc<Self>, offset: u64, length: u64, mode: ZeroMode) -> VolumeFuture<()> {
        Box::pin(async move {
            let done = self.clone().zero_waiting(offset, length, mode).await;
            done.map_err(|e| self.to_errno("zero", &e))
        })
    }

    fn flush(self: Arc<Self>) -> VolumeFuture<()> {
        Box::pin(async move {
            let disk = self.clone();
            let done = self.blocking(move || disk.overlay().flush()).await;
            if done.is_ok() {
                self.config.counters.flushed();
            }
            done.map_err(|e| self.to_errno("flush", &e))
        })
    }

    fn seek(&self, offset: u64, target: SeekTarget) -> Result<u64, Errno> {
        let len = self.overlay().len();
        if offset >= len {
            return Err(Errno::ENXIO);
        }
        let wants_data = target == SeekTarget::Data;
        // In windows that double, since the answer is mostly near.
        let mut at = offset;
        let mut window = SEEK_WINDOW;
        while at < len {
            let end = at.saturating_add(window).min(len);
            if let Some(found) = self.seek_in(at..end, wants_data) {
                return Ok(found);
            }
            at = end;
            window = window.saturating_mul(2);
        }
        if wants_data {
            Err(Errno::ENXIO)
        } else {
            Ok(len)
        }
    }
}

impl Disk {
    /// The first byte in a range that is data (or a hole).
    fn seek_in(&self, range: Range<u64>, wants_data: bool) -> Option<u64> {
        self.overlay()
            .extents(range)
            .into_iter()
            .find_map(|extent| match extent.kind {
                ExtentKind::Zero => (!wants_data).then_some(extent.range.start),
                ExtentKind::Data => wants_data.then_some(extent.range.start),
                ExtentKind::Base => self.seek_base(&extent.range, wants_data),
            })
    }

    /// The first byte in a range of the base that is data (or a hole), by what the metainfo tells.
    fn seek_base(&self, range: &Range<u64>, wants_data: bool) -> Option<u64> {
        let image = self.image();
        let in_image = self.in_image(range);
        image
            .geometry()
            .pieces_in(in_image.clone())
            .map(PieceIndex)
            .find(|p| (image.piece_class(*p) != PieceClass::Zero) == wants_data)
            .map(|p| image.geometry().piece_offset(p).max(in_image.start) - self.file.offset)
    }
}
