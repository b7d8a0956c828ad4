//! Invariant: no method without `async` in its result waits for the network or for a cold disk; what
//! would have to wait says so (`Ok(None)`) and is asked again through its future.

use std::future::Future;
use std::pin::Pin;
use std::time::SystemTime;

use bytes::Bytes;

use crate::Errno;

/// A future that a [`Volume`] returns for work that may wait.
pub type VolumeFuture<T> = Pin<Box<dyn Future<Output = Result<T, Errno>> + Send + 'static>>;

/// Names a node of a volume for as long as the volume lives. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The volume's top directory.
    pub const ROOT: NodeId = NodeId(1);
}

/// An open file. It keeps the content reachable after its name was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileHandle(pub u64);

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A file of the VMM's own: a lock, a log, nvram.
    PlainFile,
    /// A file of the image: data that is missing locally is fetched when it is read.
    BlockFile,
}

/// What `stat` shows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The node.
    pub node: NodeId,
    /// Directory, plain file or block file.
    pub kind: NodeKind,
    /// Length in bytes.
    pub size: u64,
    /// Bytes of local storage that the node takes.
    pub allocated: u64,
    /// Unix permission bits.
    pub permissions: u16,
    /// How many names it has: 0 for a file that is open still but was removed.
    pub links: u32,
    /// Last change of the content.
    pub modified: SystemTime,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name, without path separators.
    pub name: String,
    /// The node behind it.
    pub node: NodeId,
    /// What that node is.
    pub kind: NodeKind,
}

/// How a file is opened. Cutting it to length 0 on opening is a matter of [`Volume::set_attributes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// The handle may read.
    pub read: bool,
    /// The handle may write.
    pub write: bool,
}

/// Which attributes to change; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttributes {
    /// New length in bytes: grows with zeros, or truncates.
    pub size: Option<u64>,
    /// New permission bits.
    pub permissions: Option<u16>,
    /// New time of last change.
    pub modified: Option<SystemTime>,
}

impl SetAttributes {
    /// A new length alone, bytes.
    pub fn size(size: u64) -> Self {
        Self {
            size: Some(size),
            ..Self::default()
        }
    }
}

/// How a range is made to read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroMode {
    /// The guest does not need the data any more (discard, TRIM): storage is given back. Never grows the file.
    Discard,
    /// The guest wants zeros. With `keep_size` false the file grows to hold the range.
    Zero {
        /// Leave the length as it is even if the range ends behind it.
        keep_size: bool,
    },
}

/// What [`Volume::seek`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTarget {
    /// The next byte that may be non-zero.
    Data,
    /// The next byte of a range that is known to read as zeros, or the end.
    Hole,
}

/// What `statfs` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Size of the storage below the volume, bytes.
    pub total: u64,
    /// Bytes of it that are free.
    pub free: u64,
}

/// A small tree of directories, plain files and block files: what a VMM sees.
///
/// Backends call it from many threads at once. The methods that return a plain `Result` answer from
/// memory or from local disk in microseconds; `Ok(None)` from a `try_` method means *this would have to
/// wait: use the future of the same name*. The futures run on the tokio runtime that the backend was given.
///
/// `handle` is what [`open`](Volume::open) or [`create`](Volume::create) returned, or `None` when the
/// backend has none; with a handle the file stays usable after [`unlink`](Volume::unlink).
///
/// # Errors
/// Every method gives the [`Errno`] that a local file system would give in its place.
pub trait Volume: Send + Sync + 'static {
    /// Finds `name` in the directory `parent`.
    fn lookup(&self, parent: NodeId, name: &str) -> Result<Attributes, Errno>;

    /// The attributes of a node.
    fn attributes(&self, node: NodeId, handle: Option<FileHandle>) -> Result<Attributes, Errno>;

    /// Changes attributes and gives what they are then. Truncating and growing never fetch anything, but
    /// may wait for the local disk.
    fn set_attributes(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        changes: SetAttributes,
    ) -> VolumeFuture<Attributes>;

    /// The names in a directory, in a stable order, without `.` and `..`.
    fn list(&self, directory: NodeId) -> Result<Vec<DirectoryEntry>, Errno>;

    /// The directory that holds `directory`; the root's is the root.
    fn parent(&self, directory: NodeId) -> Result<NodeId, Errno>;

    /// Opens a file; one whose name was removed, for as long as another handle that may do the same is open.
    fn open(&self, node: NodeId, mode: OpenMode) -> Result<FileHandle, Errno>;

    /// Gives a handle back. Not a durability point.
    fn release(&self, handle: FileHandle);

    /// Makes a plain file and opens it; with `exclusive` it fails with `EEXIST` when the name exists,
    /// without it opens what is there.
    fn create(
        &self,
        parent: NodeId,
        name: &str,
        permissions: u16,
        mode: OpenMode,
        exclusive: bool,
    ) -> Result<(Attributes, FileHandle), Errno>;

    /// Makes a directory.
    fn make_directory(
        &self,
        parent: NodeId,
        name: &str,
        permissions: u16,
    ) -> Result<Attributes, Errno>;

    /// Removes a plain file's name. Files of the image can't be removed (`EPERM`).
    fn unlink(&self, parent: NodeId, name: &str) -> Result<(), Errno>;

    /// Removes an empty directory that the VMM made.
    fn remove_directory(&self, parent: NodeId, name: &str) -> Result<(), Errno>;

    /// Renames a plain file or a directory that the VMM made; an existing plain file at the target is
    /// replaced unless `no_replace`.
    fn rename(
        &self,
        parent: NodeId,
        name: &str,
        new_parent: NodeId,
        new_name: &str,
        no_replace: bool,
    ) -> Result<(), Errno>;

    /// Reads what is at hand: fills `buffer` from `offset` and gives the number of bytes, fewer only at
    /// the end of the file. `Ok(None)`: something is missing or cold, use [`read`](Volume::read).
    fn try_read(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, Errno>;

    /// Reads `length` bytes from `offset`, waiting for what is missing; fewer bytes only at the end of the file.
    fn read(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        length: usize,
    ) -> VolumeFuture<Bytes>;

    /// Writes all of `data` at `offset`, growing the file when needed, and gives `Ok(Some(()))`;
    /// `Ok(None)`: nothing was written, use [`write`](Volume::write).
    fn try_write(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        data: &[u8],
    ) -> Result<Option<()>, Errno>;

    /// Writes all of `data` at `offset`, waiting for surrounding data that is missing.
    fn write(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        data: Bytes,
    ) -> VolumeFuture<()>;

    /// Makes a range read as zeros.
    fn zero(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        length: u64,
        mode: ZeroMode,
    ) -> VolumeFuture<()>;

    /// The durability point: when it ends well, every write that had returned before it was called
    /// survives kill -9 and power loss.
    fn flush(&self, node: NodeId, handle: Option<FileHandle>) -> VolumeFuture<()>;

    /// The first offset at or behind `offset` that is data, or a hole. `ENXIO` behind the end, and for
    /// data when only holes follow.
    fn seek(
        &self,
        node: NodeId,
        handle: Option<FileHandle>,
        offset: u64,
        target: SeekTarget,
    ) -> Result<u64, Errno>;

    /// The storage below the volume.
    fn statfs(&self) -> Result<StatFs, Errno>;
}
