//! One virtual machine's view of an image: its disks, its mount, its figures.
//!
//! Invariant: an appliance owns its state directory (nobody else writes there while it lives), and
//! the mount is gone before the state is.

mod block_file;
mod counters;
mod direct;
mod disk;
mod exchange;
mod extents;
mod guest_error;
mod looks;
mod recording;
mod run;
mod trace;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span};
use vmtorrent_platform::fuse::{Mount, MountOptions, mount};
use vmtorrent_platform::{BlockFile, TreeVolume, ZeroMode};

pub(crate) use self::counters::{Counters, GuestFigures, OPERATIONS, WaitFigures};
use self::disk::{Disk, DiskShared};
use self::exchange::Exchange;
pub use self::extents::{FileExtent, FileExtentKind};
use self::recording::Recording;
use self::run::Run;
use self::trace::Trace;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Event;
use crate::image::{Image, ImageFile};
use crate::metrics::ApplianceEntry;
use crate::options::ApplianceOptions;
use crate::overlay::StateDirectory;
use crate::profile::{KeptProfiles, Profile};
use crate::session::{Member, Session, Shared, ended};
use crate::stats::Stats;
use crate::torrent::Torrent;

/// What an appliance is made of.
pub(crate) struct ApplianceParts {
    pub(crate) session: Arc<Shared>,
    pub(crate) member: Member,
    pub(crate) state: StateDirectory,
    pub(crate) options: ApplianceOptions,
    /// What is expected to be read.
    pub(crate) profile: Option<Profile>,
    /// Where the run is kept for later ones.
    pub(crate) kept: Option<KeptProfiles>,
}

/// A running appliance: complete, writable disks over an image that is still on its way.
///
/// Offsets and lengths are bytes, at any alignment. `file` is an index into
/// [`Image::files`]. All calls may be made from any thread and any executor.
///
/// Dropping an appliance unmounts it; what was not flushed may be lost, as with a real machine.
/// [`shutdown`](Appliance::shutdown) flushes first.
pub struct Appliance {
    mount: Mutex<Option<Mount>>,
    directory: Option<PathBuf>,
    disks: Vec<Arc<Disk>>,
    counters: Arc<Counters>,
    run: Arc<Run>,
    recording: Arc<Recording>,
    _recording: AbortOnDropHandle<()>,
    /// Gives peers the profile in use, or asks them for theirs.
    _exchange: Option<AbortOnDropHandle<()>>,
    events: broadcast::Sender<Event>,
    trace: Option<Arc<Trace>>,
    _forwarding: AbortOnDropHandle<()>,
    torrent: Arc<Torrent>,
    state: Arc<StateDirectory>,
    /// Our place among the torrent's users, until it is given up; behind all that uses the torrent.
    member: Option<Member>,
    session: Arc<Shared>,
    /// The session, if it exists for this appliance alone.
    own_session: Mutex<Option<Session>>,
    /// Names the appliance in the log.
    span: Span,
}

