//! Invariant: the descriptor is readable exactly while there is something to take, or nothing will ever come any more.

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use vmtorrent::Event;

use crate::appliance::{ApplianceCore, vmt_appliance};
use crate::callbacks::User;
use crate::error::{Failure, vmt_error};
use crate::event::vmt_event;
use crate::file_list::FileList;
use crate::guard::{Handle, Out, Owner, free, guarded_on, look};
use crate::session::SessionCore;
use crate::signal::Signal;
use crate::status::{VMT_E_AGAIN, VMT_E_IO, vmt_status};

/// Events that wait at most.
const ROOM: usize = 256;

/// The events of an appliance from some moment on, for a main loop: wait until vmt_events_fd is readable, then take
/// them with vmt_events_next.
pub struct vmt_events {
    queue: Arc<Waiting>,
    /// Ends the task that fills it.
    over: CancellationToken,
    // Last: it is what the queue is filled by.
    session: Arc<SessionCore>,
}

struct Waiting {
    state: Mutex<State>,
    signal: Signal,
}

struct State {
    events: VecDeque<vmt_event>,
    lost: u64,
    ended: bool,
}

/// Told of each event.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmt_event_callback {
    /// `event` is lent until it returns. Must not be NULL.
    pub call: Option<unsafe extern "C" fn(user: *mut c_void, event: *const vmt_event)>,
    /// For whatever the caller likes.
    pub user: *mut c_void,
    /// Frees `user`, when the appliance has ended. May be NULL.
    pub free: Option<unsafe extern "C" fn(user: *mut c_void)>,
}

impl Handle for vmt_events {
    const NAME: &'static str = "events";

    fn owner(&self) -> Option<&Owner> {
        Some(&self.session.owner)
    }
}

impl Drop for vmt_events {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, event: vmt_event) {
        let mut state = self.lock();
        if state.events.len() >= ROOM {
            state.events.pop_front();
            state.lost += 1;
        }
        state.events.push_back(event);
        self.signal.raise();
    }

    fn lose(&self, lost: u64) {
        self.lock().lost += lost;
        self.signal.raise();
    }

    fn end(&self) {
        self.lock().ended = true;
        self.signal.raise();
    }

    /// The next one; `Ok(None)` when there is none yet.
    fn next(&self) -> Result<Option<vmt_event>, Failure> {
        let mut state = self.lock();
        let event = match std::mem::take(&mut state.lost) {
            0 => state.events.pop_front(),
            lost => Some(vmt_event::lost(lost)),
        };
        if event.is_none() && state.ended {
            return Err(Failure::closed("appliance"));
        }
        if state.events.is_empty() && !state.ended {
            self.signal.lower();
        }
        Ok(event)
    }
}

/// Says that nothing comes any more, also when its task is dropped with the session's threads.
struct Filling(Arc<Waiting>);

impl Drop for Filling {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn fill(
    mut events: Receiver<Event>,
    queue: Filling,
    files: FileList,
    over: CancellationToken,
) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = over.cancelled() => return,
        };
        match event {
            Ok(event) => {
                if let Some(event) = vmt_event::new(event, &files) {
                    queue.0.add(event);
                }
            }
            Err(RecvError::Lagged(lost)) => queue.0.lose(lost),
            Err(RecvError::Closed) => return,
        }
    }
}

type Call = unsafe extern "C" fn(*mut c_void, *const vmt_event);

/// Who is called back. The session is held weakly: it ends though somebody listens.
struct Listener {
    call: Call,
    user: Option<Arc<User>>,
    session: std::sync::Weak<SessionCore>,
}

impl Listener {
    fn tell(&self, event: vmt_event) {
        let (Some(session), Some(user)) = (self.session.upgrade(), self.user.clone()) else {
            return;
        };
        let call = self.call;
        let poster = session.callbacks.poster();
        poster.post(Box::new(move || {
            // SAFETY: the caller gave the function for this; the event lives until it returns.
            unsafe { call(user.pointer, &event) };
            drop(user);
            // The last to hold the session is then the thread that calls back.
            drop(session);
        }));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Freed in the thread for callbacks too, behind the last call.
        if let (Some(session), user) = (self.session.upgrade(), self.user.take()) {
            let poster = session.callbacks.poster();
            poster.post(Box::new(move || {
                drop(user);
                drop(session);
            }));
        }
    }
}

