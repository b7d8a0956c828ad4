//! Peers that promise and don't deliver: a read goes on with who does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use vmtorrent_tests::scripted_peer::{Block, Connection, Content, Message, ScriptedPeer, Tally};

use crate::scene::{PEER_MEMORY, Process, Scene};

/// A hostile peer with an answer of its own to each request, and an honest one: the guest reads everything, and keeps
/// the honest peer.
fn costs_no_read(
    answer: impl Fn(&Content, &mut Connection, Block, &Tally) -> io::Result<()> + Send + Sync + 'static,
) -> Option<(ScriptedPeer, ScriptedPeer)> {
    let scene = Scene::with_guests()?;
    let content = scene.content.clone();
    let hostile = ScriptedPeer::start(move |connection, tally| {
        content.seed(connection, |connection, block| {
            tally.add("asked");
            answer(&content, connection, block, tally)
        })
    });
    let honest = scene.honest();
    let guest = scene.launch(&[&hostile, &honest]);
    guest.bounded(scene_memory(&scene), || guest.read_many());
    assert!(hostile.tally().count("asked") > 0, "it was never asked");
    assert_eq!(honest.connected(), 1, "the honest peer stays");
    assert_eq!(honest.tally().count(ScriptedPeer::BEGUN), 1);
    guest.end();
    Some((hostile, honest))
}

/// A guest that reads the image needs memory of its own.
fn scene_memory(_: &Scene) -> u64 {
    16 << 20
}

#[test]
fn who_claims_everything_and_answers_nothing_costs_no_read() {
    costs_no_read(|_, _, _, _| Ok(()));
}

#[test]
fn who_answers_with_another_block_costs_no_read() {
    costs_no_read(|content, connection, block, _| {
        let piece = (block.piece + 1) % (content.pieces() - 1);
        connection.send(&content.answer(Block { piece, ..block }))
    });
}

#[test]
fn who_answers_twice_costs_no_read_and_is_no_liar() {
    let peers = costs_no_read(|content, connection, block, _| {
        connection.send(&content.answer(block))?;
        connection.send(&content.answer(block))
    });
    if let Some((twice, _)) = peers {
        assert_eq!(
            twice.tally().count(ScriptedPeer::BEGUN),
            1,
            "it is served as before"
        );
    }
}

#[test]
fn who_chokes_instead_of_answering_costs_no_read() {
    costs_no_read(|_, connection, _, _| {
        connection.send(&Message::Choke)?;
        connection.send(&Message::Unchoke)
    });
}

#[test]
fn who_chokes_for_good_costs_no_read() {
    costs_no_read(|_, connection, _, _| connection.send(&Message::Choke));
}

#[test]
fn who_hangs_up_instead_of_answering_costs_no_read() {
    costs_no_read(|_, _, _, _| Err(io::ErrorKind::Other.into()));
}

#[test]
fn who_trickles_its_answer_costs_no_read() {
    costs_no_read(|content, connection, block, _| {
        for byte in content.answer(block).encode() {
            connection.raw(&[byte])?;
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    });
}

#[test]
fn who_sends_half_a_block_and_hangs_up_costs_no_read() {
    costs_no_read(|content, connection, block, _| {
        let bytes = content.answer(block).encode();
        connection.raw(&bytes[..bytes.len() / 2])?;
        Err(io::ErrorKind::Other.into())
    });
}

#[test]
fn who_answers_long_after_somebody_else_did_costs_no_read() {
    until_asked(|scene| {
        let content = scene.content.clone();
        let late = ScriptedPeer::start(move |connection, tally| {
            let mut asked = Vec::new();
            content.seed(connection, |connection, block| {
                asked.push(block);
                tally.add("asked");
                // Two at a time, the older one late by then; more are not asked of one that lets reads wait.
                if asked.len() == 2 {
                    for block in asked.drain(..) {
                        connection.send(&content.answer(block))?;
                        tally.add("late");
                    }
                }
                Ok(())
            })
        });
        let honest = scene.honest();
        let guest = scene.launch(&[&late, &honest]);
        guest.read_many();
        assert_eq!(
            (late.connected(), honest.connected()),
            (1, 1),
            "late is no lie"
        );
        guest.end();
        late.tally().count("late") > 0
    });
}

/// It has nothing, says HAVE for everything, and then what `answer` says.
fn claims(answer: impl Fn(&mut Connection, Block) -> io::Result<()> + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    until_asked(|scene| {
        let (pieces, answer) = (scene.content.pieces(), answer.clone());
        let hostile = ScriptedPeer::start(move |connection, tally| {
            for piece in 0..pieces {
                connection.send(&Message::Have(piece))?;
            }
            connection.send(&Message::Unchoke)?;
            loop {
                if let Message::Request(block) = connection.receive()? {
                    tally.add("asked");
                    answer(connection, block)?;
                }
            }
        });
        let honest = scene.honest();
        let guest = scene.launch(&[&hostile, &honest]);
        guest.bounded(PEER_MEMORY + scene_memory(scene), || guest.read_many());
        assert_eq!(
            (
                honest.connected(),
                honest.tally().count(ScriptedPeer::BEGUN)
            ),
            (1, 1)
        );
        guest.end();
        hostile.tally().count("asked") > 0
    });
}

/// Whoever is connected first may give everything before the other is asked at all: then there was nothing to see, and
/// it is done again.
fn until_asked(attempt: impl Fn(&Scene) -> bool) {
    for _ in 0..10 {
        let Some(scene) = Scene::with_guests() else {
            return;
        };
        if attempt(&scene) {
            return;
        }
    }
    panic!("it was never asked");
}

#[test]
fn have_without_data_and_never_an_answer_costs_no_read() {
    claims(|_, _| Ok(()));
}

#[test]
fn have_without_data_and_a_reject_costs_no_read() {
    // BEP 6's REJECT, which was not agreed upon.
    claims(|connection, block| {
        let payload = [block.piece, block.begin, block.length].map(u32::to_be_bytes);
        connection.send(&Message::Other(16, payload.concat()))
    });
}

#[test]
fn have_without_data_and_a_hang_up_costs_no_read() {
    claims(|_, _| Err(io::ErrorKind::Other.into()));
}
