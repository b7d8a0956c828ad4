//! Invariant: every node but the root is a child of exactly one directory, under its own name, and a
//! number that was given once is never given again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::{BlockFile, Errno, NodeId, NodeKind};

/// The names of a volume. It does no I/O.
pub(super) struct Tree {
    nodes: HashMap<NodeId, Node>,
    last: u64,
}

/// One name and what is behind it.
pub(super) struct Node {
    pub parent: NodeId,
    pub name: String,
    pub entry: Entry,
}

/// What a name stands for.
pub(super) enum Entry {
    Directory(Directory),
    Plain,
    Block {
        file: Arc<dyn BlockFile>,
        permissions: u16,
    },
}

/// A directory of the image, of the VMM, or (below the image's directories) both.
pub(super) struct Directory {
    pub children: BTreeMap<String, NodeId>,
    /// It belongs to the image: it can't be removed or renamed, and may lack a mirror in the host folder.
    pub of_image: bool,
    /// Permission bits of a directory of the image; one of the VMM's has them in the host folder.
    pub permissions: u16,
    /// Counts changes of names in the host folder.
    pub changes: u64,
    /// Up to which change the host folder is known to be durable.
    pub synced: u64,
}

impl Directory {
    pub fn new(of_image: bool) -> Self {
        Self {
            children: BTreeMap::new(),
            of_image,
            permissions: 0o755,
            changes: 0,
            synced: 0,
        }
    }
}

impl Entry {
    pub fn kind(&self) -> NodeKind {
        match self {
            Self::Directory(_) => NodeKind::Directory,
            Self::Plain => NodeKind::PlainFile,
            Self::Block { .. } => NodeKind::BlockFile,
        }
    }

    /// Whether the name belongs to the image, so that it can't be removed or renamed.
    pub fn is_of_image(&self) -> bool {
        match self {
            Self::Directory(directory) => directory.of_image,
            Self::Plain => false,
            Self::Block { .. } => true,
        }
    }
}

impl Tree {
    /// An image without files.
    pub fn new() -> Self {
        let root = Node {
            parent: NodeId::ROOT,
            name: String::new(),
            entry: Entry::Directory(Directory::new(true)),
        };
        Self {
            nodes: HashMap::from([(NodeId::ROOT, root)]),
            last: NodeId::ROOT.0,
        }
    }

    pub fn get(&self, node: NodeId) -> Result<&Node, Errno> {
        self.nodes.get(&node).ok_or(Errno::ENOENT)
    }

    pub fn get_mut(&mut self, node: NodeId) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&node).ok_or(Errno::ENOENT)
    }

    pub fn directory(&self, node: NodeId) -> Result<&Directory, Errno> {
        match &self.get(node)?.entry {
            Entry::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub fn directory_mut(&mut self, node: NodeId) -> Result<&mut Directory, Errno> {
        match &mut self.get_mut(node)?.entry {
            Entry::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The node behind a name, `None` when the directory has no such name.
    pub fn child(&self, parent: NodeId, name: &str) -> Result<Option<NodeId>, Errno> {
        Ok(self.directory(parent)?.children.get(name).copied())
    }

    /// The node behind a name.
    pub fn find(&self, parent: NodeId, name: &str) -> Result<NodeId, Errno> {
        self.child(parent, name)?.ok_or(Errno::ENOENT)
    }

    /// Gives a new node a free name.
    pub fn insert(&mut self, parent: NodeId, name: &str, entry: Entry) -> Result<NodeId, Errno> {
        let node = NodeId(self.last + 1);
        let children = &mut self.directory_mut(parent)?.children;
        if children.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        children.insert(name.to_owned(), node);
        self.last = node.0;
        let name = name.to_owned();
        self.nodes.insert(
            node,
            Node {
                parent,
                name,
                entry,
            },
        );
        Ok(node)
    }

    /// Takes a node out, with its name.
    pub fn remove(&mut self, node: NodeId) {
        if let Some(gone) = self.nodes.remove(&node)
            && let Ok(parent) = self.directory_mut(gone.parent)
        {
            parent.children.remove(&gone.name);
        }
    }

    /// Gives a node another name, which must be free.
    pub fn rename(&mut self, node: NodeId, parent: NodeId, name: &str) -> Result<(), Errno> {
        let moved = self.get_mut(node)?;
        let old_parent = std::mem::replace(&mut moved.parent, parent);
        let old_name = std::mem::replace(&mut moved.name, name.to_owned());
        self.directory_mut(old_parent)?.children.remove(&old_name);
        let children = &mut self.directory_mut(parent)?.children;
        children.insert(name.to_owned(), node);
        Ok(())
    }

    /// Whether `node` is `ancestor` or lies below it.
    pub fn is_within(&self, node: NodeId, ancestor: NodeId) -> bool {
        self.upwards(node).any(|at| at == ancestor)
    }

    /// The node, the directory that holds it, and so on up to the root.
    pub fn upwards(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let mut next = Some(node);
        std::iter::from_fn(move || {
            let at = next?;
            let parent = self.nodes.get(&at).map(|found| found.parent);
            next = parent.filter(|_| at != NodeId::ROOT);
            Some(at)
        })
    }

    /// The nodes from below the root down to this one.
    pub fn path(&self, node: NodeId) -> Vec<NodeId> {
        let mut path: Vec<NodeId> = self.upwards(node).collect();
        path.pop();
        path.reverse();
        path
    }

    /// Notes a change of names in the host folder.
    pub fn note_change(&mut self, directory: NodeId) {
        if let Ok(directory) = self.directory_mut(directory) {
            directory.changes += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_reused_and_renaming_keeps_them() {
        let mut tree = Tree::new();
        let folder = tree
            .insert(NodeId::ROOT, "a", Entry::Directory(Directory::new(false)))
            .unwrap();
        let file = tree.insert(folder, "f", Entry::Plain).unwrap();
        tree.rename(file, NodeId::ROOT, "g").unwrap();
        assert_eq!(tree.find(NodeId::ROOT, "g"), Ok(file));
        assert_eq!(tree.child(folder, "f"), Ok(None));
        tree.remove(file);
        let next = tree.insert(folder, "f", Entry::Plain).unwrap();
        assert!(next > file);
        assert_eq!(tree.path(next), [folder, next]);
        assert!(tree.is_within(next, folder) && !tree.is_within(folder, next));
        assert_eq!(tree.insert(folder, "f", Entry::Plain), Err(Errno::EEXIST));
    }
}
