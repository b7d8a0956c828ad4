//! Structures that the caller has room for, as it knows them.
//!
//! Invariant: no more is written than the caller has room for; fields are only ever added at the end.

use std::mem::size_of;

use crate::error::Failure;

/// A structure that later versions make longer.
///
/// # Safety
/// It is `repr(C)`, begins with a `u64` that tells its size, and has no padding.
pub(crate) unsafe trait Growing: Copy {
    /// Its name in C.
    const NAME: &'static str;

    /// That first field.
    fn set_size(&mut self, size: u64);
}

/// The least that makes sense: the size, and one field.
const LEAST: usize = 16;

/// The room that the caller has, bytes.
///
/// # Safety
/// `structure` is NULL or its first field may be read.
pub(crate) unsafe fn room<T: Growing>(
    structure: *const T,
    parameter: &str,
) -> Result<usize, Failure> {
    if structure.is_null() {
        return Err(Failure::null(parameter));
    }
    // SAFETY: the caller's promise, and that of the trait.
    let size = unsafe { structure.cast::<u64>().read() };
    let room = usize::try_from(size).unwrap_or(usize::MAX);
    if room < LEAST {
        let name = T::NAME;
        return Err(Failure::invalid(format!(
            "{parameter}->struct_size is {size}: set it to sizeof({name}) before the call"
        )));
    }
    Ok(room.min(size_of::<T>()))
}

/// Fills as much as there is room for.
///
/// # Safety
/// `size` was given by [`room`] for `structure`, of which so many bytes may be written to.
pub(crate) unsafe fn fill<T: Growing>(structure: *mut T, size: usize, mut value: T) {
    value.set_size(size as u64);
    // SAFETY: both are that long, and the value has no padding.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), structure.cast(), size)
    };
}
