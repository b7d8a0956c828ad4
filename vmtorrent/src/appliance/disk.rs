//! One file of an image as its guest sees it: the overlay over the pristine copy over the swarm.
//!
//! Invariant: a read gives what the guest last wrote, and where it wrote nothing, verified bytes of
//! the image; the pristine copy is never written from here.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tracing::Span;
use vmtorrent_platform::ZeroMode;

use super::counters::{Counters, OPERATIONS};
use super::run::Run;
use super::trace::Trace;
use crate::clock::{SystemClock, Time};
use crate::error::{Error, ErrorKind, Result};
use crate::events::Event;
use crate::image::{Image, ImageFile, PieceClass, PieceIndex};
use crate::log_limit::LogLimit;
use crate::overlay::{
    ExtentKind, Extents, Fill as BaseFill, LazyOverlay, StateDirectory, WriteOutcome,
};
use crate::picker::Readahead;
use crate::pristine::{Pristine, ReadOutcome, TryRead};
use crate::swarm::Swarm;

/// What the disks of an appliance have in common.
#[derive(Clone)]
pub(crate) struct DiskShared {
    /// The state's lock is held for as long as anybody can write to the overlay.
    pub(crate) state: Arc<StateDirectory>,
    pub(crate) pristine: Arc<Pristine>,
    pub(crate) swarm: Arc<Swarm>,
    pub(crate) runtime: Handle,
    pub(crate) clock: SystemClock,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) counters: Arc<Counters>,
    /// What is recorded of the guest's reads, and foretold.
    pub(crate) run: Arc<Run>,
    pub(crate) events: broadcast::Sender<Event>,
    /// Names the appliance in the log.
    pub(crate) span: Span,
    /// For each operation, so that no error hides behind one of another.
    pub(crate) log: Arc<[LogLimit; OPERATIONS.len()]>,
}

/// A file of the image.
pub(crate) struct Disk {
    index: usize,
    overlay: Arc<LazyOverlay>,
    pub(super) config: DiskShared,
    pub(super) file: ImageFile,
    /// Flushes wait here for their turn, and not in the threads that stores and reads of all machines need.
    pub(super) flushing: Arc<tokio::sync::Mutex<()>>,
    /// What tells of its reads, if somebody wants that.
    pub(super) trace: Option<Arc<Trace>>,
    readahead: Mutex<Readahead>,
    /// The neighbourhood that the last read of the pristine copy ended in: reads that stay in it tell readahead nothing.
    last_read: AtomicU64,
    /// Bytes of the image's file that are not known to be zeros.
    pub(super) base_data: u64,
    pub(super) modified: Mutex<SystemTime>,
}

/// How often a read begins anew because a piece that was here turned out damaged, beside once for each of its pieces.
const ATTEMPTS: u32 = 16;

impl Disk {
    /// Opens file `index` of the image. Waits for the disk.
    pub(crate) fn open(
        index: usize,
        config: DiskShared,
        trace: Option<Arc<Trace>>,
    ) -> Result<Self> {
        let image = config.pristine.image();
        let file = image.files()[index].clone();
        let base_data = data_bytes(image, &file);
        Ok(Self {
            index,
            overlay: config.state.overlay(index)?,
            config,
            file,
            flushing: Arc::default(),
            trace,
            readahead: Mutex::new(Readahead::new()),
            last_read: AtomicU64::new(u64::MAX),
            base_data,
            modified: Mutex::new(SystemTime::now()),
        })
    }

    pub(super) fn overlay(&self) -> &LazyOverlay {
        &self.overlay
    }

    /// Whether the guest ever changed the file.
    pub(super) fn is_changed(&self) -> bool {
        self.overlay.is_made()
    }

    pub(super) fn image(&self) -> &Image {
        self.config.pristine.image()
    }

    /// Clips a read to the end of the file, which may move at any time.
    fn clip(&self, offset: u64, length: usize) -> usize {
        let left = self.overlay().len().saturating_sub(offset);
        (length as u64).min(left) as usize
    }

    /// Where the bytes of a range of the file are, as far as it lies inside the file, and how many they are. Both are
    /// of one moment, in case the file is cut meanwhile.
    fn extents(&self, offset: u64, length: usize) -> (Extents, usize) {
        let range = offset..offset.saturating_add(length as u64);
        let extents = self.overlay().extents(range);
        let end = extents.last().map_or(offset, |extent| extent.range.end);
        (extents, (end - offset) as usize)
    }

