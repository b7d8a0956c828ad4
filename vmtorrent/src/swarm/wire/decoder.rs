//! Invariant: a message is buffered only up to what its kind may have, and what is malformed is refused with its reason.

use bytes::{Buf, Bytes, BytesMut};
use librqbit_peer_protocol::{Message, Request};

use super::super::compression::ZstdMessage;
use super::super::metadata::MetadataMessage;
use super::super::peer_exchange::PeerExchange;
use super::{
    ExtendedHello, ID_ALLOWED_FAST, ID_BITFIELD, ID_EXTENDED, ID_HAVE_ALL, ID_HAVE_NONE, ID_PIECE,
    ID_PORT, ID_REJECT, ID_SUGGEST, UT_METADATA, UT_PEX, VMT_PROFILE, VMT_URGENT, VMT_ZSTD,
    WireError, WireMessage, WireRequest,
};
use crate::bencode::Node;

/// The largest block that anybody may ask for.
const MAX_BLOCK: usize = 128 << 10;
/// The largest extension message.
const MAX_EXTENDED: usize = 1 << 20;

/// Cuts a byte stream into messages. Knows the number of pieces, so that an oversized BITFIELD is refused before
/// it is buffered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder {
    max_bitfield: usize,
}

impl Decoder {
    pub(crate) fn new(piece_count: u32) -> Self {
        Self {
            max_bitfield: (piece_count as usize).div_ceil(8),
        }
    }

    /// Takes the next whole message out of `buffer`; `None` when more bytes are needed.
    pub(crate) fn decode(&self, buffer: &mut BytesMut) -> Result<Option<WireMessage>, WireError> {
        let Some(prefix) = buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length == 0 {
            buffer.advance(4);
            return Ok(Some(WireMessage::KeepAlive));
        }
        let Some(&id) = buffer.get(4) else {
            return Ok(None);
        };
        let limit = match id {
            ID_BITFIELD => 1 + self.max_bitfield,
            ID_PIECE => 9 + MAX_BLOCK,
            ID_EXTENDED => MAX_EXTENDED,
            0..=4 | 6 | 8 | ID_SUGGEST..=ID_ALLOWED_FAST => 13,
            ID_PORT => 3,
            _ => 64 << 10,
        };
        if length > limit {
            return Err(WireError::TooLong { id, length });
        }
        if buffer.len() < 4 + length {
            buffer.reserve(4 + length - buffer.len());
            return Ok(None);
        }
        let whole = buffer.split_to(4 + length).freeze();
        decode_one(id, &whole).map(Some)
    }

    /// Bytes that are missing of the message that `buffer` begins with, as far as can be told: at least one. To be asked
    /// when nothing could be decoded.
    pub(crate) fn missing(buffer: &[u8]) -> usize {
        let Some(prefix) = buffer.first_chunk::<4>() else {
            return 1;
        };
        let length = 4 + u32::from_be_bytes(*prefix) as usize;
        length.saturating_sub(buffer.len()).max(1)
    }
}

fn decode_one(id: u8, whole: &Bytes) -> Result<WireMessage, WireError> {
    // Read here: the block, so that it stays shared; and extensions, whose bencode comes from strangers.
    match (id, whole.get(5)) {
        (ID_PIECE, _) => {
            if whole.len() < 13 + 1 {
                return Err(WireError::Malformed {
                    id,
                    reason: "no data".into(),
                });
            }
            let mut head = whole.slice(5..13);
            return Ok(WireMessage::Piece {
                piece: head.get_u32(),
                begin: head.get_u32(),
                data: whole.slice(13..),
            });
        }
        (ID_EXTENDED, Some(0)) => return decode_hello(&whole[6..]),
        (ID_EXTENDED, Some(&extension @ (UT_METADATA | VMT_PROFILE))) => {
            let message = MetadataMessage::decode(&whole.slice(6..))
                .map_err(|reason| WireError::Malformed { id, reason })?;
            return Ok(
                message.map_or(WireMessage::Unknown(id), |message| WireMessage::Metadata {
                    extension,
                    message,
                }),
            );
        }
        (ID_EXTENDED, Some(&extension @ VMT_ZSTD)) => {
            let message = ZstdMessage::decode(whole.slice(6..))
                .map_err(|reason| WireError::Malformed { id, reason })?;
            return Ok(
                message.map_or(WireMessage::Unknown(id), |message| WireMessage::Zstd {
                    extension,
                    message,
                }),
            );
        }
        (ID_EXTENDED, Some(&extension @ VMT_URGENT)) => {
            let request = decode_request(id, &whole[6..])?;
            return Ok(WireMessage::Urgent { extension, request });
        }
        (ID_EXTENDED, Some(&extension @ UT_PEX)) => {
            let message = PeerExchange::decode(&whole[6..])
                .map_err(|reason| WireError::Malformed { id, reason })?;
            return Ok(WireMessage::PeerExchange { extension, message });
        }
        (ID_EXTENDED, _) => return Ok(WireMessage::Unknown(id)),
        (ID_PORT, _) => {
            let port = whole[5..].try_into().map_err(|_| WireError::Malformed {
                id,
                reason: format!("{} bytes where 2 belong", whole.len() - 5),
            })?;
            return Ok(WireMessage::Port(u16::from_be_bytes(port)));
        }
        (ID_SUGGEST..=ID_ALLOWED_FAST, _) => return decode_fast(id, &whole[5..]),
        (0..=8, _) => {}
        _ => return Ok(WireMessage::Unknown(id)),
    }
    let (message, _) = Message::deserialize(whole, &[]).map_err(|e| WireError::Malformed {
        id,
        reason: e.to_string(),
    })?;
    let request = |r: Request| WireRequest {
        piece: r.index,
        begin: r.begin,
        length: r.length,
    };
    Ok(match message {
        Message::KeepAlive => WireMessage::KeepAlive,
        Message::Choke => WireMessage::Choke,
        Message::Unchoke => WireMessage::Unchoke,
        Message::Interested => WireMessage::Interested,
        Message::NotInterested => WireMessage::NotInterested,
        Message::Have(piece) => WireMessage::Have(piece),
        Message::Bitfield(_) => WireMessage::Bitfield(whole.slice(5..)),
        Message::Request(r) => WireMessage::Request(request(r)),
        Message::Cancel(r) => WireMessage::Cancel(request(r)),
        Message::Piece(_) | Message::Extended(_) => WireMessage::Unknown(id),
    })
}

