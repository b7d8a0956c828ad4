//! Invariant: present data is answered in the thread that asks; what has to wait takes its reply along into
//! a task.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use fuser::{Errno as Code, ReplyData, ReplyEmpty, ReplyLseek, ReplyWrite};

use super::filesystem::{VolumeFilesystem, reply_empty};
use super::translate::errno;
use crate::{FileHandle, NodeId, SeekTarget, SetAttributes, ZeroMode};

#[cfg(not(target_os = "macos"))]
const SEEK_DATA: i32 = 3;
#[cfg(not(target_os = "macos"))]
const SEEK_HOLE: i32 = 4;
#[cfg(target_os = "macos")]
const SEEK_DATA: i32 = 4;
#[cfg(target_os = "macos")]
const SEEK_HOLE: i32 = 3;

// The protocol's numbers for modes of fallocate are Linux's.
const KEEP_SIZE: i32 = 0x01;
const PUNCH_HOLE: i32 = 0x02;
const ZERO_RANGE: i32 = 0x10;

thread_local! {
    /// Where a FUSE thread reads what it answers at once; it grows to the largest request seen.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Alignment of what is given to the kernel: it copies page by page, and would have to look up two of ours for each of
/// its own.
const PAGE: usize = 4096;

/// The first `size` bytes at a page boundary.
fn aligned(buffer: &mut Vec<u8>, size: usize) -> &mut [u8] {
    if buffer.len() < size + PAGE {
        buffer.resize(size + PAGE, 0);
    }
    let skip = buffer.as_ptr().align_offset(PAGE);
    &mut buffer[skip..skip + size]
}

impl VolumeFilesystem {
    pub(super) fn serve_read(
        &self,
        thread: u32,
        node: NodeId,
        handle: FileHandle,
        offset: u64,
        size: usize,
        reply: ReplyData,
    ) {
        let handle = Some(handle);
        BUFFER.with_borrow_mut(|buffer| {
            let buffer = aligned(buffer, size);
            match self.volume.try_read(node, handle, offset, buffer) {
                Ok(Some(read)) => reply.data(&buffer[..read]),
                Ok(None) => {
                    let read = self.volume.read(node, handle, offset, size);
                    self.tasks.spawn_for(thread, read, |read| match read {
                        Ok(data) => reply.data(&data),
                        Err(e) => reply.error(errno(e)),
                    });
                }
                Err(e) => reply.error(errno(e)),
            }
        });
    }

    /// Writes, and with `durable` flushes before it replies (`O_DSYNC`: the kernel leaves that to us).
    pub(super) fn serve_write(
        &self,
        thread: u32,
        target: (NodeId, FileHandle),
        offset: u64,
        data: &[u8],
        durable: bool,
        reply: ReplyWrite,
    ) {
        let (node, handle) = target;
        let handle = Some(handle);
        // A request never holds more than 16 MiB.
        let length = data.len() as u32;
        let written = match self.volume.try_write(node, handle, offset, data) {
            Ok(written) => written,
            Err(e) => return reply.error(errno(e)),
        };
        if written.is_some() && !durable {
            return reply.written(length);
        }
        let volume = Arc::clone(&self.volume);
        let missing = written.is_none().then(|| {
            let data = Bytes::copy_from_slice(data);
            volume.write(node, handle, offset, data)
        });
        let work = async move {
            if let Some(write) = missing {
                write.await?;
            }
            if durable {
                volume.flush(node, handle).await?;
            }
            Ok(())
        };
        self.tasks.spawn_for(thread, work, move |done| match done {
            Ok(()) => reply.written(length),
            Err(e) => reply.error(errno(e)),
        });
    }

    pub(super) fn serve_fallocate(
        &self,
        node: NodeId,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keep_size = mode & KEEP_SIZE != 0;
        let zero = match mode & !KEEP_SIZE {
            PUNCH_HOLE if keep_size => ZeroMode::Discard,
            ZERO_RANGE => ZeroMode::Zero { keep_size },
            0 if keep_size => return reply.ok(),
            0 => return self.allocate(node, handle, offset.checked_add(length), reply),
            _ => return reply.error(Code::EOPNOTSUPP),
        };
        let zeroed = self.volume.zero(node, Some(handle), offset, length, zero);
        self.tasks.spawn(zeroed, |done| reply_empty(done, reply));
    }

    /// Allocates space: the file grows to hold the range. Nothing is reserved: the storage below is sparse.
    /// The kernel holds the inode's lock meanwhile, so no other write can grow the file in between.
    fn allocate(&self, node: NodeId, handle: FileHandle, end: Option<u64>, reply: ReplyEmpty) {
        let Some(end) = end else {
            return reply.error(Code::EFBIG);
        };
        match self.volume.attributes(node, Some(handle)) {
            Ok(found) if end <= found.size => reply.ok(),
            Ok(_) => {
                let grown =
                    self.volume
                        .set_attributes(node, Some(handle), SetAttributes::size(end));
                let done = |grown: Result<_, _>| reply_empty(grown.map(drop), reply);
                self.tasks.spawn(grown, done);
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    pub(super) fn serve_seek(
        &self,
        node: NodeId,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let target = match whence {
            SEEK_DATA => SeekTarget::Data,
            SEEK_HOLE => SeekTarget::Hole,
            _ => return reply.error(Code::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Code::ENXIO);
        };
        match self.volume.seek(node, Some(handle), offset, target) {
            Ok(found) => reply.offset(found as i64),
            Err(e) => reply.error(errno(e)),
        }
    }
}
