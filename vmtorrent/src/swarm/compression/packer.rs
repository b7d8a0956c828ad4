//! Invariant: only whole blocks of the image are compressed, so that no more forms are kept than there are blocks,
//! however peers cut their requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::cache::FrameKey;
use super::codec::Codec;
use super::verdicts::Verdicts;
use crate::image::{BLOCK_LENGTH, BlockIndex, Image, PieceIndex};
use crate::swarm::wire::WireRequest;

/// How a block is best sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Plain,
    /// In this form.
    Frame(Bytes),
    /// Unknown: it is to be [tried](Packer::pack).
    Unknown,
}

/// What compresses the blocks of one image for peers.
#[derive(Debug)]
pub(crate) struct Packer {
    codec: Arc<Codec>,
    image: Arc<Image>,
    /// Tells images of one session apart.
    number: u64,
    verdicts: Verdicts,
}

impl Packer {
    pub(crate) fn new(codec: Arc<Codec>, image: Arc<Image>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let geometry = image.geometry();
        let verdicts = Verdicts::new(
            geometry.total_length(),
            geometry.nominal_piece_length().into(),
        );
        Self {
            codec,
            image,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            verdicts,
        }
    }

    /// What is known of a block. Costs a look into a table.
    pub(crate) fn form(&self, request: WireRequest) -> Form {
        let Some((block, offset)) = self.block(request) else {
            return Form::Plain;
        };
        match self.codec.cache.get(&self.key(block)) {
            Some(frame) if frame.is_empty() => Form::Plain,
            Some(frame) => Form::Frame(frame),
            None if self.verdicts.worth_a_try(offset) => Form::Unknown,
            None => Form::Plain,
        }
    }

    /// Compresses a block of verified bytes; `None`: it is to be sent plain. Takes about 0.1 ms, so not on a thread that
    /// serves sockets.
    pub(crate) fn pack(&self, request: WireRequest, plain: &[u8]) -> Option<Bytes> {
        let (block, offset) = self.block(request)?;
        let frame = self.codec.compress(plain)?;
        self.verdicts.note(offset, frame.is_some());
        let kept = frame.clone().unwrap_or_default();
        self.codec.cache.insert(self.key(block), kept);
        frame
    }

    /// Keeps the forms in which a peer gave blocks of a piece that was found right: whoever asks gets the same. `frames`: the
    /// block's number in the piece, and what came.
    pub(crate) fn keep(&self, piece: PieceIndex, frames: Vec<(u32, Bytes)>) {
        let geometry = self.image.geometry();
        for (block, frame) in frames {
            let block = BlockIndex { piece, block };
            if Codec::saves(geometry.block_length(block) as usize, frame.len()) {
                let offset = u64::from(block.block) * u64::from(BLOCK_LENGTH);
                self.verdicts
                    .note(geometry.piece_offset(piece) + offset, true);
                self.codec.cache.insert(self.key(block), frame);
            }
        }
    }

    /// What it works with.
    pub(crate) fn codec(&self) -> &Codec {
        &self.codec
    }

    fn block(&self, request: WireRequest) -> Option<(BlockIndex, u64)> {
        let WireRequest {
            piece,
            begin,
            length,
        } = request;
        let geometry = self.image.geometry();
        let block = geometry.block_from_wire(piece, begin, length)?;
        Some((block, geometry.piece_offset(block.piece) + u64::from(begin)))
    }

    fn key(&self, block: BlockIndex) -> FrameKey {
        FrameKey {
            image: self.number,
            block,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u32 = 64 << 10;

    fn request(n: u32) -> WireRequest {
        WireRequest {
            piece: n / 4,
            begin: n % 4 * 16_384,
            length: 16_384,
        }
    }

    /// An image of a megabyte.
    fn packer() -> Packer {
        let content: Vec<u8> = (0..1 << 20).map(|i: u32| (i >> 10) as u8).collect();
        let image = crate::test_image::image_of(&content, PIECE);
        Packer::new(Arc::new(Codec::new(1 << 20)), Arc::new(image))
    }

    fn noise() -> Vec<u8> {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        (0..16_384).map(|_| rng.random()).collect()
    }

    #[test]
    fn a_block_is_compressed_once() {
        let packer = packer();
        assert_eq!(packer.form(request(0)), Form::Unknown);
        let frame = packer.pack(request(0), &[7; 16_384]).unwrap();
        assert_eq!(packer.form(request(0)), Form::Frame(frame));
        assert_eq!(packer.form(request(1)), Form::Unknown);
    }

    #[test]
    fn what_came_as_a_frame_goes_on_as_the_same_frame_if_that_saves_something() {
        let packer = packer();
        let frame = packer.codec.compress(&[7; 16_384]).unwrap().unwrap();
        let large = Bytes::from(vec![0; 15_000]);
        packer.keep(PieceIndex(0), vec![(1, frame.clone()), (2, large)]);
        assert_eq!(packer.form(request(1)), Form::Frame(frame));
        assert_eq!(packer.form(request(2)), Form::Unknown);
        assert_eq!(packer.form(request(0)), Form::Unknown);
    }

    #[test]
    fn what_saves_nothing_is_remembered_by_block_and_by_region() {
        let packer = packer();
        for n in 0..4 {
            assert_eq!(packer.form(request(n)), Form::Unknown);
            assert_eq!(packer.pack(request(n), &noise()), None);
            assert_eq!(packer.form(request(n)), Form::Plain);
        }
        assert_eq!(packer.form(request(5)), Form::Plain, "the same region");
        assert_eq!(packer.form(request(16)), Form::Unknown, "another one");
    }

    #[test]
    fn odd_cuts_of_a_piece_are_neither_compressed_nor_kept() {
        let packer = packer();
        for (begin, length) in [(1, 16_384), (0, 16_383), (0, 32_768), (PIECE, 16_384)] {
            let piece = 0;
            let odd = WireRequest {
                piece,
                begin,
                length,
            };
            assert_eq!(packer.form(odd), Form::Plain);
            assert_eq!(packer.pack(odd, &vec![0; length as usize]), None);
        }
        assert_eq!(packer.codec.cache.bytes(), 0);
    }

    #[test]
    fn images_do_not_share_forms() {
        let first = packer();
        let second = Packer::new(first.codec.clone(), first.image.clone());
        first.pack(request(0), &[7; 16_384]).unwrap();
        assert_eq!(second.form(request(0)), Form::Unknown);
    }
}