impl Appliance {
    pub(crate) async fn start(parts: ApplianceParts) -> Result<Self> {
        let ApplianceParts {
            session,
            member,
            state,
            options,
            profile,
            kept,
        } = parts;
        let torrent = member.torrent().clone();
        let image = torrent.image().clone();
        let counters = Arc::new(Counters::new(image.geometry().total_length()));
        // Before anything else: what it foretells is fetched while the disks are opened and mounted.
        let run = Arc::new(Run::begin(
            session.clock(),
            counters.clone(),
            torrent.pristine(),
            torrent.swarm(),
            profile.as_ref(),
        ));
        let (exchange, exchanging) = match session.exchanges_profiles() {
            true => {
                let (exchange, task) = Exchange::start(&session, &torrent, &run, profile);
                (Some(exchange), Some(task))
            }
            false => (None, None),
        };
        let state = Arc::new(state);
        let name = name_of(state.path());
        let span = tracing::error_span!(parent: torrent.span(), "machine", appliance = name);
        let entry = ApplianceEntry {
            labels: torrent
                .labels()
                .with("appliance", &name)
                .with("state", &state.path().to_string_lossy()),
            counters: Arc::downgrade(&counters),
        };
        {
            let mut appliances = session.appliances.lock();
            appliances.retain(|a| a.counters.strong_count() > 0);
            appliances.push(entry);
        }
        let (events, _) = broadcast::channel(256);
        let forward = forward(torrent.events().subscribe(), events.clone());
        let forwarding = AbortOnDropHandle::new(session.handle().spawn(forward));
        let config = DiskShared {
            state: state.clone(),
            pristine: torrent.pristine().clone(),
            swarm: torrent.swarm().clone(),
            runtime: session.handle().clone(),
            clock: session.clock(),
            read_timeout: options.read_timeout,
            counters: counters.clone(),
            run: run.clone(),
            events: events.clone(),
            span: span.clone(),
            log: Arc::default(),
        };
        let recording = Recording::new(run.clone(), options.record, kept, exchange);
        let recording = Arc::new(recording);
        let opened = recording.clone();
        let trace = options.trace;
        // Opening an overlay waits for the disk.
        let open = move || -> Result<_> {
            opened.open()?;
            let boot = boot_disk(&image).map(|(index, _)| index);
            let trace = trace.map(|path| start_trace(&path, &config)).transpose()?;
            let open_one = |index| {
                let traced = trace.clone().filter(|_| Some(index) == boot);
                Ok(Arc::new(Disk::open(index, config.clone(), traced)?))
            };
            let disks: Result<Vec<Arc<Disk>>> = (0..image.files().len()).map(open_one).collect();
            Ok((disks?, trace))
        };
        let opened = session.handle().spawn_blocking(open).await;
        let (disks, trace) = opened.map_err(ended)??;
        let keep = Recording::keep_writing(Arc::downgrade(&recording), session.handle().clone());
        let keep = AbortOnDropHandle::new(session.handle().spawn(keep.instrument(span.clone())));
        let mut appliance = Self {
            mount: Mutex::new(None),
            directory: None,
            disks,
            counters,
            run,
            recording,
            _recording: keep,
            _exchange: exchanging,
            events,
            trace,
            _forwarding: forwarding,
            torrent,
            state,
            member: Some(member),
            session,
            own_session: Mutex::new(None),
            span,
        };
        if let Some(directory) = options.mount {
            appliance.mount_at(directory, options.allow_other).await?;
        }
        let mount = appliance.directory().map(|d| d.display());
        appliance.span.in_scope(|| {
            let state = appliance.state.path().display();
            tracing::info!(mount = mount.map(tracing::field::display), %state, "ready");
        });
        Ok(appliance)
    }

    async fn mount_at(&mut self, directory: PathBuf, allow_other: bool) -> Result<()> {
        let image = self.torrent.image().clone();
        let files: Vec<(Vec<String>, Arc<dyn BlockFile>)> = image
            .files()
            .iter()
            .zip(&self.disks)
            .filter(|(file, _)| !file.padding)
            .map(|(file, disk)| (file.path.clone(), disk.clone() as Arc<dyn BlockFile>))
            .collect();
        let own_files = self.state.files_dir();
        let options = MountOptions {
            allow_other,
            ..MountOptions::new(self.session.handle().clone(), image.name())
        };
        let at = directory.clone();
        let span = self.span.clone();
        let mounted = self
            .session
            .handle()
            .spawn_blocking(move || -> Result<Mount> {
                let _named = span.enter();
                let volume = TreeVolume::new(files, &own_files)
                    .map_err(|e| Error::io("opening the appliance's own files", e))?;
                Ok(mount(Arc::new(volume), &at, options)?)
            })
            .await
            .map_err(ended)??;
        *self.mount.lock() = Some(mounted);
        self.directory = Some(directory);
        Ok(())
    }

    /// Ties a session to this appliance: it ends with it.
    pub(crate) fn keep_session(&self, session: Session) {
        *self.own_session.lock() = Some(session);
    }

    /// The image.
    pub fn image(&self) -> &Image {
        self.torrent.image()
    }

