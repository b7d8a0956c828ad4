//! Invariant: the appliance is used only through its gate, so that it is there for whoever is inside; what waits for
//! data is sent away when it ends.

use std::ffi::{CString, c_char};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vmtorrent::image::Image;
use vmtorrent::{Appliance, Stats};

use crate::block_on::{Deadline, block_on, block_on_until};
use crate::cancel::{self, vmt_cancel};
use crate::ending::{Ending, timed_out};
use crate::error::{Failure, vmt_error};
use crate::file_list::FileList;
use crate::gate::{Gate, Inside, InsideForLong};
use crate::guard::{Handle, Out, Owner, free, guarded, guarded_on, look};
use crate::image::vmt_image;
use crate::option_table::Settings;
use crate::options::{settings, vmt_options};
use crate::profile::vmt_profile;
use crate::session::{Child, SessionCore, vmt_session};
use crate::stats::vmt_stats;
use crate::status::vmt_status;
use crate::text::{c_path, pointer, text};

/// A running appliance: complete, writable disks over an image that is still on its way. Its files are those of the
/// image, numbered from 0; offsets and lengths are bytes, at any alignment.
pub struct vmt_appliance {
    core: Arc<ApplianceCore>,
}

/// What is under way when the handle is freed, and is no read, may take so long.
const AFTER_FREE: Duration = Duration::from_secs(5);

/// Who uses an appliance for longer than a call.
pub(crate) type Using = InsideForLong<Appliance>;

/// What calls that are under way hold on to.
pub(crate) struct ApplianceCore {
    gate: Arc<Gate<Appliance>>,
    /// Cancelled when the end begins.
    closing: CancellationToken,
    /// Cancelled when the handle is gone: nobody is there any more who could end it.
    abandoned: CancellationToken,
    ending: Ending,
    pub(crate) files: FileList,
    directory: Option<CString>,
    disk: Option<CString>,
    state: CString,
    /// Whether the session is its own, and ends with it.
    owns_session: bool,
    // Last: it outlives the appliance.
    session: Arc<SessionCore>,
}

impl ApplianceCore {
    fn launch(
        session: Arc<SessionCore>,
        owns_session: bool,
        image: Image,
        settings: Settings,
        cancel: &CancellationToken,
    ) -> Result<Arc<Self>, Failure> {
        let profile = settings.profile()?;
        let mut options = settings.appliance;
        options.profile = profile;
        let launched = session.get()?;
        let appliance = cancel::wait(cancel, launched.launch(image, options))?;
        let core = Arc::new(Self {
            files: FileList::new(appliance.image()),
            directory: appliance.directory().map(c_path),
            disk: appliance.disk_path().map(|d| c_path(&d)),
            state: c_path(appliance.state_directory()),
            gate: Arc::new(Gate::new(appliance)),
            closing: CancellationToken::new(),
            abandoned: CancellationToken::new(),
            ending: Ending::new(),
            owns_session,
            session,
        });
        let child: Weak<dyn Child> = Arc::downgrade(&(core.clone() as Arc<dyn Child>));
        core.session.adopt(child)?;
        Ok(core)
    }

    pub(crate) fn session(&self) -> &Arc<SessionCore> {
        &self.session
    }

    /// Uses the appliance for the length of a call.
    pub(crate) fn enter(&self) -> Result<Inside<'_, Appliance>, Failure> {
        self.gate
            .enter()
            .ok_or_else(|| Failure::closed("appliance"))
    }

    /// Uses the appliance beyond the call.
    pub(crate) fn enter_for_long(&self) -> Result<Using, Failure> {
        self.gate
            .enter_for_long()
            .ok_or_else(|| Failure::closed("appliance"))
    }

    /// Waits for something of the swarm, unless the appliance ends meanwhile.
    pub(crate) async fn unless_closing<T>(
        &self,
        work: impl Future<Output = Result<T, vmtorrent::Error>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            done = work => done.map_err(Failure::from),
            () = self.closing.cancelled() => Err(Failure::closed("appliance")),
        }
    }

    /// Breaks work off some time after the handle was freed: else what waits for a swarm that is gone would keep the
    /// appliance for ever.
    pub(crate) async fn unless_abandoned<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let late = async {
            self.abandoned.cancelled().await;
            tokio::time::sleep(AFTER_FREE).await;
        };
        tokio::select! {
            biased;
            done = work => done,
            () = late => Err(Failure::closed("appliance")),
        }
    }

    fn end_now(&self, deadline: Deadline) -> Result<Stats, Failure> {
        self.gate.close();
        self.closing.cancel();
        let appliance = self.gate.take(|| deadline.left()).ok_or_else(timed_out)?;
        let ended = block_on_until(appliance.shutdown(), deadline);
        Ok(ended.ok_or_else(timed_out)??)
    }

    fn shutdown(&self, deadline: Deadline) -> Result<Option<Stats>, Failure> {
        let ended = self.ending.run(deadline, || self.end_now(deadline));
        if self.owns_session {
            let closed = self.session.shutdown(deadline);
            return ended.and_then(|stats| closed.map(|()| stats));
        }
        ended
    }
}

