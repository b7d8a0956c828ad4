//! A swarm of two sessions in this process, through the C functions. Invariant: every handle is freed with it.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::ffi::{CStr, CString};
use std::path::Path;
use std::ptr::null_mut;

use vmtorrent_ffi::*;

/// Bytes of a piece, and of a cluster of the image: some of data, some of zeros.
pub const PIECE: usize = 16384;

/// What stands at a place of the image.
pub fn content(length: usize) -> Vec<u8> {
    let byte = |at: usize| match (at / PIECE) % 4 {
        // A piece of zeros among others.
        3 => 0,
        _ => (at.wrapping_mul(31) ^ (at / 251)) as u8,
    };
    (0..length).map(byte).collect()
}

/// Fails with the message of an error.
pub fn check(status: vmt_status, error: *mut vmt_error) {
    // SAFETY: it was just stored, or is NULL.
    let text = unsafe { CStr::from_ptr(vmt_error_message(error)) };
    assert_eq!(status, VMT_OK, "{}", text.to_string_lossy());
}

/// Options with these values.
pub fn options(values: &[(&str, &str)]) -> *mut vmt_options {
    let (mut options, mut error) = (null_mut(), null_mut());
    // SAFETY: all pointers are good.
    unsafe {
        check(vmt_options_new(&mut options, &mut error), error);
        for (key, value) in values {
            let (key, value) = (CString::new(*key).unwrap(), CString::new(*value).unwrap());
            let status = vmt_options_set(options, key.as_ptr(), value.as_ptr(), &mut error);
            check(status, error);
        }
    }
    options
}

pub fn session(cache: &Path) -> *mut vmt_session {
    let cache = cache.to_str().unwrap();
    let options = options(&[
        ("listen", "127.0.0.1:0"),
        ("cache", cache),
        ("discovery", "false"),
    ]);
    let (mut session, mut error) = (null_mut(), null_mut());
    // SAFETY: all pointers are good.
    unsafe {
        let status = vmt_session_start(options, &mut session, &mut error);
        check(status, error);
        vmt_options_free(options);
    }
    session
}

/// A seed and an appliance of its image.
pub struct Stage {
    pub directory: tempfile::TempDir,
    pub image: *mut vmt_image,
    pub source: *mut vmt_session,
    pub seed: *mut vmt_seed,
    pub session: *mut vmt_session,
    pub appliance: *mut vmt_appliance,
}

impl Stage {
    pub fn new(length: usize, more: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk.img");
        std::fs::write(&disk, content(length)).unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let c = |text: &str| CString::new(text).unwrap();
        let mut error = null_mut();
        let (mut image, mut seed, mut appliance) = (null_mut(), null_mut(), null_mut());
        // SAFETY: all pointers are good.
        unsafe {
            let progress = vmt_progress {
                call: None,
                user: null_mut(),
                free: None,
            };
            let path = c(disk.to_str().unwrap());
            let nobody = std::ptr::null();
            let none = std::ptr::null();
            let status = vmt_publish(
                path.as_ptr(),
                none,
                progress,
                nobody,
                &mut image,
                &mut error,
            );
            check(status, error);
            let source = session(&directory.path().join("source"));
            let data = c(directory.path().to_str().unwrap());
            let status = vmt_session_seed(source, image, data.as_ptr(), &mut seed, &mut error);
            check(status, error);
            let peer = CStr::from_ptr(vmt_session_listen_address(source));
            let session = session(&directory.path().join("cache"));
            let state = at("state");
            let mut values = vec![
                ("state", state.as_str()),
                ("peer", peer.to_str().unwrap()),
                ("fill", "none"),
                ("auto-profile", "false"),
            ];
            values.extend(more);
            let options = options(&values);
            let cancel = std::ptr::null();
            let status =
                vmt_session_launch(session, image, options, cancel, &mut appliance, &mut error);
            check(status, error);
            vmt_options_free(options);
            Self {
                directory,
                image,
                source,
                seed,
                session,
                appliance,
            }
        }
    }

    /// Reads through the C function.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0xEE; length];
        let (mut read, mut error) = (0, null_mut());
        // SAFETY: all pointers are good.
        unsafe {
            let start = buffer.as_mut_ptr().cast();
            let status = vmt_pread(
                self.appliance,
                0,
                start,
                length,
                offset,
                &mut read,
                &mut error,
            );
            check(status, error);
        }
        buffer.truncate(read);
        buffer
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // SAFETY: each was made by the library, and is freed once.
        unsafe {
            vmt_session_free(self.session);
            vmt_session_free(self.source);
            vmt_image_free(self.image);
            vmt_seed_free(self.seed);
            vmt_appliance_free(self.appliance);
        }
    }
}
