//! Invariant: what is decoded has a form that docs/protocol.md knows; numbers in it may still be absurd.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::swarm::wire::WireRequest;

/// `msg_type` of a block, and the bytes before its frame.
const BLOCK: u8 = 0;
const BLOCK_HEADER: usize = 13;
/// `msg_type` of what its sender wants.
const WANTED: u8 = 1;

/// A block as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompressedBlock {
    /// Which block; `length` is that of its plain bytes.
    pub(crate) block: WireRequest,
    /// One frame of zstd (RFC 8878).
    pub(crate) frame: Bytes,
}

/// A message of vmt_zstd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ZstdMessage {
    /// The answer to a request, in place of a PIECE.
    Block(CompressedBlock),
    /// Whether the sender likes blocks in compressed form at the moment.
    Wanted(bool),
}

impl ZstdMessage {
    /// Reads what follows the extension's number; `None` for a type that we don't know.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn decode(mut body: Bytes) -> Result<Option<Self>, String> {
        let Some(&kind) = body.first() else {
            return Err("an empty message of vmt_zstd".to_owned());
        };
        match kind {
            BLOCK if body.len() <= BLOCK_HEADER => Err("a block without a frame".to_owned()),
            BLOCK => {
                body.advance(1);
                let block = WireRequest {
                    piece: body.get_u32(),
                    begin: body.get_u32(),
                    length: body.get_u32(),
                };
                let frame = body;
                Ok(Some(Self::Block(CompressedBlock { block, frame })))
            }
            WANTED => match body[..] {
                [_, 0] => Ok(Some(Self::Wanted(false))),
                [_, 1] => Ok(Some(Self::Wanted(true))),
                _ => Err("it neither wants nor does not want compressed blocks".to_owned()),
            },
            _ => Ok(None),
        }
    }

    /// Appends what follows the extension's number.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Block(CompressedBlock { block, frame }) => {
                encode_block_header(*block, out);
                out.put_slice(frame);
            }
            Self::Wanted(wanted) => out.put_slice(&[WANTED, u8::from(*wanted)]),
        }
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Block(CompressedBlock { frame, .. }) => BLOCK_HEADER + frame.len(),
            Self::Wanted(_) => 2,
        }
    }
}

/// Appends what stands before the frame.
pub(crate) fn encode_block_header(block: WireRequest, out: &mut BytesMut) {
    out.put_u8(BLOCK);
    out.put_u32(block.piece);
    out.put_u32(block.begin);
    out.put_u32(block.length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_round_trip() {
        let block = WireRequest {
            piece: 3,
            begin: 16_384,
            length: 16_384,
        };
        let frame = Bytes::from_static(b"frame");
        for message in [
            ZstdMessage::Block(CompressedBlock { block, frame }),
            ZstdMessage::Wanted(true),
            ZstdMessage::Wanted(false),
        ] {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            assert_eq!(out.len(), message.length());
            assert_eq!(ZstdMessage::decode(out.freeze()), Ok(Some(message)));
        }
    }

    #[test]
    fn what_has_no_known_form_is_refused_and_later_types_are_passed_over() {
        for wrong in [
            &b""[..],
            &[BLOCK],
            &[BLOCK; BLOCK_HEADER],
            &[WANTED],
            &[WANTED, 2],
            &[WANTED, 1, 0],
        ] {
            assert!(
                ZstdMessage::decode(Bytes::copy_from_slice(wrong)).is_err(),
                "{wrong:?}"
            );
        }
        assert_eq!(ZstdMessage::decode(Bytes::from_static(&[2, 7])), Ok(None));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some(message)) = ZstdMessage::decode(Bytes::from(bytes.clone())) {
                let mut out = BytesMut::new();
                message.encode(&mut out);
                prop_assert_eq!(&out[..], &bytes[..]);
            }
        }
    }
}
