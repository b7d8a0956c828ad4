//! Bytes that are no BitTorrent: the connection ends or the message is skipped, and nothing else happens.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use vmtorrent_tests::scripted_peer::{
    Block, Connection, HANDSHAKE, Message, ScriptedPeer, handshake, peer_id,
};

use crate::scene::{PEER_MEMORY, Process, Scene};

/// A peer that the guest dials and that plays `script` on the bare connection, beside an honest one. Gives how many
/// connections the script saw begin and end.
fn dialled(script: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static) {
    let Some(scene) = Scene::with_guests() else {
        return;
    };
    let hostile = ScriptedPeer::bare(move |connection, _| script(connection));
    let honest = scene.honest();
    let guest = scene.launch(&[&hostile, &honest]);
    guest.bounded(PEER_MEMORY + (16 << 20), || {
        hostile.wait_ended(1);
        guest.read_many();
    });
    assert_eq!(
        (
            honest.connected(),
            honest.tally().count(ScriptedPeer::BEGUN)
        ),
        (1, 1)
    );
    guest.end();
}

/// Reads until the other side ends the connection.
fn drain(connection: &mut Connection) -> io::Result<()> {
    loop {
        connection.receive()?;
    }
}

#[test]
fn a_garbage_handshake_ends_the_connection() {
    dialled(|connection| {
        connection.raw(&[0xa5; 4096])?;
        drain(connection)
    });
}

#[test]
fn a_handshake_of_another_protocol_length_ends_the_connection() {
    dialled(|connection| {
        let mut bytes = handshake([0; 20], peer_id(1));
        bytes[0] = 200;
        connection.raw(&bytes)?;
        drain(connection)
    });
}

#[test]
fn a_handshake_with_another_info_hash_ends_the_connection() {
    dialled(|connection| {
        connection.raw(&handshake([0x5a; 20], peer_id(1)))?;
        connection.read_handshake()?;
        drain(connection)
    });
}

#[test]
fn half_a_handshake_and_a_hang_up_are_no_matter() {
    dialled(|connection| {
        connection.raw(&handshake([0x5a; 20], peer_id(1))[..33])?;
        Err(io::ErrorKind::Other.into())
    });
}

#[test]
fn silence_after_the_connection_opened_ends_it() {
    dialled(|connection| {
        connection.read_handshake()?;
        drain(connection)
    });
}

