//! What the library logs, made into lines of text.
//!
//! Invariant: nothing is formatted that nobody wants.

use std::fmt::Write;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::error::Failure;
use crate::log::{
    self, VMT_LOG_DEBUG, VMT_LOG_ERROR, VMT_LOG_INFO, VMT_LOG_OFF, VMT_LOG_TRACE, VMT_LOG_WARN,
};
use crate::status::VMT_E_IN_USE;
use crate::text::c_string;

/// Has everything that is logged come here.
pub(crate) fn install() -> Result<(), Failure> {
    let subscriber = tracing_subscriber::registry().with(ToHandler);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| {
        Failure::new(
            VMT_E_IN_USE,
            "this process has a log of its own already: look there",
        )
    })
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
    let level = log::level();
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
        if is_wanted(metadata) {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_wanted(metadata) && log::is_on()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match log::level() {
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
        let mut line = Line::default();
        event.record(&mut line);
        line.message.push_str(&line.fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(text) = span.extensions().get::<SpanText>() {
                line.message.push_str(&text.0);
            }
        }
        let metadata = event.metadata();
        let target = c_string(metadata.target());
        let message = c_string(line.message);
        log::tell(number(*metadata.level()), &target, &message);
    }
}
