//! Invariant: locks are taken in the order tree, handles; neither is held while file data moves.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::RwLock;

use super::data;
use super::handles::{Access, Content, Handles};
use super::host::{HostDirectory, HostKind};
use super::name::check_name;
use super::nodes::{Directory, Entry, Tree};
use crate::{
    Attributes, BlockFile, DirectoryEntry, Errno, FileHandle, NodeId, OpenMode, PositionedFile,
    SeekTarget, SetAttributes, StatFs, Volume, VolumeFuture, ZeroMode,
};

/// Up to this many bytes a write to a plain file is done at once.
const SMALL_WRITE: usize = 64 * 1024;

/// A [`Volume`] made of the files of an image and a folder of the host that holds the VMM's own files.
///
/// The image's files and folders stand at their paths, always. Beside and below them the VMM makes,
/// renames and deletes files and folders of its own, at any depth: those live in the host folder under
/// the same relative path (folders of the image get a mirror there on demand) and are found there again by
/// the next volume on the same folder. What is in the host folder but is hidden by a name of the image, or
/// is neither file nor folder (a symbolic link, a socket), or has a name that is not UTF-8, is not shown.
///
/// The host folder belongs to one volume at a time: changes behind its back are not noticed. Permissions
/// set on the image's files and folders last as long as the volume; a time set on them is ignored.
///
/// # Errors
/// Removing, renaming or replacing a file or folder of the image gives [`Errno::EPERM`]; a name that is
/// not one path component [`Errno::EINVAL`], one over 255 bytes [`Errno::ENAMETOOLONG`].
pub struct TreeVolume {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) tree: RwLock<Tree>,
    pub(super) handles: RwLock<Handles>,
    pub(super) top: Arc<HostDirectory>,
    pub(super) started: SystemTime,
}

impl TreeVolume {
    /// Puts `files`, each at its path in the volume, on top of the folder `host_folder`, which is made
    /// when it is absent.
    ///
    /// # Errors
    /// `InvalidInput` names the path that can't be: empty, a component that is no name, a name used twice,
    /// a file where another path needs a folder. Other errors come from the host folder.
    pub fn new(
        files: Vec<(Vec<String>, Arc<dyn BlockFile>)>,
        host_folder: &Path,
    ) -> io::Result<Self> {
        let mut tree = Tree::new();
        for (path, file) in files {
            add_image_file(&mut tree, &path, file).map_err(|errno| {
                let why = match errno {
                    Errno::EEXIST => "the name is used twice",
                    Errno::ENOTDIR => "a file stands where a folder is needed",
                    Errno::ENAMETOOLONG => "a name is longer than 255 bytes",
                    _ => "a component is not a file name",
                };
                let message = format!("image file {:?}: {why}", path.join("/"));
                io::Error::new(io::ErrorKind::InvalidInput, message)
            })?;
        }
        let top = HostDirectory::open_top(host_folder)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", host_folder.display())))?;
        let inner = Inner {
            tree: RwLock::new(tree),
            handles: RwLock::new(Handles::default()),
            top: Arc::new(top),
            started: SystemTime::now(),
        };
        inner.scan().map_err(|errno| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("{}: {error}", host_folder.display()))
        })?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

fn add_image_file(tree: &mut Tree, path: &[String], file: Arc<dyn BlockFile>) -> Result<(), Errno> {
    let (name, folders) = path.split_last().ok_or(Errno::EINVAL)?;
    let mut at = NodeId::ROOT;
    for folder in folders {
        check_name(folder)?;
        at = match tree.child(at, folder)? {
            Some(found) => found,
            None => tree.insert(at, folder, Entry::Directory(Directory::new(true)))?,
        };
    }
    check_name(name)?;
    let permissions = 0o644;
    tree.insert(at, name, Entry::Block { file, permissions })?;
    Ok(())
}

