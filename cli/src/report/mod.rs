//! `launch --report`: one page that tells how a run went.
//!
//! Invariant: following a run changes nothing in it, and a report that can't be written is said before the run begins,
//! as far as that can be told.

mod curve;
mod data;
mod map;
mod opening;
mod page;
mod phases;
mod sampler;
mod timeline;

use std::cell::RefCell;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueHint;
use vmtorrent::{Appliance, Stats};

pub use self::phases::Phase;

use self::data::{Data, ImageFacts, Line};
use self::phases::Phases;
use self::sampler::Sampler;
use crate::failure::Failure;
use crate::{units, whole_file};

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
    phases: RefCell<Phases>,
    sampler: RefCell<Sampler>,
    /// Pieces that were here when the appliance was.
    had: RefCell<Vec<bool>>,
}

impl Follower {
    /// Begins; time is counted from here.
    pub fn begin(args: ReportArgs) -> Result<Self, Failure> {
        let Some(path) = args.report else {
            return Ok(Self(None));
        };
        whole_file::check(&path)?;
        let phases = Phases::begin();
        Ok(Self(Some(Following {
            path,
            rate: args.report_rate,
            sampler: RefCell::new(Sampler::new(phases.began())),
            phases: RefCell::new(phases),
            had: RefCell::default(),
        })))
    }

    /// Notes that a phase of the start has ended.
    pub fn mark(&self, phase: Phase) {
        if let Some(following) = &self.0 {
            following.phases.borrow_mut().mark(phase);
            if phase == Phase::Image {
                // From here on something may be fetched.
                following.sampler.borrow_mut().take(&Stats::default());
            }
        }
    }

    /// Looks at the figures again and again, until it is dropped.
    pub async fn watch(&self, appliance: &Appliance) -> Infallible {
        let Some(following) = &self.0 else {
            return std::future::pending().await;
        };
        let pieces = appliance.image().geometry().pieces();
        let had = pieces.map(|piece| appliance.is_present(piece)).collect();
        following.had.replace(had);
        loop {
            let pause = following.sampler.borrow_mut().take(&appliance.stats());
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes the page. Nobody may be watching any more.
    pub fn finish(&self, appliance: &Appliance) -> Result<(), Failure> {
        let Some(following) = &self.0 else {
            return Ok(());
        };
        let stats = appliance.stats();
        let mut sampler = following.sampler.borrow_mut();
        sampler.take(&stats);
        let phases = following.phases.borrow();
        let recorded = appliance.run_time();
        let samples = sampler.samples().to_vec();
        let data = Data {
            image: ImageFacts::of(appliance, &following.had.borrow()),
            line: Line::choose(following.rate, &samples),
            samples,
            phases: phases.spans(),
            recorded_from: phases.elapsed().saturating_sub(recorded),
            log: appliance.run_log(),
            stats,
        };
        whole_file::write(&following.path, page::page(&data).as_bytes())
    }
}

/// Microseconds as seconds.
fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
pub mod samples;
