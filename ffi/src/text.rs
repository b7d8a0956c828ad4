//! Invariant: what comes in is valid UTF-8 and is copied before the call returns; what goes out ends with the first
//! zero byte.

use std::ffi::{CStr, CString, c_char};
use std::path::Path;

use crate::error::Failure;
use crate::status::VMT_E_UTF8;

/// A text that the caller passes.
///
/// # Safety
/// `text` is NULL, or points to bytes that end with a zero and live as long as the result is used.
pub(crate) unsafe fn text<'a>(text: *const c_char, parameter: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::null(parameter));
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes.to_str().map_err(|e| {
        let at = e.valid_up_to();
        let message = format!("the parameter `{parameter}` is not UTF-8 at byte {at}: convert it");
        Failure::new(VMT_E_UTF8, message)
    })
}

/// Bytes that the caller passes; NULL is good for none.
///
/// # Safety
/// `data` is NULL or points to `length` bytes that live, unchanged, as long as the result is used.
pub(crate) unsafe fn bytes<'a>(
    data: *const u8,
    length: usize,
    parameter: &str,
) -> Result<&'a [u8], Failure> {
    check_length(length, parameter)?;
    match (data.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Failure::null(parameter)),
        // SAFETY: the caller's promise, and the length fits.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(data, length) }),
    }
}

/// No object is larger, whatever the caller says.
pub(crate) fn check_length(length: usize, parameter: &str) -> Result<(), Failure> {
    if isize::try_from(length).is_err() {
        let message = format!("the length of `{parameter}` is {length}, more than memory can hold");
        return Err(Failure::invalid(message));
    }
    Ok(())
}

/// A text for the caller.
pub(crate) fn c_string(text: impl Into<Vec<u8>>) -> CString {
    let mut bytes = text.into();
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    // There is no zero in it now.
    CString::new(bytes).unwrap_or_default()
}

/// A path for the caller, with the bytes that the system has for it.
pub(crate) fn c_path(path: &Path) -> CString {
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    #[cfg(not(unix))]
    let bytes = path.to_string_lossy();
    #[cfg(not(unix))]
    let bytes = bytes.as_bytes();
    c_string(bytes)
}

/// A pointer to a text that may be absent.
pub(crate) fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(std::ptr::null(), |t| t.as_ptr())
}