/// Reads what a REQUEST says.
fn decode_request(id: u8, mut body: &[u8]) -> Result<WireRequest, WireError> {
    if body.len() != 12 {
        let reason = format!("{} bytes where 12 belong", body.len());
        return Err(WireError::Malformed { id, reason });
    }
    Ok(WireRequest {
        piece: body.get_u32(),
        begin: body.get_u32(),
        length: body.get_u32(),
    })
}

/// Reads a message of the fast extension, which the wire crate does not know.
fn decode_fast(id: u8, mut body: &[u8]) -> Result<WireMessage, WireError> {
    let expected = match id {
        ID_SUGGEST | ID_ALLOWED_FAST => 4,
        ID_REJECT => 12,
        _ => 0,
    };
    if body.len() != expected {
        let reason = format!("{} bytes where {expected} belong", body.len());
        return Err(WireError::Malformed { id, reason });
    }
    Ok(match id {
        ID_SUGGEST => WireMessage::Suggest(body.get_u32()),
        ID_ALLOWED_FAST => WireMessage::AllowedFast(body.get_u32()),
        ID_HAVE_ALL => WireMessage::HaveAll,
        ID_HAVE_NONE => WireMessage::HaveNone,
        _ => WireMessage::Reject(WireRequest {
            piece: body.get_u32(),
            begin: body.get_u32(),
            length: body.get_u32(),
        }),
    })
}

/// Reads the extended handshake (BEP 10). Entries of a wrong type are as good as absent.
fn decode_hello(bencode: &[u8]) -> Result<WireMessage, WireError> {
    let malformed = |reason: String| WireError::Malformed {
        id: ID_EXTENDED,
        reason,
    };
    let hello = Node::parse(bencode).map_err(|e| malformed(e.to_string()))?;
    let entry = |key| {
        hello
            .get(key)
            .map_err(|_| malformed(format!("the key {key} stands twice")))
    };
    let number = |key| Ok(entry(key)?.and_then(|n| n.as_integer()));
    let extensions = entry("m")?;
    let extension = |name| -> Result<Option<u8>, WireError> {
        let Some(extensions) = &extensions else {
            return Ok(None);
        };
        let number = extensions
            .get(name)
            .map_err(|_| malformed(format!("the extension {name} stands twice")))?;
        Ok(number
            .and_then(|n| n.as_integer())
            .and_then(|n| u8::try_from(n).ok()))
    };
    Ok(WireMessage::ExtendedHello(ExtendedHello {
        client: entry("v")?
            .and_then(|v| v.as_bytes())
            .map(|v| String::from_utf8_lossy(v).chars().take(64).collect()),
        request_queue: number("reqq")?.and_then(|n| u32::try_from(n).ok()),
        listen_port: number("p")?
            .and_then(|n| u16::try_from(n).ok())
            .filter(|p| *p != 0),
        metadata_size: number("metadata_size")?.and_then(|n| u32::try_from(n).ok()),
        ut_metadata: extension("ut_metadata")?,
        vmt_profile: extension("vmt_profile")?,
        vmt_profile_size: number("vmt_profile_size")?
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| *n != 0),
        vmt_urgent: extension("vmt_urgent")?,
        vmt_zstd: extension("vmt_zstd")?,
        ut_pex: extension("ut_pex")?,
        vmt_pex_interval: number("vmt_pex_interval")?
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n != 0),
    }))
}
