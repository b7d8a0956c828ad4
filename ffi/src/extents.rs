//! Invariant: extents lie one behind the other without gaps, and neighbours differ.

use vmtorrent::FileExtentKind;

use crate::appliance::vmt_appliance;
use crate::error::{Failure, vmt_error};
use crate::guard::{Out, guarded_on};
use crate::status::vmt_status;

/// It is known to read as zeros, and takes no storage: a hole.
pub const VMT_EXTENT_ZERO: u32 = 1;
/// It can be read without the swarm: it is zeros, or was written by the guest, or was downloaded.
pub const VMT_EXTENT_PRESENT: u32 = 2;
/// The guest wrote it (or zeroed it), so it is not the image's any more.
pub const VMT_EXTENT_WRITTEN: u32 = 4;

/// What a part of a file is made of.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vmt_extent {
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// VMT_EXTENT_ flags.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
}

/// Tells of what the bytes of a file from `offset` on are made, as far as `length` and the end of the file go: up to
/// `capacity` extents are stored in `extents`, and in `*count` how many. They lie one behind the other from `offset`
/// on. When they end before the range does, ask again from there. Neither waits nor fetches; what is downloaded
/// meanwhile may be told or not.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file or `capacity` is 0; VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_extents(
    appliance: *const vmt_appliance,
    file: usize,
    offset: u64,
    length: u64,
    extents: *mut vmt_extent,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let count = Out::new(count, "count")?;
            if extents.is_null() {
                return Err(Failure::null("extents"));
            }
            if capacity == 0 {
                return Err(Failure::invalid(
                    "`capacity` is 0: make room for an extent at least",
                ));
            }
            let core = appliance.core();
            let index = core.files.index(file)?;
            let mut stored = 0;
            core.enter()?.extents(index, offset, length, |extent| {
                let flags = match extent.kind {
                    FileExtentKind::Zero => VMT_EXTENT_ZERO | VMT_EXTENT_PRESENT,
                    FileExtentKind::Zeroed => {
                        VMT_EXTENT_ZERO | VMT_EXTENT_PRESENT | VMT_EXTENT_WRITTEN
                    }
                    FileExtentKind::Written => VMT_EXTENT_PRESENT | VMT_EXTENT_WRITTEN,
                    FileExtentKind::Present => VMT_EXTENT_PRESENT,
                    FileExtentKind::Missing => 0,
                };
                let extent = vmt_extent {
                    offset: extent.offset,
                    length: extent.length,
                    flags,
                    reserved: 0,
                };
                extents.add(stored).write(extent);
                stored += 1;
                stored < capacity
            })?;
            count.set(stored);
            Ok(())
        })
    }
}
