//! Invariant: a session ends before its threads do, its children before it; once it was shut down nothing can be begun
//! in it.

use std::ffi::{CString, c_char};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::runtime::Handle as Runtime;
use vmtorrent::Session;
use vmtorrent::image::Source;

use crate::block_on::{Deadline, block_on, block_on_until};
use crate::callbacks::CallbackThread;
use crate::cancel::{self, vmt_cancel};
use crate::ending::{Ending, timed_out};
use crate::error::{Failure, vmt_error};
use crate::guard::{Handle, Out, Owner, free, guarded, guarded_on, look};
use crate::image::vmt_image;
use crate::option_table::Settings;
use crate::options::{settings, vmt_options};
use crate::process::Living;
use crate::status::vmt_status;
use crate::text::{c_string, pointer, text};

/// Carries any number of appliances and seeds: their threads, one port for peers, one cache, shared limits.
/// Appliances of one image share what is downloaded.
pub struct vmt_session {
    core: Arc<SessionCore>,
}

/// What all handles of a session hold on to.
pub(crate) struct SessionCore {
    pub(crate) owner: Owner,
    pub(crate) callbacks: CallbackThread,
    runtime: Runtime,
    session: Mutex<Option<Session>>,
    /// What is to be ended before; `None` once the end has begun.
    children: Mutex<Option<Vec<Weak<dyn Child>>>>,
    ending: Ending,
    listen: SocketAddr,
    listen_text: CString,
    tracker: OnceLock<(SocketAddr, CString)>,
    metrics: OnceLock<CString>,
    _living: Living,
}

/// What runs in a session.
pub(crate) trait Child: Send + Sync {
    /// Ends it, if that was not done yet.
    fn end(&self, deadline: Deadline) -> Result<(), Failure>;
}

/// How long a session that was not shut down is waited for when it is freed, milliseconds.
const GRACE: u64 = 5000;

impl SessionCore {
    pub(crate) fn start(settings: Settings) -> Result<Arc<Self>, Failure> {
        let living = Living::begin()?;
        crate::log::quiet_panics();
        let callbacks = CallbackThread::start()?;
        let session = match block_on(Session::start(settings.session)) {
            Ok(session) => session,
            Err(error) => {
                callbacks.end(Deadline::NEVER);
                return Err(error.into());
            }
        };
        let listen = session.listen_address();
        Ok(Arc::new(Self {
            owner: Owner::new(),
            _living: living,
            callbacks,
            runtime: session.runtime().clone(),
            session: Mutex::new(Some(session)),
            children: Mutex::new(Some(Vec::new())),
            ending: Ending::new(),
            listen,
            listen_text: c_string(listen.to_string()),
            tracker: OnceLock::new(),
            metrics: OnceLock::new(),
        }))
    }

    /// The session, unless it was shut down.
    pub(crate) fn get(&self) -> Result<Session, Failure> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.clone().ok_or_else(|| Failure::closed("session"))
    }

    /// What runs its tasks.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The address on which peers connect, and that of its tracker.
    pub(crate) fn addresses(&self) -> (SocketAddr, Option<SocketAddr>) {
        (self.listen, self.tracker.get().map(|t| t.0))
    }

    fn children(&self) -> MutexGuard<'_, Option<Vec<Weak<dyn Child>>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is to be ended with the session. Fails when that has begun to end.
    pub(crate) fn adopt(&self, child: Weak<dyn Child>) -> Result<(), Failure> {
        let mut children = self.children();
        let children = children
            .as_mut()
            .ok_or_else(|| Failure::closed("session"))?;
        children.retain(|c| c.strong_count() > 0);
        children.push(child);
        Ok(())
    }

    /// Ends all in order.
    pub(crate) fn shutdown(&self, deadline: Deadline) -> Result<(), Failure> {
        self.ending.run(deadline, || self.end(deadline)).map(|_| ())
    }

    fn end(&self, deadline: Deadline) -> Result<(), Failure> {
        let children = self.children().take().unwrap_or_default();
        let mut outcome = Ok(());
        for child in children.into_iter().filter_map(|c| c.upgrade()) {
            // The first failure explains the others.
            outcome = outcome.and(child.end(deadline));
        }
        let session = self
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(session) = session {
            outcome = outcome.and(match block_on_until(session.clone().shutdown(), deadline) {
                Some(ended) => ended.map_err(Failure::from),
                None => Err(timed_out()),
            });
            if !session.join_threads(deadline.left()) {
                outcome = outcome.and(Err(timed_out()));
            }
        }
        if !self.callbacks.end(deadline) {
            outcome = outcome.and(Err(timed_out()));
        }
        outcome
    }
}

impl Drop for SessionCore {
    fn drop(&mut self) {
        // No child is left, or it would hold this.
        let session = self
            .session
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let deadline = Deadline::after(GRACE);
        if let Some(session) = session {
            session.join_threads(deadline.left());
        }
        self.callbacks.end(deadline);
    }
}

impl Handle for vmt_session {
    const NAME: &'static str = "session";

    fn owner(&self) -> Option<&Owner> {
        Some(&self.core.owner)
    }
}

impl vmt_session {
    pub(crate) fn new(core: Arc<SessionCore>) -> Self {
        Self { core }
    }

    pub(crate) fn core(&self) -> &Arc<SessionCore> {
        &self.core
    }
}

