//! Invariant: the state directory is only read.

use std::process::ExitCode;

use vmtorrent::ExportOptions;

use crate::args::ExportArgs;
use crate::failure::Failure;
use crate::output::{LiveLine, Output};
use crate::signals::Signals;
use vmtorrent::text::Bytes;

/// Writes the image as the guest left it.
pub async fn run(args: ExportArgs, line: LiveLine) -> Result<ExitCode, Failure> {
    let mut signals = Signals::catch()?;
    let output = Output::new(false, false, line);
    output.work(format_args!("exporting to {}", args.output.display()));
    let written = tokio::select! {
        written = vmtorrent::export(&args.state, &args.output, ExportOptions::default()) => written?,
        caught = signals.next() => return Ok(caught.exit_code()),
    };
    output.say(format_args!(
        "{}: {} of data written",
        args.output.display(),
        Bytes(written)
    ));
    Ok(ExitCode::SUCCESS)
}
