//! Invariant: what is appended is one whole message, or, of a block, its header.

use bytes::{BufMut, BytesMut};
use librqbit_buffers::ByteBuf;
use librqbit_peer_protocol::extended::PeerExtendedMessageIds;
use librqbit_peer_protocol::{Message, Request};

use super::super::compression::encode_block_header;
use super::super::metadata::MetadataMessage;
use super::{
    ExtendedHello, ID_ALLOWED_FAST, ID_EXTENDED, ID_HAVE_ALL, ID_HAVE_NONE, ID_PIECE, ID_PORT,
    ID_REJECT, ID_SUGGEST, WireMessage, WireRequest,
};
use crate::bencode::Encoder;

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
        WireMessage::Port(port) => {
            out.put_u32(3);
            out.put_u8(ID_PORT);
            out.put_u16(*port);
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
