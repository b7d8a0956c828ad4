//! Invariant: the picture is written whole or not at all.

use std::process::ExitCode;

use vmtorrent::profile::Profile;
use vmtorrent::text::grouped;

use super::PlotArgs;
use crate::failure::Failure;
use crate::output::{LiveLine, Output};

/// Draws a profile.
pub fn run(args: &PlotArgs, line: LiveLine) -> Result<ExitCode, Failure> {
    let profile = Profile::load(&args.profile)?;
    profile.save_plot(&args.output)?;
    Output::new(false, false, line).say(format_args!(
        "{}: {} blocks of {} runs; open it in a browser",
        args.output.display(),
        grouped(profile.block_count() as u64),
        profile.runs()
    ));
    Ok(ExitCode::SUCCESS)
}
