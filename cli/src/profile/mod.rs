//! `vmtorrent profile`: what runs of a machine read first, put together, told and drawn.
//!
//! Invariant: a profile that can't be used is named with its path and a remedy, and nothing is written then.

mod merge;
mod plot;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueHint;

use crate::failure::Failure;
use crate::output::LiveLine;

const MERGE: &str = "\
For each block of 16 KiB the output tells how many runs read it, and when: mean, variance, earliest and latest guest
time. A block that few runs read stays in it; what is rare is left out where a profile is used.

Profiles of another image are refused. With --force they are taken as runs of the first one's image (an older version
of it, say): a block counts where its bytes are known to be the same, or where only one of the two knows it.";

/// What is done with profiles.
#[derive(Debug, clap::Subcommand)]
pub enum ProfileCommand {
    /// Put the profiles of several runs together
    #[command(after_help = MERGE)]
    Merge(MergeArgs),
    /// Tell what a profile holds
    Show(ShowArgs),
    /// Draw when which place of the image was read first, as SVG
    Plot(PlotArgs),
}

#[derive(Debug, clap::Args)]
pub struct MergeArgs {
    /// Profiles; the first one's image is that of the output
    #[arg(value_name = "PROFILE", required = true, value_hint = ValueHint::FilePath)]
    pub profiles: Vec<PathBuf>,
    /// Where the merged profile is written; may be one of the inputs
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Merge profiles of other images too, where they fit, and tell how far that is
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The profile
    #[arg(value_name = "PROFILE", value_hint = ValueHint::FilePath)]
    pub profile: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct PlotArgs {
    /// The profile
    #[arg(value_name = "PROFILE", value_hint = ValueHint::FilePath)]
    pub profile: PathBuf,
    /// Where the picture is written
    #[arg(short, long, value_name = "OUT.svg", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
}

/// Does it.
pub fn run(command: ProfileCommand, line: LiveLine) -> Result<ExitCode, Failure> {
    match command {
        ProfileCommand::Merge(args) => merge::run(&args, line),
        ProfileCommand::Show(args) => show::run(&args),
        ProfileCommand::Plot(args) => plot::run(&args, line),
    }
}
