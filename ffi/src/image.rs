//! Invariant: an image never changes, and needs no session.

use std::ffi::{CString, c_char};

use bytes::Bytes;
use vmtorrent::image::{Image, Published};

use crate::error::{Failure, vmt_error};
use crate::file_list::FileList;
use crate::guard::{Handle, Out, Owner, free, guarded, guarded_on, look};
use crate::profile::vmt_profile;
use crate::status::{VMT_E_NOT_FOUND, vmt_status};
use crate::text::{bytes, c_string, text};

/// An image's description: what a .torrent file says.
pub struct vmt_image {
    image: Image,
    name: CString,
    info_hash: CString,
    magnet: CString,
    files: FileList,
}

impl Handle for vmt_image {
    const NAME: &'static str = "image";

    fn owner(&self) -> Option<&Owner> {
        None
    }
}

impl vmt_image {
    pub(crate) fn new(image: Image) -> Self {
        Self {
            name: c_string(image.name()),
            info_hash: c_string(image.info_hash().to_string()),
            magnet: c_string(image.magnet().to_string()),
            files: FileList::new(&image),
            image,
        }
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }
}

/// Takes an image's description from the `length` bytes of a .torrent file. The caller frees it.
///
/// Errors: VMT_E_NULL; VMT_E_TORRENT when it is none. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_from_bytes(
    data: *const u8,
    length: usize,
    image: *mut *mut vmt_image,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            let image = Out::new(image, "image")?;
            let data = Bytes::copy_from_slice(bytes(data, length, "data")?);
            image.give(vmt_image::new(Image::from_bytes(data)?));
            Ok(())
        })
    }
}

/// The name of the file or directory. It belongs to the image.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_name(image: *const vmt_image) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(image, std::ptr::null(), |i| i.name.as_ptr()) }
}

/// The image's identity: its info-hash as 40 hexadecimal digits. It belongs to the image.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_info_hash(image: *const vmt_image) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(image, std::ptr::null(), |i| i.info_hash.as_ptr()) }
}

/// A magnet link to the image, with its trackers and web seeds. It belongs to the image.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_magnet(image: *const vmt_image) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(image, std::ptr::null(), |i| i.magnet.as_ptr()) }
}

/// Length of the image, all files together, bytes.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_length(image: *const vmt_image) -> u64 {
    // SAFETY: what the header asks of every caller.
    unsafe { look(image, 0, |i| i.image.geometry().total_length()) }
}

/// Length of a piece, bytes; the last one may be shorter.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_piece_length(image: *const vmt_image) -> u32 {
    // SAFETY: what the header asks of every caller.
    unsafe { look(image, 0, |i| i.image.geometry().nominal_piece_length()) }
}

/// Number of pieces.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_piece_count(image: *const vmt_image) -> u32 {
    // SAFETY: what the header asks of every caller.
    unsafe { look(image, 0, |i| i.image.geometry().piece_count()) }
}

/// Whether peers may come from the image's trackers only.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_is_private(image: *const vmt_image) -> bool {
    // SAFETY: what the header asks of every caller.
    unsafe { look(image, false, |i| i.image.is_private()) }
}

/// Number of files; they are numbered from 0.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_file_count(image: *const vmt_image) -> usize {
    // SAFETY: what the header asks of every caller.
    unsafe { look(image, 0, |i| i.files.count()) }
}

/// Path of a file below the image's directory, with slashes; of an image that is one file its name. NULL when there
/// is no such file. It belongs to the image.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_file_path(
    image: *const vmt_image,
    file: usize,
) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(image, std::ptr::null(), |i| i.files.path(file)) }
}

/// Length of a file, bytes; 0 when there is no such file.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_file_length(image: *const vmt_image, file: usize) -> u64 {
    // SAFETY: what the header asks of every caller.
    unsafe { look(image, 0, |i| i.files.length(file)) }
}

/// The .torrent file's bytes, and in `*length` their number. They belong to the image. NULL when a parameter is.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_torrent(
    image: *const vmt_image,
    length: *mut usize,
) -> *const u8 {
    // SAFETY: what the header asks of every caller.
    unsafe {
        look(image, std::ptr::null(), |i| {
            let Ok(length) = Out::new(length, "length") else {
                return std::ptr::null();
            };
            let bytes = i.image.torrent_bytes();
            length.set(bytes.len());
            bytes.as_ptr()
        })
    }
}

/// Writes the .torrent file in one step: at no time is there half a file at `path`.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_NO_SPACE, VMT_E_IO. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_save(
    image: *const vmt_image,
    path: *const c_char,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(image, error, |image| {
            let published = Published {
                torrent: image.image.torrent_bytes().clone(),
                image: image.image.clone(),
            };
            Ok(published.write_to(text(path, "path")?.as_ref())?)
        })
    }
}

/// A copy of the profile that its publisher put beside it. The caller frees it.
///
/// Errors: VMT_E_NULL; VMT_E_NOT_FOUND when there is none; VMT_E_INVALID when it makes no sense. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_profile(
    image: *const vmt_image,
    profile: *mut *mut vmt_profile,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(image, error, |image| {
            let profile = Out::new(profile, "profile")?;
            let Some(found) = image.image.profile()? else {
                let text =
                    "the .torrent file holds no profile: record runs, and publish it with theirs";
                return Err(Failure::new(VMT_E_NOT_FOUND, text));
            };
            profile.give(vmt_profile::new(found));
            Ok(())
        })
    }
}

/// Frees an image. NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_image_free(image: *mut vmt_image) {
    // SAFETY: what the header asks of every caller.
    unsafe { free(image) }
}
