//! Invariant: the state directory is only read.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use vmtorrent::ExportOptions;

use crate::args::ExportArgs;
use crate::failure::Failure;
use crate::output::{LiveLine, Output};
use crate::signals::Signals;

/// Writes the image as the guest left it.
pub async fn run(args: ExportArgs, line: LiveLine) -> Result<ExitCode, Failure> {
    let mut signals =
        Signals::listen().map_err(|e| Failure::new(format!("catching signals: {e}")))?;
    let output = Arc::new(Mutex::new(Output::new(false, false, line)));
    let shown = Arc::clone(&output);
    let options = ExportOptions {
        read_timeout: Some(std::time::Duration::from_secs(60)),
        progress: Some(Box::new(move |done, total| {
            shown
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .work("exported", done, total);
        })),
    };
    tokio::select! {
        exported = vmtorrent::export(&args.state, &args.output, options) => exported?,
        caught = signals.next() => return Ok(caught.exit_code()),
    };
    output
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .say(format_args!("{} written", args.output.display()));
    Ok(ExitCode::SUCCESS)
}
