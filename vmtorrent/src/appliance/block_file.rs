//! A disk as the floor below shows it to VMMs. Invariant: what does not wait is answered here, the rest
//! goes to the disk's waiting forms; errors become error numbers, and their text goes to the log.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use vmtorrent_platform::{BlockFile, Errno, SeekTarget, VolumeFuture, ZeroMode};

use super::disk::Disk;
use crate::error::Result;
use crate::image::{PieceClass, PieceIndex};
use crate::overlay::{ExtentKind, Extents, WriteOutcome};

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
        self.resize(length)
            .map_err(|e| self.to_errno("set length", &e))
    }

    fn try_read(&self, offset: u64, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        self.read_at_once(offset, buffer)
            .map_err(|e| self.to_errno("read", &e))
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
        self.write_at_once(offset, data)
            .map_err(|e| self.to_errno("write", &e))
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
            let done = self.clone().flush_waiting().await;
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
    /// Grows the file with zeros, or cuts it.
    pub(super) fn resize(&self, length: u64) -> Result<()> {
        self.overlay().set_len(length)?;
        self.touch_time();
        Ok(())
    }

    /// Fills `buffer` up to the end of the file if that is possible without waiting; else the read goes on to wait.
    pub(super) fn read_at_once(&self, offset: u64, buffer: &mut [u8]) -> Result<Option<usize>> {
        self.answer(offset, buffer, true)
    }

    /// The same for who then asks again, with a call that waits.
    pub(super) fn read_if_at_hand(&self, offset: u64, buffer: &mut [u8]) -> Result<Option<usize>> {
        self.answer(offset, buffer, false)
    }

    /// Fills `buffer` up to the end of the file if all of it is on this host, waiting for the disk. Blocks, and is for whom
    /// [`read_if_at_hand`](Self::read_if_at_hand) gave nothing.
    pub(super) fn read_if_here(&self, offset: u64, buffer: &mut [u8]) -> Result<Option<usize>> {
        let arrived = self.arrival();
        if !self.is_here(offset, buffer.len()) {
            return Ok(None);
        }
        let found = self.read_blocking(offset, buffer)?;
        Ok(self.note_answer(arrived, offset, buffer.len(), found, false))
    }

    /// Every read comes here first, also one that has to wait then (`waits`): this is where it is traced, once.
    fn answer(&self, offset: u64, buffer: &mut [u8], waits: bool) -> Result<Option<usize>> {
        let arrived = self.arrival();
        let present = self.read_present(offset, buffer)?;
        Ok(self.note_answer(arrived, offset, buffer.len(), present, waits))
    }

    /// The time, if reads are traced.
    fn arrival(&self) -> Option<u64> {
        self.trace.as_ref().map(|trace| trace.now())
    }

    /// Notes what a read of `wanted` bytes found, if anything.
    fn note_answer(
        &self,
        arrived: Option<u64>,
        offset: u64,
        wanted: usize,
        found: Option<(Extents, usize)>,
        waits: bool,
    ) -> Option<usize> {
        if let (Some(trace), Some(at)) = (&self.trace, arrived) {
            let of_image = |found: &(Extents, _)| {
                let (extents, _) = found;
                extents.iter().any(|e| e.kind == ExtentKind::Base)
            };
            // The guest's own writes are no part of the image, nor is what lies behind its end.
            let left = self.file.length.saturating_sub(offset);
            if left > 0 && found.as_ref().map_or(waits, of_image) {
                trace.note(at, offset, left.min(wanted as u64));
            }
        }
        let (extents, length) = found?;
        if length > 0 {
            self.config.counters.read(length);
            for extent in extents.iter().filter(|e| e.kind == ExtentKind::Base) {
                self.note_read(&extent.range, false);
            }
        }
        Some(length)
    }

    /// Writes all of `data` if that needs nothing that is missing and little time.
    pub(super) fn write_at_once(&self, offset: u64, data: &[u8]) -> Result<Option<()>> {
        if data.len() > MAX_INLINE_WRITE {
            return Ok(None);
        }
        let mut outcome = self.overlay().try_write(offset, data, &[])?;
        if let Some(WriteOutcome::NeedsBase(ranges)) = &outcome {
            let Some(fills) = self.bases_present(ranges)? else {
                return Ok(None);
            };
            outcome = self.overlay().try_write(offset, data, &fills)?;
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

    /// Makes all that was written durable.
    pub(super) async fn flush_waiting(self: Arc<Self>) -> Result<()> {
        let turn = self.flushing.clone().lock_owned().await;
        let disk = self.clone();
        let flush = move || {
            // Kept while the flush lasts, also when nobody waits for it any more.
            let _turn = turn;
            disk.overlay().flush()
        };
        self.blocking(flush).await?;
        self.config.counters.flushed();
        Ok(())
    }

    /// The first byte in a range that is data (or a hole).
    fn seek_in(&self, range: Range<u64>, wants_data: bool) -> Option<u64> {
        self.overlay().find(range, |part, kind| match kind {
            ExtentKind::Zero => (!wants_data).then_some(part.start),
            ExtentKind::Data => wants_data.then_some(part.start),
            ExtentKind::Base => self.seek_base(part, wants_data),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::appliance::Appliance;
    use crate::options::{ApplianceOptions, SessionOptions, State};
    use crate::session::Session;
    use crate::test_image::image_of;

    const LENGTH: usize = 1 << 20;

    /// A machine whose image is all zeros, so that it needs no swarm.
    async fn launch(directory: &std::path::Path) -> (Session, Appliance) {
        let session = Session::start(SessionOptions {
            cache: Some(directory.join("cache")),
            listen: ([127, 0, 0, 1], 0).into(),
            discovery: false,
            ..SessionOptions::default()
        });
        let session = session.await.unwrap();
        let options = ApplianceOptions {
            state: State::Directory(directory.join("state")),
            ..ApplianceOptions::default()
        };
        let image = image_of(&vec![0; LENGTH], 16384);
        let appliance = session.launch(image, options).await.unwrap();
        (session, appliance)
    }

    #[tokio::test]
    async fn flushes_that_wait_for_another_take_no_thread() {
        let directory = tempfile::tempdir().unwrap();
        let (session, appliance) = launch(directory.path()).await;
        let disk = appliance.disk(0).unwrap();
        // As if one were at work.
        let turn = disk.flushing.clone().lock_owned().await;
        let waiting: Vec<_> = (0..200)
            .map(|_| session.shared().handle().spawn(disk.clone().flush()))
            .collect();
        // There are 64 threads for this.
        let others = session.shared().handle().spawn_blocking(|| ());
        tokio::time::timeout(std::time::Duration::from_secs(30), others)
            .await
            .unwrap()
            .unwrap();
        assert!(waiting.iter().all(|flush| !flush.is_finished()));
        drop(turn);
        for flush in waiting {
            flush.await.unwrap().unwrap();
        }
        appliance.shutdown().await.unwrap();
        session.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_read_while_the_file_is_cut_gives_no_bytes_that_were_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let (session, appliance) = launch(directory.path()).await;
        let disk = appliance.block_file(0).unwrap();
        let stop = AtomicBool::new(false);
        let lengths = std::thread::scope(|scope| {
            let cutter = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    disk.set_len(4096).unwrap();
                    disk.set_len(65536).unwrap();
                }
            });
            let mut lengths = [0_u32; 2];
            for _ in 0..200_000 {
                let mut buffer = [0xEE; 8192];
                if let Some(read) = disk.try_read(0, &mut buffer).unwrap() {
                    lengths[usize::from(read == 8192)] += 1;
                    let stale = buffer[..read].iter().position(|&byte| byte != 0);
                    assert_eq!(stale, None, "of {read} bytes");
                }
            }
            stop.store(true, Ordering::Relaxed);
            cutter.join().unwrap();
            lengths
        });
        assert!(lengths.iter().all(|&count| count > 0), "{lengths:?}");
        appliance.shutdown().await.unwrap();
        session.shutdown().await.unwrap();
    }
}
