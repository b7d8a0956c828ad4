//! Invariant: every request is answered exactly once, and none waits in a FUSE thread.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, Errno as Code, FileHandle, Filesystem, FopenFlags, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::FileType;

use super::directories::Directories;
use super::tasks::Tasks;
use super::translate::{
    GENERATION, Owner, TIME_TO_LIVE, errno, file_type, known_name, new_name, node, time,
};
use crate::{Attributes, Errno, FileHandle as Handle, OpenMode, SetAttributes, Volume};

/// The largest write and read request, bytes.
const LARGEST_REQUEST: u32 = 1 << 20;

/// How many requests the kernel may have under way that no process waits for in a system call. With few of
/// them, a handful of misses would block `io_submit`.
const BACKGROUND_REQUESTS: u16 = 512;

/// Shows a volume to the kernel.
pub(super) struct VolumeFilesystem {
    pub(super) volume: Arc<dyn Volume>,
    pub(super) tasks: Tasks,
    directories: Directories,
    pub(super) owner: Owner,
}

impl VolumeFilesystem {
    pub fn new(volume: Arc<dyn Volume>, tasks: Tasks) -> Self {
        Self {
            volume,
            tasks,
            directories: Directories::default(),
            owner: Owner::of_process(),
        }
    }

    fn reply_entry(&self, found: Result<Attributes, Errno>, reply: ReplyEntry) {
        match found {
            Ok(found) => reply.entry(&TIME_TO_LIVE, &self.owner.attributes(&found), GENERATION),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn reply_attributes(&self, found: Result<Attributes, Errno>, reply: ReplyAttr) {
        match found {
            Ok(found) => reply.attr(&TIME_TO_LIVE, &self.owner.attributes(&found)),
            Err(e) => reply.error(errno(e)),
        }
    }
}

pub(super) fn reply_empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

fn permissions(mode: u32) -> u16 {
    (mode & 0o777) as u16
}

impl Filesystem for VolumeFilesystem {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
        ] {
            if let Err(missing) = config.add_capabilities(wanted) {
                tracing::debug!(?missing, "the kernel's FUSE lacks a capability");
            }
        }
        // Each setter gives the nearest value that it can take.
        if let Err(nearest) = config.set_max_write(LARGEST_REQUEST) {
            let _ = config.set_max_write(nearest);
        }
        let _ = config.set_max_background(BACKGROUND_REQUESTS);
        let _ = config.set_congestion_threshold(BACKGROUND_REQUESTS);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEntry) {
        let found = known_name(child).and_then(|child| self.volume.lookup(node(parent), child));
        self.reply_entry(found, reply);
    }

