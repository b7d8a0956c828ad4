//! What peers send of extensions: hellos, descriptions, profiles, compressed blocks, other peers.

use proptest::prelude::*;

use super::super::*;
use super::messages::{bytes_of, request};
use crate::swarm::compression::{CompressedBlock, ZstdMessage};
use crate::swarm::metadata::{METADATA_PIECE, MetadataMessage, piece_length};
use crate::swarm::peer_exchange::{Neighbour, PeerExchange};
use crate::swarm::wire::{ExtendedHello, UT_PEX, VMT_PROFILE, VMT_ZSTD};

/// A hello with any of the extensions.
pub(super) fn hello() -> impl Strategy<Value = WireMessage> {
    let fields = (
        any::<Option<u32>>(),
        any::<Option<u16>>(),
        any::<Option<u32>>(),
        any::<Option<u8>>(),
        any::<Option<u8>>(),
        any::<Option<u8>>(),
        proptest::option::of(profile_size()),
        any::<Option<u8>>(),
        any::<(Option<u8>, Option<u16>)>(),
    );
    fields.prop_map(
        |(
            reqq,
            port,
            metadata_size,
            ut_metadata,
            vmt_profile,
            vmt_zstd,
            vmt_profile_size,
            vmt_urgent,
            pex,
        )| {
            WireMessage::ExtendedHello(ExtendedHello {
                client: None,
                request_queue: reqq,
                listen_port: port.filter(|p| *p != 0),
                metadata_size,
                ut_metadata,
                vmt_profile,
                vmt_profile_size,
                vmt_zstd,
                vmt_urgent,
                ut_pex: pex.0,
                vmt_pex_interval: pex.1.filter(|n| *n != 0),
            })
        },
    )
}

/// A hello that offers a profile.
pub(super) fn offer(size: u32) -> WireMessage {
    WireMessage::ExtendedHello(ExtendedHello {
        vmt_profile: Some(7),
        vmt_profile_size: Some(size),
        ..ExtendedHello::default()
    })
}

/// The length of a profile's text, mostly of a few parts.
pub(super) fn profile_size() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => (1..6_u32).prop_map(|n| n * 16_000),
        1 => 1..u32::MAX,
    ]
}

/// A part of a profile, mostly as long as it should be.
pub(super) fn part() -> impl Strategy<Value = WireMessage> {
    (0..6_u32, profile_size(), 0..3_u32).prop_map(|(piece, total_size, wrong)| {
        let length = piece_length(total_size, piece) + wrong / 2;
        let data = vec![b'p'; length.clamp(1, METADATA_PIECE) as usize].into();
        WireMessage::Metadata {
            extension: VMT_PROFILE,
            message: MetadataMessage::Data {
                piece,
                total_size,
                data,
            },
        }
    })
}

/// A compressed block: right, wrong or damaged.
pub(super) fn compressed() -> impl Strategy<Value = WireMessage> {
    (request(), any::<bool>(), 0..4_u8).prop_map(|(r, lie, damage)| {
        let plain = bytes_of(r, lie);
        let mut frame = vec![0; zstd_safe::compress_bound(plain.len())];
        let length = zstd_safe::compress(&mut frame[..], &plain, 1).unwrap();
        frame.truncate(length);
        if damage == 0 {
            frame.truncate(length / 2 + 1);
        }
        WireMessage::Zstd {
            extension: VMT_ZSTD,
            message: ZstdMessage::Block(CompressedBlock {
                block: r,
                frame: frame.into(),
            }),
        }
    })
}

/// Whether blocks may come compressed.
pub(super) fn wanted() -> impl Strategy<Value = WireMessage> {
    any::<bool>().prop_map(|wanted| WireMessage::Zstd {
        extension: VMT_ZSTD,
        message: ZstdMessage::Wanted(wanted),
    })
}

/// What is said of a description.
pub(super) fn metadata() -> impl Strategy<Value = WireMessage> {
    let fields = (0..12_u32, any::<u32>(), 1..3_u8);
    fields.prop_map(|(kind, piece, extension)| WireMessage::Metadata {
        extension,
        message: match kind {
            0 => MetadataMessage::Data {
                piece,
                total_size: piece,
                data: Bytes::from_static(b"de"),
            },
            1 => MetadataMessage::Reject { piece },
            2 => MetadataMessage::Request { piece },
            _ => MetadataMessage::Request { piece: 0 },
        },
    })
}

/// Peers that a peer tells of.
pub(super) fn exchange() -> impl Strategy<Value = WireMessage> {
    let neighbours = proptest::collection::vec(any::<([u8; 4], u16, u8)>(), 0..300);
    neighbours.prop_map(|neighbours| WireMessage::PeerExchange {
        extension: UT_PEX,
        message: PeerExchange {
            added: neighbours
                .iter()
                .map(|&(ip, port, flags)| Neighbour {
                    address: (ip, port).into(),
                    flags,
                })
                .collect(),
            dropped: neighbours
                .iter()
                .map(|&(ip, port, _)| (ip, port).into())
                .collect(),
        },
    })
}