impl Inner {
    /// Takes over what the host folder holds.
    fn scan(&self) -> Result<(), Errno> {
        let mut tree = self.tree.write();
        let mut left = vec![NodeId::ROOT];
        while let Some(at) = left.pop() {
            for (name, kind) in self.host_directory(&tree, at)?.list()? {
                let known = tree.child(at, &name)?;
                let is_folder = known.is_some_and(|node| tree.directory(node).is_ok());
                match (known, kind) {
                    (None, HostKind::File) => {
                        tree.insert(at, &name, Entry::Plain)?;
                    }
                    (None, HostKind::Directory) => {
                        let entry = Entry::Directory(Directory::new(false));
                        left.push(tree.insert(at, &name, entry)?);
                    }
                    (Some(node), HostKind::Directory) if is_folder => left.push(node),
                    (_, kind) => {
                        tracing::warn!(name, ?kind, "not shown: hidden by the image, or no file");
                    }
                }
            }
        }
        Ok(())
    }

    /// Opens the host's side of a directory; `ENOENT` when a directory of the image has none yet.
    pub(super) fn host_directory(
        &self,
        tree: &Tree,
        directory: NodeId,
    ) -> Result<Arc<HostDirectory>, Errno> {
        let mut at = Arc::clone(&self.top);
        for node in tree.path(directory) {
            at = Arc::new(at.open_directory(&tree.get(node)?.name)?);
        }
        Ok(at)
    }

    /// A plain file that is open already: through this handle, or else through any.
    pub(super) fn open_plain(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        access: Access,
    ) -> Result<Option<Arc<PositionedFile>>, Errno> {
        let handles = self.handles.read();
        let content = match handle {
            Some(handle) => Some(handles.get(node, handle, access)?),
            None => handles.of_node(node, access),
        };
        Ok(match content {
            Some(Content::Plain(file)) => Some(file),
            _ => None,
        })
    }

    /// The content of a file, opened for this one operation when there is no handle to it.
    pub(super) fn content(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        access: Access,
    ) -> Result<Content, Errno> {
        if let Some(handle) = handle {
            return self.handles.read().get(node, handle, access);
        }
        let tree = self.tree.read();
        if let Some(file) = self.open_plain(node, None, access)? {
            return Ok(Content::Plain(file));
        }
        let mode = OpenMode {
            read: access != Access::Write,
            write: access == Access::Write,
        };
        self.open_content(&tree, node, mode)
    }

    /// Opens what is behind a name.
    pub(super) fn open_content(
        &self,
        tree: &Tree,
        node: NodeId,
        mode: OpenMode,
    ) -> Result<Content, Errno> {
        let Ok(found) = tree.get(node) else {
            // Its name was removed: who has it open may open it again (through /proc/self/fd).
            let open = self.handles.read().of_mode(node, mode);
            return open.ok_or(Errno::ENOENT);
        };
        match &found.entry {
            Entry::Directory(_) => Err(Errno::EISDIR),
            Entry::Block { file, .. } => Ok(Content::Block(Arc::clone(file))),
            Entry::Plain => {
                let host = self.host_directory(tree, found.parent)?;
                let file = host.open_file(&found.name, mode)?;
                Ok(Content::Plain(Arc::new(file)))
            }
        }
    }
}

impl Volume for TreeVolume {
    fn lookup(&self, parent: NodeId, name: &str) -> Result<Attributes, Errno> {
        check_name(name)?;
        let tree = self.inner.tree.read();
        let node = tree.find(parent, name)?;
        self.inner.attributes(&tree, node, None)
    }

    fn attributes(&self, node: NodeId, handle: Option<FileHandle>) -> Result<Attributes, Errno> {
        let tree = self.inner.tree.read();
        self.inner.attributes(&tree, node, handle)
    }

    fn set_attributes(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        changes: SetAttributes,
    ) -> VolumeFuture<Attributes> {
        self.inner.set_attributes(node, handle, changes)
    }

    fn list(&self, directory: NodeId) -> Result<Vec<DirectoryEntry>, Errno> {
        let tree = self.inner.tree.read();
        let children = &tree.directory(directory)?.children;
        children
            .iter()
            .map(|(name, node)| {
                Ok(DirectoryEntry {
                    name: name.clone(),
                    node: *node,
                    kind: tree.get(*node)?.entry.kind(),
                })
            })
            .collect()
    }

