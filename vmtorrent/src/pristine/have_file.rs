//! Invariant: a bit is set in the file only after the piece's bytes were written, and cleared before the piece
//! counts as missing, unless the disk refuses that; so after kill -9 a set bit nearly always means bytes. After power
//! loss it may not: bits are a hint, and a piece is verified before it is used.
//!
//! 32 bytes of header (magic and version, info-hash, number of pieces) and one bit for each piece, in the layout of
//! the BITFIELD message. Bits of duplicates and of zeros mean nothing here.

use std::io;
use std::ops::Range;
use std::path::Path;

use vmtorrent_platform::PositionedFile;

use crate::Bitfield;
use crate::image::{Image, PieceIndex};

const MAGIC: &[u8; 8] = b"VMTHAVE1";
const HEADER_LENGTH: usize = 32;

/// The bits of the pieces that an earlier run has stored.
pub(super) struct HaveFile {
    file: PositionedFile,
}

/// Some bytes of the file.
pub(super) struct Change {
    offset: u64,
    bytes: Vec<u8>,
}

impl HaveFile {
    /// Opens the file and gives the bits in it. A file that is absent, torn or of another image starts anew.
    pub(super) fn open(path: &Path, image: &Image) -> io::Result<(Self, Bitfield)> {
        let file = PositionedFile::open_or_create(path)?;
        let count = image.geometry().piece_count();
        let mut header = Vec::with_capacity(HEADER_LENGTH);
        header.extend(MAGIC);
        header.extend(image.info_hash().0);
        header.extend(count.to_le_bytes());

        let length = HEADER_LENGTH + (count as usize).div_ceil(8);
        let mut bytes = vec![0; length];
        let read = file.read_at(&mut bytes, 0)?;
        if read == length
            && bytes.starts_with(&header)
            && file.len()? == length as u64
            && let Some(bits) = Bitfield::from_wire(&bytes[HEADER_LENGTH..], count)
        {
            return Ok((Self { file }, bits));
        }
        // Written as a whole, so that setting a bit later needs no space.
        header.resize(length, 0);
        file.set_len(0)?;
        file.write_all_at(&header, 0)?;
        Ok((Self { file }, Bitfield::new(count)))
    }

    /// What is to be written when the bits of `pieces` change: for others in the same bytes, `is_set` tells.
    pub(super) fn change(
        pieces: &Range<u32>,
        value: bool,
        is_set: impl Fn(PieceIndex) -> bool,
    ) -> Change {
        let bytes = pieces.start / 8..pieces.end.div_ceil(8);
        let byte = |at: u32| {
            (0..8).fold(0_u8, |byte, i| {
                let piece = at * 8 + i;
                let bit = if pieces.contains(&piece) {
                    value
                } else {
                    is_set(PieceIndex(piece))
                };
                byte | (u8::from(bit) << (7 - i))
            })
        };
        Change {
            offset: HEADER_LENGTH as u64 + u64::from(bytes.start),
            bytes: bytes.map(byte).collect(),
        }
    }

    /// Writes changed bytes through.
    pub(super) fn write(&self, change: &Change) -> io::Result<()> {
        self.file.write_all_at(&change.bytes, change.offset)
    }

    /// Makes the bits durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
