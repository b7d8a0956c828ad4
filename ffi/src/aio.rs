//! Reading and writing without waiting for it.
//!
//! Invariant: the caller's buffer is touched before its completion is called, never after; data that is written was
//! copied before the call returned.

use std::ffi::c_void;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use vmtorrent::Appliance;

use crate::appliance::{ApplianceCore, vmt_appliance};
use crate::completion::{Completion, Offered, vmt_completion};
use crate::error::{Failure, vmt_error};
use crate::guard::guarded_on;
use crate::io::{CHUNK, offset_of};
use crate::status::vmt_status;
use crate::text::{bytes, check_length};

/// The caller's buffer, until the completion is called.
struct Buffer {
    start: *mut u8,
    length: usize,
}

// SAFETY: the caller leaves it to us, whichever thread we use.
unsafe impl Send for Buffer {}
// SAFETY: it is written to through one owner only.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// # Safety
    /// `buffer` may be written to, `length` bytes of it, by nobody else until the completion is called.
    unsafe fn new(buffer: *mut c_void, length: usize) -> Result<Self, Failure> {
        check_length(length, "buffer")?;
        if buffer.is_null() && length > 0 {
            return Err(Failure::null("buffer"));
        }
        Ok(Self {
            start: buffer.cast(),
            length,
        })
    }

    /// Some of it; the range lies inside.
    fn part(&mut self, from: usize, length: usize) -> &mut [u8] {
        if length == 0 {
            return &mut [];
        }
        debug_assert!(from + length <= self.length);
        // SAFETY: promised to `new`; both are inside.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), length) }
    }
}

/// What is asked for. `file` is the place among all files of the image.
enum Operation {
    Read {
        file: usize,
        buffer: Buffer,
        offset: u64,
    },
    Write {
        file: usize,
        data: Bytes,
        offset: u64,
    },
    Flush {
        file: usize,
    },
    Discard {
        file: usize,
        offset: u64,
        length: u64,
    },
    Zero {
        file: usize,
        offset: u64,
        length: u64,
    },
    #[cfg(feature = "test-hooks")]
    Panic,
}

impl Operation {
    /// Does it here and now, if that needs no waiting.
    fn try_now(&mut self, appliance: &Appliance) -> Result<Option<u64>, Failure> {
        match self {
            Self::Read {
                file,
                buffer,
                offset,
            } if buffer.length <= CHUNK => {
                let length = buffer.length;
                let read = appliance.try_read_at(*file, *offset, buffer.part(0, length))?;
                Ok(read.map(|read| read as u64))
            }
            Self::Write { file, data, offset } if data.len() <= CHUNK => {
                Ok(appliance.try_write_at(*file, *offset, data)?.map(|()| 0))
            }
            _ => Ok(None),
        }
    }

    async fn run(self, core: &ApplianceCore, appliance: &Appliance) -> Result<u64, Failure> {
        match self {
            Self::Read {
                file,
                mut buffer,
                offset,
            } => {
                let mut done = 0;
                while done < buffer.length {
                    let at = offset_of(offset, done)?;
                    let wanted = CHUNK.min(buffer.length - done);
                    let data = core
                        .unless_closing(appliance.read_at(file, at, wanted))
                        .await?;
                    buffer.part(done, data.len()).copy_from_slice(&data);
                    done += data.len();
                    if data.len() < wanted {
                        break;
                    }
                }
                Ok(done as u64)
            }
            Self::Write { file, data, offset } => {
                let mut done = 0;
                while done < data.len() {
                    let end = data.len().min(done + CHUNK);
                    let part = data.slice(done..end);
                    appliance
                        .write_at(file, offset_of(offset, done)?, part)
                        .await?;
                    done = end;
                }
                Ok(0)
            }
            Self::Flush { file } => Ok(appliance.flush(file).await.map(|()| 0)?),
            Self::Discard {
                file,
                offset,
                length,
            } => Ok(appliance.discard(file, offset, length).await.map(|()| 0)?),
            Self::Zero {
                file,
                offset,
                length,
            } => Ok(appliance
                .write_zeroes(file, offset, length)
                .await
                .map(|()| 0)?),
            #[cfg(feature = "test-hooks")]
            Self::Panic => panic!("injected by a test"),
        }
    }
}

