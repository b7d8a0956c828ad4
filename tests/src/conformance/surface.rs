//! Invariant: nothing here knows how a surface comes to its answers, so a case can't tell one from another.

use std::path::Path;
use std::time::SystemTime;

use vmtorrent_platform::{Errno, SeekTarget};

/// What an operation gives, with the error number of a local file system.
pub type Result<T> = std::result::Result<T, Errno>;

/// What a volume looks like from above. Paths are relative to its top, which is "".
pub trait Surface: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &str, how: Open) -> Result<Box<dyn OpenFile>>;
    /// Attributes by name.
    fn stat(&self, path: &str) -> Result<Stat>;
    /// All names of a directory, in the order in which they come, without `.` and `..`.
    fn list(&self, path: &str) -> Result<Vec<(String, Kind)>>;
    /// Makes a directory.
    fn make_directory(&self, path: &str, permissions: u16) -> Result<()>;
    /// Removes an empty directory.
    fn remove_directory(&self, path: &str) -> Result<()>;
    /// Removes a file's name.
    fn unlink(&self, path: &str) -> Result<()>;
    /// Renames; what is there is replaced unless `no_replace`.
    fn rename(&self, from: &str, to: &str, no_replace: bool) -> Result<()>;
    /// Sets the length of a file by its name.
    fn set_length(&self, path: &str, length: u64) -> Result<()>;
    /// Sets permission bits.
    fn set_permissions(&self, path: &str, permissions: u16) -> Result<()>;
    /// Sets the time of last change.
    fn set_modified(&self, path: &str, modified: SystemTime) -> Result<()>;
    /// Makes a directory's names durable.
    fn sync_directory(&self, path: &str) -> Result<()>;
    /// Bytes of the storage below: all, and free.
    fn storage(&self) -> Result<(u64, u64)>;
    /// Where the kernel shows it, if it does.
    fn directory(&self) -> Option<&Path>;
}

/// An open file.
pub trait OpenFile: Send + Sync {
    /// Attributes.
    fn stat(&self) -> Result<Stat>;
    /// Reads until `length` bytes are here or the file ends.
    fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>>;
    /// Writes all of `data`.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()>;
    /// Writes at the end; the file must have been opened with [`Open::append`].
    fn append(&self, data: &[u8]) -> Result<()>;
    /// Sets the length.
    fn set_length(&self, length: u64) -> Result<()>;
    /// Allocates, zeroes or discards.
    fn space(&self, how: Space, offset: u64, length: u64) -> Result<()>;
    /// The first data or hole at or behind an offset.
    fn seek(&self, offset: u64, target: SeekTarget) -> Result<u64>;
    /// Makes the content durable.
    fn sync(&self) -> Result<()>;
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Cuts it to nothing.
    pub truncate: bool,
    /// For writing at the end.
    pub append: bool,
    /// Past the page cache. Surfaces without a kernel have none.
    pub direct: bool,
    /// Whether it is made.
    pub create: Create,
}

/// Whether opening makes a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Create {
    /// It must exist.
    #[default]
    Never,
    /// It is made with these permissions if it does not exist.
    IfMissing(u16),
    /// It is made with these permissions and must not exist.
    Exclusive(u16),
}

/// For reading.
pub const READ: Open = Open {
    read: true,
    write: false,
    truncate: false,
    append: false,
    direct: false,
    create: Create::Never,
};
/// For reading and writing.
pub const WRITE: Open = Open {
    read: true,
    write: true,
    ..READ
};
/// Makes a file that must not exist.
pub const NEW: Open = Open {
    create: Create::Exclusive(0o640),
    ..WRITE
};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File,
}

/// Attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The number of the node.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// Length, bytes.
    pub size: u64,
    /// Storage, bytes.
    pub allocated: u64,
    /// Permission bits.
    pub permissions: u16,
    /// How many names it has.
    pub links: u32,
    /// Time of last change.
    pub modified: SystemTime,
}

/// What `fallocate` can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Storage for a range.
    Allocate {
        /// The length stays.
        keep_size: bool,
    },
    /// Zeros in a range.
    Zero {
        /// The length stays.
        keep_size: bool,
    },
    /// A hole; the length stays.
    Punch,
}