    fn getattr(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let handle = handle.map(|handle| Handle(handle.0));
        self.reply_attributes(self.volume.attributes(node(number), handle), reply);
    }

    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // All files belong to who mounted.
        if user.is_some_and(|user| user != self.owner.user)
            || group.is_some_and(|group| group != self.owner.group)
        {
            return reply.error(Code::EPERM);
        }
        let changes = SetAttributes {
            size,
            permissions: mode.map(permissions),
            modified: mtime.map(time),
        };
        let handle = handle.map(|handle| Handle(handle.0));
        let changed = self.volume.set_attributes(node(number), handle, changes);
        let owner = self.owner;
        self.tasks.spawn(changed, move |changed| match changed {
            Ok(changed) => reply.attr(&TIME_TO_LIVE, &owner.attributes(&changed)),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = new_name(child).and_then(|child| {
            self.volume
                .make_directory(node(parent), child, permissions(mode))
        });
        self.reply_entry(made, reply);
    }

    /// Files only: sockets, pipes and devices have no place in a volume.
    fn mknod(
        &self,
        _request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        _umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        if FileType::from_raw_mode(mode as _) != FileType::RegularFile {
            return reply.error(Code::EPERM);
        }
        let made = new_name(child).and_then(|child| {
            let open = OpenMode::default();
            self.volume
                .create(node(parent), child, permissions(mode), open, true)
        });
        let made = made.map(|(found, handle)| {
            self.volume.release(handle);
            found
        });
        self.reply_entry(made, reply);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let removed = known_name(child).and_then(|child| self.volume.unlink(node(parent), child));
        reply_empty(removed, reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let removed =
            known_name(child).and_then(|child| self.volume.remove_directory(node(parent), child));
        reply_empty(removed, reply);
    }

    fn symlink(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(Code::EPERM);
    }

    fn link(
        &self,
        _request: &Request,
        _number: INodeNo,
        _parent: INodeNo,
        _name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(Code::EPERM);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        old: &OsStr,
        new_parent: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        #[cfg(target_os = "linux")]
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        #[cfg(not(target_os = "linux"))]
        let no_replace = false;
        #[cfg(target_os = "linux")]
        let known = RenameFlags::RENAME_NOREPLACE;
        #[cfg(not(target_os = "linux"))]
        let known = RenameFlags::empty();
        if !known.contains(flags) {
            return reply.error(Code::EINVAL);
        }
        let renamed = known_name(old).and_then(|old| {
            let new = new_name(new)?;
            self.volume
                .rename(node(parent), old, node(new_parent), new, no_replace)
        });
        reply_empty(renamed, reply);
    }

    fn open(&self, _request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.serve_open(node(number), flags, reply);
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match new_name(child) {
            Ok(child) => self.serve_create(node(parent), child, permissions(mode), flags, reply),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn read(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (node, handle) = (node(number), Handle(handle.0));
        self.serve_read(request.pid(), node, handle, offset, size as usize, reply);
    }

    fn write(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // Not rustix's `DSYNC`, which is `O_SYNC` on Linux and so has a bit more.
        let durable = flags.0 & libc::O_DSYNC != 0;
        // What the page cache writes back is nobody's in particular.
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let thread = if cached { 0 } else { request.pid() };
        let target = (node(number), Handle(handle.0));
        self.serve_write(thread, target, offset, data, durable, reply);
    }

    /// Closing a file descriptor is no durability point.
    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.volume.release(Handle(handle.0));
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let flushed = self.volume.flush(node(number), Some(Handle(handle.0)));
        self.tasks.spawn(flushed, |done| reply_empty(done, reply));
    }

    fn opendir(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(self.directories.open(), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let volume = self.volume.as_ref();
        let listing = match self.directories.listing(volume, number, handle, offset) {
            Ok(listing) => listing,
            Err(e) => return reply.error(errno(e)),
        };
        for (at, entry) in (1..).zip(listing.iter()).skip(offset as usize) {
            let kind = file_type(entry.kind);
            if reply.add(INodeNo(entry.node.0), at, kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let volume = self.volume.as_ref();
        let listing = match self.directories.listing(volume, number, handle, offset) {
            Ok(listing) => listing,
            Err(e) => return reply.error(errno(e)),
        };
        for (at, entry) in (1..).zip(listing.iter()).skip(offset as usize) {
            // What was removed since the listing is left out.
            let Ok(found) = volume.attributes(entry.node, None) else {
                continue;
            };
            let found = self.owner.attributes(&found);
            if reply.add(
                found.ino,
                at,
                &entry.name,
                &TIME_TO_LIVE,
                &found,
                GENERATION,
            ) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.directories.close(handle);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let flushed = self.volume.flush(node(number), None);
        self.tasks.spawn(flushed, |done| reply_empty(done, reply));
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        const UNIT: u32 = 4096;
        match self.volume.statfs() {
            Ok(stat) => {
                let (total, free) = (stat.total / u64::from(UNIT), stat.free / u64::from(UNIT));
                reply.statfs(total, free, free, 0, 0, UNIT, 255, UNIT);
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn access(&self, _request: &Request, _number: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permission bits itself (`default_permissions`).
        reply.ok();
    }

    fn fallocate(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let handle = Handle(handle.0);
        self.serve_fallocate(node(number), handle, offset, length, mode, reply);
    }

    fn lseek(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.serve_seek(node(number), Handle(handle.0), offset, whence, reply);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Code::ENOTTY);
    }

    fn getxattr(
        &self,
        _request: &Request,
        _number: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        // The kernel remembers this answer and does not ask again.
        reply.error(Code::ENOSYS);
    }
}
