use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::image::InfoHash;
use crate::swarm::compression::CompressedBlock;

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
        WireMessage::Port(6881),
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
        (ID_PORT, 4),
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
    let bytes = encode_handshake(InfoHash([7; 20]), [9; 20], false);
    let h = decode_handshake(&bytes).unwrap();
    assert_eq!(
        (h.info_hash, h.peer_id, h.extended, h.fast, h.dht),
        (InfoHash([7; 20]), [9; 20], true, true, false)
    );
    assert_eq!(bytes[27] & 1, 0);
    let with_node = encode_handshake(InfoHash([7; 20]), [9; 20], true);
    // The bit of BEP 5, and nothing else.
    assert_eq!(with_node[27], bytes[27] | 1);
    assert_eq!(with_node[..27], bytes[..27]);
    assert!(decode_handshake(&with_node).unwrap().dht);
    let mut plain = bytes;
    plain[20..28].fill(0);
    let h = decode_handshake(&plain).unwrap();
    assert_eq!((h.extended, h.fast, h.dht), (false, false, false));
    assert_eq!(decode_handshake(&[b'G'; 68]), Err(WireError::NotBitTorrent));
}

#[test]
fn a_port_message_is_as_bep_5_has_it() {
    let mut bytes = BytesMut::new();
    encode(&WireMessage::Port(0x1ae1), &mut bytes);
    assert_eq!(bytes[..], [0, 0, 0, 3, 9, 0x1a, 0xe1]);
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
fn a_message_of_a_wrong_length_is_refused() {
    for (id, length) in [
        (ID_PORT, 0usize),
        (ID_PORT, 1),
        (ID_HAVE_ALL, 4),
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
