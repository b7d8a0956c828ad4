//! Invariant: who opens a file with `O_TRUNC` hears of it only when the file is empty.

use std::sync::Arc;

use fuser::{FileHandle, FopenFlags, OpenFlags, ReplyCreate, ReplyOpen};
use rustix::fs::OFlags;

use super::filesystem::VolumeFilesystem;
use super::translate::{GENERATION, TIME_TO_LIVE, errno, has, open_mode};
use crate::{Attributes, Errno, FileHandle as Handle, NodeId, SetAttributes};

/// Reads and writes go straight to the volume, several at a time on one file.
fn open_flags() -> FopenFlags {
    FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
}

impl VolumeFilesystem {
    pub(super) fn serve_open(&self, node: NodeId, flags: OpenFlags, reply: ReplyOpen) {
        let handle = match self.volume.open(node, open_mode(flags)) {
            Ok(handle) => handle,
            Err(e) => return reply.error(errno(e)),
        };
        let opened = FileHandle(handle.0);
        if !has(flags.0, OFlags::TRUNC) {
            return reply.opened(opened, open_flags());
        }
        self.cut_then(node, handle, move |cut| match cut {
            Ok(_) => reply.opened(opened, open_flags()),
            Err(e) => reply.error(errno(e)),
        });
    }

    pub(super) fn serve_create(
        &self,
        parent: NodeId,
        name: &str,
        permissions: u16,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let exclusive = has(flags, OFlags::EXCL);
        let mode = open_mode(OpenFlags(flags));
        let made = self
            .volume
            .create(parent, name, permissions, mode, exclusive);
        let (found, handle) = match made {
            Ok(made) => made,
            Err(e) => return reply.error(errno(e)),
        };
        let owner = self.owner;
        let done = move |found: Result<Attributes, Errno>| match found {
            Ok(found) => reply.created(
                &TIME_TO_LIVE,
                &owner.attributes(&found),
                GENERATION,
                FileHandle(handle.0),
                open_flags(),
            ),
            Err(e) => reply.error(errno(e)),
        };
        // Another may have made it in between.
        if found.size > 0 && has(flags, OFlags::TRUNC) {
            self.cut_then(found.node, handle, done);
        } else {
            done(Ok(found));
        }
    }

    /// Cuts a file that was just opened to length 0, then runs `reply` with the attributes; when it can't be cut
    /// the handle is given back.
    fn cut_then(
        &self,
        node: NodeId,
        handle: Handle,
        reply: impl FnOnce(Result<Attributes, Errno>) + Send + 'static,
    ) {
        // The handle itself may be for reading only.
        let cut = self
            .volume
            .set_attributes(node, None, SetAttributes::size(0));
        let volume = Arc::clone(&self.volume);
        self.tasks.spawn(cut, move |cut| {
            if cut.is_err() {
                volume.release(handle);
            }
            reply(cut);
        });
    }
}
