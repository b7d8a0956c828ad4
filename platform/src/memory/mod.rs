//! Invariant: a read that overlaps a held range does not end before the range is released or the file is
//! shut; every other operation ends at once.

mod units;

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::units::{UNIT, Units};
use crate::{BlockFile, Errno, SeekTarget, VolumeFuture, ZeroMode};

/// A [`BlockFile`] in memory, for tests and examples. It is sparse: 4 KiB units that are zeros from the beginning or
/// were zeroed take no memory and are holes.
///
/// It can play data that has yet to arrive: [`hold`](Self::hold) makes a range missing, so that
/// [`try_read`](BlockFile::try_read) refuses it and [`read`](BlockFile::read) waits until
/// [`release`](Self::release). A write that begins or ends inside a 4 KiB unit of a held range waits too,
/// as it would need the rest of the unit.
///
/// ```
/// use vmtorrent_platform::{BlockFile, MemoryBlockFile};
///
/// let file = MemoryBlockFile::new(b"a disk".to_vec());
/// let mut buffer = [0; 6];
/// assert_eq!(file.try_read(0, &mut buffer), Ok(Some(6)));
/// file.hold(2..4);
/// assert_eq!(file.try_read(0, &mut buffer), Ok(None));
/// assert_eq!(file.try_read(4, &mut buffer), Ok(Some(2)));
/// file.release();
/// assert_eq!(file.try_read(0, &mut buffer), Ok(Some(6)));
/// ```
#[derive(Debug)]
pub struct MemoryBlockFile {
    content: Mutex<Content>,
    /// Counts releases, so that waiting operations look again.
    released: watch::Sender<u64>,
    /// Operations that wait for a held range at this moment.
    waiting: watch::Sender<usize>,
}

#[derive(Debug)]
struct Content {
    units: Units,
    held: Vec<Range<u64>>,
    modified: SystemTime,
    flushes: u64,
    failure: Option<Errno>,
    capacity: Option<u64>,
}

/// Counts one waiting operation for as long as it lives.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl MemoryBlockFile {
    /// A file with this content.
    pub fn new(data: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            content: Mutex::new(Content {
                units: Units::new(&data),
                held: Vec::new(),
                modified: SystemTime::UNIX_EPOCH,
                flushes: 0,
                failure: None,
                capacity: None,
            }),
            released: watch::Sender::new(0),
            waiting: watch::Sender::new(0),
        })
    }

    /// Makes a range of bytes missing.
    pub fn hold(&self, range: Range<u64>) {
        self.content.lock().held.push(range);
    }

    /// Lets everything arrive that was held.
    pub fn release(&self) {
        self.content.lock().held.clear();
        self.released.send_modify(|n| *n += 1);
    }

    /// Makes every read and write fail from now on, those that wait included; `None` ends that.
    pub fn fail(&self, failure: Option<Errno>) {
        self.content.lock().failure = failure;
        self.released.send_modify(|n| *n += 1);
    }

    /// Lets the file take so many bytes of storage at most: a write that needs more gives
    /// [`Errno::ENOSPC`] and changes nothing. `None` ends that.
    pub fn limit(&self, capacity: Option<u64>) {
        self.content.lock().capacity = capacity;
    }

    /// How many operations wait for held ranges at this moment.
    pub fn waiting(&self) -> usize {
        *self.waiting.borrow()
    }

    /// Ends when at least `count` operations wait for held ranges.
    pub async fn wait_until_waiting(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives as long as `self`, so this can't fail.
        let _ = waiting.wait_for(|n| *n >= count).await;
    }

    /// Ends when no operation waits for a held range.
    pub async fn wait_until_idle(&self) {
        let mut waiting = self.waiting.subscribe();
        let _ = waiting.wait_for(|n| *n == 0).await;
    }

    /// How many flushes have ended.
    pub fn flushes(&self) -> u64 {
        self.content.lock().flushes
    }

    /// A copy of the whole content.
    pub fn content(&self) -> Vec<u8> {
        let content = self.content.lock();
        let mut all = vec![0; content.units.length as usize];
        content.units.read(0, &mut all);
        all
    }

    async fn wait_for<T>(
        &self,
        mut attempt: impl FnMut() -> Result<Option<T>, Errno>,
    ) -> Result<T, Errno> {
        let mut released = self.released.subscribe();
        let mut waiting = None;
        loop {
            released.mark_unchanged();
            if let Some(done) = attempt()? {
                return Ok(done);
            }
            waiting.get_or_insert_with(|| Waiting::begin(&self.waiting));
            released.changed().await.map_err(|_| Errno::ESHUTDOWN)?;
        }
    }
}

impl Content {
    fn is_held(&self, offset: u64, length: u64) -> bool {
        let end = offset.saturating_add(length);
        self.held.iter().any(|r| r.start < end && offset < r.end)
    }

    /// Whether a write needs surrounding bytes that are held: those of a unit that it covers in part.
    fn needs_held(&self, offset: u64, length: u64) -> bool {
        let end = offset.saturating_add(length);
        [offset, end]
            .into_iter()
            .filter(|edge| !edge.is_multiple_of(UNIT))
            .any(|edge| self.is_held(edge - edge % UNIT, UNIT))
    }

