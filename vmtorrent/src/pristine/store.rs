//! Invariant: no bytes are written but those whose hash is that of their piece.
//!
//! Pieces in a row go to the disk in one write. That is fewer calls of the system, and the page cache of Linux keeps what is
//! written at once in larger folios, out of which later reads copy faster.

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::claims::Claim;
use super::home::Home;
use super::{PieceState, Pristine};
use crate::image::PieceIndex;
use crate::{Error, ErrorKind, Result};

/// What became of a piece that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Stored {
    /// It is verified, and stored or held in memory.
    New,
    /// It was there already.
    Already,
    /// Its hash is wrong; nothing was written.
    Mismatch,
}

/// What looking at a piece and its bytes has shown.
enum Sight {
    /// There is nothing to be written.
    Settled(Stored),
    /// The bytes are those of this piece, in whose place they are kept.
    Sound(PieceIndex),
}

impl Pristine {
    /// Takes pieces in a row that came from the swarm: checks their hashes, writes them and notes that they are there. Blocks.
    ///
    /// Where the disk does not take one, it is held in memory, and [`shortage`](Self::shortage) tells why. Other pieces
    /// may have gone for it: [`take_gone`](Self::take_gone).
    ///
    /// Calls for one piece at the same time write it once.
    ///
    /// # Errors
    /// For each piece: `InvalidInput` when there is no such piece, `PermissionDenied` when the store shows published files,
    /// `InvalidTorrent` when the image has bytes in its padding (BEP 47) that are not zeros.
    pub(crate) fn store_run(&self, first: PieceIndex, run: &[Bytes]) -> Vec<Result<Stored>> {
        let pieces = (first.0..).map(PieceIndex).zip(run);
        let sights: Vec<_> = pieces.map(|(piece, data)| self.look(piece, data)).collect();
        let mut sights = sights.into_iter().peekable();
        let mut outcomes = Vec::with_capacity(run.len());
        while let Some(sight) = sights.next() {
            let at = outcomes.len();
            let piece = match sight {
                Ok(Sight::Sound(piece)) => piece,
                Ok(Sight::Settled(stored)) => {
                    outcomes.push(Ok(stored));
                    continue;
                }
                Err(error) => {
                    outcomes.push(Err(error));
                    continue;
                }
            };
            // What is written besides it, if nothing keeps the pieces apart.
            let mut end = at + 1;
            let mut next = piece.0 + 1;
            while sights
                .next_if(|sight| matches!(sight, Ok(Sight::Sound(p)) if p.0 == next))
                .is_some()
            {
                end += 1;
                next += 1;
            }
            let sound = (piece.0..).map(PieceIndex).zip(&run[at..end]);
            let together = self.write_together(piece, &run[at..end]);
            outcomes.extend((0..together).map(|_| Ok(Stored::New)));
            outcomes.extend(
                sound
                    .skip(together)
                    .map(|(piece, data)| Ok(self.write_alone(piece, data))),
            );
        }
        outcomes
    }

    /// The same for one piece.
    #[cfg(test)]
    pub(crate) fn store(&self, piece: PieceIndex, data: &[u8]) -> Result<Stored> {
        let run = [Bytes::copy_from_slice(data)];
        self.store_run(piece, &run).remove(0)
    }

    fn look(&self, piece: PieceIndex, data: &[u8]) -> Result<Sight> {
        let piece = self.canonical(piece)?;
        if self.state(piece) == PieceState::Verified {
            return Ok(Sight::Settled(Stored::Already));
        }
        if matches!(self.home, Home::Published) {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "piece {piece} of {} is damaged in the published files, which are never written: \
                     restore them, or publish again",
                    self.image.name()
                ),
            ));
        }
        let digest: [u8; 20] = Sha1::digest(data).into();
        if digest != *self.image.piece_hash(piece)
            || data.len() != self.image.geometry().piece_length(piece) as usize
        {
            return Ok(Sight::Settled(Stored::Mismatch));
        }
        self.check_padding(piece, data)?;
        Ok(Sight::Sound(piece))
    }

    fn write_alone(&self, piece: PieceIndex, data: &[u8]) -> Stored {
        let _claim = self.claims.take(piece);
        if self.state(piece) == PieceState::Verified {
            return Stored::Already;
        }
        if let Err(shortage) = self.write_piece(piece, data) {
            self.hold(piece, data, shortage);
        }
        Stored::New
    }

    /// Writes as many of the pieces from `first` on as can be written at once, and gives their number. With a budget, and
    /// where the disk refuses, that is none: each alone finds its room, or a place in memory.
    fn write_together(&self, first: PieceIndex, run: &[Bytes]) -> usize {
        if self.budget.is_some() || run.len() < 2 {
            return 0;
        }
        let pieces = (first.0..).map(PieceIndex).take(run.len());
        // Who waited for the claim of a second piece could wait for somebody who waits for the first.
        let claims: Vec<Claim<'_>> = std::iter::once(self.claims.take(first))
            .chain(
                pieces
                    .clone()
                    .skip(1)
                    .map_while(|p| self.claims.try_take(p)),
            )
            .collect();
        let count = pieces
            .take(claims.len())
            .take_while(|&piece| self.state(piece) != PieceState::Verified)
            .count();
        let written = first.0..first.0 + count as u32;
        let data: Vec<&[u8]> = run[..count].iter().map(|piece| &piece[..]).collect();
        if count < 2 || self.write_run(&written, &data).is_err() {
            return 0;
        }
        self.look_at_space();
        count
    }

    /// Padding is kept nowhere and read as zeros. Where it is something else, the piece would be served with another
    /// content than its hash's, and peers would shut us out for it.
    fn check_padding(&self, piece: PieceIndex, data: &[u8]) -> Result<()> {
        let mut rest = data;
        for span in self.layout.piece_spans(piece) {
            let (part, behind) = rest.split_at(span.length);
            rest = behind;
            if span.file.is_none() && part.iter().any(|&byte| byte != 0) {
                return Err(Error::new(
                    ErrorKind::InvalidTorrent,
                    format!(
                        "the padding in piece {piece} of {} is not zeros, so the piece can't be stored: ask \
                         the publisher for a sound .torrent file",
                        self.image.name()
                    ),
                ));
            }
        }
        Ok(())
    }
}
