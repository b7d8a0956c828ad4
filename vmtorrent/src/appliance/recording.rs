//! Where a run is written to, and given to peers. Invariant: at no time is there half a profile, and what is there is a few seconds old at
//! most while the guest reads.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::exchange::Exchange;
use super::run::Run;
use crate::error::Result;
use crate::pristine::Pristine;
use crate::profile::KeptProfiles;

/// How often a run is written, if it has read anything new.
const EVERY: Duration = Duration::from_secs(5);

/// The files that a run is written to.
pub(crate) struct Recording {
    run: Arc<Run>,
    pristine: Arc<Pristine>,
    /// Named by the user.
    file: Option<PathBuf>,
    /// The host's own.
    kept: Option<KeptProfiles>,
    /// Peers that may have it.
    exchange: Option<Arc<Exchange>>,
    /// Blocks that were noted when it was written last; held while it is written.
    written: Mutex<usize>,
}

impl Recording {
    pub(crate) fn new(
        run: Arc<Run>,
        pristine: Arc<Pristine>,
        file: Option<PathBuf>,
        kept: Option<KeptProfiles>,
        exchange: Option<Arc<Exchange>>,
    ) -> Self {
        Self {
            run,
            pristine,
            file,
            kept,
            exchange,
            written: Mutex::new(0),
        }
    }

    /// Writes the file that the user named, to learn at once whether that is possible. Waits for the disk.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub(crate) fn open(&self) -> Result<()> {
        match &self.file {
            Some(file) => self.run.profile(&self.pristine).save(file),
            None => Ok(()),
        }
    }

    /// Writes what was noted, if that is more than before. Waits for the disk.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub(crate) fn write(&self) -> Result<()> {
        let mut written = self.written.lock();
        let noted = self.run.noted();
        if noted == *written {
            return Ok(());
        }
        let profile = self.run.profile(&self.pristine);
        if let Some(exchange) = &self.exchange {
            exchange.renew(&self.run, &profile);
        }
        if let Some(kept) = &self.kept
            && let Err(error) = kept.write(&profile)
        {
            // Nobody asked for it.
            tracing::warn!(%error, "the profile of this launch is not kept for the next one");
        }
        if let Some(file) = &self.file {
            profile.save(file)?;
        }
        *written = noted;
        Ok(())
    }

    /// Writes every few seconds for as long as the recording lives.
    pub(crate) async fn keep_writing(recording: Weak<Self>, runtime: Handle) {
        let mut failing = false;
        loop {
            tokio::time::sleep(EVERY).await;
            let Some(recording) = recording.upgrade() else {
                return;
            };
            let written = runtime.spawn_blocking(move || recording.write()).await;
            match written {
                Ok(Ok(())) => failing = false,
                Ok(Err(error)) if !std::mem::replace(&mut failing, true) => {
                    tracing::error!(%error, "the run is not recorded at the moment; it is tried again");
                }
                Ok(Err(_)) => {}
                Err(_) => return,
            }
        }
    }
}
