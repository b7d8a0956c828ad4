//! Reading and writing in the caller's thread.
//!
//! Invariant: what is present is copied straight into the caller's buffer, without allocation and without another
//! thread; only what must wait takes the long way.

use std::ffi::c_void;

use bytes::Bytes;
use vmtorrent::Appliance;

use crate::appliance::{ApplianceCore, vmt_appliance};
use crate::block_on::block_on;
use crate::error::{Failure, vmt_error};
use crate::guard::{Out, guarded_on};
use crate::status::{VMT_E_AGAIN, vmt_status};
use crate::text::{bytes, check_length};

/// What is read or written at once, bytes: so much is held in memory for a call that has to wait.
pub(crate) const CHUNK: usize = 1 << 20;

/// The caller's buffer.
///
/// # Safety
/// `buffer` is NULL or may be written to, `length` bytes of it, by nobody else until the call ends.
unsafe fn buffer_of<'a>(buffer: *mut c_void, length: usize) -> Result<&'a mut [u8], Failure> {
    check_length(length, "buffer")?;
    match (buffer.is_null(), length) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Failure::null("buffer")),
        // SAFETY: the caller's promise, and the length fits.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts_mut(buffer.cast(), length) }),
    }
}

/// Where the next chunk lies in the file.
pub(crate) fn offset_of(offset: u64, done: usize) -> Result<u64, Failure> {
    let at = offset.checked_add(done as u64);
    at.ok_or_else(|| Failure::invalid("the range ends behind the largest offset: shorten it"))
}

fn read(
    core: &ApplianceCore,
    appliance: &Appliance,
    file: usize,
    buffer: &mut [u8],
    offset: u64,
) -> Result<usize, Failure> {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset_of(offset, done)?;
        let end = buffer.len().min(done + CHUNK);
        let part = &mut buffer[done..end];
        let read = match appliance.try_read_at(file, at, part)? {
            Some(read) => Some(read),
            // The disk is waited for in the caller's thread, the swarm by the session's.
            None => appliance.read_local_at(file, at, part)?,
        };
        let read = match read {
            Some(read) => read,
            None => {
                let waiting = core.unless_closing(appliance.read_at(file, at, part.len()));
                let data = block_on(waiting)?;
                part[..data.len()].copy_from_slice(&data);
                data.len()
            }
        };
        done += read;
        if done < end {
            break;
        }
    }
    Ok(done)
}

/// Does something with a file, in the caller's thread.
///
/// # Safety
/// As for [`guarded_on`].
unsafe fn on_file(
    appliance: *const vmt_appliance,
    file: usize,
    error: *mut *mut vmt_error,
    body: impl FnOnce(&Appliance, usize) -> Result<(), Failure>,
) -> vmt_status {
    // SAFETY: the caller's promise.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let core = appliance.core();
            let index = core.files.index(file)?;
            body(&*core.enter()?, index)
        })
    }
}

/// Reads `length` bytes of a file from `offset` into `buffer`, waiting for what is missing, and stores in `*read` how
/// many they are: fewer only at the end of the file, 0 behind it. What is present costs no allocation and no change
/// of threads. After a failure the content of `buffer` is undefined.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file; VMT_E_IO, VMT_E_TIMED_OUT (the option `read-timeout`),
/// with errno EIO, when the data can't be had; VMT_E_CLOSED, also when it was waiting. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_pread(
    appliance: *const vmt_appliance,
    file: usize,
    buffer: *mut c_void,
    length: usize,
    offset: u64,
    read: *mut usize,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let out = Out::new(read, "read")?;
            let core = appliance.core();
            let index = core.files.index(file)?;
            let buffer = buffer_of(buffer, length)?;
            let inside = core.enter()?;
            out.set(self::read(core, &inside, index, buffer, offset)?);
            Ok(())
        })
    }
}