    /// Fills `buffer` up to the end of the file if that is possible without waiting, and gives where the bytes were and
    /// how many.
    pub(super) fn read_present(
        &self,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<(Extents, usize)>> {
        let (extents, length) = self.extents(offset, buffer.len());
        for extent in &extents {
            let part = part_of(buffer, offset, &extent.range);
            let present = match extent.kind {
                ExtentKind::Zero => {
                    part.fill(0);
                    true
                }
                ExtentKind::Data => self.overlay().read_data(extent.range.start, part, true)?,
                ExtentKind::Base => {
                    let base = self.in_image(&extent.range);
                    self.config.pristine.try_read(base.start, part)? == TryRead::Done
                }
            };
            if !present {
                return Ok(None);
            }
        }
        Ok(Some((extents, length)))
    }

    /// Whether no piece of a range is missing.
    pub(super) fn is_here(&self, offset: u64, length: usize) -> bool {
        let (extents, _) = self.extents(offset, length);
        let mut bases = extents.iter().filter(|e| e.kind == ExtentKind::Base);
        bases.all(|base| {
            let range = self.in_image(&base.range);
            self.config.pristine.missing_in(range).is_empty()
        })
    }

    /// Fills `buffer` up to the end of the file, waiting for the disk, and gives where the bytes were and how many; `None`
    /// when a piece is missing after all.
    pub(super) fn read_blocking(
        &self,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<(Extents, usize)>> {
        let (extents, length) = self.extents(offset, buffer.len());
        for extent in &extents {
            let part = part_of(buffer, offset, &extent.range);
            match extent.kind {
                ExtentKind::Zero => part.fill(0),
                ExtentKind::Data => {
                    self.overlay().read_data(extent.range.start, part, false)?;
                }
                ExtentKind::Base => {
                    let base = self.in_image(&extent.range);
                    if !self.read_base_blocking(base, part)? {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some((extents, length)))
    }

    fn read_base_blocking(&self, base: Range<u64>, part: &mut [u8]) -> Result<bool> {
        match self.config.pristine.read(base.start, part)? {
            ReadOutcome::Done => Ok(true),
            ReadOutcome::Missing(piece) => {
                // It was had when the read began: what is stored is damaged.
                self.config.swarm.damaged(piece);
                Ok(false)
            }
        }
    }

    /// Reads, waiting for the swarm and the disk.
    pub(super) async fn read_waiting(self: Arc<Self>, offset: u64, length: usize) -> Result<Bytes> {
        let deadline = self
            .config
            .read_timeout
            .map(|t| self.config.clock.now() + t);
        // Each time one of them is found damaged, and all may be.
        let piece = self.image().geometry().nominal_piece_length() as usize;
        let pieces = u32::try_from(length / piece.max(1)).unwrap_or(u32::MAX);
        for attempt in 0..ATTEMPTS.saturating_add(pieces) {
            let length = self.clip(offset, length);
            if length == 0 {
                return Ok(Bytes::new());
            }
            let range = offset..offset + length as u64;
            let bases = self.bases_in(range);
            let missing = self.missing_in(&bases);
            let missed = !missing.is_empty();
            let waiting = self.wait_for(missing, offset, deadline);
            if attempt == 0 {
                for base in &bases {
                    self.note_read(base, missed);
                }
            }
            waiting.await?;
            let mut buffer = BytesMut::zeroed(length);
            let mut found = self.read_present(offset, &mut buffer)?;
            if found.is_none() {
                let disk = self.clone();
                (found, buffer) = self
                    .blocking(move || disk.read_blocking(offset, &mut buffer).map(|d| (d, buffer)))
                    .await?;
            }
            if let Some((_, length)) = found {
                buffer.truncate(length);
                self.config.counters.read(length);
                return Ok(buffer.freeze());
            }
        }
        Err(self.error(
            ErrorKind::Corrupt,
            offset,
            "local data keeps turning out damaged: check the disk",
        ))
    }

    /// The parts of a range of the file that show the pristine copy.
    pub(super) fn bases_in(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let extents = self.overlay().extents(range).into_iter();
        extents
            .filter(|e| e.kind == ExtentKind::Base)
            .map(|e| e.range)
            .collect()
    }

    /// The pieces of these ranges of the file that are not here, each once.
    pub(super) fn missing_in(&self, ranges: &[Range<u64>]) -> Vec<PieceIndex> {
        let mut missing: Vec<PieceIndex> = Vec::new();
        for range in ranges {
            missing.extend(self.config.pristine.missing_in(self.in_image(range)));
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Asks for these pieces at once; the future waits until all are here.
    fn wait_for<'a>(
        &'a self,
        missing: Vec<PieceIndex>,
        offset: u64,
        deadline: Option<Time>,
    ) -> impl Future<Output = Result<()>> + Send + use<'a> {
        let asked = (!missing.is_empty()).then(|| {
            let began = self.config.clock.now();
            let stall = Stall::begin(&self.config, began);
            (began, stall, self.config.swarm.demand(&missing))
        });
        async move {
            let Some((began, stall, ready)) = asked else {
                return Ok(());
            };
            let outcome = match deadline {
                None => Ok(ready.await),
                Some(deadline) => tokio::time::timeout(deadline.since(began), ready).await,
            };
            drop(stall);
            match outcome {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => {
                    Err(self.error(ErrorKind::Closed, offset, "the appliance was shut down"))
                }
                Err(_) => Err(self.timed_out(offset)),
            }
        }
    }

    /// Tells of a read that waited too long.
    fn timed_out(&self, offset: u64) -> Error {
        self.config.counters.read_timed_out();
        let peers = self.config.swarm.peer_count() as u32;
        // Nobody may be listening.
        let _ = self.config.events.send(Event::ReadTimedOut {
            file: self.index,
            offset,
            peers,
        });
        let why = match self.config.swarm.storage_error() {
            Some(reason) => format!("what came could not be stored: {reason}; free some space"),
            None if peers == 0 => {
                "no peer is connected: is anybody seeding? Name one with the option `peer`"
                    .to_owned()
            }
            None => format!(
                "{peers} peers did not deliver it in time: are they slow, or lack it? A larger \
                 option `read-timeout` waits longer"
            ),
        };
        self.error(ErrorKind::TimedOut, offset, &why)
    }

    /// Reads parts of the base that a write needs around its edges.
    async fn read_bases(self: &Arc<Self>, ranges: &[Range<u64>]) -> Result<Vec<BaseFill>> {
        let deadline = self
            .config
            .read_timeout
            .map(|t| self.config.clock.now() + t);
        let mut fills = Vec::with_capacity(ranges.len());
        for range in ranges {
            fills.push(self.read_base(range.clone(), deadline).await?);
        }
        Ok(fills)
    }

    async fn read_base(
        self: &Arc<Self>,
        range: Range<u64>,
        deadline: Option<Time>,
    ) -> Result<BaseFill> {
        for _ in 0..ATTEMPTS {
            let missing = self.missing_in(std::slice::from_ref(&range));
            let missed = !missing.is_empty();
            let waiting = self.wait_for(missing, range.start, deadline);
            self.config.run.reads(self.index, &range, missed);
            waiting.await?;
            let disk = self.clone();
            let base = self.in_image(&range);
            let (done, data) = self
                .blocking(move || {
                    let mut data = vec![0; (base.end - base.start) as usize];
                    disk.read_base_blocking(base, &mut data)
                        .map(|done| (done, data))
                })
                .await?;
            if done {
                return Ok(BaseFill {
                    offset: range.start,
                    bytes: data.into(),
                });
            }
        }
        let why = "local data keeps turning out damaged: check the disk";
        Err(self.error(ErrorKind::Corrupt, range.start, why))
    }

    /// The parts of the base that a write needs, if all of them are present.
    pub(super) fn bases_present(&self, ranges: &[Range<u64>]) -> Result<Option<Vec<BaseFill>>> {
        let mut fills = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mut data = vec![0; (range.end - range.start) as usize];
            let base = self.in_image(range);
            if self.config.pristine.try_read(base.start, &mut data)? != TryRead::Done {
                return Ok(None);
            }
            fills.push(BaseFill {
                offset: range.start,
                bytes: data.into(),
            });
            self.config.run.reads(self.index, range, false);
        }
        Ok(Some(fills))
    }

    pub(super) async fn write_waiting(self: Arc<Self>, offset: u64, data: Bytes) -> Result<()> {
        let mut fills = Vec::new();
        loop {
            let disk = self.clone();
            let bytes = data.clone();
            let outcome = self
                .blocking(move || disk.overlay().write(offset, &bytes, &fills))
                .await?;
            match outcome {
                WriteOutcome::Done => {
                    self.wrote(data.len());
                    return Ok(());
                }
                WriteOutcome::NeedsBase(ranges) => fills = self.read_bases(&ranges).await?,
            }
        }
    }

    pub(super) async fn zero_waiting(
        self: Arc<Self>,
        offset: u64,
        length: u64,
        mode: ZeroMode,
    ) -> Result<()> {
        let end = offset.checked_add(length).ok_or_else(|| {
            self.error(
                ErrorKind::InvalidInput,
                offset,
                "the range ends behind the largest offset",
            )
        })?;
        let len = self.overlay().len();
        let grows = mode == (ZeroMode::Zero { keep_size: false });
        let end = if grows { end } else { end.min(len) };
        if offset >= end {
            return Ok(());
        }
        let mut fills = Vec::new();
        loop {
            let disk = self.clone();
            let outcome = self
                .blocking(move || disk.overlay().zero(offset, end - offset, mode, &fills))
                .await?;
            match outcome {
                WriteOutcome::Done => {
                    self.config.counters.discarded(end - offset);
                    self.touch_time();
                    return Ok(());
                }
                WriteOutcome::NeedsBase(ranges) => fills = self.read_bases(&ranges).await?,
            }
        }
    }

    /// Tells readahead and the counters of a read that reached the pristine copy.
    pub(super) fn note_read(&self, range: &Range<u64>, missed: bool) {
        if range.start >= range.end {
            return;
        }
        let in_image = self.in_image(range);
        self.config.counters.touch(in_image.clone());
        let guess = self.config.run.reads(self.index, range, missed);
        // There is nothing to read ahead.
        if !guess || (!missed && self.config.pristine.is_complete()) {
            return;
        }
        let piece = u64::from(self.image().geometry().nominal_piece_length());
        let neighbourhood = in_image.end.saturating_sub(1) / piece.max(Readahead::NEIGHBOURHOOD);
        // Mostly it is the same: a plain load spares the write.
        if self.last_read.load(Ordering::Relaxed) != neighbourhood {
            self.last_read.store(neighbourhood, Ordering::Relaxed);
        } else if !missed {
            return;
        }
        let missing = |range: &Range<u64>| {
            let range = range.start..range.end.min(self.file.length);
            if range.is_empty() {
                return Vec::new();
            }
            self.config.pristine.missing_in(self.in_image(&range))
        };
        let any_missing = |range: &Range<u64>| !missing(range).is_empty();
        let ahead = self
            .readahead
            .lock()
            .on_read(range.clone(), piece, any_missing);
        let mut pieces: Vec<PieceIndex> = ahead.iter().flat_map(missing).collect();
        pieces.dedup();
        if !pieces.is_empty() {
            self.config.swarm.read_ahead(&pieces);
        }
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.config.counters.written(bytes);
        self.touch_time();
    }

    pub(super) fn touch_time(&self) {
        *self.modified.lock() = SystemTime::now();
    }

    pub(super) fn in_image(&self, range: &Range<u64>) -> Range<u64> {
        self.file.offset + range.start..self.file.offset + range.end
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self.config.runtime.spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(crate::session::ended(error)),
        }
    }

    fn error(&self, kind: ErrorKind, offset: u64, why: &str) -> Error {
        let name = self.file.path.join("/");
        Error::new(kind, format!("{name} at offset {offset}: {why}"))
    }
}

/// Runs the stall clock while it lives.
struct Stall<'a> {
    config: &'a DiskShared,
    began: Time,
}

impl<'a> Stall<'a> {
    fn begin(config: &'a DiskShared, began: Time) -> Self {
        config.counters.stall_begins(began);
        Self { config, began }
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        self.config
            .counters
            .stall_ends(self.config.clock.now(), self.began);
    }
}

/// Bytes of a file that lie in pieces that are not all zeros.
fn data_bytes(image: &Image, file: &ImageFile) -> u64 {
    let geometry = image.geometry();
    let range = file.offset..file.offset + file.length;
    let zeros: u64 = geometry
        .pieces_in(range.clone())
        .map(PieceIndex)
        .filter(|p| image.piece_class(*p) == PieceClass::Zero)
        .map(|p| {
            let piece = geometry.piece_range(p);
            piece.end.min(range.end) - piece.start.max(range.start)
        })
        .sum();
    file.length - zeros
}

/// The part of a buffer, which stands for the bytes from `offset`, that an extent covers.
fn part_of<'a>(buffer: &'a mut [u8], offset: u64, range: &Range<u64>) -> &'a mut [u8] {
    &mut buffer[(range.start - offset) as usize..(range.end - offset) as usize]
}
