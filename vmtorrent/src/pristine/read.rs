//! Invariant: every piece of a range was verified before the first of its bytes is read.

use std::ops::Range;

use super::{PieceState, Pristine};
use crate::image::{PieceClass, PieceIndex};
use crate::{Error, ErrorKind, Result};

/// What [`Pristine::try_read`] found. The buffer is defined only for `Done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum TryRead {
    /// The buffer is filled.
    Done,
    /// All is there, but the page cache does not hold it: [`Pristine::read`] waits for the disk.
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

/// Bytes that lie together where they are kept.
struct Run {
    /// In the image; `None` for zeros.
    source: Option<u64>,
    length: usize,
}

impl Pristine {
    /// Reads from the image if that needs neither the network nor the disk.
    ///
    /// # Errors
    /// `InvalidInput` when the range is not inside the image; else what the disk reports.
    pub(crate) fn try_read(&self, offset: u64, buffer: &mut [u8]) -> Result<TryRead> {
        let range = self.check_range(offset, buffer.len())?;
        if let Some(obstacle) = self.obstacle(&range) {
            return Ok(obstacle);
        }
        if self.copy(range, buffer, true)? {
            Ok(TryRead::Done)
        } else {
            Ok(TryRead::Cold)
        }
    }

    /// Reads from the image what is there, waiting for the disk and verifying pieces where that is due. Blocks.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<ReadOutcome> {
        let range = self.check_range(offset, buffer.len())?;
        loop {
            match self.obstacle(&range) {
                Some(TryRead::Missing(piece)) => return Ok(ReadOutcome::Missing(piece)),
                Some(TryRead::Unverified(piece)) => {
                    self.verify(piece)?;
                }
                Some(TryRead::Done | TryRead::Cold) | None => break,
            }
        }
        self.copy(range, buffer, false)?;
        Ok(ReadOutcome::Done)
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

    /// Where the bytes of `range` are kept. Neighbours that lie together make one run.
    fn runs(&self, range: Range<u64>) -> Vec<Run> {
        let geometry = self.image.geometry();
        let mut runs: Vec<Run> = Vec::new();
        for piece in geometry.pieces_in(range.clone()).map(PieceIndex) {
            let bytes = geometry.piece_range(piece);
            let start = bytes.start.max(range.start);
            let length = (bytes.end.min(range.end) - start) as usize;
            let source = match self.image.piece_class(piece) {
                PieceClass::Zero => None,
                PieceClass::Unique => Some(start),
                PieceClass::DuplicateOf(canonical) => {
                    Some(geometry.piece_offset(canonical) + (start - bytes.start))
                }
            };
            match runs.last_mut() {
                Some(last) if last.source.map(|s| s + last.length as u64) == source => {
                    last.length += length;
                }
                _ => runs.push(Run { source, length }),
            }
        }
        runs
    }

    fn copy(&self, range: Range<u64>, buffer: &mut [u8], nowait: bool) -> Result<bool> {
        let mut rest = buffer;
        for run in self.runs(range) {
            let (mut part, tail) = rest.split_at_mut(run.length);
            rest = tail;
            let Some(source) = run.source else {
                part.fill(0);
                continue;
            };
            for span in self.layout.spans(source..source + run.length as u64) {
                let (bytes, behind) = part.split_at_mut(span.length);
                part = behind;
                match span.file {
                    None => bytes.fill(0),
                    Some(file) => {
                        if !self.files.read(file, span.offset, bytes, nowait)? {
                            return Ok(false);
                        }
                    }
                }
            }
        }
        Ok(true)
    }
}
