//! Where a run is written to, and given to peers. Invariant: at no time is there half a profile, and what is there is a
//! few seconds old at most while the guest reads, unless to write it takes long.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::exchange::Exchange;
use super::run::Run;
use crate::error::Result;
use crate::profile::{KeptProfiles, Known};
use crate::whole_file;

/// How often a run is written, if it has read anything new.
const EVERY: Duration = Duration::from_secs(5);
/// A run that reads very much takes long to write: how much longer it then rests.
const REST: u32 = 10;

/// The files that a run is written to.
pub(crate) struct Recording {
    run: Arc<Run>,
    /// Named by the user.
    file: Option<PathBuf>,
    /// The host's own.
    kept: Option<KeptProfiles>,
    /// Peers that may have it.
    exchange: Option<Arc<Exchange>>,
    /// What was written last; held while it is written.
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    known: Option<Known>,
    /// The host's own file could not be written, which was said.
    kept_fails: bool,
}

impl Recording {
    pub(crate) fn new(
        run: Arc<Run>,
        file: Option<PathBuf>,
        kept: Option<KeptProfiles>,
        exchange: Option<Arc<Exchange>>,
    ) -> Self {
        Self {
            run,
            file,
            kept,
            exchange,
            written: Mutex::default(),
        }
    }

    /// Makes the file that the user named, to learn at once whether that is possible. What it holds stays until the run
    /// is written: the launch may yet fail. Waits for the disk.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub(crate) fn open(&self) -> Result<()> {
        match &self.file {
            Some(file) if file.exists() => whole_file::check(file),
            Some(file) => self.run.profile().save(file),
            None => Ok(()),
        }
    }

    /// Writes what is known, if that is more than before. Waits for the disk.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub(crate) fn write(&self) -> Result<()> {
        let offered = self.exchange.as_ref().is_some_and(|e| e.takes_runs());
        if self.file.is_none() && self.kept.is_none() && !offered {
            // Looking at what was read costs as much as reading it.
            return Ok(());
        }
        let mut written = self.written.lock();
        let known = Some(self.run.look());
        if known == written.known {
            return Ok(());
        }
        let profile = self.run.profile();
        if let Some(exchange) = &self.exchange {
            exchange.renew(&self.run, &profile);
        }
        if let Some(kept) = &self.kept {
            let outcome = kept.write(&profile);
            let failed_before = std::mem::replace(&mut written.kept_fails, outcome.is_err());
            if let Err(error) = outcome
                && !failed_before
            {
                // Nobody asked for it.
                tracing::warn!(%error, "the profile of this launch is not kept for the next one");
            }
        }
        if let Some(file) = &self.file {
            profile.save(file)?;
        }
        written.known = known;
        Ok(())
    }

    /// Writes every few seconds for as long as the recording lives.
    pub(crate) async fn keep_writing(recording: Weak<Self>, runtime: Handle) {
        let mut failing = false;
        let mut pause = EVERY;
        loop {
            tokio::time::sleep(pause).await;
            let Some(recording) = recording.upgrade() else {
                return;
            };
            let write = move || {
                let began = recording.run.time();
                let written = recording.write();
                (written, recording.run.time().saturating_sub(began))
            };
            let Ok((written, took)) = runtime.spawn_blocking(write).await else {
                return;
            };
            pause = EVERY.max(took * REST);
            match written {
                Ok(()) => failing = false,
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::error!(%error, "the run is not recorded at the moment; it is tried again");
                }
                Err(_) => {}
            }
        }
    }
}
