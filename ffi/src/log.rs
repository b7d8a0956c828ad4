//! Invariant: without a handler nothing is formatted or printed; a handler that was taken back runs nowhere any more; what
//! a handler does logs nothing.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::fmt::Write;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, RwLock};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::callbacks::User;
use crate::error::{Failure, vmt_error};
use crate::guard::guarded;
use crate::status::{VMT_E_IN_USE, vmt_status};
use crate::text::c_string;

/// Nothing is logged.
pub const VMT_LOG_OFF: i32 = 0;
/// What went wrong and needs somebody.
pub const VMT_LOG_ERROR: i32 = 1;
/// What went wrong and was dealt with.
pub const VMT_LOG_WARN: i32 = 2;
/// What happened.
pub const VMT_LOG_INFO: i32 = 3;
/// What developers want to know.
pub const VMT_LOG_DEBUG: i32 = 4;
/// Everything.
pub const VMT_LOG_TRACE: i32 = 5;

/// Told what is logged.
///
/// It is called in any thread of the library or of its callers, at times while the library holds locks: it must return soon,
/// and calls no function of this library but those of vmt_error; others that can fail give it VMT_E_REENTERED.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vmt_log_handler {
    /// `level` is a VMT_LOG_ number, `target` the part of the library, `message` a line of text. Both are lent until it returns.
    pub call: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            level: i32,
            target: *const c_char,
            message: *const c_char,
        ),
    >,
    /// For whatever the caller likes.
    pub user: *mut c_void,
    /// Frees `user`, when the handler is replaced or taken back. May be NULL.
    pub free: Option<unsafe extern "C" fn(user: *mut c_void)>,
}

type Call = unsafe extern "C" fn(*mut c_void, i32, *const c_char, *const c_char);

struct Handler {
    call: Call,
    user: User,
}

static HANDLER: RwLock<Option<Arc<Handler>>> = RwLock::new(None);
static LEVEL: AtomicI32 = AtomicI32::new(VMT_LOG_OFF);
/// Held while the handler is changed.
static CHANGING: Mutex<bool> = Mutex::new(false);

thread_local! {
    static HANDLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a log handler.
pub(crate) fn is_handling() -> bool {
    HANDLING.get()
}

/// Has panics go to the log instead of stderr.
pub(crate) fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !cfg!(test) {
            std::panic::set_hook(Box::new(|panic| {
                tracing::error!(target: "vmtorrent", "a mistake in the library: {panic}");
            }));
        }
    });
}

/// Has what the library logs told to a function, up to a level: VMT_LOG_ERROR to VMT_LOG_TRACE; of the libraries that it
/// is made of no more than warnings. The handler is that of the process: it replaces an earlier one. With a `call` that is
/// NULL, or VMT_LOG_OFF, nothing is logged any more, as at first. When this returns, the earlier handler runs nowhere, and
/// was freed.
///
/// Errors: VMT_E_INVALID for a level that does not exist; VMT_E_IN_USE when a Rust program that the library is part of has a
/// log of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmt_log_set(
    level: i32,
    handler: vmt_log_handler,
    error: *mut *mut vmt_error,
) -> vmt_status {
    let user = User::new(handler.user, handler.free);
    // SAFETY: what the header asks of every caller.
    unsafe {
        guarded(error, || {
            let user = user;
            if !(VMT_LOG_OFF..=VMT_LOG_TRACE).contains(&level) {
                return Err(Failure::invalid(format!(
                    "there is no level {level}: take VMT_LOG_OFF (0) to VMT_LOG_TRACE (5)"
                )));
            }
            let call = handler.call.filter(|_| level > VMT_LOG_OFF);
            set(call.map(|call| Handler { call, user }), level)
        })
    }
}

fn set(handler: Option<Handler>, level: i32) -> Result<(), Failure> {
    let mut installed = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    if handler.is_some() && !*installed {
        let subscriber = tracing_subscriber::registry().with(ToHandler);
        tracing::subscriber::set_global_default(subscriber).map_err(|_| {
            Failure::new(VMT_E_IN_USE, "this process has a log of its own already: look there")
        })?;
        *installed = true;
    }
    let level = if handler.is_some() { level } else { VMT_LOG_OFF };
    LEVEL.store(level, Ordering::Relaxed);
    let new = handler.map(Arc::new);
    let old = std::mem::replace(
        &mut *HANDLER.write().unwrap_or_else(PoisonError::into_inner),
        new,
    );
    if *installed {
        tracing::callsite::rebuild_interest_cache();
    }
    if let Some(old) = old {
        // Others may be inside; they return soon.
        while Arc::strong_count(&old) > 1 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    Ok(())
}

fn number(level: Level) -> i32 {
    match level {
        Level::ERROR => VMT_LOG_ERROR,
        Level::WARN => VMT_LOG_WARN,
        Level::INFO => VMT_LOG_INFO,
        Level::DEBUG => VMT_LOG_DEBUG,
        Level::TRACE => VMT_LOG_TRACE,
    }
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let level = LEVEL.load(Ordering::Relaxed);
    let ours = metadata.target().starts_with("vmtorrent");
    let most = if ours { level } else { level.min(VMT_LOG_WARN) };
    // Spans name what an event is about, whatever their level.
    (metadata.is_span() && level > VMT_LOG_OFF && ours) || number(*metadata.level()) <= most
}

/// A line of text.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

/// The fields of a span, as text.
struct SpanText(String);

/// Hands the log to the handler.
struct ToHandler;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ToHandler {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_wanted(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_wanted(metadata) && !HANDLING.get()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match LEVEL.load(Ordering::Relaxed) {
            VMT_LOG_OFF => LevelFilter::OFF,
            VMT_LOG_ERROR => LevelFilter::ERROR,
            VMT_LOG_WARN => LevelFilter::WARN,
            VMT_LOG_INFO => LevelFilter::INFO,
            VMT_LOG_DEBUG => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut line = Line::default();
        attributes.record(&mut line);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanText(line.fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut line = Line::default();
        values.record(&mut line);
        if let Some(span) = context.span(id)
            && let Some(text) = span.extensions_mut().get_mut::<SpanText>()
        {
            text.0.push_str(&line.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let handler = HANDLER.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(handler) = handler else {
            return;
        };
        let mut line = Line::default();
        event.record(&mut line);
        line.message.push_str(&line.fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(text) = span.extensions().get::<SpanText>() {
                line.message.push_str(&text.0);
            }
        }
        let metadata = event.metadata();
        let target: CString = c_string(metadata.target());
        let message = c_string(line.message);
        HANDLING.set(true);
        // SAFETY: the caller gave the function for this; both texts live until it returns.
        unsafe {
            (handler.call)(
                handler.user.pointer,
                number(*metadata.level()),
                target.as_ptr(),
                message.as_ptr(),
            );
        }
        HANDLING.set(false);
    }
}
