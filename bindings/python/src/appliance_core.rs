//! Invariant: the appliance is there for whoever uses it; what waits for data is sent away when it ends, and it ends
//! only when nobody uses it.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use vmtorrent::image::Image;
use vmtorrent::{Appliance, Stats};

use crate::failure::Failure;
use crate::files::Files;
use crate::options::Settings;
use crate::process::{self, Running};
use crate::session::{Origin, SessionCore};

/// What is read at once, bytes: so much is held in memory for a call that has to wait.
const CHUNK: usize = 1 << 20;

/// What calls that are under way hold on to.
pub(crate) struct ApplianceCore {
    appliance: RwLock<Option<Arc<Appliance>>>,
    users: TaskTracker,
    /// Cancelled when the end begins.
    pub(crate) closing: CancellationToken,
    /// Held while it ends; whether it did.
    ended: Mutex<bool>,
    pub(crate) image: Image,
    pub(crate) files: Files,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) state: PathBuf,
    // Last: it outlives the appliance.
    pub(crate) session: Arc<SessionCore>,
}

/// The right to use the appliance. The count goes down behind the reference.
pub(crate) struct Using {
    appliance: Arc<Appliance>,
    _counted: TaskTrackerToken,
}

impl std::ops::Deref for Using {
    type Target = Appliance;

    fn deref(&self) -> &Appliance {
        &self.appliance
    }
}

impl ApplianceCore {
    /// Starts a session and an appliance in it. When it fails or is given up, the session ends with its last user.
    pub(crate) async fn launch(origin: Origin, settings: Settings) -> Result<Arc<Self>, Failure> {
        let session = SessionCore::start(settings.session).await?;
        let image = session.load(origin, &settings.appliance.peers).await?;
        let appliance = session.get().launch(image, settings.appliance).await?;
        let core = Arc::new(Self {
            image: appliance.image().clone(),
            files: Files::new(appliance.image()),
            directory: appliance.directory().map(Into::into),
            state: appliance.state_directory().into(),
            appliance: RwLock::new(Some(Arc::new(appliance))),
            users: TaskTracker::new(),
            closing: CancellationToken::new(),
            ended: Mutex::new(false),
            session,
        });
        let running: Weak<dyn Running> = Arc::downgrade(&(core.clone() as Arc<dyn Running>));
        process::run(running);
        Ok(core)
    }

    /// Uses the appliance.
    pub(crate) fn enter(&self) -> Result<Using, Failure> {
        self.session.living.check()?;
        let counted = self.users.token();
        let appliance = self.appliance.read().clone();
        Ok(Using {
            appliance: appliance.ok_or_else(|| Failure::closed("appliance"))?,
            _counted: counted,
        })
    }

    /// Waits for something of the swarm, unless the appliance ends meanwhile.
    pub(crate) async fn unless_closing<T>(
        &self,
        work: impl Future<Output = Result<T, vmtorrent::Error>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            done = work => done.map_err(Failure::from),
            () = self.closing.cancelled() => Err(Failure::closed("appliance")),
        }
    }

    /// Fills `buffer` from `offset` of a file, and gives the number of bytes: fewer only at the end of the file.
    pub(crate) async fn read(
        &self,
        file: usize,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Failure> {
        let appliance = self.enter()?;
        let mut done = 0;
        while done < buffer.len() {
            let at = offset_of(offset, done)?;
            let end = buffer.len().min(done + CHUNK);
            let part = &mut buffer[done..end];
            let read = match appliance.try_read_at(file, at, part)? {
                Some(read) => read,
                None => {
                    let waiting = appliance.read_at(file, at, part.len());
                    let data = self.unless_closing(waiting).await?;
                    part[..data.len()].copy_from_slice(&data);
                    data.len()
                }
            };
            done += read;
            if done < end {
                break;
            }
        }
        Ok(done)
    }

    pub(crate) async fn write(&self, file: usize, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let appliance = self.enter()?;
        for (number, part) in data.chunks(CHUNK).enumerate() {
            let at = offset_of(offset, number * CHUNK)?;
            if appliance.try_write_at(file, at, part)?.is_none() {
                let part = Bytes::copy_from_slice(part);
                self.unless_closing(appliance.write_at(file, at, part))
                    .await?;
            }
        }
        Ok(())
    }

    /// Ends it in order: what waits for the swarm is sent away, other calls are waited for, then it is unmounted, every
    /// file is flushed and the swarm is left. Whoever asks second waits for the first and gets `None`. A future that is
    /// dropped breaks it off.
    pub(crate) async fn shutdown(&self) -> Result<Option<Stats>, Failure> {
        let mut ended = self.ended.lock().await;
        if *ended {
            return Ok(None);
        }
        self.closing.cancel();
        let appliance = self.appliance.write().take();
        self.users.close();
        self.users.wait().await;
        let outcome = match appliance.and_then(Arc::into_inner) {
            Some(appliance) => appliance.shutdown().await.map(Some),
            None => Ok(None),
        };
        let closed = self.session.shutdown().await;
        *ended = true;
        // The first failure explains the others.
        let stats = outcome?;
        closed.map(|()| stats)
    }

    /// As [`shutdown`](Self::shutdown), given up after some time.
    pub(crate) async fn shutdown_within(
        &self,
        timeout: Option<Duration>,
    ) -> Result<Option<Stats>, Failure> {
        let Some(time) = timeout else {
            return self.shutdown().await;
        };
        let late = self.session.sleep(time);
        tokio::select! {
            biased;
            ended = self.shutdown() => ended,
            _ = late => Err(Failure::late(time)),
        }
    }

    /// Ends it without a flush, as after a power failure, with its threads gone at the end. Must not be called attached to
    /// the interpreter.
    pub(crate) fn break_off(&self) {
        self.give_up();
        self.session.join();
    }

    /// Lets go of the appliance; it goes with its last user.
    fn give_up(&self) {
        self.closing.cancel();
        drop(self.appliance.write().take());
    }
}

impl Running for ApplianceCore {
    fn break_off(&self) {
        ApplianceCore::break_off(self);
    }
}

impl Drop for ApplianceCore {
    fn drop(&mut self) {
        if self.session.living.is_forked() {
            // The mount and the files are those of another process.
            std::mem::forget(self.appliance.get_mut().take());
        }
    }
}

/// Where the next part lies in the file.
fn offset_of(offset: u64, done: usize) -> Result<u64, Failure> {
    let at = offset.checked_add(done as u64);
    at.ok_or_else(|| Failure::invalid("the range ends behind the largest offset: shorten it"))
}
