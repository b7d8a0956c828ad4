//! Blocks in compressed form that are bombs, broken, of another length, wrong, or not agreed on.

use std::io;

use vmtorrent_tests::scripted_peer::{Block, Connection, Message, ScriptedPeer};

use crate::scene::{GUEST_MEMORY, PEER_MEMORY, Process, Scene};

/// Announces vmt_zstd and gives the number under which the other side takes it; `None` if it does not.
fn agree(connection: &mut Connection) -> io::Result<Option<u8>> {
    let hello = [&[0], &b"d1:md8:vmt_zstdi7eee"[..]].concat();
    connection.send(&Message::Other(20, hello))?;
    let hello = connection.receive_until(|m| matches!(m, Message::Other(20, p) if p[0] == 0))?;
    let Message::Other(_, payload) = hello else {
        return Ok(None);
    };
    let key = b"8:vmt_zstdi";
    let at = payload.windows(key.len()).position(|w| w == key);
    Ok(at.map(|at| payload[at + key.len()] - b'0'))
}

/// A frame with these bytes in it.
fn frame(plain: &[u8]) -> Vec<u8> {
    let mut room = vec![0; zstd_safe::compress_bound(plain.len())];
    let length = zstd_safe::compress(&mut room[..], plain, 3).unwrap();
    room.truncate(length);
    room
}

/// A compressed block as it stands in docs/protocol.md.
fn message(extension: u8, block: Block, frame: &[u8]) -> Message {
    let numbers = [block.piece, block.begin, block.length].map(u32::to_be_bytes);
    let payload = [&[extension, 0][..], &numbers.concat(), frame].concat();
    Message::Other(20, payload)
}

/// A guest with one honest peer, and one that answers each request with what `answer` makes of it: whatever that is, the
/// guest reads what was published, and the peer is left.
fn is_left(answer: impl Fn(Block) -> (Block, Vec<u8>) + Send + Sync + 'static) {
    let Some(scene) = Scene::with_guests() else {
        return;
    };
    let content = scene.content.clone();
    let hostile = ScriptedPeer::start(move |connection, tally| {
        let extension = agree(connection)?.unwrap();
        content.seed(connection, |connection, block| {
            tally.add("asked");
            let (block, frame) = answer(block);
            connection.send(&message(extension, block, &frame))
        })
    });
    let honest = scene.honest_after(&hostile);
    let guest = scene.launch(&[&hostile, &honest]);
    guest.bounded(GUEST_MEMORY + 2 * PEER_MEMORY, || {
        guest.read_many();
        hostile.wait_ended(1);
    });
    guest.end();
}

#[test]
fn a_bomb_is_refused_with_no_more_room_than_a_block() {
    let bomb = frame(&vec![0; 256 << 20]);
    is_left(move |block| (block, bomb.clone()));
}

#[test]
fn a_block_that_claims_to_be_huge_is_refused() {
    let small = frame(&[0; 16_384]);
    is_left(move |block| {
        let length = u32::MAX;
        (Block { length, ..block }, small.clone())
    });
}

#[test]
fn a_truncated_frame_ends_the_connection() {
    let mut cut = frame(&[7; 16_384]);
    cut.truncate(cut.len() - 1);
    is_left(move |block| (block, cut.clone()));
}

#[test]
fn a_frame_of_another_length_ends_the_connection() {
    for length in [16_383, 16_385] {
        let other = frame(&vec![7; length]);
        is_left(move |block| (block, other.clone()));
    }
}

#[test]
fn garbage_in_place_of_a_frame_ends_the_connection() {
    is_left(|block| (block, vec![0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3, 4, 5]));
}

#[test]
fn who_compresses_wrong_bytes_is_left_as_one_who_sends_them_plain() {
    let wrong = frame(&[7; 16_384]);
    is_left(move |block| {
        let plain = vec![7; block.length as usize];
        let right_length = block.length == 16_384;
        let frame = if right_length {
            wrong.clone()
        } else {
            frame(&plain)
        };
        (block, frame)
    });
}

#[test]
fn a_seed_bears_messages_that_make_no_sense() {
    let scene = Scene::new();
    let seed = scene.seed();
    let block = Block::nth(0, 0);
    seed.bounded(2 * PEER_MEMORY, || {
        for (what, payload) in [
            ("nothing", vec![3]),
            ("no frame", [&[3, 0][..], &[0; 12]].concat()),
            ("neither", vec![3, 1, 2]),
        ] {
            let mut connection = seed.connect(1);
            connection.send(&Message::Other(20, payload)).unwrap();
            connection.wait_closed(what);
        }
        // One that nobody asked for, and a word that comes again and again, are no matter at first.
        let mut connection = seed.connect(2);
        let extension = agree(&mut connection).unwrap().unwrap();
        let unasked = message(extension, block, &frame(&[7; 16_384]));
        connection.send(&unasked).unwrap();
        for n in 0..200 {
            let wanted = Message::Other(20, vec![extension, 1, n % 2]);
            connection.send(&wanted).unwrap();
        }
        connection.send(&Message::Request(block)).unwrap();
        let answered = |m: &Message| match m {
            Message::Piece(0, 0, _) => true,
            Message::Other(20, payload) => payload[..2] == [7, 0],
            _ => false,
        };
        connection.receive_until(answered).unwrap();
    });
    seed.end();
}
