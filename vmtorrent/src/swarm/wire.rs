//! Invariant: no message longer than the protocol allows is ever buffered, and nothing that a peer
//! sends can make the decoder panic.
//!
//! The wire format itself is `librqbit-peer-protocol`'s; this module frames it and keeps payloads as
//! shared [`Bytes`], so that a block is never copied between the socket's buffer and the piece.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use librqbit_buffers::ByteBuf;
use librqbit_core::hash_id::Id20;
use librqbit_peer_protocol::extended::PeerExtendedMessageIds;
use librqbit_peer_protocol::{Handshake, Message, Request};

use super::compression::{ZstdMessage, encode_block_header};
use super::metadata::MetadataMessage;
use super::peer_exchange::PeerExchange;
use crate::bencode::{Encoder, Node};
use crate::image::{BLOCK_LENGTH, InfoHash};

/// Bytes of the opening handshake (BEP 3).
pub(crate) const HANDSHAKE_LENGTH: usize = 68;
/// The largest block that anybody may ask for.
const MAX_BLOCK: usize = 128 << 10;
/// The largest extension message.
const MAX_EXTENDED: usize = 1 << 20;

const ID_BITFIELD: u8 = 5;
const ID_PIECE: u8 = 7;
// The fast extension (BEP 6).
const ID_SUGGEST: u8 = 0x0d;
const ID_HAVE_ALL: u8 = 0x0e;
const ID_HAVE_NONE: u8 = 0x0f;
const ID_REJECT: u8 = 0x10;
const ID_ALLOWED_FAST: u8 = 0x11;
const ID_EXTENDED: u8 = 20;

/// Where the handshake says that its sender knows the fast extension (BEP 6).
const FAST_BYTE: usize = 27;
const FAST_BIT: u8 = 0x04;

/// The number under which peers send us messages of ut_metadata (BEP 9).
pub(crate) const UT_METADATA: u8 = 1;

/// The number under which peers send us messages of vmt_profile, which have the form of those of ut_metadata: see
/// docs/protocol.md.
pub(crate) const VMT_PROFILE: u8 = 2;

/// The number under which peers send us messages of vmt_zstd: see docs/protocol.md.
pub(crate) const VMT_ZSTD: u8 = 3;
/// The number under which peers send us messages of vmt_urgent: see docs/protocol.md.
pub(crate) const VMT_URGENT: u8 = 4;
/// The number under which peers send us messages of ut_pex (BEP 11).
pub(crate) const UT_PEX: u8 = 5;

/// A block request, as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WireRequest {
    pub(crate) piece: u32,
    pub(crate) begin: u32,
    pub(crate) length: u32,
}

/// What a peer tells of itself in the extended handshake (BEP 10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtendedHello {
    /// Client name and version.
    pub(crate) client: Option<String>,
    /// Requests that it keeps queued (`reqq`).
    pub(crate) request_queue: Option<u32>,
    /// The port on which it listens.
    pub(crate) listen_port: Option<u16>,
    /// The length of the info dictionary, if it has it (BEP 9).
    pub(crate) metadata_size: Option<u32>,
    /// The number under which it takes messages of ut_metadata; 0: no more.
    pub(crate) ut_metadata: Option<u8>,
    /// The number under which it takes messages of vmt_profile; 0: no more.
    pub(crate) vmt_profile: Option<u8>,
    /// The length of the profile that it gives to whoever asks, as a text; never 0.
    pub(crate) vmt_profile_size: Option<u32>,
    /// The number under which it takes messages of vmt_urgent; 0: no more.
    pub(crate) vmt_urgent: Option<u8>,
    /// The number under which it takes messages of vmt_zstd; 0: no more.
    pub(crate) vmt_zstd: Option<u8>,
    /// The number under which it takes messages of ut_pex (BEP 11); 0: no more.
    pub(crate) ut_pex: Option<u8>,
    /// Seconds between two messages of ut_pex that it takes in the first minute: see docs/protocol.md.
    pub(crate) vmt_pex_interval: Option<u16>,
}

