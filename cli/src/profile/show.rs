//! Invariant: what was asked for goes to stdout, as a text for people or as one JSON object, with the same figures.

use std::io::{self, Write};
use std::process::ExitCode;

use vmtorrent::profile::Profile;

use super::ShowArgs;
use crate::failure::Failure;

/// Tells what a profile holds.
pub fn run(args: &ShowArgs) -> Result<ExitCode, Failure> {
    let summary = Profile::load(&args.profile)?.summary();
    let mut stdout = io::stdout().lock();
    let written = if args.json {
        writeln!(stdout, "{}", summary.to_json())
    } else {
        write!(stdout, "{summary}")
    };
    match written.and_then(|()| stdout.flush()) {
        // A reader that saw enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written
            .map(|()| ExitCode::SUCCESS)
            .map_err(|e| Failure::new(format!("cannot print the profile: {e}"))),
    }
}
