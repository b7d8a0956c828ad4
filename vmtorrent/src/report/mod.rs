//! One page that tells how a run went: where its time went, what was fetched for what, and how near that came to the
//! least that the line allows.
//!
//! Invariant: following a run changes nothing in it.

mod curve;
mod data;
mod map;
mod opening;
mod page;
mod phases;
mod sampler;
mod timeline;

use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;

pub use self::phases::Phase;

use self::data::{Data, ImageFacts, Line};
use self::phases::Phases;
use self::sampler::Sampler;
use crate::error::Result;
use crate::{Appliance, Stats, whole_file};

/// Follows one launch from its begin on, and draws a page (HTML) of it.
///
/// ```no_run
/// # async fn run() -> vmtorrent::Result<()> {
/// use vmtorrent::report::{Phase, Report};
///
/// let report = Report::begin();
/// let appliance = vmtorrent::launch("debian.torrent".parse()?, vmtorrent::Options::default()).await?;
/// report.mark(Phase::Appliance);
/// // In a task of its own, while the guest runs:
/// tokio::time::sleep(report.sample(&appliance)).await;
/// // At the end:
/// report.write(&appliance, None, "report.html".as_ref())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Report(Mutex<Following>);

#[derive(Debug)]
struct Following {
    phases: Phases,
    sampler: Sampler,
    /// Pieces that were here when the appliance was first looked at.
    had: Option<Vec<bool>>,
}

impl Report {
    /// Begins; time is counted from here. Nothing of the image may be fetched before.
    pub fn begin() -> Self {
        let mut sampler = Sampler::new();
        sampler.note(Duration::ZERO, &Stats::default());
        Self(Mutex::new(Following {
            phases: Phases::begin(),
            sampler,
            had: None,
        }))
    }

    /// Fails where [`write`](Self::write) would, as far as can be told before the run; what `path` holds stays.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn check_place(path: &Path) -> Result<()> {
        whole_file::check(path)
    }

    /// Notes that a phase of the start has ended. Phases that nobody marks are part of the one after them.
    pub fn mark(&self, phase: Phase) {
        let mut following = self.0.lock();
        following.phases.mark(phase);
        if phase == Phase::Image {
            // From here on something may be fetched.
            let at = following.phases.elapsed();
            following.sampler.note(at, &Stats::default());
        }
    }

    /// Looks at an appliance's figures; gives the time until it should be done again, by the same task. The first time
    /// should be soon after the launch: what is here then counts as what was here before.
    pub fn sample(&self, appliance: &Appliance) -> Duration {
        let stats = appliance.stats();
        let mut following = self.0.lock();
        following.had.get_or_insert_with(|| present(appliance));
        let at = following.phases.elapsed();
        following.sampler.note(at, &stats)
    }

    /// The page: HTML of less than a megabyte, in UTF-8, that asks for nothing elsewhere and runs no script. `rate` is
    /// what the line gives, bytes per second on the wire; `None`: the most that came within one second.
    pub fn page(&self, appliance: &Appliance, rate: Option<u64>) -> String {
        self.sample(appliance);
        let following = self.0.lock();
        let recorded = appliance.run_time();
        let samples = following.sampler.samples().to_vec();
        let had = following.had.as_deref().unwrap_or_default();
        let stats = appliance.stats();
        page::page(&Data {
            image: ImageFacts::of(appliance, had),
            line: Line::choose(rate, &samples).map(|line| line.of_plain_bytes(&stats)),
            samples,
            phases: following.phases.spans(),
            recorded_from: following.phases.elapsed().saturating_sub(recorded),
            log: appliance.run_log(),
            stats,
        })
    }

    /// Writes [`page`](Self::page) to a file in one step. Waits for the disk.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn write(&self, appliance: &Appliance, rate: Option<u64>, path: &Path) -> Result<()> {
        whole_file::write(path, self.page(appliance, rate).as_bytes())
    }
}

fn present(appliance: &Appliance) -> Vec<bool> {
    let pieces = appliance.image().geometry().pieces();
    pieces.map(|piece| appliance.is_present(piece)).collect()
}

/// Microseconds as seconds.
fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
pub(crate) mod samples;