impl Child for ApplianceCore {
    fn end(&self, deadline: Deadline) -> Result<(), Failure> {
        self.ending
            .run(deadline, || self.end_now(deadline))
            .map(|_| ())
    }
}

impl Handle for vmt_appliance {
    const NAME: &'static str = "appliance";

    fn owner(&self) -> Option<&Owner> {
        Some(&self.core.session.owner)
    }
}

impl Drop for vmt_appliance {
    fn drop(&mut self) {
        self.core.gate.close();
        self.core.closing.cancel();
        self.core.abandoned.cancel();
    }
}

impl vmt_appliance {
    pub(crate) fn core(&self) -> &Arc<ApplianceCore> {
        &self.core
    }
}

/// Starts an appliance in a session: opens or makes its state, joins the swarm, and mounts it if the option `mount`
/// says so. Waits until the disk can be read and written; nothing has to be downloaded for that. The caller frees the
/// appliance, after vmt_appliance_shutdown if it is to end in order. `options` and `cancel` may be NULL.
///
/// Errors: VMT_E_NULL; VMT_E_IN_USE when the state directory is another appliance's or the mount point is taken;
/// VMT_E_UNAVAILABLE when there is no FUSE; VMT_E_INVALID for a profile of another image; VMT_E_NOT_FOUND,
/// VMT_E_PERMISSION, VMT_E_NO_SPACE, VMT_E_IO, VMT_E_CORRUPT of its files; VMT_E_CANCELLED, VMT_E_CLOSED. Since
/// 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_session_launch(
    session: *const vmt_session,
    image: *const vmt_image,
    options: *const vmt_options,
    cancel: *const vmt_cancel,
    appliance: *mut *mut vmt_appliance,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(session, error, |session| {
            let appliance = Out::new(appliance, "appliance")?;
            let image = image.as_ref().ok_or_else(|| Failure::null("image"))?;
            let (image, cancel) = (image.image().clone(), cancel::token(cancel));
            let session = session.core().clone();
            let core = ApplianceCore::launch(session, false, image, settings(options), &cancel)?;
            appliance.give(vmt_appliance { core });
            Ok(())
        })
    }
}

/// The short form: starts a session, loads an image's description from `source` and starts an appliance of it, with
/// what `options` say of both. The session is the appliance's own and ends with it. `options` and `cancel` may be
/// NULL.
///
/// Errors: those of vmt_session_start, vmt_session_load and vmt_session_launch. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_launch(
    source: *const c_char,
    options: *const vmt_options,
    cancel: *const vmt_cancel,
    appliance: *mut *mut vmt_appliance,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            let appliance = Out::new(appliance, "appliance")?;
            let source: vmtorrent::image::Source = text(source, "source")?.parse()?;
            let (settings, cancel) = (settings(options), cancel::token(cancel));
            let source = source.with_peers(&settings.appliance.peers);
            let session = SessionCore::start(settings.clone())?;
            let launch = || {
                let image = cancel::wait(&cancel, session.get()?.load(&source))?;
                ApplianceCore::launch(session.clone(), true, image, settings, &cancel)
            };
            // When it fails, the session ends here with its last user.
            let core = launch()?;
            appliance.give(vmt_appliance { core });
            Ok(())
        })
    }
}

/// The image. The caller frees it.
///
/// Errors: VMT_E_NULL, VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_image(
    appliance: *const vmt_appliance,
    image: *mut *mut vmt_image,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let image = Out::new(image, "image")?;
            let inside = appliance.core.enter()?;
            image.give(vmt_image::new(inside.image().clone()));
            Ok(())
        })
    }
}

/// Another handle of the appliance's session, such as the one that vmt_launch started. The caller frees it.
///
/// Errors: VMT_E_NULL. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_session(
    appliance: *const vmt_appliance,
    session: *mut *mut vmt_session,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let session = Out::new(session, "session")?;
            session.give(vmt_session::new(appliance.core.session.clone()));
            Ok(())
        })
    }
}

/// The directory where the image is mounted; NULL when it is not. It belongs to the appliance.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_directory(appliance: *const vmt_appliance) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe {
        look(appliance, std::ptr::null(), |a| {
            pointer(a.core.directory.as_ref())
        })
    }
}

/// Path of the disk to boot from, the image's largest file, in the mounted directory; NULL when it is not mounted. It
/// belongs to the appliance.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_disk_path(appliance: *const vmt_appliance) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe {
        look(appliance, std::ptr::null(), |a| {
            pointer(a.core.disk.as_ref())
        })
    }
}

