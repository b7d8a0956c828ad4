//! Invariant: a replay has no threads and no session: it reads in the thread of its caller.

use std::ffi::c_char;
use std::time::Duration;

use vmtorrent::replay::{Replayed, replay};

use crate::cancel::{self, vmt_cancel};
use crate::error::{Failure, vmt_error};
use crate::guard::guarded;
use crate::sized::{Growing, fill, room};
use crate::status::vmt_status;
use crate::text::text;

/// What a replay took.
///
/// The caller sets `struct_size` to sizeof(vmt_replayed) before: later versions add fields at the end, and fill only
/// those that the caller knows. It is then the size of what was filled.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vmt_replayed {
    /// Bytes of this structure.
    pub struct_size: u64,
    /// Number of reads.
    pub reads: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Seconds from the begin to the end.
    pub wall_seconds: f64,
    /// The sum of all thinking, at the speed that was asked for, seconds.
    pub guest_seconds: f64,
    /// The sum of the times that reads took, seconds.
    pub read_seconds: f64,
    /// Median time of a read, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of these times, milliseconds.
    pub p99_ms: f64,
    /// The longest of them, milliseconds.
    pub max_ms: f64,
}

// SAFETY: all of its fields have 8 bytes, and the first one is its size.
unsafe impl Growing for vmt_replayed {
    const NAME: &'static str = "vmt_replayed";

    fn set_size(&mut self, size: u64) {
        self.struct_size = size;
    }
}

impl From<Replayed> for vmt_replayed {
    fn from(played: Replayed) -> Self {
        let milliseconds = |d: Duration| d.as_secs_f64() * 1000.0;
        Self {
            struct_size: 0,
            reads: played.reads,
            bytes: played.bytes,
            wall_seconds: played.wall.as_secs_f64(),
            guest_seconds: played.thought.as_secs_f64(),
            read_seconds: played.reading.as_secs_f64(),
            p50_ms: milliseconds(played.p50),
            p99_ms: milliseconds(played.p99),
            max_ms: milliseconds(played.max),
        }
    }
}

/// Reads of `disk`, the path of a file or a block device, what the file `trace` says, at its guest's pace: one read at a
/// time, past the page cache where the file system can do that. The option `trace` of a launch writes such a file: a
/// line `think_us offset length` for each read (microseconds, bytes, bytes). `speed` divides the time in which the guest
/// thinks: 1 is as it was, from 0.001 to 1000000 are possible. Waits for all of it. `cancel` may be NULL; it is looked at
/// between reads, and each 50 ms while the guest thinks. `replayed->struct_size` must be set before.
///
/// The disk may be one that an appliance of this process has mounted, unless a callback of its session does this.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_INVALID when the trace is none or of a longer disk (nothing is read then), for a
/// speed that is out of range, and for a size that makes no sense; VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_IO of both
/// files; VMT_E_CANCELLED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_replay(
    trace: *const c_char,
    disk: *const c_char,
    speed: f64,
    cancel: *const vmt_cancel,
    replayed: *mut vmt_replayed,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            let size = room(replayed, "replayed")?;
            let (trace, disk) = (text(trace, "trace")?, text(disk, "disk")?);
            let cancel = cancel::token(cancel);
            let go_on = || !cancel.is_cancelled();
            let played = replay(trace.as_ref(), disk.as_ref(), speed, go_on)?;
            fill(
                replayed,
                size,
                played.ok_or_else(Failure::cancelled)?.into(),
            );
            Ok(())
        })
    }
}
