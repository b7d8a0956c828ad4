//! Invariant: a message is taken only if it is well-formed to its last byte; what stands behind the dictionary
//! is data, and only a data message has some.

use bytes::Bytes;

use super::METADATA_PIECE;
use crate::bencode::{Encoder, Node};

/// A message of ut_metadata (BEP 9), or of an extension whose messages have the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MetadataMessage {
    /// Asks for a piece of the info dictionary.
    Request { piece: u32 },
    /// A piece, and the length of the whole dictionary in bytes.
    Data {
        piece: u32,
        total_size: u32,
        data: Bytes,
    },
    /// The piece will not be sent.
    Reject { piece: u32 },
}

const REQUEST: i64 = 0;
const DATA: i64 = 1;
const REJECT: i64 = 2;

impl MetadataMessage {
    /// Reads what follows the extension's number. `None` for a kind of message that is not known, which BEP 9
    /// says to ignore; an error names what is wrong.
    pub(crate) fn decode(payload: &Bytes) -> Result<Option<Self>, String> {
        let (head, rest) = Node::parse_prefix(payload).map_err(|e| e.to_string())?;
        if head.as_dictionary().is_none() {
            return Err("extension message: no dictionary".to_owned());
        }
        let number = |key: &str| -> Result<Option<i64>, String> {
            let node = head
                .get(key)
                .map_err(|_| format!("extension message: the key {key} stands twice"))?;
            Ok(node.and_then(|n| n.as_integer()))
        };
        let size = |key: &str| -> Result<u32, String> {
            number(key)?
                .and_then(|n| u32::try_from(n).ok())
                .ok_or_else(|| format!("extension message: {key} is missing or absurd"))
        };
        let kind = number("msg_type")?.ok_or("extension message: msg_type is missing")?;
        let message = match kind {
            REQUEST => Self::Request {
                piece: size("piece")?,
            },
            DATA => {
                if rest.is_empty() || rest.len() > METADATA_PIECE as usize {
                    return Err(format!("extension message: {} bytes of data", rest.len()));
                }
                return Ok(Some(Self::Data {
                    piece: size("piece")?,
                    total_size: size("total_size")?,
                    data: payload.slice_ref(rest),
                }));
            }
            REJECT => Self::Reject {
                piece: size("piece")?,
            },
            _ => return Ok(None),
        };
        if !rest.is_empty() {
            return Err("extension message: bytes follow a message without data".to_owned());
        }
        Ok(Some(message))
    }

    /// The dictionary, and the data that follows it.
    pub(crate) fn encode(&self) -> (Vec<u8>, &[u8]) {
        let head = |kind: i64, piece: u32, total_size: Option<u32>| {
            Encoder::encode(|d| {
                d.string("msg_type").integer(kind.unsigned_abs());
                d.string("piece").integer(piece.into());
                if let Some(size) = total_size {
                    d.string("total_size").integer(size.into());
                }
            })
        };
        match self {
            Self::Request { piece } => (head(REQUEST, *piece, None), &[]),
            Self::Data {
                piece,
                total_size,
                data,
            } => (head(DATA, *piece, Some(*total_size)), data),
            Self::Reject { piece } => (head(REJECT, *piece, None), &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<Option<MetadataMessage>, String> {
        MetadataMessage::decode(&Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn messages_that_break_bep_9_are_refused() {
        for bytes in [
            &b""[..],
            b"i1e",
            b"de",
            b"d8:msg_typei0ee",
            b"d8:msg_typei0e5:piecei-1ee",
            b"d8:msg_typei0e5:piecei4294967296ee",
            b"d8:msg_typei0e5:piecei1e5:piecei1ee",
            b"d8:msg_typei0e5:piecei1eex",
            b"d8:msg_typei2e5:piecei1eex",
            b"d8:msg_typei1e5:piecei1eex",
            b"d8:msg_typei1e5:piecei1e10:total_sizei9ee",
            b"d8:msg_type1:05:piecei1ee",
        ] {
            assert!(decode(bytes).is_err(), "{:?}", bytes.escape_ascii());
        }
        let mut long = b"d8:msg_typei1e5:piecei0e10:total_sizei99999ee".to_vec();
        long.resize(long.len() + METADATA_PIECE as usize, 0);
        assert!(decode(&long).unwrap().is_some());
        long.push(0);
        assert!(decode(&long).is_err());
    }

    #[test]
    fn kinds_that_nobody_knows_are_ignored() {
        assert_eq!(decode(b"d8:msg_typei3e5:piecei1eewhatever"), Ok(None));
    }

    proptest! {
        #[test]
        fn messages_round_trip_and_garbage_never_panics(
            piece in any::<u32>(), total_size in any::<u32>(),
            data in proptest::collection::vec(any::<u8>(), 1..100), kind in 0..3
        ) {
            let message = match kind {
                0 => MetadataMessage::Request { piece },
                1 => MetadataMessage::Data { piece, total_size, data: data.clone().into() },
                _ => MetadataMessage::Reject { piece },
            };
            let (mut bytes, tail) = message.encode();
            bytes.extend_from_slice(tail);
            prop_assert_eq!(decode(&bytes), Ok(Some(message)));
            let _ = decode(&data);
            let at = piece as usize % bytes.len();
            bytes[at] ^= data[0];
            let _ = decode(&bytes);
        }
    }
}