/// The directory that holds what the guest writes. It belongs to the appliance.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_state_directory(
    appliance: *const vmt_appliance,
) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(appliance, std::ptr::null(), |a| a.core.state.as_ptr()) }
}

/// Number of files; they are numbered from 0, as in the image.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_file_count(appliance: *const vmt_appliance) -> usize {
    // SAFETY: what the header asks of every caller.
    unsafe { look(appliance, 0, |a| a.core.files.count()) }
}

/// Path of a file below the image's directory, with slashes; NULL when there is no such file. It belongs to the
/// appliance.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_file_path(
    appliance: *const vmt_appliance,
    file: usize,
) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(appliance, std::ptr::null(), |a| a.core.files.path(file)) }
}

/// The number of the file with this path below the image's directory.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_NOT_FOUND. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_find_file(
    appliance: *const vmt_appliance,
    path: *const c_char,
    file: *mut usize,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let file = Out::new(file, "file")?;
            let path = text(path, "path")?;
            let found = appliance.core.files.find(path).ok_or_else(|| {
                let text =
                    format!("the image has no file {path:?}: look at vmt_appliance_file_path");
                Failure::new(crate::status::VMT_E_NOT_FOUND, text)
            })?;
            file.set(found);
            Ok(())
        })
    }
}

/// The number of the largest file: the disk to boot from.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_boot_file(appliance: *const vmt_appliance) -> usize {
    // SAFETY: what the header asks of every caller.
    unsafe { look(appliance, 0, |a| a.core.files.boot()) }
}

/// The present length of a file, bytes: its guest may have grown or cut it.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID when there is no such file, VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_file_length(
    appliance: *const vmt_appliance,
    file: usize,
    length: *mut u64,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let length = Out::new(length, "length")?;
            let index = appliance.core.files.index(file)?;
            length.set(appliance.core.enter()?.len(index)?);
            Ok(())
        })
    }
}

/// What the appliance has cost so far. `stats->struct_size` must be set before; see vmt_stats.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID for a size that makes no sense, VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_stats(
    appliance: *const vmt_appliance,
    stats: *mut vmt_stats,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let size = vmt_stats::size(stats)?;
            let found = appliance.core.enter()?.stats();
            vmt_stats::fill(stats, size, &found);
            Ok(())
        })
    }
}

/// What the guest read first so far, as a profile of one run. The caller frees it.
///
/// Errors: VMT_E_NULL, VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_profile(
    appliance: *const vmt_appliance,
    profile: *mut *mut vmt_profile,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let profile = Out::new(profile, "profile")?;
            let inside = appliance.core.enter()?;
            profile.give(vmt_profile::new(block_on(inside.profile())?));
            Ok(())
        })
    }
}

/// Ends the appliance in order: reads that wait for the swarm end with VMT_E_CLOSED, other calls that are under way
/// are waited for, completions that are due are called; then it is unmounted, every file is flushed, and the swarm is
/// left. A session of vmt_launch ends with it, as vmt_session_shutdown does it. Whatever the function gives, the
/// appliance has ended then, and calls with it give VMT_E_CLOSED; the handle is still to be freed. Called again, or
/// by two at once, it waits for the first and gives VMT_OK.
///
/// `timeout_ms` are milliseconds; VMT_FOREVER waits as long as it takes. What is not done by then is broken off: as
/// after a power failure, the guest then finds all that was flushed. `stats` may be NULL; else its struct_size must
/// be set, and it gets the final figures, or stays as it is if another call ended the appliance.
///
/// Errors: VMT_E_NULL, VMT_E_INVALID for a size of `stats` that makes no sense; VMT_E_TIMED_OUT; VMT_E_REENTERED in a
/// callback of the session; VMT_E_NO_SPACE, VMT_E_IO and others when what the guest wrote can't be flushed, or the
/// file of the option `record` can't be written. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_shutdown(
    appliance: *const vmt_appliance,
    timeout_ms: u64,
    stats: *mut vmt_stats,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let size = match stats.is_null() {
                true => None,
                false => Some(vmt_stats::size(stats)?),
            };
            let core = &appliance.core;
            core.session
                .callbacks
                .check_not_current("vmt_appliance_shutdown")?;
            let ended = core.shutdown(Deadline::after(timeout_ms))?;
            if let (Some(size), Some(ended)) = (size, ended) {
                vmt_stats::fill(stats, size, &ended);
            }
            Ok(())
        })
    }
}

/// Frees the handle. An appliance that was not shut down ends then as after a power failure: its guest finds all that was
/// flushed. Asynchronous reads that wait for the swarm are completed with VMT_E_CLOSED at once, whatever the option
/// `read-timeout` says; other asynchronous calls have 5 seconds, after which they are too. Does not wait for them: the
/// appliance is there until the last completion was called. (Blocking calls have returned before, as for every handle.)
/// NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_free(appliance: *mut vmt_appliance) {
    // SAFETY: what the header asks of every caller.
    unsafe { free(appliance) }
}