async fn call(mut events: Receiver<Event>, listener: Listener, files: FileList) {
    loop {
        let event = match events.recv().await {
            Ok(event) => vmt_event::new(event, &files),
            Err(RecvError::Lagged(lost)) => Some(vmt_event::lost(lost)),
            Err(RecvError::Closed) => return,
        };
        if let Some(event) = event {
            listener.tell(event);
        }
    }
}

fn subscribe(core: &ApplianceCore) -> Result<(Receiver<Event>, FileList), Failure> {
    let inside = core.enter()?;
    Ok((inside.events(), FileList::new(inside.image())))
}

/// Opens a queue of the events that happen from now on. At most 256 wait in it; then the oldest are lost. The caller
/// frees it.
///
/// Errors: VMT_E_NULL; VMT_E_CLOSED; VMT_E_IO when no descriptor is to be had. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_events_open(
    appliance: *const vmt_appliance,
    events: *mut *mut vmt_events,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let out = Out::new(events, "events")?;
            let (receiver, files) = subscribe(appliance.core())?;
            let signal = Signal::new().map_err(|e| {
                Failure::new(VMT_E_IO, format!("making a descriptor for events: {e}"))
            })?;
            let queue = Arc::new(Waiting {
                state: Mutex::new(State {
                    events: VecDeque::new(),
                    lost: 0,
                    ended: false,
                }),
                signal,
            });
            let over = CancellationToken::new();
            let session = appliance.core().session().clone();
            let filling = fill(receiver, Filling(queue.clone()), files, over.clone());
            session.runtime().spawn(filling);
            out.give(vmt_events {
                queue,
                over,
                session,
            });
            Ok(())
        })
    }
}

/// A descriptor for poll, epoll or select that is readable while vmt_events_next has something to give, and once
/// nothing will come any more. It belongs to the queue: don't read or close it. -1 for NULL, and where there are no
/// such descriptors (Windows).
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_events_fd(events: *const vmt_events) -> c_int {
    // SAFETY: what the header asks of every caller.
    unsafe { look(events, -1, |e| e.queue.signal.descriptor()) }
}

/// Takes the oldest event. Does not wait. The caller frees it.
///
/// Errors: VMT_E_NULL; VMT_E_AGAIN when there is none yet; VMT_E_CLOSED when there is none and the appliance has
/// ended. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_events_next(
    events: *const vmt_events,
    event: *mut *mut vmt_event,
    error: *mut *mut vmt_error,
) -> vmt_status {
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(events, error, |events| {
            let event = Out::new(event, "event")?;
            let next = events.queue.next()?;
            event.give(next.ok_or_else(|| {
                Failure::new(
                    VMT_E_AGAIN,
                    "there is no event yet: wait until vmt_events_fd is readable",
                )
            })?);
            Ok(())
        })
    }
}

/// Closes a queue and its descriptor. NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_events_free(events: *mut vmt_events) {
    // SAFETY: what the header asks of every caller.
    unsafe { free(events) }
}

/// Has a function called for each event that happens from now on, in the session's thread for callbacks, until the
/// appliance ends.
///
/// Errors: VMT_E_NULL, VMT_E_CLOSED. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_appliance_on_event(
    appliance: *const vmt_appliance,
    callback: vmt_event_callback,
    error: *mut *mut vmt_error,
) -> vmt_status {
    let user = User::new(callback.user, callback.free);
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded_on(appliance, error, |appliance| {
            let user = user;
            let function = callback
                .call
                .ok_or_else(|| Failure::null("callback.call"))?;
            let (receiver, files) = subscribe(appliance.core())?;
            let session = appliance.core().session();
            let listener = Listener {
                call: function,
                user: Some(Arc::new(user)),
                session: Arc::downgrade(session),
            };
            session.runtime().spawn(call(receiver, listener, files));
            Ok(())
        })
    }
}
