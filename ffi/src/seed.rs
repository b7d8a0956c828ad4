//! Invariant: what is seeded is only read; a seed is used only through its gate.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::{Arc, Weak};

use vmtorrent::{Seed, Stats};

use crate::block_on::{Deadline, block_on, block_on_until};
use crate::ending::{Ending, timed_out};
use crate::error::{Failure, vmt_error};
use crate::gate::Gate;
use crate::guard::{Handle, Out, Owner, free, guarded_on, look};
use crate::image::vmt_image;
use crate::session::{Child, SessionCore, vmt_session};
use crate::stats::vmt_stats;
use crate::status::vmt_status;
use crate::text::{c_string, text};

/// A published file or directory that is served to the swarm.
pub struct vmt_seed {
    core: Arc<SeedCore>,
}

struct SeedCore {
    gate: Gate<Seed>,
    ending: Ending,
    magnet: CString,
    // Last: it outlives the seed.
    session: Arc<SessionCore>,
}

impl SeedCore {
    fn end_now(&self, deadline: Deadline) -> Result<Stats, Failure> {
        self.gate.close();
        let seed = self.gate.take(|| deadline.left()).ok_or_else(timed_out)?;
        Ok(block_on_until(seed.shutdown(), deadline).ok_or_else(timed_out)??)
    }
}

impl Child for SeedCore {
    fn end(&self, deadline: Deadline) -> Result<(), Failure> {
        self.ending
            .run(deadline, || self.end_now(deadline))
            .map(|_| ())
    }
}

impl Handle for vmt_seed {
    const NAME: &'static str = "seed";

    fn owner(&self) -> Option<&Owner> {
        Some(&self.core.session.owner)
    }
}

/// The link to what is seeded. Addresses are in it only where they mean one host.
fn magnet(seed: &Seed, session: &SessionCore) -> String {
    let (listen, tracker) = session.addresses();
    let mut magnet = seed.image().magnet();
    if let Some(tracker) = tracker.filter(|t| !t.ip().is_unspecified())
        && let Ok(url) = format!("http://{tracker}/announce").parse()
    {
        magnet.add_tracker(url);
    }
    if !listen.ip().is_unspecified() {
        magnet.add_peer(listen);
    }
    magnet.to_string()
}

/// Serves a published image: the directory `data` holds its file or directory under its name. Lengths are checked
/// now, each piece on its first use. The caller frees the seed, after vmt_seed_shutdown if it is to end in order.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_NOT_FOUND or VMT_E_INVALID naming the file that is missing or has another
/// length; VMT_E_PERMISSION, VMT_E_IO; VMT_E_IN_USE when the session runs the image already; VMT_E_CLOSED. Since
/// 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_session_seed(
    session: *const vmt_session,
    image: *const vmt_image,
    data: *const c_char,
    seed: *mut *mut vmt_seed,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(session, error, |session| {
            let out = Out::new(seed, "seed")?;
            let image = image.as_ref().ok_or_else(|| Failure::null("image"))?;
            let data = Path::new(text(data, "data")?);
            let session = session.core().clone();
            let seed = block_on(session.get()?.seed(image.image().clone(), data))?;
            let core = Arc::new(SeedCore {
                magnet: c_string(magnet(&seed, &session)),
                gate: Gate::new(seed),
                ending: Ending::new(),
                session,
            });
            let child: Weak<dyn Child> = Arc::downgrade(&(core.clone() as Arc<dyn Child>));
            core.session.adopt(child)?;
            out.give(vmt_seed { core });
            Ok(())
        })
    }
}

/// A magnet link to what is seeded: that of the image, with the session's own tracker and its port for peers where
/// their addresses mean one host (0.0.0.0 would lead nowhere). It belongs to the seed.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_seed_magnet(seed: *const vmt_seed) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(seed, std::ptr::null(), |s| s.core.magnet.as_ptr()) }
}

/// What was served so far. `stats->struct_size` must be set before; see vmt_stats.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID for a size that makes no sense, VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_seed_stats(
    seed: *const vmt_seed,
    stats: *mut vmt_stats,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(seed, error, |seed| {
            let size = vmt_stats::size(stats)?;
            let inside = seed
                .core
                .gate
                .enter()
                .ok_or_else(|| Failure::closed("seed"))?;
            vmt_stats::fill(stats, size, &inside.stats());
            Ok(())
        })
    }
}

/// Ends the seed in order: peers and trackers are told. `timeout_ms` are milliseconds, or VMT_FOREVER. Whatever the
/// function gives, the seed has ended then; the handle is still to be freed. Called again, or by two at once, it
/// waits for the first and gives VMT_OK.
///
/// Errors: VMT_E_NULL, VMT_E_TIMED_OUT; VMT_E_REENTERED in a callback of the session. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_seed_shutdown(
    seed: *const vmt_seed,
    timeout_ms: u64,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(seed, error, |seed| {
            let core = &seed.core;
            core.session
                .callbacks
                .check_not_current("vmt_seed_shutdown")?;
            core.end(Deadline::after(timeout_ms))
        })
    }
}

/// Frees the handle. A seed that was not shut down ends at once. NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_seed_free(seed: *mut vmt_seed) {
    // SAFETY: what the header asks of every caller.
    unsafe { free(seed) }
}
