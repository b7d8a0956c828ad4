//! Invariant: a report tells times in seconds, or in milliseconds where the name says so.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use vmtorrent::replay::{Replayed, replay};

use crate::args::ReplayArgs;
use crate::failure::Failure;

/// What a replay took.
#[derive(Debug, Serialize)]
struct Report {
    event: &'static str,
    reads: u64,
    bytes: u64,
    wall_seconds: f64,
    /// The sum of all thinking, at the speed that was asked for.
    guest_seconds: f64,
    read_seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl From<&Replayed> for Report {
    fn from(r: &Replayed) -> Self {
        let milliseconds = |d: Duration| d.as_secs_f64() * 1000.0;
        Self {
            event: "done",
            reads: r.reads,
            bytes: r.bytes,
            wall_seconds: r.wall.as_secs_f64(),
            guest_seconds: r.thought.as_secs_f64(),
            read_seconds: r.reading.as_secs_f64(),
            p50_ms: milliseconds(r.p50),
            p99_ms: milliseconds(r.p99),
            max_ms: milliseconds(r.max),
        }
    }
}

/// Reads what a trace says, and tells how long that took.
pub fn run(args: ReplayArgs) -> Result<ExitCode, Failure> {
    // Nobody gives it up but by a signal.
    let played = replay(&args.trace, &args.disk, args.speed, || true)?.unwrap_or_default();
    let told = if args.json {
        let line = serde_json::to_string(&Report::from(&played));
        line.map_err(|e| Failure::new(format!("the report can't be written as JSON: {e}")))?
    } else {
        played.to_string()
    };
    let written = writeln!(io::stdout().lock(), "{told}");
    written.map_err(|e| Failure::new(format!("writing the report to stdout: {e}")))?;
    Ok(ExitCode::SUCCESS)
}
