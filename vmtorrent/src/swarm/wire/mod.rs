//! Messages between peers, and their form on the wire.
//!
//! Invariant: no message longer than the protocol allows is ever buffered, and nothing that a peer
//! sends can make the decoder panic.
//!
//! The wire format itself is `librqbit-peer-protocol`'s; this module frames it and keeps payloads as
//! shared [`Bytes`], so that a block is never copied between the socket's buffer and the piece.

mod decoder;
mod encode;
mod handshake;
#[cfg(test)]
mod tests;

pub(crate) use decoder::Decoder;
pub(crate) use encode::{encode, encode_compressed, encode_piece_header};
pub(crate) use handshake::{HANDSHAKE_LENGTH, PeerHandshake, decode_handshake, encode_handshake};

use bytes::Bytes;

use super::compression::ZstdMessage;
use super::metadata::MetadataMessage;
use super::peer_exchange::PeerExchange;
use crate::image::BLOCK_LENGTH;

const ID_BITFIELD: u8 = 5;
const ID_PIECE: u8 = 7;
/// Where a node of the DHT is (BEP 5).
const ID_PORT: u8 = 9;
// The fast extension (BEP 6).
const ID_SUGGEST: u8 = 0x0d;
const ID_HAVE_ALL: u8 = 0x0e;
const ID_HAVE_NONE: u8 = 0x0f;
const ID_REJECT: u8 = 0x10;
const ID_ALLOWED_FAST: u8 = 0x11;
const ID_EXTENDED: u8 = 20;

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

/// The bytes that a PIECE message of a whole block takes: a good size for buffers.
pub(crate) const PIECE_MESSAGE_LENGTH: usize = 13 + BLOCK_LENGTH as usize;

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
    /// The sender's host has a node of the DHT on this UDP port (BEP 5).
    Port(u16),
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
        /// Those bytes, where they may be given on as they are; else empty.
        frame: Bytes,
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
