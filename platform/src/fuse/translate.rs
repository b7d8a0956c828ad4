//! Invariant: pure translation between the volume's vocabulary and the protocol's.

use std::ffi::OsStr;
use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, Generation, INodeNo, OpenAccMode, OpenFlags, TimeOrNow};
use rustix::fs::OFlags;

use crate::{Attributes, Errno, NodeId, NodeKind, OpenMode};

/// How long the kernel may keep names and attributes. All changes come through the kernel itself, but for the
/// storage that a file takes.
pub(super) const TIME_TO_LIVE: Duration = Duration::from_secs(1);

/// Numbers of nodes are never reused, so one generation does.
pub(super) const GENERATION: Generation = Generation(0);

/// Who owns what is mounted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub user: u32,
    pub group: u32,
}

impl Owner {
    /// The user and group of this process.
    pub fn of_process() -> Self {
        Self {
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
        }
    }

    pub fn attributes(self, attributes: &Attributes) -> FileAttr {
        FileAttr {
            ino: INodeNo(attributes.node.0),
            size: attributes.size,
            blocks: attributes.allocated.div_ceil(512),
            atime: attributes.modified,
            mtime: attributes.modified,
            ctime: attributes.modified,
            crtime: attributes.modified,
            kind: file_type(attributes.kind),
            perm: attributes.permissions,
            nlink: attributes.links,
            uid: self.user,
            gid: self.group,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::Directory => FileType::Directory,
        NodeKind::PlainFile | NodeKind::BlockFile => FileType::RegularFile,
    }
}

pub(super) fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw())
}

pub(super) fn node(number: INodeNo) -> NodeId {
    NodeId(number.0)
}

/// A name to be given: those that are not UTF-8 can't be.
pub(super) fn new_name(name: &OsStr) -> Result<&str, Errno> {
    name.to_str().ok_or(Errno::EINVAL)
}

/// A name to be found: those that are not UTF-8 exist nowhere in a volume.
pub(super) fn known_name(name: &OsStr) -> Result<&str, Errno> {
    name.to_str().ok_or(Errno::ENOENT)
}

pub(super) fn open_mode(flags: OpenFlags) -> OpenMode {
    let access = flags.acc_mode();
    OpenMode {
        read: access != OpenAccMode::O_WRONLY,
        write: access != OpenAccMode::O_RDONLY,
    }
}

pub(super) fn has(flags: i32, flag: OFlags) -> bool {
    OFlags::from_bits_retain(flags as _).contains(flag)
}

pub(super) fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}