/// A message between peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WireMessage {
    KeepAlive,
    Choke,
    Unchoke,
    Interested,
    NotInterested,
    Have(u32),
    Bitfield(Bytes),
    Request(WireRequest),
    Cancel(WireRequest),
    Piece {
        piece: u32,
        begin: u32,
        data: Bytes,
    },
    /// The sender has every piece (BEP 6).
    HaveAll,
    /// The sender has no piece (BEP 6).
    HaveNone,
    /// A hint that the sender would like to be asked for a piece (BEP 6).
    Suggest(u32),
    /// A request will not be answered (BEP 6).
    Reject(WireRequest),
    /// A piece that may be requested while choked (BEP 6).
    AllowedFast(u32),
    ExtendedHello(ExtendedHello),
    /// A message of ut_metadata (BEP 9) or of vmt_profile.
    Metadata {
        /// The number that the receiver chose for the extension; [`UT_METADATA`] or [`VMT_PROFILE`] when we are the
        /// receiver.
        extension: u8,
        message: MetadataMessage,
    },
    /// A message of vmt_zstd.
    Zstd {
        /// The number that the receiver chose for the extension; [`VMT_ZSTD`] when we are the receiver.
        extension: u8,
        message: ZstdMessage,
    },
    /// A block that came in compressed form, expanded. Never stands on the wire.
    Expanded {
        piece: u32,
        begin: u32,
        data: Bytes,
        /// Bytes that it took there, without the message's header.
        wire: u32,
    },
    /// A message of vmt_urgent: a read waits for what was requested.
    Urgent {
        /// The number that the receiver chose for the extension; [`VMT_URGENT`] when we are the receiver.
        extension: u8,
        request: WireRequest,
    },
    /// A message of ut_pex (BEP 11).
    PeerExchange {
        /// The number that the receiver chose for the extension; [`UT_PEX`] when we are the receiver.
        extension: u8,
        message: PeerExchange,
    },
    /// A message or extension that we don't know: skipped.
    Unknown(u8),
}

/// Why a peer's bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// Not the BitTorrent protocol.
    NotBitTorrent,
    /// A message is longer than its kind allows.
    TooLong { id: u8, length: usize },
    /// A message of a known kind is malformed.
    Malformed { id: u8, reason: String },
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotBitTorrent => f.write_str("the peer does not speak BitTorrent"),
            Self::TooLong { id, length } => write!(f, "message {id} of {length} bytes is too long"),
            Self::Malformed { id, reason } => write!(f, "message {id} is malformed: {reason}"),
        }
    }
}

/// The opening handshake, encoded.
pub(crate) fn encode_handshake(info_hash: InfoHash, peer_id: [u8; 20]) -> [u8; HANDSHAKE_LENGTH] {
    let mut out = [0; HANDSHAKE_LENGTH];
    let written = Handshake::new(Id20::new(info_hash.0), Id20::new(peer_id))
        .serialize_unchecked_len(&mut out);
    debug_assert_eq!(written, HANDSHAKE_LENGTH);
    out[FAST_BYTE] |= FAST_BIT;
    out
}

/// What the opening handshake of a peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerHandshake {
    pub(crate) info_hash: InfoHash,
    pub(crate) peer_id: [u8; 20],
    /// Whether the peer knows extension messages (BEP 10).
    pub(crate) extended: bool,
    /// Whether the peer knows the fast extension (BEP 6).
    pub(crate) fast: bool,
}

/// Reads the opening handshake.
pub(crate) fn decode_handshake(bytes: &[u8; HANDSHAKE_LENGTH]) -> Result<PeerHandshake, WireError> {
    let (handshake, _) = Handshake::deserialize(bytes).map_err(|_| WireError::NotBitTorrent)?;
    Ok(PeerHandshake {
        info_hash: InfoHash(handshake.info_hash.0),
        peer_id: handshake.peer_id.0,
        extended: handshake.supports_extended(),
        fast: bytes[FAST_BYTE] & FAST_BIT != 0,
    })
}

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