    fn check(&self) -> Result<(), Errno> {
        self.failure.map_or(Ok(()), Err)
    }

    /// Whether there is room for what a write adds.
    fn check_room(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let Some(capacity) = self.capacity else {
            return Ok(());
        };
        let needed = self.units.allocated() + self.units.missing(offset, length) * UNIT;
        if needed > capacity {
            Err(Errno::ENOSPC)
        } else {
            Ok(())
        }
    }
}

impl BlockFile for MemoryBlockFile {
    fn len(&self) -> u64 {
        self.content.lock().units.length
    }

    fn allocated(&self) -> u64 {
        self.content.lock().units.allocated()
    }

    fn modified(&self) -> SystemTime {
        self.content.lock().modified
    }

    fn set_len(&self, length: u64) -> Result<(), Errno> {
        let mut content = self.content.lock();
        content.check()?;
        content.units.set_len(length)?;
        content.modified = SystemTime::now();
        Ok(())
    }

    fn try_read(&self, offset: u64, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        let content = self.content.lock();
        content.check()?;
        let length = content.units.clip(offset, buffer.len());
        if content.is_held(offset, length as u64) {
            return Ok(None);
        }
        content.units.read(offset, &mut buffer[..length]);
        Ok(Some(length))
    }

    fn read(self: Arc<Self>, offset: u64, length: usize) -> VolumeFuture<Bytes> {
        Box::pin(async move {
            self.wait_for(|| {
                let length = self.content.lock().units.clip(offset, length);
                let mut buffer = vec![0; length];
                let read = self.try_read(offset, &mut buffer)?;
                Ok(read.map(|read| {
                    buffer.truncate(read);
                    Bytes::from(buffer)
                }))
            })
            .await
        })
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Result<Option<()>, Errno> {
        let mut content = self.content.lock();
        content.check()?;
        let length = data.len() as u64;
        if content.needs_held(offset, length) {
            return Ok(None);
        }
        content.check_room(offset, length)?;
        content.units.write(offset, data)?;
        content.modified = SystemTime::now();
        Ok(Some(()))
    }

    fn write(self: Arc<Self>, offset: u64, data: Bytes) -> VolumeFuture<()> {
        Box::pin(async move { self.wait_for(|| self.try_write(offset, &data)).await })
    }

    fn zero(self: Arc<Self>, offset: u64, length: u64, mode: ZeroMode) -> VolumeFuture<()> {
        Box::pin(async move {
            let mut content = self.content.lock();
            content.check()?;
            let units = &mut content.units;
            if mode == (ZeroMode::Zero { keep_size: false }) {
                let end = offset.checked_add(length).ok_or(Errno::EFBIG)?;
                if end > units.length {
                    units.set_len(end)?;
                }
            }
            units.zero(offset, length);
            content.modified = SystemTime::now();
            Ok(())
        })
    }

    fn flush(self: Arc<Self>) -> VolumeFuture<()> {
        Box::pin(async move {
            let mut content = self.content.lock();
            content.check()?;
            content.flushes += 1;
            Ok(())
        })
    }

    fn seek(&self, offset: u64, target: SeekTarget) -> Result<u64, Errno> {
        let content = self.content.lock();
        let units = &content.units;
        let found = match target {
            _ if offset >= units.length => None,
            SeekTarget::Data => units.data_from(offset),
            SeekTarget::Hole => Some(units.hole_from(offset)),
        };
        found.ok_or(Errno::ENXIO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn held_read_ends_on_release_and_not_before() {
        let file = MemoryBlockFile::new(vec![5; 10_000]);
        file.hold(4096..8192);
        let read = tokio::spawn(Arc::clone(&file).read(5000, 100));
        file.wait_until_waiting(1).await;
        assert!(!read.is_finished());
        file.release();
        assert_eq!(read.await.unwrap().unwrap(), vec![5; 100]);
        assert_eq!(file.waiting(), 0);
    }

    #[test]
    fn only_a_write_of_part_of_a_held_unit_waits() {
        let file = MemoryBlockFile::new(vec![5; 16_384]);
        file.hold(0..16_384);
        assert_eq!(file.try_write(4096, &[1; 4096]), Ok(Some(())));
        assert_eq!(file.try_write(4096, &[1; 4095]), Ok(None));
        assert_eq!(file.try_write(4097, &[1; 4095]), Ok(None));
        assert_eq!(file.try_write(20_000, &[1; 10]), Ok(Some(())));
        assert_eq!(file.len(), 20_010);
    }

    #[test]
    fn seek_and_allocated_follow_the_zeros() {
        let mut data = vec![0; 5 * 4096 + 10];
        data[2 * 4096 + 7] = 1;
        let file = MemoryBlockFile::new(data);
        assert_eq!(file.seek(0, SeekTarget::Data), Ok(8192));
        assert_eq!(file.seek(9000, SeekTarget::Data), Ok(9000));
        assert_eq!(file.seek(9000, SeekTarget::Hole), Ok(3 * 4096));
        assert_eq!(file.seek(3 * 4096, SeekTarget::Data), Err(Errno::ENXIO));
        assert_eq!(file.seek(1 << 20, SeekTarget::Hole), Err(Errno::ENXIO));
        assert_eq!(file.allocated(), 4096);
    }
}
