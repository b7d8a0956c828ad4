//! Invariant: what is published is only read.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;

use vmtorrent::image::publish_unless;

use crate::callbacks::User;
use crate::cancel::{self, vmt_cancel};
use crate::error::{Failure, vmt_error};
use crate::guard::{Out, guarded};
use crate::image::vmt_image;
use crate::options::{settings, vmt_options};
use crate::status::vmt_status;
use crate::text::text;

/// Told how far something is, in the thread of the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmt_progress {
    /// `done` of `total` bytes. May be NULL.
    pub call: Option<unsafe extern "C" fn(user: *mut c_void, done: u64, total: u64)>,
    /// For whatever the caller likes.
    pub user: *mut c_void,
    /// Frees `user`, at the end of the call. May be NULL.
    pub free: Option<unsafe extern "C" fn(user: *mut c_void)>,
}

/// Makes an image's description of the file or directory at `path`, with what the options `name`, `piece-size`,
/// `tracker`, `web-seed`, `private` and `profile` say. Waits, and uses all cores. The same files and options always
/// give the same. The caller frees the image; vmt_image_save writes the .torrent file. `options` and `cancel` may be
/// NULL. `progress` is called in this thread.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_INVALID for options that make no sense and for what an image can't hold
/// (nothing at all, links, devices, names that are not UTF-8); VMT_E_IN_USE when a file changed meanwhile;
/// VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_IO; VMT_E_CANCELLED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_publish(
    path: *const c_char,
    options: *const vmt_options,
    progress: vmt_progress,
    cancel: *const vmt_cancel,
    image: *mut *mut vmt_image,
    error: *mut *mut vmt_error,
) -> vmt_status {
    let user = User::new(progress.user, progress.free);
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            let user = user;
            let image = Out::new(image, "image")?;
            let path = text(path, "path")?;
            let (settings, cancel) = (settings(options), cancel::token(cancel));
            let profile = settings.profile()?;
            let published = publish_unless(path.as_ref(), &settings.publish, |done, total| {
                if let Some(call) = progress.call {
                    call(user.pointer, done, total);
                }
                match cancel.is_cancelled() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })?;
            let mut published = published.ok_or_else(Failure::cancelled)?;
            if let Some(profile) = profile {
                published = published.with_profile(&profile)?;
            }
            image.give(vmt_image::new(published.image));
            Ok(())
        })
    }
}
