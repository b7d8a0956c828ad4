//! Invariant: a volume is asked as a backend asks it: first for what is at hand, then through the future.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::runtime::Runtime;
use vmtorrent_platform::{
    Attributes, Errno, FileHandle, NodeId, NodeKind, OpenMode, SeekTarget, SetAttributes, Volume,
    ZeroMode,
};

use super::surface::{Create, Kind, Open, OpenFile, Result, Space, Stat, Surface};

/// A volume without a kernel in between.
#[derive(Clone)]
pub struct Direct {
    volume: Arc<dyn Volume>,
    runtime: Arc<Runtime>,
}

struct DirectFile {
    surface: Direct,
    node: NodeId,
    handle: FileHandle,
}

impl Direct {
    /// With a runtime of its own.
    pub fn new(volume: Arc<dyn Volume>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build();
        Self {
            volume,
            runtime: Arc::new(runtime.unwrap()),
        }
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(work)
    }

    /// Follows a path down from the top, as the kernel does.
    fn find(&self, path: &str) -> Result<Attributes> {
        let mut at = self.volume.attributes(NodeId::ROOT, None)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.volume.lookup(at.node, name)?;
        }
        Ok(at)
    }

    /// The directory that a path's last name is in, and that name.
    fn split<'a>(&self, path: &'a str) -> Result<(NodeId, &'a str)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.find(directory)?.node, name))
    }

    fn set(&self, path: &str, changes: SetAttributes) -> Result<()> {
        let node = self.find(path)?.node;
        let changed = self.wait(self.volume.set_attributes(node, None, changes))?;
        assert_eq!(changed, self.volume.attributes(node, None)?);
        Ok(())
    }

    fn open_node(
        &self,
        path: &str,
        mode: OpenMode,
        create: Create,
    ) -> Result<(NodeId, FileHandle)> {
        let (permissions, exclusive) = match create {
            Create::Never => {
                let node = self.find(path)?.node;
                return Ok((node, self.volume.open(node, mode)?));
            }
            Create::IfMissing(permissions) => (permissions, false),
            Create::Exclusive(permissions) => (permissions, true),
        };
        let (parent, name) = self.split(path)?;
        let (found, handle) = self
            .volume
            .create(parent, name, permissions, mode, exclusive)?;
        Ok((found.node, handle))
    }
}

fn stat(found: &Attributes) -> Stat {
    Stat {
        number: found.node.0,
        kind: kind(found.kind),
        size: found.size,
        allocated: found.allocated,
        permissions: found.permissions,
        links: found.links,
        modified: found.modified,
    }
}

fn kind(kind: NodeKind) -> Kind {
    match kind {
        NodeKind::Directory => Kind::Directory,
        NodeKind::PlainFile | NodeKind::BlockFile => Kind::File,
    }
}

impl Surface for Direct {
    fn open(&self, path: &str, how: Open) -> Result<Box<dyn OpenFile>> {
        let mode = OpenMode {
            read: how.read,
            write: how.write || how.append,
        };
        let (node, handle) = self.open_node(path, mode, how.create)?;
        let surface = self.clone();
        let file = DirectFile {
            surface,
            node,
            handle,
        };
        if how.truncate {
            self.wait(
                self.volume
                    .set_attributes(node, None, SetAttributes::size(0)),
            )?;
        }
        Ok(Box::new(file))
    }

    fn stat(&self, path: &str) -> Result<Stat> {
        self.find(path).map(|found| stat(&found))
    }

    fn list(&self, path: &str) -> Result<Vec<(String, Kind)>> {
        let entries = self.volume.list(self.find(path)?.node)?;
        Ok(entries
            .into_iter()
            .map(|entry| (entry.name, kind(entry.kind)))
            .collect())
    }

    fn make_directory(&self, path: &str, permissions: u16) -> Result<()> {
        let (parent, name) = self.split(path)?;
        let made = self.volume.make_directory(parent, name, permissions)?;
        assert_eq!(made, self.find(path)?);
        Ok(())
    }

    fn remove_directory(&self, path: &str) -> Result<()> {
        let (parent, name) = self.split(path)?;
        self.volume.remove_directory(parent, name)
    }

