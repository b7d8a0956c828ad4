//! Invariant: a name changes in the tree only after it has changed in the host folder, under the tree's
//! write lock, so that both tell the same.

use std::sync::Arc;

use super::handles::Content;
use super::host::HostDirectory;
use super::nodes::{Directory, Entry, Tree};
use super::volume::Inner;
use crate::{Attributes, Errno, FileHandle, NodeId, OpenMode};

impl Inner {
    /// Opens the host's side of a directory and makes what is missing on the way: the mirrors of the
    /// image's directories.
    fn mirror(&self, tree: &mut Tree, directory: NodeId) -> Result<Arc<HostDirectory>, Errno> {
        let mut at = Arc::clone(&self.top);
        let mut parent = NodeId::ROOT;
        for node in tree.path(directory) {
            let name = tree.get(node)?.name.clone();
            let next = match at.open_directory(&name) {
                Err(Errno::ENOENT) if tree.directory(node)?.of_image => {
                    at.make_directory(&name, 0o755)?;
                    tree.note_change(parent);
                    at.open_directory(&name)
                }
                opened => opened,
            };
            at = Arc::new(next?);
            parent = node;
        }
        Ok(at)
    }

    pub(super) fn create(
        &self,
        parent: NodeId,
        name: &str,
        permissions: u16,
        mode: OpenMode,
        exclusive: bool,
    ) -> Result<(Attributes, FileHandle), Errno> {
        let mut tree = self.tree.write();
        if let Some(node) = tree.child(parent, name)? {
            if exclusive {
                return Err(Errno::EEXIST);
            }
            let content = self.open_content(&tree, node, mode)?;
            let handle = self.handles.write().insert(node, mode, content);
            return Ok((self.attributes(&tree, node, None)?, handle));
        }
        let host = self.mirror(&mut tree, parent)?;
        let file = host.create_file(name, permissions, mode)?;
        let node = tree.insert(parent, name, Entry::Plain)?;
        tree.note_change(parent);
        let content = Content::Plain(Arc::new(file));
        let handle = self.handles.write().insert(node, mode, content);
        Ok((self.attributes(&tree, node, Some(handle))?, handle))
    }

    pub(super) fn make_directory(
        &self,
        parent: NodeId,
        name: &str,
        permissions: u16,
    ) -> Result<Attributes, Errno> {
        let mut tree = self.tree.write();
        if tree.child(parent, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        self.mirror(&mut tree, parent)?
            .make_directory(name, permissions)?;
        let entry = Entry::Directory(Directory::new(false));
        let node = tree.insert(parent, name, entry)?;
        tree.note_change(parent);
        self.attributes(&tree, node, None)
    }

    pub(super) fn unlink(&self, parent: NodeId, name: &str) -> Result<(), Errno> {
        let mut tree = self.tree.write();
        let node = tree.find(parent, name)?;
        match tree.get(node)?.entry {
            Entry::Directory(_) => return Err(Errno::EISDIR),
            Entry::Block { .. } => return Err(Errno::EPERM),
            Entry::Plain => {}
        }
        let removed = self.host_directory(&tree, parent)?.remove_file(name);
        gone_is_fine(removed)?;
        tree.remove(node);
        tree.note_change(parent);
        Ok(())
    }

    pub(super) fn remove_directory(&self, parent: NodeId, name: &str) -> Result<(), Errno> {
        let mut tree = self.tree.write();
        let node = tree.find(parent, name)?;
        let directory = tree.directory(node)?;
        if directory.of_image {
            return Err(Errno::EPERM);
        }
        if !directory.children.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        let removed = self.host_directory(&tree, parent)?.remove_directory(name);
        gone_is_fine(removed)?;
        tree.remove(node);
        tree.note_change(parent);
        Ok(())
    }

    pub(super) fn rename(
        &self,
        parent: NodeId,
        name: &str,
        new_parent: NodeId,
        new_name: &str,
        no_replace: bool,
    ) -> Result<(), Errno> {
        let mut tree = self.tree.write();
        let node = tree.find(parent, name)?;
        let replaced = tree.child(new_parent, new_name)?;
        if replaced.is_some() && no_replace {
            return Err(Errno::EEXIST);
        }
        let moved = &tree.get(node)?.entry;
        if moved.is_of_image() {
            return Err(Errno::EPERM);
        }
        if replaced == Some(node) {
            return Ok(());
        }
        if matches!(moved, Entry::Directory(_)) && tree.is_within(new_parent, node) {
            return Err(Errno::EINVAL);
        }
        if let Some(replaced) = replaced {
            check_replaceable(moved, &tree.get(replaced)?.entry)?;
        }
        let source = self.host_directory(&tree, parent)?;
        let target = self.mirror(&mut tree, new_parent)?;
        source.rename(name, &target, new_name, replaced.is_some())?;
        if let Some(replaced) = replaced {
            tree.remove(replaced);
        }
        tree.rename(node, new_parent, new_name)?;
        tree.note_change(parent);
        tree.note_change(new_parent);
        Ok(())
    }
}

/// The host folder may have lost the name already: then the wish is fulfilled.
fn gone_is_fine(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn check_replaceable(moved: &Entry, replaced: &Entry) -> Result<(), Errno> {
    if replaced.is_of_image() {
        return Err(Errno::EPERM);
    }
    match (moved, replaced) {
        (Entry::Directory(_), Entry::Directory(old)) if !old.children.is_empty() => {
            Err(Errno::ENOTEMPTY)
        }
        (Entry::Directory(_), Entry::Directory(_)) => Ok(()),
        (Entry::Directory(_), _) => Err(Errno::ENOTDIR),
        (_, Entry::Directory(_)) => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}