/// Appends a message to `out`.
pub(crate) fn encode(message: &WireMessage, out: &mut BytesMut) {
    let request = |r: &WireRequest| Request::new(r.piece, r.begin, r.length);
    let message = match message {
        WireMessage::KeepAlive => Message::KeepAlive,
        WireMessage::Choke => Message::Choke,
        WireMessage::Unchoke => Message::Unchoke,
        WireMessage::Interested => Message::Interested,
        WireMessage::NotInterested => Message::NotInterested,
        WireMessage::Have(piece) => Message::Have(*piece),
        WireMessage::Bitfield(bits) => Message::Bitfield(ByteBuf(bits)),
        WireMessage::Request(r) => Message::Request(request(r)),
        WireMessage::Cancel(r) => Message::Cancel(request(r)),
        WireMessage::Piece { piece, begin, data } => {
            encode_piece_header(*piece, *begin, data.len() as u32, out);
            out.put_slice(data);
            return;
        }
        WireMessage::HaveAll => return encode_fast(ID_HAVE_ALL, &[], out),
        WireMessage::HaveNone => return encode_fast(ID_HAVE_NONE, &[], out),
        WireMessage::Suggest(piece) => return encode_fast(ID_SUGGEST, &[*piece], out),
        WireMessage::AllowedFast(piece) => return encode_fast(ID_ALLOWED_FAST, &[*piece], out),
        WireMessage::Reject(r) => {
            return encode_fast(ID_REJECT, &[r.piece, r.begin, r.length], out);
        }
        WireMessage::ExtendedHello(hello) => {
            encode_hello(hello, out);
            return;
        }
        WireMessage::Metadata { extension, message } => {
            encode_metadata(*extension, message, out);
            return;
        }
        WireMessage::PeerExchange { extension, message } => {
            encode_extended(*extension, &message.encode(), out);
            return;
        }
        WireMessage::Urgent { extension, request } => {
            out.put_u32(14);
            out.put_slice(&[ID_EXTENDED, *extension]);
            for number in [request.piece, request.begin, request.length] {
                out.put_u32(number);
            }
            return;
        }
        WireMessage::Zstd { extension, message } => {
            out.put_u32(2 + message.length() as u32);
            out.put_slice(&[ID_EXTENDED, *extension]);
            message.encode(out);
            return;
        }
        WireMessage::Expanded { .. } | WireMessage::Unknown(_) => return,
    };
    let room = match &message {
        Message::Bitfield(bits) => 5 + bits.as_ref().len(),
        // The longest: a REQUEST.
        _ => 17,
    };
    let start = out.len();
    out.resize(start + room, 0);
    let written = message
        .serialize(&mut out[start..], &PeerExtendedMessageIds::default)
        .unwrap_or_default();
    debug_assert_ne!(written, 0);
    out.truncate(start + written);
}

fn encode_fast(id: u8, numbers: &[u32], out: &mut BytesMut) {
    out.put_u32(1 + 4 * numbers.len() as u32);
    out.put_u8(id);
    for number in numbers {
        out.put_u32(*number);
    }
}

/// Appends the extended handshake. The wire crate can't write one without any extension named.
fn encode_hello(hello: &ExtendedHello, out: &mut BytesMut) {
    let body = Encoder::encode(|d| {
        d.string("m").dictionary(|m| {
            if let Some(number) = hello.ut_metadata {
                m.string("ut_metadata").integer(number.into());
            }
            if let Some(number) = hello.ut_pex {
                m.string("ut_pex").integer(number.into());
            }
            if let Some(number) = hello.vmt_profile {
                m.string("vmt_profile").integer(number.into());
            }
            if let Some(number) = hello.vmt_urgent {
                m.string("vmt_urgent").integer(number.into());
            }
            if let Some(number) = hello.vmt_zstd {
                m.string("vmt_zstd").integer(number.into());
            }
        });
        if let Some(size) = hello.metadata_size {
            d.string("metadata_size").integer(size.into());
        }
        if let Some(port) = hello.listen_port {
            d.string("p").integer(port.into());
        }
        if let Some(limit) = hello.request_queue {
            d.string("reqq").integer(limit.into());
        }
        if let Some(client) = &hello.client {
            d.string("v").string(client);
        }
        if let Some(seconds) = hello.vmt_pex_interval {
            d.string("vmt_pex_interval").integer(seconds.into());
        }
        if let Some(size) = hello.vmt_profile_size {
            d.string("vmt_profile_size").integer(size.into());
        }
    });
    encode_extended(0, &body, out);
}

fn encode_extended(extension: u8, body: &[u8], out: &mut BytesMut) {
    out.put_u32(2 + body.len() as u32);
    out.put_slice(&[ID_EXTENDED, extension]);
    out.put_slice(body);
}

fn encode_metadata(extension: u8, message: &MetadataMessage, out: &mut BytesMut) {
    let (head, data) = message.encode();
    out.reserve(6 + head.len() + data.len());
    out.put_u32((2 + head.len() + data.len()) as u32);
    out.put_slice(&[ID_EXTENDED, extension]);
    out.put_slice(&head);
    out.put_slice(data);
}