    fn unlink(&self, path: &str) -> Result<()> {
        let (parent, name) = self.split(path)?;
        self.volume.unlink(parent, name)
    }

    fn rename(&self, from: &str, to: &str, no_replace: bool) -> Result<()> {
        let (parent, name) = self.split(from)?;
        let (new_parent, new_name) = self.split(to)?;
        self.volume
            .rename(parent, name, new_parent, new_name, no_replace)
    }

    fn set_length(&self, path: &str, size: u64) -> Result<()> {
        self.set(path, SetAttributes::size(size))
    }

    fn set_permissions(&self, path: &str, permissions: u16) -> Result<()> {
        let changes = SetAttributes {
            permissions: Some(permissions),
            ..SetAttributes::default()
        };
        self.set(path, changes)
    }

    fn set_modified(&self, path: &str, modified: SystemTime) -> Result<()> {
        let changes = SetAttributes {
            modified: Some(modified),
            ..SetAttributes::default()
        };
        self.set(path, changes)
    }

    fn sync_directory(&self, path: &str) -> Result<()> {
        let node = self.find(path)?.node;
        self.wait(self.volume.flush(node, None))
    }

    fn storage(&self) -> Result<(u64, u64)> {
        let found = self.volume.statfs()?;
        Ok((found.total, found.free))
    }

    fn directory(&self) -> Option<&Path> {
        None
    }
}

impl DirectFile {
    fn volume(&self) -> &dyn Volume {
        self.surface.volume.as_ref()
    }

    fn attributes(&self) -> Result<Attributes> {
        self.volume().attributes(self.node, Some(self.handle))
    }
}

impl OpenFile for DirectFile {
    fn stat(&self) -> Result<Stat> {
        self.attributes().map(|found| stat(&found))
    }

    fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let handle = Some(self.handle);
        let mut buffer = vec![0xEE; length];
        match self
            .volume()
            .try_read(self.node, handle, offset, &mut buffer)?
        {
            Some(read) => {
                buffer.truncate(read);
                Ok(buffer)
            }
            None => {
                let read = self.volume().read(self.node, handle, offset, length);
                self.surface.wait(read).map(|data| data.to_vec())
            }
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let handle = Some(self.handle);
        let written = self.volume().try_write(self.node, handle, offset, data)?;
        if written.is_some() {
            return Ok(());
        }
        let data = Bytes::copy_from_slice(data);
        self.surface
            .wait(self.volume().write(self.node, handle, offset, data))
    }

    fn append(&self, data: &[u8]) -> Result<()> {
        // The kernel finds the end, backends don't.
        self.write_at(self.attributes()?.size, data)
    }

    fn set_length(&self, size: u64) -> Result<()> {
        let handle = Some(self.handle);
        let changed = self
            .volume()
            .set_attributes(self.node, handle, SetAttributes::size(size));
        let changed = self.surface.wait(changed)?;
        assert_eq!(changed.size, size);
        Ok(())
    }

    fn space(&self, how: Space, offset: u64, length: u64) -> Result<()> {
        let mode = match how {
            Space::Punch => ZeroMode::Discard,
            Space::Zero { keep_size } => ZeroMode::Zero { keep_size },
            Space::Allocate { keep_size: true } => return Ok(()),
            Space::Allocate { keep_size: false } => {
                let end = offset.checked_add(length).ok_or(Errno::EFBIG)?;
                if end > self.attributes()?.size {
                    self.set_length(end)?;
                }
                return Ok(());
            }
        };
        let zeroed = self
            .volume()
            .zero(self.node, Some(self.handle), offset, length, mode);
        self.surface.wait(zeroed)
    }

    fn seek(&self, offset: u64, target: SeekTarget) -> Result<u64> {
        self.volume()
            .seek(self.node, Some(self.handle), offset, target)
    }

    fn sync(&self) -> Result<()> {
        self.surface
            .wait(self.volume().flush(self.node, Some(self.handle)))
    }
}

impl Drop for DirectFile {
    fn drop(&mut self) {
        self.volume().release(self.handle);
    }
}
