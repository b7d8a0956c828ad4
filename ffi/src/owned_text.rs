//! Invariant: a text that was made never changes.

use std::ffi::{CString, c_char};

use crate::guard::{Handle, Owner, free, look};
use crate::text::c_string;

/// A text that was made for the caller.
pub struct vmt_text {
    text: CString,
}

impl vmt_text {
    pub(crate) fn new(text: String) -> Self {
        Self {
            text: c_string(text),
        }
    }
}

impl Handle for vmt_text {
    const NAME: &'static str = "text";

    fn owner(&self) -> Option<&Owner> {
        None
    }
}

/// The text. It belongs to the handle.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_text_string(text: *const vmt_text) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(text, std::ptr::null(), |t| t.text.as_ptr()) }
}

/// Its length in bytes, without the zero at its end.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_text_length(text: *const vmt_text) -> usize {
    // SAFETY: what the header asks of every caller.
    unsafe { look(text, 0, |t| t.text.as_bytes().len()) }
}

/// Frees a text. NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_text_free(text: *mut vmt_text) {
    // SAFETY: what the header asks of every caller.
    unsafe { free(text) }
}