/// Appends the header of a PIECE message; `length` bytes of data must follow.
pub(crate) fn encode_piece_header(piece: u32, begin: u32, length: u32, out: &mut BytesMut) {
    out.reserve(13 + length as usize);
    out.put_u32(9 + length);
    out.put_u8(ID_PIECE);
    out.put_u32(piece);
    out.put_u32(begin);
}

/// Appends a block in compressed form, under the number that the peer chose for vmt_zstd.
pub(crate) fn encode_compressed(
    extension: u8,
    block: WireRequest,
    frame: &[u8],
    out: &mut BytesMut,
) {
    out.reserve(19 + frame.len());
    out.put_u32(15 + frame.len() as u32);
    out.put_slice(&[ID_EXTENDED, extension]);
    encode_block_header(block, out);
    out.put_slice(frame);
}

/// The bytes that a PIECE message of a whole block takes: a good size for buffers.
pub(crate) const PIECE_MESSAGE_LENGTH: usize = 13 + BLOCK_LENGTH as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::compression::CompressedBlock;
    use proptest::prelude::*;

    fn samples() -> Vec<WireMessage> {
        let r = WireRequest {
            piece: 3,
            begin: 16384,
            length: 16384,
        };
        vec![
            WireMessage::KeepAlive,
            WireMessage::Choke,
            WireMessage::Unchoke,
            WireMessage::Interested,
            WireMessage::NotInterested,
            WireMessage::Have(7),
            WireMessage::Bitfield(Bytes::from_static(&[0b1010_0000, 1])),
            WireMessage::Request(r),
            WireMessage::Cancel(r),
            WireMessage::Piece {
                piece: 1,
                begin: 2,
                data: Bytes::from_static(b"data"),
            },
            WireMessage::HaveAll,
            WireMessage::HaveNone,
            WireMessage::Suggest(5),
            WireMessage::Reject(r),
            WireMessage::AllowedFast(6),
            WireMessage::ExtendedHello(ExtendedHello {
                client: Some("x 1".into()),
                request_queue: Some(500),
                listen_port: Some(6881),
                metadata_size: Some(70_000),
                ut_metadata: Some(3),
                vmt_profile: Some(4),
                vmt_profile_size: Some(4096),
                vmt_urgent: Some(5),
                vmt_zstd: Some(5),
                ut_pex: Some(5),
                vmt_pex_interval: Some(2),
            }),
            WireMessage::PeerExchange {
                extension: UT_PEX,
                message: PeerExchange {
                    added: Vec::new(),
                    dropped: vec![([192, 0, 2, 1], 6881).into()],
                },
            },
            WireMessage::Metadata {
                extension: UT_METADATA,
                message: MetadataMessage::Request { piece: 4 },
            },
            WireMessage::Metadata {
                extension: UT_METADATA,
                message: MetadataMessage::Data {
                    piece: 4,
                    total_size: 70_000,
                    data: Bytes::from_static(b"de"),
                },
            },
            WireMessage::Metadata {
                extension: UT_METADATA,
                message: MetadataMessage::Reject { piece: 4 },
            },
            WireMessage::Metadata {
                extension: VMT_PROFILE,
                message: MetadataMessage::Request { piece: 4 },
            },
            WireMessage::Zstd {
                extension: VMT_ZSTD,
                message: ZstdMessage::Block(CompressedBlock {
                    block: r,
                    frame: Bytes::from_static(b"frame"),
                }),
            },
            WireMessage::Zstd {
                extension: VMT_ZSTD,
                message: ZstdMessage::Wanted(false),
            },
            WireMessage::Urgent {
                extension: VMT_URGENT,
                request: r,
            },
        ]
    }

    #[test]
    fn messages_round_trip_in_any_fragmentation() {
        let mut stream = BytesMut::new();
        for m in samples() {
            encode(&m, &mut stream);
        }
        let decoder = Decoder::new(16);
        for chunk in [1, 3, 17, stream.len()] {
            let mut buffer = BytesMut::new();
            let mut got = Vec::new();
            for part in stream.chunks(chunk) {
                buffer.extend_from_slice(part);
                while let Some(m) = decoder.decode(&mut buffer).unwrap() {
                    got.push(m);
                }
            }
            assert_eq!(got, samples());
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_compressed_block_is_written_as_it_is_read() {
        let block = WireRequest {
            piece: 3,
            begin: 16384,
            length: 16384,
        };
        let mut buffer = BytesMut::new();
        encode_compressed(VMT_ZSTD, block, b"frame", &mut buffer);
        let frame = Bytes::from_static(b"frame");
        let message = WireMessage::Zstd {
            extension: VMT_ZSTD,
            message: ZstdMessage::Block(CompressedBlock { block, frame }),
        };
        let mut same = BytesMut::new();
        encode(&message, &mut same);
        assert_eq!(buffer, same);
        assert_eq!(Decoder::new(16).decode(&mut buffer), Ok(Some(message)));
    }

    #[test]
    fn oversized_messages_are_refused_before_they_are_buffered() {
        for (id, length) in [
            (5u8, 4u32),
            (7, 200_000),
            (4, 100),
            (20, 2 << 20),
            (99, 1 << 20),
            (0x10, 14),
        ] {
            let mut buffer = BytesMut::new();
            buffer.put_u32(length);
            buffer.put_u8(id);
            let error = Decoder::new(16).decode(&mut buffer).unwrap_err();
            assert_eq!(
                error,
                WireError::TooLong {
                    id,
                    length: length as usize
                }
            );
        }
    }

    #[test]
    fn the_handshake_round_trips_and_garbage_is_refused() {
        let bytes = encode_handshake(InfoHash([7; 20]), [9; 20]);
        let h = decode_handshake(&bytes).unwrap();
        assert_eq!(
            (h.info_hash, h.peer_id, h.extended, h.fast),
            (InfoHash([7; 20]), [9; 20], true, true)
        );
        let mut plain = bytes;
        plain[20..28].fill(0);
        let h = decode_handshake(&plain).unwrap();
        assert_eq!((h.extended, h.fast), (false, false));
        assert_eq!(decode_handshake(&[b'G'; 68]), Err(WireError::NotBitTorrent));
    }

    #[test]
    fn an_urgent_message_has_eighteen_bytes() {
        let request = WireRequest {
            piece: 1,
            begin: 2,
            length: 3,
        };
        let mut bytes = BytesMut::new();
        let extension = VMT_URGENT;
        encode(&WireMessage::Urgent { extension, request }, &mut bytes);
        let drawn = [
            0, 0, 0, 14, 20, VMT_URGENT, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3,
        ];
        assert_eq!(bytes[..], drawn);
        bytes[3] = 13;
        let got = Decoder::new(16).decode(&mut bytes);
        assert!(matches!(got, Err(WireError::Malformed { .. })), "{got:?}");
    }

    #[test]
    fn a_fast_message_of_a_wrong_length_is_refused() {
        for (id, length) in [
            (ID_HAVE_ALL, 4usize),
            (ID_REJECT, 8),
            (ID_SUGGEST, 0),
            (ID_ALLOWED_FAST, 12),
        ] {
            let mut buffer = BytesMut::new();
            buffer.put_u32(1 + length as u32);
            buffer.put_u8(id);
            buffer.put_bytes(0, length);
            let got = Decoder::new(16).decode(&mut buffer);
            assert!(
                matches!(got, Err(WireError::Malformed { .. })),
                "{id}: {got:?}"
            );
        }
    }

    #[test]
    fn absurd_numbers_in_the_extended_handshake_are_ignored() {
        let body =
            b"d1:md11:ut_metadatai256e6:ut_pexi-7e11:vmt_profilei-1ee13:metadata_sizei-1e1:pi99999999999e4:reqqi-5e1:v3:abc\
              16:vmt_pex_intervali0e16:vmt_profile_sizei0ee";
        let mut buffer = BytesMut::new();
        buffer.put_u32(body.len() as u32 + 2);
        buffer.put_slice(&[ID_EXTENDED, 0]);
        buffer.put_slice(body);
        let hello = ExtendedHello {
            client: Some("abc".into()),
            ..ExtendedHello::default()
        };
        let got = Decoder::new(16).decode(&mut buffer);
        assert_eq!(got, Ok(Some(WireMessage::ExtendedHello(hello))));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), id in 0u8..30) {
            let decoder = Decoder::new(64);
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
            let mut framed = BytesMut::new();
            framed.put_u32(bytes.len() as u32 + 1);
            framed.put_u8(id);
            framed.extend_from_slice(&bytes);
            let _ = decoder.decode(&mut framed);
        }
    }
}
