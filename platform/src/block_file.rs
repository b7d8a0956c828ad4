//! Invariant: a write that has returned is in every read that begins later, from any handle; of the methods
//! that return no future only `set_len` may wait, and only for the local disk.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::{Errno, SeekTarget, VolumeFuture, ZeroMode};

/// One file of an image, as a volume sees it: complete and writable, though its data may be elsewhere.
///
/// The methods follow the pattern of [`Volume`](crate::Volume): a `try_` method answers from memory or from
/// the page cache, and `Ok(None)` from it means *this would have to wait: use the future of the same name*.
/// Offsets and lengths are in bytes, at any alignment. The futures own what they need, so they may
/// outlive the call that made them.
///
/// # Errors
/// Every method gives the [`Errno`] that a local file would give in its place; data that can't be had
/// is [`Errno::EIO`].
#[expect(
    clippy::len_without_is_empty,
    reason = "the length is an attribute of a file, not a collection's"
)]
pub trait BlockFile: Send + Sync + 'static {
    /// The length as the VMM sees it, after its own growing and truncating.
    fn len(&self) -> u64;

    /// Bytes of local storage that the file takes: what `st_blocks` shows.
    fn allocated(&self) -> u64;

    /// When the content was last changed from above (not when data was fetched).
    fn modified(&self) -> SystemTime;

    /// Sets the length: grows with zeros, or cuts off. Never fetches anything, but may wait for the local
    /// disk: not to be called in a thread that must not wait.
    fn set_len(&self, length: u64) -> Result<(), Errno>;

    /// Fills `buffer` from `offset` when all of it is at hand, and gives the number of bytes: fewer than
    /// asked only at the end of the file, 0 behind it. `Ok(None)`: something is missing or cold, and the
    /// content of `buffer` is undefined; use [`read`](BlockFile::read).
    fn try_read(&self, offset: u64, buffer: &mut [u8]) -> Result<Option<usize>, Errno>;

    /// Reads `length` bytes from `offset`, waiting for what is missing; fewer only at the end of the file.
    fn read(self: Arc<Self>, offset: u64, length: usize) -> VolumeFuture<Bytes>;

    /// Writes all of `data` at `offset`, growing the file when needed. `Ok(None)`: nothing was written,
    /// use [`write`](BlockFile::write).
    fn try_write(&self, offset: u64, data: &[u8]) -> Result<Option<()>, Errno>;

    /// Writes all of `data` at `offset`, waiting for surrounding data that is missing.
    fn write(self: Arc<Self>, offset: u64, data: Bytes) -> VolumeFuture<()>;

    /// Makes `length` bytes from `offset` read as zeros.
    fn zero(self: Arc<Self>, offset: u64, length: u64, mode: ZeroMode) -> VolumeFuture<()>;

    /// The durability point: when it ends well, every write that had returned before it was called
    /// survives kill -9 and power loss.
    fn flush(self: Arc<Self>) -> VolumeFuture<()>;

    /// The first offset at or behind `offset` that is data, or a hole. The end of the file counts as a
    /// hole. [`Errno::ENXIO`] at or behind the end, and for data when only holes follow.
    fn seek(&self, offset: u64, target: SeekTarget) -> Result<u64, Errno>;
}