/// Starts a session: its threads, and its port for peers. The caller frees it, after vmt_session_shutdown if it is to
/// end in order. `options` may be NULL.
///
/// Errors: VMT_E_NULL; VMT_E_IN_USE when the port is taken; VMT_E_NOT_FOUND when no cache is named and there is no home
/// directory; VMT_E_FORKED in a process that was forked from one with sessions; VMT_E_IO. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_session_start(
    options: *const vmt_options,
    session: *mut *mut vmt_session,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            let session = Out::new(session, "session")?;
            let core = SessionCore::start(settings(options))?;
            session.give(vmt_session { core });
            Ok(())
        })
    }
}

/// The address on which peers connect, such as "0.0.0.0:41234", with the port that was taken. It belongs to the
/// session.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_session_listen_address(session: *const vmt_session) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(session, std::ptr::null(), |s| s.core.listen_text.as_ptr()) }
}

/// Loads an image's description: `source` is the path of a .torrent file, its http, https or file URL, or a magnet
/// link, whose image is described by peers (those of the option `peer` among them) or was kept in the cache. Waits
/// for that. The caller frees the image. `options` and `cancel` may be NULL.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_INVALID for a source of an unknown kind or a magnet link with nobody to ask;
/// VMT_E_NOT_FOUND, VMT_E_PERMISSION, VMT_E_NETWORK; VMT_E_TIMED_OUT after 30 s with a web server, or the option
/// `metadata-timeout` with peers; VMT_E_TORRENT; VMT_E_CANCELLED, VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_session_load(
    session: *const vmt_session,
    source: *const c_char,
    options: *const vmt_options,
    cancel: *const vmt_cancel,
    image: *mut *mut vmt_image,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(session, error, |session| {
            let image = Out::new(image, "image")?;
            let source: Source = text(source, "source")?.parse()?;
            let source = source.with_peers(&settings(options).appliance.peers);
            let cancel = cancel::token(cancel);
            let loaded = cancel::wait(&cancel, session.core.get()?.load(&source))?;
            image.give(vmt_image::new(loaded));
            Ok(())
        })
    }
}

/// Runs a small tracker for what this session seeds and launches, then and later. `address` is IP:PORT; port 0 takes
/// a free one. It ends with the session.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_INVALID for what is no address; VMT_E_IN_USE when the port is taken, or the
/// session has a tracker already; VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_session_serve_tracker(
    session: *const vmt_session,
    address: *const c_char,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(session, error, |session| {
            let address = parse_address(text(address, "address")?)?;
            let bound = block_on(session.core.get()?.serve_tracker(address))?;
            let url = c_string(format!("http://{bound}/announce"));
            // There is one at most.
            let _ = session.core.tracker.set((bound, url));
            Ok(())
        })
    }
}

/// The announce URL of the tracker that this session runs; NULL when it runs none. It belongs to the session.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_session_tracker_url(session: *const vmt_session) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe {
        look(session, std::ptr::null(), |s| {
            pointer(s.core.tracker.get().map(|t| &t.1))
        })
    }
}

/// Serves figures for Prometheus at http://ADDRESS/metrics until the session ends. `address` is IP:PORT; port 0 takes
/// a free one. There is no access control.
///
/// Errors: VMT_E_NULL, VMT_E_UTF8, VMT_E_INVALID for what is no address; VMT_E_IN_USE when the port is taken, or they
/// are served already; VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_session_serve_metrics(
    session: *const vmt_session,
    address: *const c_char,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(session, error, |session| {
            let address = parse_address(text(address, "address")?)?;
            let bound = block_on(session.core.get()?.serve_metrics(address))?;
            let url = c_string(format!("http://{bound}/metrics"));
            // They are served once at most.
            let _ = session.core.metrics.set(url);
            Ok(())
        })
    }
}

/// The URL of the figures that this session serves; NULL when it serves none. It belongs to the session.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_session_metrics_url(session: *const vmt_session) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(session, std::ptr::null(), |s| pointer(s.core.metrics.get())) }
}

/// Ends the session in order: its appliances are shut down as vmt_appliance_shutdown does it and its seeds likewise,
/// peers and trackers are told, callbacks that are due are called, and its threads end. Whatever it gives, the
/// session has ended then, and calls with it or its appliances give VMT_E_CLOSED; the handles are still to be freed.
/// After VMT_OK no thread of it is left. Called again, or by two at once, it waits for the first and gives VMT_OK.
///
/// `timeout_ms` are milliseconds; VMT_FOREVER waits as long as it takes. What is not done by then is broken off: as
/// after a power failure, the guest then finds all that was flushed.
///
/// Errors: VMT_E_NULL; VMT_E_TIMED_OUT; VMT_E_REENTERED in a callback of the session; what the appliances report, as
/// vmt_appliance_shutdown does. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_session_shutdown(
    session: *const vmt_session,
    timeout_ms: u64,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(session, error, |session| {
            session
                .core
                .callbacks
                .check_not_current("vmt_session_shutdown")?;
            session.core.shutdown(Deadline::after(timeout_ms))
        })
    }
}

/// Frees the handle. When it is the last one of a session that was not shut down (those of its appliances, seeds and
/// queues of events count), the session ends at once, which waits up to 5 seconds for its threads. NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_session_free(session: *mut vmt_session) {
    // SAFETY: what the header asks of every caller.
    unsafe { free(session) }
}

fn parse_address(text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| {
        Failure::invalid(format!(
            "{text:?} is no address: write an IP address and a port such as 127.0.0.1:6969 or [::1]:6969"
        ))
    })
}
