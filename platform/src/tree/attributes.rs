//! Invariant: what belongs to the image keeps its attributes in memory, what is the VMM's own keeps them in the
//! host folder.

use std::sync::Arc;
use std::time::SystemTime;

use super::data;
use super::handles::{Access, Content};
use super::host::{self, HostKind, HostStat};
use super::nodes::{Entry, Tree};
use super::volume::Inner;
use crate::{Attributes, Errno, FileHandle, NodeId, NodeKind, SetAttributes, VolumeFuture};

fn plain_attributes(node: NodeId, stat: HostStat) -> Attributes {
    Attributes {
        node,
        kind: NodeKind::PlainFile,
        size: stat.size,
        allocated: stat.allocated,
        permissions: stat.permissions,
        links: stat.links,
        modified: stat.modified,
    }
}

impl Inner {
    pub(super) fn attributes(
        &self,
        tree: &Tree,
        node: NodeId,
        handle: Option<FileHandle>,
    ) -> Result<Attributes, Errno> {
        let found = tree.get(node);
        match found.as_ref().map(|found| &found.entry) {
            Ok(Entry::Block { file, permissions }) => Ok(Attributes {
                node,
                kind: NodeKind::BlockFile,
                size: file.len(),
                allocated: file.allocated(),
                permissions: *permissions,
                links: 1,
                modified: file.modified(),
            }),
            Ok(Entry::Directory(directory)) => {
                let host = self
                    .host_directory(tree, node)
                    .and_then(|host| host.stat_self());
                let (permissions, modified) = match host {
                    Ok(host) if directory.of_image => (directory.permissions, host.modified),
                    Ok(host) => (host.permissions, host.modified),
                    Err(_) if directory.of_image => (directory.permissions, self.started),
                    Err(errno) => return Err(errno),
                };
                Ok(Attributes {
                    node,
                    kind: NodeKind::Directory,
                    size: 4096,
                    allocated: 0,
                    permissions,
                    links: 1,
                    modified,
                })
            }
            plain => {
                if let Some(file) = self.open_plain(node, handle, Access::Any)? {
                    return Ok(plain_attributes(node, host::stat_file(&file)?));
                }
                plain.map_err(|errno| *errno)?;
                let found = found?;
                let host = self.host_directory(tree, found.parent)?;
                let (kind, stat) = host.stat(&found.name)?;
                match kind {
                    HostKind::File => Ok(plain_attributes(node, stat)),
                    _ => Err(Errno::EACCES),
                }
            }
        }
    }

    /// Changes a length, which may wait for the disk, then the rest.
    pub(super) fn set_attributes(
        self: &Arc<Self>,
        node: NodeId,
        handle: Option<FileHandle>,
        changes: SetAttributes,
    ) -> VolumeFuture<Attributes> {
        let Some(size) = changes.size else {
            let changed = self.set_quick_attributes(node, handle, changes);
            return Box::pin(std::future::ready(changed));
        };
        if i64::try_from(size).is_err() {
            return data::failed(Errno::EFBIG);
        }
        let content = match self.content(node, handle, Access::Write) {
            Ok(content) => content,
            Err(errno) => return data::failed(errno),
        };
        let inner = Arc::clone(self);
        data::blocking(move || {
            match content {
                Content::Block(file) => file.set_len(size)?,
                Content::Plain(file) => file.set_len(size)?,
            }
            inner.set_quick_attributes(node, handle, changes)
        })
    }

    fn set_quick_attributes(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        changes: SetAttributes,
    ) -> Result<Attributes, Errno> {
        let mut tree = self.tree.write();
        if let Some(permissions) = changes.permissions {
            self.set_permissions(&mut tree, node, handle, permissions & 0o777)?;
        }
        if let Some(modified) = changes.modified {
            self.set_modified(&tree, node, handle, modified)?;
        }
        self.attributes(&tree, node, handle)
    }

    fn set_permissions(
        &self,
        tree: &mut Tree,
        node: NodeId,
        handle: Option<FileHandle>,
        new: u16,
    ) -> Result<(), Errno> {
        match tree.get_mut(node).map(|found| &mut found.entry) {
            Ok(Entry::Block { permissions, .. }) => {
                *permissions = new;
                return Ok(());
            }
            Ok(Entry::Directory(directory)) if directory.of_image => {
                directory.permissions = new;
                return Ok(());
            }
            _ => {}
        }
        match self.open_plain(node, handle, Access::Any)? {
            Some(file) => host::set_file_permissions(&file, new),
            None => {
                let found = tree.get(node)?;
                let host = self.host_directory(tree, found.parent)?;
                host.set_permissions(&found.name, new)
            }
        }
    }

    fn set_modified(
        &self,
        tree: &Tree,
        node: NodeId,
        handle: Option<FileHandle>,
        new: SystemTime,
    ) -> Result<(), Errno> {
        if tree.get(node).is_ok_and(|found| found.entry.is_of_image()) {
            return Ok(());
        }
        match self.open_plain(node, handle, Access::Any)? {
            Some(file) => host::set_file_modified(&file, new),
            None => {
                let found = tree.get(node)?;
                let host = self.host_directory(tree, found.parent)?;
                host.set_modified(&found.name, new)
            }
        }
    }
}
