//! Invariant: a report follows one appliance at most, and keeps neither it nor its session.

use std::ffi::c_char;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use tokio_util::sync::{CancellationToken, DropGuard};
use vmtorrent::report::{Phase, Report};

use crate::appliance::{ApplianceCore, vmt_appliance};
use crate::error::{Failure, vmt_error};
use crate::guard::{Handle, Out, Owner, free, guarded, guarded_on};
use crate::status::vmt_status;
use crate::text::text;

/// Follows a launch from its begin on, for a page that tells how it went: where its time went, what was fetched for what,
/// and how near that came to the least that the line allows.
pub struct vmt_report {
    report: Arc<Report>,
    follows: OnceLock<Weak<ApplianceCore>>,
    end: CancellationToken,
    owner: Owner,
    /// Ends the task that looks at the figures.
    _over: DropGuard,
}

/// A phase of a launch, the first of those before its guest runs: the listener, the cache, and looking for peers.
pub const VMT_PHASE_SESSION: i32 = 1;
/// The second: the image's description is read, downloaded, or asked of peers.
pub const VMT_PHASE_IMAGE: i32 = 2;
/// The third: the state, the copy on the disk, and the mount.
pub const VMT_PHASE_APPLIANCE: i32 = 3;
/// The fourth: the VMM's process is started.
pub const VMT_PHASE_VMM: i32 = 4;

impl Handle for vmt_report {
    const NAME: &'static str = "report";

    fn owner(&self) -> Option<&Owner> {
        Some(&self.owner)
    }
}

impl vmt_report {
    fn follow(&self, core: &Arc<ApplianceCore>) -> Result<(), Failure> {
        let inside = core.enter()?;
        let appliance = Arc::downgrade(core);
        self.follows.set(appliance.clone()).map_err(|_| {
            Failure::invalid("the report follows an appliance already: begin another report")
        })?;
        // What is here at this moment was here before.
        let pause = self.report.sample(&inside);
        let (report, end) = (self.report.clone(), self.end.clone());
        core.session().runtime().spawn(async move {
            let mut pause = pause;
            loop {
                tokio::select! {
                    () = end.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                let Some(core) = appliance.upgrade() else {
                    return;
                };
                let sampled = core.enter().map(|inside| report.sample(&inside));
                // The last to hold the appliance is then the thread that calls back.
                let poster = core.session().callbacks.poster();
                poster.post(Box::new(move || drop(core)));
                let Ok(next) = sampled else {
                    return;
                };
                pause = next;
            }
        });
        Ok(())
    }
}

/// Begins a report: time is counted from here. Call it before what is to be told: before vmt_launch, or before
/// vmt_session_start. The caller frees it.
///
/// Errors: VMT_E_NULL. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_report_begin(
    report: *mut *mut vmt_report,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            let end = CancellationToken::new();
            Out::new(report, "report")?.give(vmt_report {
                report: Arc::new(Report::begin()),
                follows: OnceLock::new(),
                owner: Owner::new(),
                _over: end.clone().drop_guard(),
                end,
            });
            Ok(())
        })
    }
}

/// Notes that a phase of the start has ended, a VMT_PHASE_ number. Phases that nobody marks are part of the one after
/// them: who calls vmt_launch marks VMT_PHASE_APPLIANCE alone.
///
/// Errors: VMT_E_NULL; VMT_E_INVALID when there is no such phase. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_report_mark(
    report: *const vmt_report,
    phase: i32,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(report, error, |report| {
            report.report.mark(match phase {
                VMT_PHASE_SESSION => Phase::Session,
                VMT_PHASE_IMAGE => Phase::Image,
                VMT_PHASE_APPLIANCE => Phase::Appliance,
                VMT_PHASE_VMM => Phase::Vmm,
                other => {
                    let text = format!("there is no phase {other}: take one of VMT_PHASE_");
                    return Err(Failure::invalid(text));
                }
            });
            Ok(())
        })
    }
}

/// Has the figures of an appliance looked at from now on, 10 times a second and at first 50 times, until the report is
/// freed or the appliance ends. Call it as soon as the appliance is there: what is here then counts as what was here
/// before the launch.
///
/// Errors: VMT_E_NULL; VMT_E_INVALID when the report follows an appliance already; VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_report_follow(
    report: *const vmt_report,
    appliance: *const vmt_appliance,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let report = report.as_ref().ok_or_else(|| Failure::null("report"))?;
            report.follow(appliance.core())
        })
    }
}

/// Writes the page of what happened so far to the file `path`, in one step: HTML of less than a megabyte that asks for
/// nothing elsewhere and runs no script. Call it before the appliance is shut down; called again, it is another page.
/// `rate` is what the line gives, bytes per second, for the least time that the report compares with; 0: the most that
/// came within one second.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8; VMT_E_INVALID when the report does not follow this appliance; VMT_E_NOT_FOUND,
/// VMT_E_PERMISSION, VMT_E_NO_SPACE, VMT_E_IO of the file; VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_report_write(
    report: *const vmt_report,
    appliance: *const vmt_appliance,
    rate: u64,
    path: *const c_char,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let report = report.as_ref().ok_or_else(|| Failure::null("report"))?;
            let path = Path::new(text(path, "path")?);
            let core = Arc::downgrade(appliance.core());
            if !report.follows.get().is_some_and(|f| f.ptr_eq(&core)) {
                return Err(Failure::invalid(
                    "the report does not follow this appliance: call vmt_report_follow after its launch",
                ));
            }
            let rate = (rate > 0).then_some(rate);
            let inside = appliance.core().enter()?;
            Ok(report.report.write(&inside, rate, path)?)
        })
    }
}

/// Frees the handle. NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_report_free(report: *mut vmt_report) {
    // SAFETY: what the header asks of every caller.
    unsafe { free(report) }
}
