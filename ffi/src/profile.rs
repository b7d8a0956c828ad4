//! Invariant: a profile that is used by one call is not changed by another meanwhile.

use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmtorrent::profile::Profile;

use crate::error::vmt_error;
use crate::guard::{Handle, Out, Owner, free, guarded, guarded_on, look};
use crate::owned_text::vmt_text;
use crate::status::vmt_status;
use crate::text::{bytes, c_string, text};

/// What runs of a machine read first, and when: a launch has it fetched ahead of its guest.
pub struct vmt_profile {
    profile: Mutex<Profile>,
    name: std::ffi::CString,
    info_hash: std::ffi::CString,
}

/// How much of a profile of another image fits: numbers of blocks of 16 KiB.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct vmt_mismatch {
    /// Both know them, with the same bytes: merged.
    pub same: u64,
    /// Both know them, with other bytes or with bytes that one does not know: left out.
    pub different: u64,
    /// Only the other one knows them: taken over.
    pub unknown: u64,
    /// They are of files that this image does not have: left out.
    pub elsewhere: u64,
}

impl Handle for vmt_profile {
    const NAME: &'static str = "profile";

    fn owner(&self) -> Option<&Owner> {
        None
    }
}

impl vmt_profile {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            name: c_string(profile.name()),
            info_hash: c_string(profile.info_hash().to_string()),
            profile: Mutex::new(profile),
        }
    }

    pub(crate) fn copy(&self) -> Profile {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Profile> {
        self.profile.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a profile from a file. The caller frees it.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_IO; VMT_E_INVALID when the file is no
/// profile. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_profile_load(
    path: *const c_char,
    profile: *mut *mut vmt_profile,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            let profile = Out::new(profile, "profile")?;
            let loaded = Profile::load(text(path, "path")?.as_ref())?;
            profile.give(vmt_profile::new(loaded));
            Ok(())
        })
    }
}

/// Takes a profile from the `length` bytes of its text (JSON). The caller frees it.
///
/// Errors: VMT_E_NULL; VMT_E_INVALID when it is none. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_profile_from_bytes(
    data: *const u8,
    length: usize,
    profile: *mut *mut vmt_profile,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            let profile = Out::new(profile, "profile")?;
            let read = Profile::from_json(bytes(data, length, "data")?)?;
            profile.give(vmt_profile::new(read));
            Ok(())
        })
    }
}

/// Adds the runs of `other` to `profile`. Those of another image are refused, unless `force` is set: then what fits
/// is merged, and `mismatch`, which may be NULL, gets how much that is (all 0 for the same image). `other` does not
/// change; both may be the same handle.
///
/// Errors: VMT_E_NULL; VMT_E_INVALID for another image, without `force`. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_profile_merge(
    profile: *mut vmt_profile,
    other: *const vmt_profile,
    force: bool,
    mismatch: *mut vmt_mismatch,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(profile, error, |profile| {
            let other = other
                .as_ref()
                .ok_or_else(|| crate::error::Failure::null("other"))?;
            // One lock at a time: both may be merged into each other.
            let other = other.copy();
            let mut profile = profile.lock();
            let mut found = vmt_mismatch::default();
            if force && other.info_hash() != profile.info_hash() {
                let merged = profile.merge_by_force(&other);
                found = vmt_mismatch {
                    same: merged.same,
                    different: merged.different,
                    unknown: merged.unknown,
                    elsewhere: merged.elsewhere,
                };
            } else {
                profile.merge(&other)?;
            }
            if let Ok(mismatch) = Out::new(mismatch, "mismatch") {
                mismatch.set(found);
            }
            Ok(())
        })
    }
}

/// Writes a profile to a file in one step: at no time is there half a profile at `path`.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_NO_SPACE, VMT_E_IO. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_profile_save(
    profile: *const vmt_profile,
    path: *const c_char,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(profile, error, |profile| {
            let path = text(path, "path")?;
            Ok(profile.copy().save(path.as_ref())?)
        })
    }
}

/// Draws when which place of the image was read first, and writes that to the file `path`, in one step: an SVG picture of
/// less than a megabyte that asks for nothing elsewhere.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_NO_SPACE, VMT_E_IO. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_profile_plot(
    profile: *const vmt_profile,
    path: *const c_char,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(profile, error, |profile| {
            let path = text(path, "path")?;
            Ok(profile.copy().save_plot(path.as_ref())?)
        })
    }
}

/// Tells what a profile holds: with `json` as one JSON object in one line, whose keys name their units, else in some lines
/// for people, each with a line feed at its end. The caller frees the text.
///
/// Errors: VMT_E_NULL. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_profile_summary(
    profile: *const vmt_profile,
    json: bool,
    summary: *mut *mut vmt_text,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(profile, error, |profile| {
            let out = Out::new(summary, "summary")?;
            let summary = profile.lock().summary();
            out.give(vmt_text::new(match json {
                true => summary.to_json(),
                false => summary.to_string(),
            }));
            Ok(())
        })
    }
}

/// Number of runs that it is made of.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_profile_runs(profile: *const vmt_profile) -> u32 {
    // SAFETY: what the header asks of every caller.
    unsafe { look(profile, 0, |p| p.lock().runs()) }
}

/// Number of distinct blocks of 16 KiB that were read.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_profile_blocks(profile: *const vmt_profile) -> u64 {
    // SAFETY: what the header asks of every caller.
    unsafe { look(profile, 0, |p| p.lock().block_count() as u64) }
}

/// Name of the image that was run. It belongs to the profile.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_profile_name(profile: *const vmt_profile) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(profile, std::ptr::null(), |p| p.name.as_ptr()) }
}

/// Identity of the image that was run: its info-hash as 40 hexadecimal digits. It belongs to the profile.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_profile_info_hash(profile: *const vmt_profile) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(profile, std::ptr::null(), |p| p.info_hash.as_ptr()) }
}

/// Frees a profile. NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_profile_free(profile: *mut vmt_profile) {
    // SAFETY: what the header asks of every caller.
    unsafe { free(profile) }
}
