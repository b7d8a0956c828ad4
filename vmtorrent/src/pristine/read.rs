//! Invariant: every piece of a range was verified before the first of its bytes is read, and none went away before the
//! last of them was.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use smallvec::SmallVec;
use vmtorrent_platform::Errno;

use super::{PieceState, Pristine};
use crate::image::{PieceClass, PieceIndex};
use crate::{Error, ErrorKind, Result};

/// What [`Pristine::try_read`] found. The buffer is defined only for `Done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum TryRead {
    /// The buffer is filled.
    Done,
    /// All is there, but the page cache does not hold it, or it could not be read: [`Pristine::read`] waits for the disk.
    Cold,
    /// Nothing is missing, but this piece was not verified yet: [`Pristine::verify`] or [`Pristine::read`] do it.
    Unverified(PieceIndex),
    /// This canonical piece is missing, the first of the range.
    Missing(PieceIndex),
}

/// What [`Pristine::read`] found. The buffer is defined only for `Done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum ReadOutcome {
    /// The buffer is filled.
    Done,
    /// This canonical piece is missing, the first of the range.
    Missing(PieceIndex),
}

/// Where some bytes are kept.
enum Source {
    /// Nowhere: they are zeros.
    Zeros,
    /// On the disk, at this offset of the image.
    Disk(u64),
    /// In memory.
    Memory(Bytes),
}

/// Bytes that lie together where they are kept.
struct Run {
    source: Source,
    length: usize,
}

/// How often a range is read again whose pieces went away meanwhile, or that the disk fails to read.
const LOOKS: u32 = 100;

impl Pristine {
    /// Reads from the image if that needs neither the network nor the disk.
    ///
    /// # Errors
    /// `InvalidInput` when the range is not inside the image; else what the disk reports.
    pub(crate) fn try_read(&self, offset: u64, buffer: &mut [u8]) -> Result<TryRead> {
        let range = self.check_range(offset, buffer.len())?;
        let evictions = self.evictions.load(Ordering::SeqCst);
        if let Some(obstacle) = self.obstacle(&range) {
            return Ok(obstacle);
        }
        let copied = match self.copy(&range, buffer, true) {
            Err(error) if is_damage(&error) => false,
            // It may have looked for a piece where it was no longer.
            Err(_) if self.evictions.load(Ordering::SeqCst) != evictions => false,
            copied => copied?,
        };
        if copied && self.evictions.load(Ordering::SeqCst) == evictions {
            self.touch(&range);
            Ok(TryRead::Done)
        } else {
            Ok(TryRead::Cold)
        }
    }