/// Accepts a call, and has its work done by the session's threads unless it is done at once.
fn submit(
    appliance: &vmt_appliance,
    offered: Offered,
    prepare: impl FnOnce(&ApplianceCore) -> Result<Operation, Failure>,
) -> Result<(), Failure> {
    let core = appliance.core();
    let mut operation = prepare(core)?;
    let completion = offered.accept(core.clone(), core.enter_for_long()?)?;
    // From here on the caller is told by the completion.
    let now = completion
        .appliance()
        .map(|appliance| operation.try_now(appliance));
    match now.unwrap_or(Ok(None)) {
        Ok(Some(value)) => completion.finish(Ok(value)),
        Err(failure) => completion.finish(Err(failure)),
        Ok(None) => {
            let task = run(core.clone(), operation, completion);
            core.session().runtime().spawn(task);
        }
    }
    Ok(())
}

/// Accepts a call for a file.
///
/// # Safety
/// As for [`guarded_on`].
unsafe fn submit_on_file(
    appliance: *const vmt_appliance,
    file: usize,
    completion: vmt_completion,
    error: *mut *mut vmt_error,
    prepare: impl FnOnce(usize) -> Result<Operation, Failure>,
) -> vmt_status {
    // First of all: whatever becomes of the call, its user pointer is freed.
    let offered = Offered::new(completion);
    // SAFETY: the caller's promise.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            submit(appliance, offered, |core| prepare(core.files.index(file)?))
        })
    }
}

/// Accepts a call that panics.
#[cfg(feature = "test-hooks")]
pub(crate) fn submit_panic(appliance: &vmt_appliance, offered: Offered) -> Result<(), Failure> {
    submit(appliance, offered, |_| Ok(Operation::Panic))
}

async fn run(core: Arc<ApplianceCore>, operation: Operation, completion: Completion) {
    let outcome = match completion.appliance() {
        Some(appliance) => {
            let work = core.unless_abandoned(operation.run(&core, appliance));
            let work = AssertUnwindSafe(work).catch_unwind();
            work.await
                .unwrap_or_else(|payload| Err(Failure::panicked(&*payload)))
        }
        None => Err(Failure::closed("appliance")),
    };
    // First, so that the last to hold the session is the thread that calls back.
    drop(core);
    completion.finish(outcome);
}

/// As vmt_pread, but returns at once. `buffer` must stay, and nobody may use it, until the completion is called;
/// `value` is the number of bytes read.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED; those of vmt_pread through the
/// completion. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_aio_pread(
    appliance: *const vmt_appliance,
    file: usize,
    buffer: *mut c_void,
    length: usize,
    offset: u64,
    completion: vmt_completion,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        submit_on_file(appliance, file, completion, error, |file| {
            let buffer = Buffer::new(buffer, length)?;
            Ok(Operation::Read {
                file,
                buffer,
                offset,
            })
        })
    }
}

/// As vmt_pwrite, but returns at once: `data` is copied before. `value` is 0.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED; those of vmt_pwrite through the
/// completion. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_aio_pwrite(
    appliance: *const vmt_appliance,
    file: usize,
    data: *const c_void,
    length: usize,
    offset: u64,
    completion: vmt_completion,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        submit_on_file(appliance, file, completion, error, |file| {
            let data = Bytes::copy_from_slice(bytes(data.cast(), length, "data")?);
            Ok(Operation::Write { file, data, offset })
        })
    }
}

/// As vmt_flush, but returns at once. What is durable afterwards are the writes that had been completed when this was
/// called. `value` is 0.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED; those of vmt_flush through the
/// completion. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_aio_flush(
    appliance: *const vmt_appliance,
    file: usize,
    completion: vmt_completion,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        submit_on_file(appliance, file, completion, error, |file| {
            Ok(Operation::Flush { file })
        })
    }
}

/// As vmt_discard, but returns at once. `value` is 0.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED; those of vmt_pwrite through the
/// completion. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_aio_discard(
    appliance: *const vmt_appliance,
    file: usize,
    offset: u64,
    length: u64,
    completion: vmt_completion,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        submit_on_file(appliance, file, completion, error, |file| {
            Ok(Operation::Discard {
                file,
                offset,
                length,
            })
        })
    }
}

/// As vmt_write_zeroes, but returns at once. `value` is 0.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED; those of vmt_pwrite through the
/// completion. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_aio_write_zeroes(
    appliance: *const vmt_appliance,
    file: usize,
    offset: u64,
    length: u64,
    completion: vmt_completion,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        submit_on_file(appliance, file, completion, error, |file| {
            Ok(Operation::Zero {
                file,
                offset,
                length,
            })
        })
    }
}
