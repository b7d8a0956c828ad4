//! Invariant: a frame is decompressed into room of the length that it must have, and into no more; what does not fill it
//! exactly, is no single frame, or gains nothing is refused.

use bytes::Bytes;
use zstd_safe::{CCtx, DCtx};

use super::cache::FrameCache;
use super::contexts::Contexts;
use super::message::{CompressedBlock, ZstdMessage};
use crate::image::BLOCK_LENGTH;
use crate::swarm::wire::WireMessage;

/// What a session needs to send and take blocks in compressed form.
pub(crate) struct Codec {
    /// For half of the processors, so that peers don't take them from a guest. Where too many wait, blocks go plain.
    compressing: Contexts<CCtx<'static>>,
    /// As many as the threads that serve sockets.
    expanding: Contexts<DCtx<'static>>,
    pub(super) cache: FrameCache,
}

/// Higher ones take three times as long for 3 % less (docs/protocol.md).
const LEVEL: i32 = 3;

/// Saving less than a tenth is not worth the other side's time.
const MOST_TENTHS: usize = 9;

impl Codec {
    /// `cache`: bytes of compressed blocks that are kept.
    pub(crate) fn new(cache: u64) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            compressing: Contexts::new((processors / 2).max(1)),
            expanding: Contexts::new(usize::MAX),
            cache: FrameCache::new(cache),
        }
    }

    /// Whether a block is better sent as this frame than plain.
    pub(super) fn saves(plain: usize, frame: usize) -> bool {
        frame * 10 <= plain * MOST_TENTHS
    }

    /// A frame of these bytes. `Some(None)`: it saves too little. `None`: too many wait for a context.
    pub(super) fn compress(&self, plain: &[u8]) -> Option<Option<Bytes>> {
        // It gives up at the end of the room.
        let mut room = vec![0; plain.len() * MOST_TENTHS / 10];
        let compressed = self.compressing.with(CCtx::try_create, |context| {
            context.compress(&mut room[..], plain, LEVEL)
        })?;
        Some(
            compressed
                .ok()
                .map(|length| Bytes::copy_from_slice(&room[..length])),
        )
    }

    /// Puts plain blocks in the place of the compressed ones among what a peer said, which takes about 0.02 ms for each.
    /// To be done only where they were agreed on; the engine refuses what is left of them.
    ///
    /// # Errors
    /// Why a block breaks the protocol; it and what stands behind it are dropped.
    pub(crate) fn expand_all(&self, messages: &mut Vec<WireMessage>) -> Result<(), String> {
        for at in 0..messages.len() {
            let WireMessage::Zstd {
                message: ZstdMessage::Block(compressed),
                ..
            } = &messages[at]
            else {
                continue;
            };
            match self.expand(compressed) {
                Ok(data) => {
                    messages[at] = WireMessage::Expanded {
                        piece: compressed.block.piece,
                        begin: compressed.block.begin,
                        data,
                        wire: compressed.frame.len() as u32,
                        frame: compressed.frame.clone(),
                    };
                }
                Err(reason) => {
                    messages.truncate(at);
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    /// The plain bytes of a block that a peer sent.
    ///
    /// # Errors
    /// Why it breaks the protocol.
    fn expand(&self, compressed: &CompressedBlock) -> Result<Bytes, String> {
        let CompressedBlock { block, frame } = compressed;
        if !(1..=BLOCK_LENGTH).contains(&block.length) {
            return Err(format!("a compressed block of {} bytes", block.length));
        }
        let length = block.length as usize;
        if frame.len() >= length {
            return Err(format!("{} bytes for a block of {length}", frame.len()));
        }
        if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
            return Err("a compressed block is not one frame".to_owned());
        }
        if let Ok(Some(said)) = zstd_safe::get_frame_content_size(frame)
            && said != length as u64
        {
            return Err(format!("a frame of {said} bytes for a block of {length}"));
        }
        let mut plain = vec![0; length];
        let expanded = self.expanding.with(DCtx::try_create, |context| {
            context.decompress(&mut plain[..], frame)
        });
        match expanded {
            Some(Ok(written)) if written == length => Ok(plain.into()),
            Some(Ok(written)) => Err(format!("{written} bytes came out for a block of {length}")),
            Some(Err(code)) => Err(format!(
                "a compressed block is corrupt: {}",
                zstd_safe::get_error_name(code)
            )),
            None => Err("no memory to decompress".to_owned()),
        }
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::wire::WireRequest;
    use proptest::prelude::*;

    fn codec() -> Codec {
        Codec::new(1 << 20)
    }

    fn of(length: usize, frame: impl Into<Bytes>) -> CompressedBlock {
        CompressedBlock {
            block: WireRequest {
                piece: 0,
                begin: 0,
                length: length as u32,
            },
            frame: frame.into(),
        }
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i / 40 + i % 7) as u8).collect()
    }

    /// A frame as another program may make it.
    fn frame(plain: &[u8], set: impl FnOnce(&mut CCtx<'static>)) -> Vec<u8> {
        let mut context = CCtx::create();
        set(&mut context);
        let mut out = vec![0; zstd_safe::compress_bound(plain.len())];
        let length = context.compress2(&mut out[..], plain).unwrap();
        out.truncate(length);
        out
    }

    fn no_content_size(context: &mut CCtx<'static>) {
        let flag = zstd_safe::CParameter::ContentSizeFlag(false);
        context.set_parameter(flag).unwrap();
    }

    #[test]
    fn blocks_of_every_length_come_back() {
        let codec = codec();
        for length in [100, 1000, 4096, 16_383, 16_384] {
            let plain = text(length);
            let frame = codec.compress(&plain).unwrap().unwrap();
            assert!(frame.len() * 10 <= length * 9);
            assert_eq!(codec.expand(&of(length, frame)).unwrap(), plain);
        }
    }

    #[test]
    fn what_stands_before_a_broken_block_is_kept() {
        let plain = text(16_384);
        let block = |frame: Vec<u8>| WireMessage::Zstd {
            extension: 3,
            message: ZstdMessage::Block(of(16_384, frame)),
        };
        let good = frame(&plain, |_| {});
        let expanded = WireMessage::Expanded {
            piece: 0,
            begin: 0,
            data: plain.into(),
            wire: good.len() as u32,
            frame: good.clone().into(),
        };
        let mut messages = vec![
            WireMessage::Unchoke,
            block(good.clone()),
            WireMessage::Have(1),
            block(good[..20].to_vec()),
            WireMessage::Have(2),
        ];
        assert!(codec().expand_all(&mut messages).is_err());
        assert_eq!(
            messages,
            [WireMessage::Unchoke, expanded, WireMessage::Have(1)]
        );
    }

    #[test]
    fn what_saves_less_than_a_tenth_stays_plain() {
        let codec = codec();
        let mut noise = vec![0_u8; 16_384];
        let mut x = 1_u32;
        for byte in &mut noise {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (x >> 24) as u8;
        }
        assert_eq!(codec.compress(&noise), Some(None));
        noise[..1000].fill(0);
        assert_eq!(codec.compress(&noise), Some(None));
        noise[..4000].fill(0);
        assert!(codec.compress(&noise).unwrap().is_some());
        assert_eq!(codec.compress(&[]), Some(None));
    }

    #[test]
    fn frames_of_other_programs_are_taken() {
        let codec = codec();
        let plain = text(16_384);
        for frame in [
            frame(&plain, no_content_size),
            frame(&plain, |c| {
                let sum = zstd_safe::CParameter::ChecksumFlag(true);
                c.set_parameter(sum).unwrap();
            }),
            frame(&plain, |c| {
                let level = zstd_safe::CParameter::CompressionLevel(19);
                c.set_parameter(level).unwrap();
            }),
        ] {
            assert_eq!(codec.expand(&of(16_384, frame)).unwrap(), plain);
        }
    }

    #[test]
    fn bombs_are_refused_with_no_more_room_than_a_block() {
        let codec = codec();
        let bomb = vec![0; 64 << 20];
        for frame in [frame(&bomb, |_| {}), frame(&bomb, no_content_size)] {
            assert!(frame.len() < 16_384, "{}", frame.len());
            let error = codec.expand(&of(16_384, frame)).unwrap_err();
            assert!(
                error.contains("frame of 67108864") || error.contains("too small"),
                "{error}"
            );
        }
        for length in [0, 16_385, u32::MAX as usize] {
            let frame = frame(&text(100), |_| {});
            assert!(codec.expand(&of(length, frame)).is_err(), "{length}");
        }
    }

    #[test]
    fn wrong_lengths_truncation_and_more_than_one_frame_are_refused() {
        let codec = codec();
        let plain = text(16_384);
        for set in [no_content_size as fn(&mut CCtx<'static>), |_| {}] {
            let whole = frame(&plain, set);
            assert!(codec.expand(&of(16_384, whole.clone())).is_ok());
            for length in [1, 16_383] {
                assert!(codec.expand(&of(length, whole.clone())).is_err());
            }
            for end in 0..whole.len() {
                assert!(
                    codec.expand(&of(16_384, whole[..end].to_vec())).is_err(),
                    "{end}"
                );
            }
            let half = frame(&plain[..8192], set);
            assert!(
                codec.expand(&of(16_384, half.clone())).is_err(),
                "too short"
            );
            let two = [half, frame(&plain[8192..], set)].concat();
            assert!(codec.expand(&of(16_384, two)).is_err(), "two frames");
            // A skippable frame has no bytes.
            let skippable = [
                &[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..],
                &whole,
            ]
            .concat();
            assert!(codec.expand(&of(16_384, skippable[..12].to_vec())).is_err());
            assert!(codec.expand(&of(16_384, skippable)).is_err());
        }
    }

    #[test]
    fn a_frame_that_gains_nothing_is_refused() {
        let plain = [7; 10];
        let frame = frame(&plain, |_| {});
        assert!(frame.len() >= plain.len());
        assert!(codec().expand(&of(plain.len(), frame)).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_gives_another_length(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            length in 0..20_000_usize,
            keep_magic in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if keep_magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
            }
            if let Ok(plain) = codec().expand(&of(length, bytes)) {
                prop_assert_eq!(plain.len(), length);
            }
        }

        #[test]
        fn a_flipped_bit_gives_an_error_or_a_block_of_the_right_length(at in any::<proptest::sample::Index>(), bit in 0..8_u32) {
            let mut bytes = frame(&text(16_384), |_| {});
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(plain) = codec().expand(&of(16_384, bytes)) {
                prop_assert_eq!(plain.len(), 16_384);
            }
        }
    }
}
