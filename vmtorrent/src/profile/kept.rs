//! The profiles of a host's own launches. Invariant: each run writes a file of its own, so that runs at the same time and
//! runs that are killed spoil nothing; at most [`MAX_RUNS`] are kept for an image.

use std::path::{Path, PathBuf};

use super::Profile;
use crate::durable;
use crate::error::{Error, Result};
use crate::image::{Image, InfoHash};

/// Runs of an image that are kept; older ones are forgotten, since what a guest does changes.
const MAX_RUNS: usize = 8;
/// A run that read fewer blocks is no boot, and is neither kept nor given to peers.
pub(crate) const LEAST_BLOCKS: usize = 64;

/// The kept runs of one image: `CACHE/profiles/INFO-HASH/RUN.json`.
#[derive(Clone, Debug)]
pub(crate) struct KeptProfiles {
    directory: PathBuf,
    /// The file of the run that is under way.
    name: String,
}

impl KeptProfiles {
    /// Those in a cache. `now` is the time since 1970, microseconds: later runs have later names.
    pub(crate) fn new(cache: &Path, image: InfoHash, now: u128) -> Self {
        Self {
            directory: cache.join("profiles").join(image.to_string()),
            name: format!("{now:020}-{}.json", std::process::id()),
        }
    }

    /// All kept runs in one profile; `None` when there are none. A file that is no profile of the image is passed over
    /// with a warning. Waits for the disk.
    pub(crate) fn read(&self, image: &Image) -> Option<Profile> {
        let mut all: Option<Profile> = None;
        for path in self.runs() {
            let added = Profile::load(&path).and_then(|run| match &mut all {
                None => Profile::for_image(image, &run).map(|run| all = Some(run)),
                Some(all) => all.merge(&run),
            });
            if let Err(error) = added {
                let path = path.display();
                tracing::warn!(%error, %path, "the profile of an earlier launch is left out");
            }
        }
        all
    }

    /// Writes the run that is under way, and forgets the oldest ones. Waits for the disk.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub(crate) fn write(&self, run: &Profile) -> Result<()> {
        if run.block_count() < LEAST_BLOCKS {
            return Ok(());
        }
        let directory = &self.directory;
        let path = directory.join(&self.name);
        let newer = self.runs().into_iter().filter(|other| *other > path);
        if newer.count() >= MAX_RUNS {
            // Of many machines that run at a time, the last ones are kept.
            return Ok(());
        }
        durable::create_directories(directory)
            .map_err(|e| Error::io(format!("making the directory {}", directory.display()), e))?;
        run.save(&path)?;
        let runs = self.runs();
        let Some(oldest) = runs.iter().rev().nth(MAX_RUNS - 1) else {
            return Ok(());
        };
        // With what launches that were killed left half written.
        for old in self.entries().iter().filter(|path| *path < oldest) {
            // Another process may have been faster.
            let _ = std::fs::remove_file(old);
        }
        Ok(())
    }

    /// The files of the runs, oldest first.
    fn runs(&self) -> Vec<PathBuf> {
        let mut paths = self.entries();
        paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
        paths
    }

    /// All that lies beside them too, in the order of names.
    fn entries(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.directory);
        let mut paths: Vec<PathBuf> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        paths.sort();
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Access, BLOCK};
    use super::*;
    use crate::test_image::image_of;

    #[test]
    fn the_last_runs_are_kept_and_what_is_no_run_is_passed_over() {
        let cache = tempfile::tempdir().unwrap();
        let image = image_of(&vec![7; 100 * BLOCK as usize], 64 << 10);
        let kept = |now| KeptProfiles::new(cache.path(), image.info_hash(), now);
        assert_eq!(kept(0).read(&image), None);
        let mut run = Profile::new(&image);
        run.runs = 1;
        run.files[0].blocks.insert(0, Access::once(0, None));
        // Too short to be kept.
        kept(1).write(&run).unwrap();
        assert_eq!(kept(0).read(&image), None);
        for block in 0..LEAST_BLOCKS as u32 {
            run.files[0].blocks.insert(block, Access::once(9, None));
        }
        for now in 1..=12 {
            kept(now).write(&run).unwrap();
            kept(now).write(&run).unwrap();
            // It was killed while it wrote, as it is not often.
            let half = kept(now).directory.join(format!("{}.new", kept(now).name));
            std::fs::write(half, "{").unwrap();
        }
        let left = std::fs::read_dir(kept(0).directory).unwrap().count();
        assert!(left <= 2 * MAX_RUNS, "{left} files");
        kept(2).write(&run).unwrap();
        assert!(!kept(2).directory.join(kept(2).name).exists());
        assert_eq!(kept(0).read(&image).unwrap().runs(), MAX_RUNS as u32);
        std::fs::write(kept(0).directory.join("0.json"), "{").unwrap();
        assert_eq!(kept(0).read(&image).unwrap().runs(), MAX_RUNS as u32);
    }
}
