//! Invariant: the log goes to stderr, around the live line; a filter that can't be read is refused before anything
//! starts.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::output::LiveLine;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// What is logged, as `--log` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// Reads a level, or a filter with levels for modules as `RUST_LOG` takes it.
    ///
    /// A bare level is meant for vmtorrent; the libraries below it say no more than warnings.
    pub fn parse(text: &str) -> Result<Self, String> {
        let filter = match text.parse::<LevelFilter>() {
            Ok(level) if level > LevelFilter::WARN => format!("warn,vmtorrent={level}"),
            _ => text.to_owned(),
        };
        // The filter's own reader takes a level that is misspelt for the name of a module.
        let part = |p: &str| {
            let p = p.trim();
            p.contains('=') || (!p.is_empty() && p.parse::<LevelFilter>().is_ok())
        };
        match EnvFilter::try_new(&filter) {
            Ok(_) if filter.split(',').all(part) => Ok(Self(filter)),
            _ => Err(
                "not a level (error, warn, info, debug, trace, off) nor a filter such as \
                      info,vmtorrent::tracker=debug"
                    .to_owned(),
            ),
        }
    }

    fn to_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

/// Starts the log: as `--log` says, else as `RUST_LOG` says, else warnings.
pub fn start(filter: Option<&LogFilter>, format: LogFormat, line: &LiveLine) {
    let filter = filter.map_or_else(
        || {
            EnvFilter::builder()
                .with_default_directive(LevelFilter::WARN.into())
                .from_env_lossy()
        },
        LogFilter::to_filter,
    );
    let line = line.clone();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || line.clone())
        .with_ansi(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_vmtorrent_and_filters_are_taken_as_they_are() {
        let parse = |text| LogFilter::parse(text).map(|f| f.0);
        assert_eq!(parse("debug").unwrap(), "warn,vmtorrent=debug");
        assert_eq!(parse("INFO").unwrap(), "warn,vmtorrent=info");
        assert_eq!(parse("error").unwrap(), "error");
        assert_eq!(parse("off").unwrap(), "off");
        let filter = "info,vmtorrent::tracker=trace";
        assert_eq!(parse(filter).unwrap(), filter);
        for wrong in ["", " ", "loud", "info,vmtorrent", "vmtorrent=loud", "a=b=c"] {
            assert!(parse(wrong).unwrap_err().contains("debug"), "{wrong:?}");
        }
    }
}