#[test]
fn a_handshake_that_trickles_ends_the_connection() {
    dialled(|connection| {
        let theirs = connection.read_handshake()?;
        let info_hash = theirs[28..48].try_into().unwrap_or_default();
        for byte in handshake(info_hash, peer_id(1)) {
            connection.raw(&[byte])?;
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    });
}

#[test]
fn a_stranger_s_broken_handshake_ends_its_connection() {
    let scene = Scene::new();
    let seed = scene.seed();
    let right = handshake(seed.info_hash(), peer_id(1));
    let mut other_length = right;
    other_length[0] = 18;
    let mut other_name = right;
    other_name[5] ^= 1;
    let garbage = [0; HANDSHAKE];
    let unknown = handshake([1; 20], peer_id(1));
    seed.bounded(PEER_MEMORY, || {
        for (what, bytes) in [
            ("length", other_length),
            ("name", other_name),
            ("garbage", garbage),
            ("info-hash", unknown),
        ] {
            let mut connection = Connection::dial(seed.listen()).unwrap();
            connection.raw(&bytes).unwrap();
            connection.wait_closed(what);
        }
        // One that says nothing, one that trickles; both at once.
        let silent = Connection::dial(seed.listen()).unwrap();
        let mut slow = Connection::dial(seed.listen()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| silent.wait_closed("silence"));
            for byte in right {
                if slow.raw(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            panic!("a handshake may take a minute");
        });
    });
    assert_serves(&seed, 2);
    seed.end();
}

/// Asserts that somebody new is served.
fn assert_serves(seed: &impl Process, number: u32) {
    let mut connection = seed.connect(number);
    connection
        .send(&Message::Request(Block::nth(0, 0)))
        .unwrap();
    let block = connection.receive_until(|m| matches!(m, Message::Piece(0, 0, _)));
    block.unwrap();
}

#[test]
fn an_oversized_length_of_every_id_ends_the_connection_before_it_is_believed() {
    let scene = Scene::new();
    let seed = scene.seed();
    seed.bounded(2 * PEER_MEMORY, || {
        for id in 0..=255_u8 {
            for length in [u32::MAX, 1 << 31, (1 << 20) + 1] {
                let mut connection = seed.connect(u32::from(id));
                let prefix = length.to_be_bytes();
                // What follows is never looked at; the connection may be gone before all of it went out.
                let _ = connection.raw(&[&prefix[..], &[id], &[0; 64]].concat());
                connection.wait_closed(&format!("id {id}, {length} bytes"));
            }
        }
    });
    assert_serves(&seed, 1000);
    seed.end();
}

#[test]
fn a_truncated_message_of_every_id_costs_nothing_that_stays() {
    let scene = Scene::new();
    let seed = scene.seed();
    seed.bounded(2 * PEER_MEMORY, || {
        for id in 0..=255_u8 {
            let mut connection = seed.connect(u32::from(id));
            let prefix = 13_u32.to_be_bytes();
            let _ = connection.raw(&[&prefix[..], &[id], &[0; 5]].concat());
        }
    });
    assert_serves(&seed, 1000);
    seed.end();
}

/// Plays `script` on a connection to a seed and tells whether it was ended.
fn is_ended_by(script: impl Fn(&mut Connection) -> io::Result<()>) -> bool {
    let scene = Scene::new();
    let seed = scene.seed();
    let mut connection = seed.connect(1);
    let ended = seed.bounded(PEER_MEMORY, || {
        // An ended connection shows at the latest when it is asked for something.
        script(&mut connection)
            .and_then(|()| connection.send(&Message::Request(Block::nth(0, 0))))
            .and_then(|()| connection.receive_until(|m| matches!(m, Message::Piece(..))))
            .is_err()
    });
    assert_serves(&seed, 2);
    seed.end();
    ended
}

#[test]
fn a_bitfield_of_a_wrong_length_ends_the_connection() {
    assert!(is_ended_by(|c| c.send(&Message::Bitfield(vec![0; 99]))));
    assert!(is_ended_by(|c| c.send(&Message::Bitfield(vec![0; 3]))));
    assert!(is_ended_by(|c| c.send(&Message::Bitfield(Vec::new()))));
}

#[test]
fn a_bitfield_with_spare_bits_ends_the_connection() {
    // 97 pieces: the last of 13 bytes has seven bits to spare.
    let spare = [vec![0; 12], vec![1]].concat();
    assert!(is_ended_by(|c| c.send(&Message::Bitfield(spare.clone()))));
}

#[test]
fn a_late_bitfield_is_believed() {
    let Some(scene) = Scene::with_guests() else {
        return;
    };
    let content = scene.content.clone();
    let late = ScriptedPeer::start(move |connection, tally| {
        connection.send(&Message::Unchoke)?;
        connection.send(&Message::Have(3))?;
        connection.send(&Message::Interested)?;
        content.seed(connection, |connection, block| {
            tally.add("asked");
            connection.send(&content.answer(block))
        })
    });
    let guest = scene.launch(&[&late]);
    guest.read_many();
    assert_eq!(
        (late.connected(), late.tally().count(ScriptedPeer::BEGUN)),
        (1, 1)
    );
    guest.end();
}

#[test]
fn unknown_messages_are_skipped() {
    assert!(!is_ended_by(|c| {
        for id in (9..=255).filter(|id| !known_elsewhere(*id)) {
            c.send(&Message::Other(id, vec![7; 100]))?;
            c.send(&Message::Other(id, Vec::new()))?;
        }
        c.send(&Message::KeepAlive)
    }));
}

/// PORT (BEP 5), the fast extension (BEP 6) and the extension protocol (BEP 10) have forms of their own.
fn known_elsewhere(id: u8) -> bool {
    matches!(id, 9 | 13..=17 | 20)
}

#[test]
fn a_broken_extended_handshake_ends_the_connection_or_is_skipped() {
    let nested = [vec![b'l'; 100_000], vec![b'e'; 100_000]].concat();
    let bodies: [&[u8]; 8] = [
        b"",
        b"garbage",
        b"d",
        b"d1:md11:ut_metadata",
        b"i99999999999999999999999999999e",
        b"d1:v999999999999:x",
        b"d4:reqqi1e4:reqqi2ee",
        &nested,
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
        let payload = [&[0], body].concat();
        let ended = is_ended_by(|c| c.send(&Message::Other(20, payload.clone())));
        assert!(ended, "{shown:?} was taken for a handshake");
    }
}

#[test]
fn absurd_values_and_a_huge_extended_handshake_are_no_matter() {
    for body in [
        b"d1:pi0ee".to_vec(),
        b"d1:pi-1e4:reqqi0e1:v0:e".to_vec(),
        b"d1:md11:ut_metadatai999e6:ut_pexi-1ee1:pi99999999e4:reqqi-5ee".to_vec(),
        [b"d1:v60000:".to_vec(), vec![b'x'; 60_000], b"e".to_vec()].concat(),
    ] {
        let payload = [vec![0], body].concat();
        assert!(!is_ended_by(|c| {
            // A second one replaces the first (BEP 10).
            c.send(&Message::Other(20, payload.clone()))?;
            c.send(&Message::Other(20, payload.clone()))
        }));
    }
}

#[test]
fn a_connection_that_is_reset_at_once_is_no_matter() {
    let scene = Scene::new();
    let seed = scene.seed();
    for number in 0..50 {
        let connection = seed.connect(number);
        connection.shutdown(Shutdown::Both);
    }
    assert_serves(&seed, 1000);
    seed.end();
}
