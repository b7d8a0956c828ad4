//! Invariant: an event never changes, and tells of something that happened once.

use std::ffi::{CString, c_char};

use vmtorrent::Event;

use crate::file_list::FileList;
use crate::guard::{Handle, Owner, free, look};
use crate::text::c_string;

/// The whole image is here: the appliance needs the swarm no more.
pub const VMT_EVENT_COMPLETE: i32 = 1;
/// A read waited for longer than the option `read-timeout` and failed: vmt_event_file, vmt_event_offset and
/// vmt_event_peers tell more.
pub const VMT_EVENT_READ_TIMED_OUT: i32 = 2;
/// What comes from the swarm can't be stored: the disk fails. It goes on by itself when the disk does.
pub const VMT_EVENT_STORAGE_FAILED: i32 = 3;
/// The disk of the cache is full, or the option `max-disk` is reached: nothing is fetched in the background any more.
pub const VMT_EVENT_CACHE_FULL: i32 = 4;
/// Nobody took the events: the oldest were lost, and vmt_event_lost tells how many.
pub const VMT_EVENT_LOST: i32 = 5;
/// A web server that is said to hold the image is not counted on any more; the message tells which, and why.
pub const VMT_EVENT_WEB_SEED_GIVEN_UP: i32 = 6;

/// Something that happened. Other kinds may be added: pass over what you don't know.
pub struct vmt_event {
    kind: i32,
    file: usize,
    offset: u64,
    peers: u32,
    lost: u64,
    message: CString,
}

impl Handle for vmt_event {
    const NAME: &'static str = "event";

    fn owner(&self) -> Option<&Owner> {
        None
    }
}

impl vmt_event {
    /// `None` for what C does not know of yet.
    pub(crate) fn new(event: Event, files: &FileList) -> Option<Self> {
        let nothing = Self {
            kind: 0,
            file: 0,
            offset: 0,
            peers: 0,
            lost: 0,
            message: CString::default(),
        };
        Some(match event {
            Event::Complete => Self {
                kind: VMT_EVENT_COMPLETE,
                message: c"the whole image is here".into(),
                ..nothing
            },
            Event::ReadTimedOut {
                file,
                offset,
                peers,
            } => Self {
                kind: VMT_EVENT_READ_TIMED_OUT,
                file: files.number(file)?,
                offset,
                peers,
                message: c_string(format!(
                    "a read at {offset} got no data in time and failed; {peers} peers are connected"
                )),
                ..nothing
            },
            Event::StorageFailed { reason } => Self {
                kind: VMT_EVENT_STORAGE_FAILED,
                message: c_string(format!("what is downloaded can't be stored: {reason}")),
                ..nothing
            },
            Event::CacheFull { reason } => Self {
                kind: VMT_EVENT_CACHE_FULL,
                message: c_string(format!("the downloaded copy can't grow: {reason}")),
                ..nothing
            },
            Event::WebSeedGivenUp { url, reason } => Self {
                kind: VMT_EVENT_WEB_SEED_GIVEN_UP,
                message: c_string(format!(
                    "the web seed {url} is not counted on any more: {reason}"
                )),
                ..nothing
            },
            _ => return None,
        })
    }

    pub(crate) fn lost(lost: u64) -> Self {
        Self {
            kind: VMT_EVENT_LOST,
            file: 0,
            offset: 0,
            peers: 0,
            lost,
            message: c_string(format!("{lost} events were lost: take them sooner")),
        }
    }
}

/// What happened: a VMT_EVENT_ number. 0 for NULL.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_event_kind(event: *const vmt_event) -> i32 {
    // SAFETY: what the header asks of every caller.
    unsafe { look(event, 0, |e| e.kind) }
}

/// The file that it concerns, else 0.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_event_file(event: *const vmt_event) -> usize {
    // SAFETY: what the header asks of every caller.
    unsafe { look(event, 0, |e| e.file) }
}

/// The place in that file, bytes, else 0.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_event_offset(event: *const vmt_event) -> u64 {
    // SAFETY: what the header asks of every caller.
    unsafe { look(event, 0, |e| e.offset) }
}

/// Peers that were connected when a read timed out, else 0.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_event_peers(event: *const vmt_event) -> u32 {
    // SAFETY: what the header asks of every caller.
    unsafe { look(event, 0, |e| e.peers) }
}

/// Number of events that were lost before this one, of VMT_EVENT_LOST, else 0.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_event_lost(event: *const vmt_event) -> u64 {
    // SAFETY: what the header asks of every caller.
    unsafe { look(event, 0, |e| e.lost) }
}

/// What happened, in a sentence for people. It belongs to the event.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_event_message(event: *const vmt_event) -> *const c_char {
    // SAFETY: what the header asks of every caller.
    unsafe { look(event, std::ptr::null(), |e| e.message.as_ptr()) }
}

/// Frees an event of vmt_events_next. NULL does nothing.
///
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_event_free(event: *mut vmt_event) {
    // SAFETY: what the header asks of every caller.
    unsafe { free(event) }
}
