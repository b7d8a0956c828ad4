//! `launch --report`: one page that tells how a run went.
//!
//! Invariant: following a run changes nothing in it, and a report that can't be written is said before the run begins,
//! as far as that can be told.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::ValueHint;
use vmtorrent::Appliance;
pub use vmtorrent::report::Phase;
use vmtorrent::report::Report;

use crate::failure::Failure;
use crate::units;

#[derive(Debug, Default, clap::Args)]
pub struct ReportArgs {
    /// Write a page at the end that tells how the run went: open it in a browser
    #[arg(long, value_name = "OUT.html", value_hint = ValueHint::FilePath)]
    pub report: Option<PathBuf>,
    /// What the line gives, for the report's floor [default: the most that came within one second]
    #[arg(long, value_name = "RATE", value_parser = units::rate, requires = "report")]
    pub report_rate: Option<u64>,
}

/// Follows a launch, if a report of it is wanted.
pub struct Follower(Option<Following>);

struct Following {
    path: PathBuf,
    rate: Option<u64>,
    report: Report,
}

impl Follower {
    /// Begins; time is counted from here.
    pub fn begin(args: ReportArgs) -> Result<Self, Failure> {
        let Some(path) = args.report else {
            return Ok(Self(None));
        };
        Report::check_place(&path)?;
        Ok(Self(Some(Following {
            path,
            rate: args.report_rate,
            report: Report::begin(),
        })))
    }

    /// Notes that a phase of the start has ended.
    pub fn mark(&self, phase: Phase) {
        if let Some(following) = &self.0 {
            following.report.mark(phase);
        }
    }

    /// Looks at the figures again and again, until it is dropped.
    pub async fn watch(&self, appliance: &Appliance) -> Infallible {
        let Some(following) = &self.0 else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(following.report.sample(appliance)).await;
        }
    }

    /// Writes the page. Nobody may be watching any more.
    pub fn finish(&self, appliance: &Appliance) -> Result<(), Failure> {
        let Some(following) = &self.0 else {
            return Ok(());
        };
        following
            .report
            .write(appliance, following.rate, &following.path)?;
        Ok(())
    }
}