    /// Reads from the image what is there, waiting for the disk and verifying pieces where that is due. Blocks.
    ///
    /// A piece that the disk can't read any more is missing from then on.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<ReadOutcome> {
        let range = self.check_range(offset, buffer.len())?;
        let mut looks = 0;
        loop {
            let evictions = self.evictions.load(Ordering::SeqCst);
            match self.obstacle(&range) {
                Some(TryRead::Missing(piece)) => return Ok(ReadOutcome::Missing(piece)),
                Some(TryRead::Unverified(piece)) => {
                    self.verify(piece)?;
                    continue;
                }
                Some(TryRead::Done | TryRead::Cold) | None => {}
            }
            looks += 1;
            match self.copy(&range, buffer, false) {
                Ok(true) if self.evictions.load(Ordering::SeqCst) == evictions => {
                    self.touch(&range);
                    return Ok(ReadOutcome::Done);
                }
                // A piece went away, or is on its way.
                Ok(_) if looks < LOOKS => std::thread::yield_now(),
                Ok(_) => return Ok(ReadOutcome::Missing(self.first_piece(&range))),
                Err(_) if looks < LOOKS && self.evictions.load(Ordering::SeqCst) != evictions => {
                    std::thread::yield_now();
                }
                Err(error) if is_damage(&error) && looks < LOOKS => self.distrust(&range),
                Err(error) => return Err(error),
            }
        }
    }

    fn first_piece(&self, range: &Range<u64>) -> PieceIndex {
        let mut pieces = self.image.geometry().pieces_in(range.clone());
        let first = pieces.next().map_or(PieceIndex(0), PieceIndex);
        self.image.canonical(first)
    }

    /// Has the pieces of a range verified again that are on the disk: some of it can't be read, or was not written.
    pub(super) fn distrust(&self, range: &Range<u64>) {
        for piece in self.image.geometry().pieces_in(range.clone()) {
            let piece = self.image.canonical(PieceIndex(piece));
            let _claim = self.claims.take(piece);
            let mut states = self.states.write();
            let is_unique = self.image.piece_class(piece) == PieceClass::Unique;
            if is_unique && states.is_on_disk(piece) {
                states.set(piece, PieceState::Unverified);
            }
        }
    }

    fn check_range(&self, offset: u64, length: usize) -> Result<Range<u64>> {
        let total = self.image.geometry().total_length();
        match offset.checked_add(length as u64) {
            Some(end) if end <= total => Ok(offset..end),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{length} bytes at offset {offset} are not inside {} ({total} bytes)",
                    self.image.name()
                ),
            )),
        }
    }

    /// The first missing piece, or else the first unverified one.
    fn obstacle(&self, range: &Range<u64>) -> Option<TryRead> {
        let states = self.states.read();
        let mut unverified = None;
        for piece in self.image.geometry().pieces_in(range.clone()) {
            let piece = PieceIndex(piece);
            match states.get(piece) {
                PieceState::Verified => {}
                PieceState::Unverified => {
                    unverified.get_or_insert(TryRead::Unverified(self.image.canonical(piece)));
                }
                PieceState::Missing => {
                    return Some(TryRead::Missing(self.image.canonical(piece)));
                }
            }
        }
        unverified
    }

    /// Where the bytes of `range` are kept. Neighbours that lie together make one run. `None` when a piece in memory
    /// is just going.
    fn runs(&self, range: &Range<u64>) -> Option<SmallVec<[Run; 4]>> {
        let geometry = self.image.geometry();
        let some_held = self.held_pieces.load(Ordering::SeqCst) > 0;
        let mut runs = SmallVec::<[Run; 4]>::new();
        for piece in geometry.pieces_in(range.clone()).map(PieceIndex) {
            let bytes = geometry.piece_range(piece);
            let start = bytes.start.max(range.start);
            let length = (bytes.end.min(range.end) - start) as usize;
            let skip = start - bytes.start;
            let canonical = self.image.canonical(piece);
            let source = match self.image.piece_class(piece) {
                PieceClass::Zero => Source::Zeros,
                _ if some_held && self.states.read().is_in_memory(canonical) => {
                    let held = self.held.lock().get(canonical)?;
                    let skip = skip as usize;
                    Source::Memory(held.slice(skip..skip + length))
                }
                PieceClass::Unique => Source::Disk(start),
                PieceClass::DuplicateOf(canonical) => {
                    Source::Disk(geometry.piece_offset(canonical) + skip)
                }
            };
            match (runs.last_mut(), &source) {
                (Some(last), Source::Zeros) if matches!(last.source, Source::Zeros) => {
                    last.length += length;
                }
                (
                    Some(Run {
                        source: Source::Disk(from),
                        length: before,
                    }),
                    Source::Disk(at),
                ) if *from + *before as u64 == *at => *before += length,
                _ => runs.push(Run { source, length }),
            }
        }
        Some(runs)
    }

    /// Whether every byte of `range` is kept in its own place on the disk, as nearly all are.
    fn is_in_place(&self, range: &Range<u64>) -> bool {
        let mut pieces = self.image.geometry().pieces_in(range.clone());
        self.held_pieces.load(Ordering::SeqCst) == 0
            && pieces.all(|p| self.image.piece_class(PieceIndex(p)) == PieceClass::Unique)
    }

    /// Fills `buffer`; `false` when the page cache does not hold all of it, or a piece is just going.
    fn copy(&self, range: &Range<u64>, buffer: &mut [u8], nowait: bool) -> Result<bool> {
        if self.is_in_place(range) {
            return self.copy_from_disk(range.start, buffer, nowait);
        }
        let mut rest = buffer;
        let Some(runs) = self.runs(range) else {
            return Ok(false);
        };
        for run in runs {
            let (part, tail) = rest.split_at_mut(run.length);
            rest = tail;
            let source = match run.source {
                Source::Zeros => {
                    part.fill(0);
                    continue;
                }
                Source::Memory(bytes) => {
                    part.copy_from_slice(&bytes);
                    continue;
                }
                Source::Disk(source) => source,
            };
            if !self.copy_from_disk(source, part, nowait)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills `buffer` with what the files hold from `offset` of the image on.
    fn copy_from_disk(&self, offset: u64, buffer: &mut [u8], nowait: bool) -> Result<bool> {
        let range = offset..offset + buffer.len() as u64;
        let mut rest = buffer;
        for span in self.layout.spans(range) {
            let (bytes, behind) = rest.split_at_mut(span.length);
            rest = behind;
            match span.file {
                None => bytes.fill(0),
                Some(file) => {
                    if !self.files.read(file, span.offset, bytes, nowait)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// Whether an error says that stored bytes are not there any more, rather than that they can't be had now.
pub(super) fn is_damage(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let Some(error) = source.and_then(|s| s.downcast_ref::<io::Error>()) else {
        return false;
    };
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
    ) || Errno::from_io(error) == Errno::EIO
}
