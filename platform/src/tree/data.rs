//! Invariant: whatever may wait for the disk runs on the runtime's blocking threads.

use std::sync::Arc;

use bytes::Bytes;

use super::handles::{Access, Content};
use super::host::HostDirectory;
use super::nodes::Entry;
use super::volume::Inner;
use crate::{Errno, FileHandle, NodeId, PositionedFile, SeekTarget, VolumeFuture, ZeroMode};

/// Runs disk work where it may wait.
pub(super) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Errno> + Send + 'static,
) -> VolumeFuture<T> {
    Box::pin(async move {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| Errno::EIO)?
    })
}

/// A future that has failed already.
pub(super) fn failed<T: Send + 'static>(errno: Errno) -> VolumeFuture<T> {
    Box::pin(std::future::ready(Err(errno)))
}

/// Reads from a plain file.
pub(super) fn read(file: Arc<PositionedFile>, offset: u64, length: usize) -> VolumeFuture<Bytes> {
    blocking(move || {
        let left = file.len()?.saturating_sub(offset);
        let length = usize::try_from(left).map_or(length, |left| left.min(length));
        let mut buffer = vec![0; length];
        let read = file.read_at(&mut buffer, offset)?;
        buffer.truncate(read);
        Ok(buffer.into())
    })
}

/// Makes a range of a plain file zero.
pub(super) fn zero(
    file: &PositionedFile,
    offset: u64,
    length: u64,
    mode: ZeroMode,
) -> Result<(), Errno> {
    let end = offset
        .checked_add(length)
        .filter(|end| i64::try_from(*end).is_ok())
        .ok_or(Errno::EFBIG)?;
    if mode == (ZeroMode::Zero { keep_size: false }) && end > file.len()? {
        file.set_len(end)?;
    }
    Ok(file.punch_hole(offset, length)?)
}

/// Finds data or a hole in a plain file.
pub(super) fn seek(file: &PositionedFile, offset: u64, target: SeekTarget) -> Result<u64, Errno> {
    let found = match target {
        SeekTarget::Data => file.seek_data(offset)?,
        SeekTarget::Hole => file.seek_hole(offset)?,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    // The host can't tell: all of it is data.
    let length = file.len()?;
    match target {
        _ if offset >= length => Err(Errno::ENXIO),
        SeekTarget::Data => Ok(offset),
        SeekTarget::Hole => Ok(length),
    }
}

/// Makes a node durable: a plain file with the names that lead to it, a directory's names, or a block file.
pub(super) fn flush(
    inner: &Arc<Inner>,
    node: NodeId,
    handle: Option<FileHandle>,
) -> VolumeFuture<()> {
    let is_directory = {
        let tree = inner.tree.read();
        tree.directory(node).is_ok()
    };
    let file = if is_directory {
        None
    } else {
        match inner.content(node, handle, Access::Any) {
            Ok(Content::Block(file)) => return file.flush(),
            Ok(Content::Plain(file)) => Some(file),
            Err(errno) => return failed(errno),
        }
    };
    let inner = Arc::clone(inner);
    blocking(move || {
        if let Some(file) = file {
            file.file().sync_all()?;
        }
        sync_names(&inner, node)
    })
}

/// A directory whose names have changed since they were last made durable.
struct Unsynced {
    node: NodeId,
    host: Arc<HostDirectory>,
    changes: u64,
}

/// Makes the names that lead to a node durable. A file without a name has none.
fn sync_names(inner: &Inner, node: NodeId) -> Result<(), Errno> {
    for directory in unsynced(inner, node)? {
        directory.host.sync()?;
        // Changes made while the disk was at work are not covered.
        if let Ok(synced) = inner.tree.write().directory_mut(directory.node) {
            synced.synced = synced.synced.max(directory.changes);
        }
    }
    Ok(())
}

fn unsynced(inner: &Inner, node: NodeId) -> Result<Vec<Unsynced>, Errno> {
    let tree = inner.tree.read();
    let mut found = Vec::new();
    for at in tree.upwards(node) {
        let Ok(Entry::Directory(directory)) = tree.get(at).map(|found| &found.entry) else {
            continue;
        };
        if directory.changes > directory.synced {
            found.push(Unsynced {
                node: at,
                host: inner.host_directory(&tree, at)?,
                changes: directory.changes,
            });
        }
    }
    Ok(found)
}