/// As vmt_pread, but never waits, neither for the swarm nor for the disk.
///
/// Errors: VMT_E_AGAIN when it would have to wait: use vmt_pread or vmt_aio_pread; and those of vmt_pread. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_try_pread(
    appliance: *const vmt_appliance,
    file: usize,
    buffer: *mut c_void,
    length: usize,
    offset: u64,
    read: *mut usize,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let out = Out::new(read, "read")?;
            let core = appliance.core();
            let index = core.files.index(file)?;
            let buffer = buffer_of(buffer, length)?;
            let found = core.enter()?.try_read_at(index, offset, buffer)?;
            out.set(found.ok_or_else(|| {
                Failure::new(
                    VMT_E_AGAIN,
                    "not all of it is at hand: read it with vmt_pread",
                )
            })?);
            Ok(())
        })
    }
}

/// Writes `length` bytes to a file at `offset`; it grows when they end behind its end. What the write needs of the
/// image around its edges (blocks have 4096 bytes) is waited for. It is durable after the next vmt_flush.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file; VMT_E_NO_SPACE, VMT_E_IO, VMT_E_TIMED_OUT;
/// VMT_E_CLOSED. After one, any part may have been written. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_pwrite(
    appliance: *const vmt_appliance,
    file: usize,
    data: *const c_void,
    length: usize,
    offset: u64,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        on_file(appliance, file, error, |appliance, index| {
            let data = bytes(data.cast(), length, "data")?;
            for (number, part) in data.chunks(CHUNK).enumerate() {
                let at = offset_of(offset, number * CHUNK)?;
                if appliance.try_write_at(index, at, part)?.is_none() {
                    let part = Bytes::copy_from_slice(part);
                    block_on(appliance.write_at(index, at, part))?;
                }
            }
            Ok(())
        })
    }
}

/// Makes all writes to a file that had returned before durable: they survive a crash of the process, the system or
/// the power.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file; VMT_E_NO_SPACE, VMT_E_IO: nothing is given up, a later
/// flush tries again; VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_flush(
    appliance: *const vmt_appliance,
    file: usize,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        on_file(appliance, file, error, |appliance, index| {
            Ok(block_on(appliance.flush(index))?)
        })
    }
}

/// Makes `length` bytes from `offset` read as zeros and gives their storage back. The file keeps its length.
///
/// Errors: those of vmt_pwrite. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_discard(
    appliance: *const vmt_appliance,
    file: usize,
    offset: u64,
    length: u64,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        on_file(appliance, file, error, |appliance, index| {
            Ok(block_on(appliance.discard(index, offset, length))?)
        })
    }
}

/// Makes `length` bytes from `offset` read as zeros, storing none; the file grows when they end behind its end.
///
/// Errors: those of vmt_pwrite. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_write_zeroes(
    appliance: *const vmt_appliance,
    file: usize,
    offset: u64,
    length: u64,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        on_file(appliance, file, error, |appliance, index| {
            Ok(block_on(appliance.write_zeroes(index, offset, length))?)
        })
    }
}

/// Sets the length of a file: grows it with zeros, or cuts it off. May wait for the local disk.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file; VMT_E_NO_SPACE, VMT_E_IO, VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_set_length(
    appliance: *const vmt_appliance,
    file: usize,
    length: u64,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        on_file(appliance, file, error, |appliance, index| {
            Ok(appliance.set_len(index, length)?)
        })
    }
}

/// Has a range fetched soon that a read may want: behind what reads wait for, before what is fetched in the background.
/// Does not wait. `missing` may be NULL; else it gets the bytes of the range's pieces that are not here yet.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file; VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_prefetch(
    appliance: *const vmt_appliance,
    file: usize,
    offset: u64,
    length: u64,
    missing: *mut u64,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        on_file(appliance, file, error, |appliance, index| {
            let found = appliance.prefetch(index, offset, length)?;
            if let Ok(missing) = Out::new(missing, "missing") {
                missing.set(found);
            }
            Ok(())
        })
    }
}
