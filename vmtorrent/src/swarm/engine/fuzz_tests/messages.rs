//! What peers send: messages, right and wrong, and their bytes, now and then damaged.

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::network::piece_data;
use super::super::*;
use super::extensions::{compressed, exchange, hello, metadata, offer, part, profile_size, wanted};
use super::{PIECE, PIECES};
use crate::swarm::wire::{VMT_URGENT, encode};

pub(super) fn request() -> impl Strategy<Value = WireRequest> {
    let begin = prop_oneof![
        6 => (0..3_u32).prop_map(|n| n * 16_384),
        1 => 0..PIECE + 2,
        1 => any::<u32>(),
    ];
    let length = prop_oneof![
        4 => Just(16_384_u32),
        2 => Just(PIECE - 2 * 16_384),
        1 => 0..140_000_u32,
        1 => any::<u32>(),
    ];
    (number(), begin, length).prop_map(|(piece, begin, length)| WireRequest {
        piece,
        begin,
        length,
    })
}

/// The number of a piece, mostly of one that exists.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![12 => 0..PIECES, 1 => Just(PIECES), 1 => any::<u32>()]
}

/// What a request asks for, as far as there is something; if it is a lie, not quite.
pub(super) fn bytes_of(r: WireRequest, lie: bool) -> Vec<u8> {
    let whole = piece_data(r.piece % PIECES, PIECE);
    let start = (r.begin as usize).min(whole.len());
    let end = start.saturating_add(r.length as usize).min(whole.len());
    let mut data = whole[start..end].to_vec();
    if lie && let Some(first) = data.first_mut() {
        *first ^= 1;
    }
    data
}

fn message() -> impl Strategy<Value = WireMessage> {
    let simple = prop_oneof![
        1 => Just(WireMessage::KeepAlive),
        1 => Just(WireMessage::Choke),
        4 => Just(WireMessage::Unchoke),
        1 => Just(WireMessage::Interested),
        1 => Just(WireMessage::NotInterested),
        2 => Just(WireMessage::HaveAll),
        1 => Just(WireMessage::HaveNone),
    ];
    let block = (request(), any::<bool>()).prop_map(|(r, lie)| WireMessage::Piece {
        piece: r.piece,
        begin: r.begin,
        data: bytes_of(r, lie).into(),
    });
    prop_oneof![
        1 => exchange(),
        6 => simple,
        3 => number().prop_map(WireMessage::Have),
        2 => proptest::collection::vec(any::<u8>(), 0..4).prop_map(|b| WireMessage::Bitfield(b.into())),
        1 => Just(WireMessage::Bitfield(Bytes::from_static(&[0xff, 0xe0]))),
        4 => request().prop_map(WireMessage::Request),
        2 => request().prop_map(WireMessage::Cancel),
        2 => request().prop_map(|request| WireMessage::Urgent { extension: VMT_URGENT, request }),
        6 => block,
        2 => request().prop_map(WireMessage::Reject),
        1 => number().prop_map(WireMessage::Suggest),
        1 => number().prop_map(WireMessage::AllowedFast),
        1 => any::<u16>().prop_map(WireMessage::Port),
        1 => hello(),
        2 => metadata(),
        1 => profile_size().prop_map(offer),
        2 => part(),
        4 => compressed(),
        1 => wanted(),
    ]
}

/// Messages on the wire, now and then damaged there.
pub(super) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let whole = proptest::collection::vec(message(), 1..12).prop_map(|messages| {
        let mut out = BytesMut::new();
        for message in &messages {
            encode(message, &mut out);
        }
        out.to_vec()
    });
    let damage = (any::<Index>(), any::<u8>(), 0..4_u8);
    let damages = prop_oneof![
        3 => Just(Vec::new()),
        1 => proptest::collection::vec(damage, 1..4),
    ];
    let garbage = proptest::collection::vec(any::<u8>(), 0..300);
    let mutated = (whole, damages).prop_map(|(mut bytes, damages)| {
        for (at, value, kind) in damages {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] ^= value,
                1 => bytes.insert(at, value),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    });
    prop_oneof![20 => mutated, 1 => garbage]
}