    /// Where the volume is mounted.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Where the appliance keeps what its guest writes.
    pub fn state_directory(&self) -> &Path {
        self.state.path()
    }

    /// The disk to boot from: the largest file of the image, below the mount point.
    pub fn disk_path(&self) -> Option<PathBuf> {
        let (_, file) = boot_disk(self.torrent.image())?;
        let mut path = self.directory.clone()?;
        path.extend(&file.path);
        Some(path)
    }

    /// The present length of a file, bytes: the guest may have grown or truncated it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is no such file.
    pub fn len(&self, file: usize) -> Result<u64> {
        Ok(self.disk(file)?.len())
    }

    /// Reads `length` bytes from `offset`, waiting for what is missing; fewer only at the end of the file.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] or [`ErrorKind::Io`] when the data can't be had; [`ErrorKind::InvalidInput`] when there is no such file.
    pub async fn read_at(&self, file: usize, offset: u64, length: usize) -> Result<Bytes> {
        let disk = self.disk(file)?;
        let mut buffer = vec![
            0;
            length.min(
                usize::try_from(disk.len().saturating_sub(offset)).unwrap_or(usize::MAX)
            )
        ];
        let read = disk
            .read_at_once(offset, &mut buffer)
            .map_err(|e| disk.told("read", &e))?;
        if let Some(read) = read {
            buffer.truncate(read);
            return Ok(buffer.into());
        }
        let work = disk.clone().read_waiting(offset, length);
        self.run("read", disk, work).await
    }

    /// Writes all of `data` at `offset`, growing the file when needed.
    ///
    /// # Errors
    /// [`ErrorKind::NoSpace`] when the state directory's disk is full, and others as for reading.
    pub async fn write_at(&self, file: usize, offset: u64, data: Bytes) -> Result<()> {
        let disk = self.disk(file)?;
        let work = disk.clone().write_waiting(offset, data);
        self.run("write", disk, work).await
    }

    /// Makes a range read as zeros and gives its storage back.
    ///
    /// # Errors
    /// As for writing.
    pub async fn discard(&self, file: usize, offset: u64, length: u64) -> Result<()> {
        self.zero(file, offset, length, ZeroMode::Discard).await
    }

    /// Makes a range read as zeros; the file grows when the range ends behind it.
    ///
    /// # Errors
    /// As for writing.
    pub async fn write_zeroes(&self, file: usize, offset: u64, length: u64) -> Result<()> {
        self.zero(file, offset, length, ZeroMode::Zero { keep_size: false })
            .await
    }

    async fn zero(&self, file: usize, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        let disk = self.disk(file)?;
        let work = disk.clone().zero_waiting(offset, length, mode);
        self.run("zero", disk, work).await
    }

    /// Grows a file with zeros, or truncates it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is no such file, and what the disk reports.
    pub fn set_len(&self, file: usize, length: u64) -> Result<()> {
        let disk = self.disk(file)?;
        disk.resize(length).map_err(|e| disk.told("set length", &e))
    }

    /// Makes all that was written to a file durable.
    ///
    /// # Errors
    /// What the disk reports; nothing is given up, a later flush tries again.
    pub async fn flush(&self, file: usize) -> Result<()> {
        let disk = self.disk(file)?;
        let work = disk.clone().flush_waiting();
        self.run("flush", disk, work).await
    }

    /// What this appliance has cost so far. Bytes on the network are those of the image, which all
    /// appliances of one session share; reads and stalls are this appliance's own.
    pub fn stats(&self) -> Stats {
        let stalls = self.counters.stalls(self.session.clock().now());
        let (first_reads, expected_reads) = self.run.hits();
        let milliseconds = |d: std::time::Duration| d.as_secs_f64() * 1000.0;
        Stats {
            stalls: stalls.count,
            stall_seconds: stalls.total.as_secs_f64(),
            demand_p50_ms: milliseconds(stalls.median),
            demand_p99_ms: milliseconds(stalls.p99),
            guest_read_bytes: self.counters.read_bytes(),
            guest_written_bytes: self.counters.written_bytes(),
            distinct_read_bytes: self.counters.touched_bytes(),
            first_reads,
            expected_reads,
            ..self.torrent.stats()
        }
    }

