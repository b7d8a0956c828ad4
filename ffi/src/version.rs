//! Invariant: the number of the ABI changes when a program that was built for it would break, and only then.

use std::ffi::{CStr, c_char};

/// The version of the ABI that this header is of. It changes when programs have to be built anew.
pub const VMT_ABI_VERSION: u32 = 1;

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"unknown",
    };

/// The version of the ABI of the library that is loaded: to be compared with VMT_ABI_VERSION.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn vmt_abi_version() -> u32 {
    VMT_ABI_VERSION
}

/// The version of the library that is loaded, such as "0.1.0". The string is static.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn vmt_version() -> *const c_char {
    VERSION.as_ptr()
}
