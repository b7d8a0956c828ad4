//! Invariant: a bit is set in the file only after the piece's bytes were written, and cleared before the piece
//! counts as missing, unless the disk refuses that; so after kill -9 a set bit nearly always means bytes. After power
//! loss it may not: bits are a hint, and a piece is verified before it is used.
//!
//! 32 bytes of header (magic and version, info-hash, number of pieces) and one bit for each piece, in the layout of
//! the BITFIELD message. Bits of duplicates and of zeros mean nothing here.

use std::io;
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

/// One byte of the file.
pub(super) struct Change {
    offset: u64,
    byte: u8,
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

    /// The byte that is to be written when the bit of a piece changes: for its neighbours, `is_set` tells.
    pub(super) fn change(
        piece: PieceIndex,
        value: bool,
        is_set: impl Fn(PieceIndex) -> bool,
    ) -> Change {
        let first = piece.0 / 8 * 8;
        let byte = (0..8).fold(0_u8, |byte, i| {
            let other = PieceIndex(first + i);
            let bit = if other == piece { value } else { is_set(other) };
            byte | (u8::from(bit) << (7 - i))
        });
        Change {
            offset: HEADER_LENGTH as u64 + u64::from(piece.0 / 8),
            byte,
        }
    }

    /// Writes a changed byte through.
    pub(super) fn write(&self, change: &Change) -> io::Result<()> {
        self.file.write_all_at(&[change.byte], change.offset)
    }

    /// Makes the bits durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
