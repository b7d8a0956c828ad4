//! Invariant: who reads a directory in several pieces sees each name that stays exactly once, whatever is
//! removed meanwhile: the pieces come from one listing.

use std::collections::HashMap;
use std::sync::Arc;

use fuser::{FileHandle, INodeNo};
use parking_lot::Mutex;

use crate::{DirectoryEntry, Errno, NodeId, NodeKind, Volume};

/// The listings of open directories.
#[derive(Default)]
pub(super) struct Directories {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    listings: HashMap<u64, Arc<Vec<DirectoryEntry>>>,
    last: u64,
}

impl Directories {
    pub fn open(&self) -> FileHandle {
        let mut open = self.open.lock();
        open.last += 1;
        FileHandle(open.last)
    }

    pub fn close(&self, handle: FileHandle) {
        self.open.lock().listings.remove(&handle.0);
    }

    /// The entries of a directory, `.` and `..` first. The kernel asks from offset 0 first, and again after a
    /// rewind: that takes a new listing.
    pub fn listing(
        &self,
        volume: &dyn Volume,
        directory: INodeNo,
        handle: FileHandle,
        offset: u64,
    ) -> Result<Arc<Vec<DirectoryEntry>>, Errno> {
        if offset > 0
            && let Some(known) = self.open.lock().listings.get(&handle.0)
        {
            return Ok(Arc::clone(known));
        }
        let node = NodeId(directory.0);
        let own = |name: &str, node| DirectoryEntry {
            name: name.to_owned(),
            node,
            kind: NodeKind::Directory,
        };
        let mut entries = vec![own(".", node), own("..", volume.parent(node)?)];
        entries.extend(volume.list(node)?);
        let entries = Arc::new(entries);
        let mut open = self.open.lock();
        open.listings.insert(handle.0, Arc::clone(&entries));
        Ok(entries)
    }
}