    fn parent(&self, directory: NodeId) -> Result<NodeId, Errno> {
        let tree = self.inner.tree.read();
        tree.directory(directory)?;
        Ok(tree.get(directory)?.parent)
    }

    fn open(&self, node: NodeId, mode: OpenMode) -> Result<FileHandle, Errno> {
        let tree = self.inner.tree.read();
        let content = self.inner.open_content(&tree, node, mode)?;
        Ok(self.inner.handles.write().insert(node, mode, content))
    }

    fn release(&self, handle: FileHandle) {
        self.inner.handles.write().remove(handle);
    }

    fn create(
        &self,
        parent: NodeId,
        name: &str,
        permissions: u16,
        mode: OpenMode,
        exclusive: bool,
    ) -> Result<(Attributes, FileHandle), Errno> {
        check_name(name)?;
        self.inner
            .create(parent, name, permissions, mode, exclusive)
    }

    fn make_directory(
        &self,
        parent: NodeId,
        name: &str,
        permissions: u16,
    ) -> Result<Attributes, Errno> {
        check_name(name)?;
        self.inner.make_directory(parent, name, permissions)
    }

    fn unlink(&self, parent: NodeId, name: &str) -> Result<(), Errno> {
        check_name(name)?;
        self.inner.unlink(parent, name)
    }

    fn remove_directory(&self, parent: NodeId, name: &str) -> Result<(), Errno> {
        check_name(name)?;
        self.inner.remove_directory(parent, name)
    }

    fn rename(
        &self,
        parent: NodeId,
        name: &str,
        new_parent: NodeId,
        new_name: &str,
        no_replace: bool,
    ) -> Result<(), Errno> {
        check_name(name)?;
        check_name(new_name)?;
        self.inner
            .rename(parent, name, new_parent, new_name, no_replace)
    }

    fn try_read(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, Errno> {
        match self.inner.content(node, handle, Access::Read)? {
            Content::Block(file) => file.try_read(offset, buffer),
            Content::Plain(file) => Ok(file.try_read_at(buffer, offset)?),
        }
    }

    fn read(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        length: usize,
    ) -> VolumeFuture<Bytes> {
        match self.inner.content(node, handle, Access::Read) {
            Ok(Content::Block(file)) => file.read(offset, length),
            Ok(Content::Plain(file)) => data::read(file, offset, length),
            Err(errno) => data::failed(errno),
        }
    }

    fn try_write(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        data: &[u8],
    ) -> Result<Option<()>, Errno> {
        match self.inner.content(node, handle, Access::Write)? {
            Content::Block(file) => file.try_write(offset, data),
            // The host may make a writer wait when much of what was written is not on disk yet.
            Content::Plain(_) if data.len() > SMALL_WRITE => Ok(None),
            Content::Plain(file) => Ok(Some(file.write_all_at(data, offset)?)),
        }
    }

    fn write(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        bytes: Bytes,
    ) -> VolumeFuture<()> {
        match self.inner.content(node, handle, Access::Write) {
            Ok(Content::Block(file)) => file.write(offset, bytes),
            Ok(Content::Plain(file)) => {
                data::blocking(move || Ok(file.write_all_at(&bytes, offset)?))
            }
            Err(errno) => data::failed(errno),
        }
    }

    fn zero(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        length: u64,
        mode: ZeroMode,
    ) -> VolumeFuture<()> {
        match self.inner.content(node, handle, Access::Write) {
            Ok(Content::Block(file)) => file.zero(offset, length, mode),
            Ok(Content::Plain(file)) => {
                data::blocking(move || data::zero(&file, offset, length, mode))
            }
            Err(errno) => data::failed(errno),
        }
    }

    fn flush(&self, node: NodeId, handle: Option<FileHandle>) -> VolumeFuture<()> {
        data::flush(&self.inner, node, handle)
    }

    fn seek(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        target: SeekTarget,
    ) -> Result<u64, Errno> {
        match self.inner.content(node, handle, Access::Any)? {
            Content::Block(file) => file.seek(offset, target),
            Content::Plain(file) => data::seek(&file, offset, target),
        }
    }

    fn statfs(&self) -> Result<StatFs, Errno> {
        self.inner.top.statfs()
    }
}
