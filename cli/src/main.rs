//! The `vmtorrent` command: publish, seed, launch and export images, look at how they run, and replay what guests read.
//!
//! Invariant: every failure ends in one message on stderr and a status that is not zero.

mod args;
mod export;
mod failure;
mod launch;
mod log;
mod mount_point;
mod open_files;
mod output;
mod profile;
mod publish;
mod replay;
mod report;
mod seed;
mod signals;
mod ticks;
mod units;
mod vmm;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::failure::Failure;
use crate::output::LiveLine;

fn main() -> ExitCode {
    let args = Args::parse();
    let line = LiveLine::hidden();
    log::start(args.log.as_ref(), args.log_format, &line);
    open_files::allow_many();
    let ended = run(args.command, line.clone());
    line.clear();
    ended.unwrap_or_else(|failure| {
        let _ = writeln!(std::io::stderr(), "vmtorrent: {failure}");
        ExitCode::FAILURE
    })
}

fn run(command: Command, line: LiveLine) -> Result<ExitCode, Failure> {
    // The library brings its own threads; this one waits for signals, the VMM and the clock.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(format!("starting up: {e}")))?;
    match command {
        Command::Publish(args) => publish::run(args, line),
        Command::Replay(args) => replay::run(args),
        Command::Seed(args) => runtime.block_on(seed::run(args, line)),
        Command::Launch(args) => runtime.block_on(launch::run(*args, line)),
        Command::Profile(command) => profile::run(command, line),
        Command::Vmm(command) => vmm::run(command),
        Command::Export(args) => runtime.block_on(export::run(args, line)),
    }
}
