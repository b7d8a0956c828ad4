//! What is on the disk, against its hash. Invariant: a piece becomes verified only by its hash, which was taken while
//! nobody wrote to it.

use sha1::{Digest, Sha1};

use super::{PieceState, Pristine, read};
use crate::Result;
use crate::image::PieceIndex;

/// Bytes that are hashed at a time.
const HASH_STEP: usize = 256 * 1024;

impl Pristine {
    /// Hashes a piece on the disk and says whether it is right; one that is not becomes missing. Blocks.
    ///
    /// Calls for one piece at the same time hash it once.
    ///
    /// # Errors
    /// `InvalidInput` when there is no such piece; else what the disk reports: the piece's state is then unchanged.
    pub(crate) fn verify(&self, piece: PieceIndex) -> Result<bool> {
        let piece = self.canonical(piece)?;
        let _claim = self.claims.take(piece);
        match self.state(piece) {
            PieceState::Verified => return Ok(true),
            PieceState::Missing => return Ok(false),
            PieceState::Unverified => {}
        }
        let found = match self.hash_on_disk(piece) {
            Err(error) if read::is_damage(&error) => {
                tracing::warn!(image = self.image.name(), %piece, %error, "a piece can't be read");
                None
            }
            found => found?,
        };
        let right = found == Some(*self.image.piece_hash(piece));
        if right {
            self.states.write().set(piece, PieceState::Verified);
        } else {
            // The swarm, which is told of it, warns.
            tracing::debug!(image = self.image.name(), %piece, "a piece on disk is damaged");
            self.set_missing(piece);
            self.damaged.increment();
        }
        Ok(right)
    }

    /// The hash of a piece as it is on the disk; `None` when the file ends too early.
    fn hash_on_disk(&self, piece: PieceIndex) -> Result<Option<[u8; 20]>> {
        let length = self.image.geometry().piece_length(piece) as usize;
        let mut buffer = vec![0; length.min(HASH_STEP)];
        let mut hasher = Sha1::new();
        for span in self.layout.piece_spans(piece) {
            let mut done = 0;
            while done < span.length {
                let step = &mut buffer[..(span.length - done).min(HASH_STEP)];
                match span.file {
                    Some(file) => {
                        let read = self
                            .files
                            .read_some(file, span.offset + done as u64, step)?;
                        if read < step.len() {
                            return Ok(None);
                        }
                    }
                    None => step.fill(0),
                }
                hasher.update(&*step);
                done += step.len();
            }
        }
        Ok(Some(hasher.finalize().into()))
    }
}
