//! Invariant: a handle reaches the content that it was opened on until it is released, whatever becomes of
//! the name.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{BlockFile, Errno, FileHandle, NodeId, OpenMode, PositionedFile};

/// The bytes behind an open file.
#[derive(Clone)]
pub(super) enum Content {
    Block(Arc<dyn BlockFile>),
    Plain(Arc<PositionedFile>),
}

/// What an operation needs of a handle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    Any,
}

struct OpenFile {
    node: NodeId,
    mode: OpenMode,
    content: Content,
}

/// The open files of a volume.
#[derive(Default)]
pub(super) struct Handles {
    open: HashMap<FileHandle, OpenFile>,
    by_node: HashMap<NodeId, Vec<FileHandle>>,
    last: u64,
}

impl Access {
    fn is_given_by(self, mode: OpenMode) -> bool {
        match self {
            Self::Read => mode.read,
            Self::Write => mode.write,
            Self::Any => true,
        }
    }
}

impl Handles {
    /// Registers an open file.
    pub fn insert(&mut self, node: NodeId, mode: OpenMode, content: Content) -> FileHandle {
        self.last += 1;
        let handle = FileHandle(self.last);
        let file = OpenFile {
            node,
            mode,
            content,
        };
        self.open.insert(handle, file);
        self.by_node.entry(node).or_default().push(handle);
        handle
    }

    /// Forgets a handle; an unknown one is no harm.
    pub fn remove(&mut self, handle: FileHandle) {
        let Some(gone) = self.open.remove(&handle) else {
            return;
        };
        if let Some(of_node) = self.by_node.get_mut(&gone.node) {
            of_node.retain(|other| *other != handle);
            if of_node.is_empty() {
                self.by_node.remove(&gone.node);
            }
        }
    }

    /// The content behind a handle.
    pub fn get(&self, node: NodeId, handle: FileHandle, access: Access) -> Result<Content, Errno> {
        self.open
            .get(&handle)
            .filter(|file| file.node == node && access.is_given_by(file.mode))
            .map(|file| file.content.clone())
            .ok_or(Errno::EBADF)
    }

    /// The content of a node through any of its handles that may do this.
    pub fn of_node(&self, node: NodeId, access: Access) -> Option<Content> {
        self.find(node, |mode| access.is_given_by(mode))
    }

    /// The content of a node through any of its handles that may do all that `wanted` may.
    pub fn of_mode(&self, node: NodeId, wanted: OpenMode) -> Option<Content> {
        self.find(node, |mode| {
            (mode.read || !wanted.read) && (mode.write || !wanted.write)
        })
    }

    fn find(&self, node: NodeId, fits: impl Fn(OpenMode) -> bool) -> Option<Content> {
        let handles = self.by_node.get(&node)?.iter();
        let mut files = handles.filter_map(|handle| self.open.get(handle));
        let found = files.find(|file| fits(file.mode))?;
        Some(found.content.clone())
    }
}