    /// What happens from now on. A receiver that falls behind misses the oldest events.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Unmounts, flushes every file, leaves the swarm if nobody else in the session runs the image, and
    /// gives the final figures. The state stays for the next launch, unless it is ephemeral.
    ///
    /// # Errors
    /// When what the guest wrote could not be flushed: it is named, and the state directory still holds
    /// all that an earlier flush had acknowledged. When the file that [`record`](ApplianceOptions::record) names could
    /// not be written at the end.
    pub async fn shutdown(mut self) -> Result<Stats> {
        let mount = self.mount.lock().take();
        // What the guest wrote is flushed even if the mount can't be taken away.
        let mut outcome = match mount {
            None => Ok(()),
            Some(mount) => {
                let unmounted = self
                    .session
                    .handle()
                    .spawn_blocking(|| mount.unmount())
                    .await;
                unmounted
                    .map_err(ended)
                    .and_then(|u| u.map_err(Error::from))
            }
        };
        if let Some(trace) = &self.trace {
            trace.finish().await;
        }
        for file in 0..self.disks.len() {
            if self.disks[file].is_changed() {
                outcome = outcome.and(self.flush(file).await);
            }
        }
        let recording = self.recording.clone();
        let written = self
            .session
            .handle()
            .spawn_blocking(move || recording.write())
            .await;
        outcome = outcome.and(written.map_err(ended).flatten());
        let stats = self.stats();
        self.span.in_scope(|| match &outcome {
            Ok(()) => tracing::info!(
                fetched = stats.fetched_bytes,
                uploaded = stats.uploaded_bytes,
                stalls = stats.stalls,
                "has ended"
            ),
            Err(error) => tracing::error!(%error, "has not ended in order"),
        });
        let own_session = self.own_session.lock().take();
        let member = self.member.take();
        drop(self);
        if let Some(member) = member {
            member.leave().await?;
        }
        if let Some(own) = own_session {
            own.shutdown().await?;
        }
        outcome.map(|()| stats)
    }

    fn disk(&self, file: usize) -> Result<Arc<Disk>> {
        self.disk_of(file).cloned()
    }

    /// The session's.
    pub(crate) fn runtime(&self) -> &Handle {
        self.session.handle()
    }

    pub(crate) fn block_file(&self, file: usize) -> Result<Arc<dyn BlockFile>> {
        Ok(self.disk(file)?)
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        disk: Arc<Disk>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.session
            .run(async move { work.await.map_err(|e| disk.told(operation, &e)) })
            .await
    }
}

/// Hands an image's events to one of its appliances.
async fn forward(mut from: broadcast::Receiver<Event>, to: broadcast::Sender<Event>) {
    loop {
        match from.recv().await {
            Ok(event) => {
                // Nobody may be listening.
                let _ = to.send(event);
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// The largest file of an image, and its index.
pub(crate) fn boot_disk(image: &Image) -> Option<(usize, &ImageFile)> {
    let files = image.files().iter().enumerate();
    files
        .filter(|(_, file)| !file.padding)
        .max_by_key(|(_, file)| file.length)
}

/// Begins the trace of the boot disk. Waits for the disk.
fn start_trace(path: &Path, config: &DiskShared) -> Result<Arc<Trace>> {
    let image = config.pristine.image();
    let Some((_, file)) = boot_disk(image) else {
        let text = format!("{} holds no file that could be traced", image.name());
        return Err(Error::new(ErrorKind::InvalidInput, text));
    };
    let trace = Trace::start(
        path,
        image,
        file,
        config.counters.clone(),
        config.clock,
        &config.runtime,
        &config.span,
    )?;
    Ok(Arc::new(trace))
}

/// The name of an appliance is that of its state directory.
fn name_of(state: &Path) -> String {
    let name = state.file_name().unwrap_or(state.as_os_str());
    name.to_string_lossy().into_owned()
}
