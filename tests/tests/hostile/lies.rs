//! Wrong data: who sent it is found and left, who did not is kept, and the guest never sees any of it.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vmtorrent_tests::scripted_peer::{
    BLOCK, Block, Connection, Content, Message, ScriptedPeer, handshake, peer_id,
};

use crate::scene::{Process, Scene, assert_stays};

/// Counted by a liar when the other side knows what it has: before, the others alone may serve all that is read.
const HEARD: &str = "interest";

/// A peer that has everything and lies where `lies` says so; it gets the block and how many were asked for before.
fn liar(
    content: &Content,
    lies: impl Fn(Block, u32) -> bool + Send + Sync + 'static,
) -> ScriptedPeer {
    let content = content.clone();
    let asked = AtomicU32::new(0);
    ScriptedPeer::start(move |connection, tally| {
        connection.send(&Message::Bitfield(content.full()))?;
        connection.send(&Message::Unchoke)?;
        loop {
            match connection.receive()? {
                Message::Interested => tally.add(HEARD),
                Message::Request(block) => {
                    let nth = asked.fetch_add(1, Ordering::Relaxed);
                    if lies(block, nth) {
                        tally.add("lies");
                        connection.send(&content.lie(block))?;
                    } else {
                        connection.send(&content.answer(block))?;
                    }
                }
                _ => {}
            }
        }
    })
}

/// One liar among honest peers: at the end of a whole image it is gone, and nobody else.
fn is_found(honest: usize, lies: impl Fn(Block, u32) -> bool + Send + Sync + 'static) {
    let Some(scene) = Scene::with_guests() else {
        return;
    };
    let liar = liar(&scene.content, lies);
    let honest: Vec<_> = (0..honest).map(|_| scene.honest()).collect();
    let all: Vec<_> = std::iter::once(&liar).chain(&honest).collect();
    let guest = scene.launch(&all);
    liar.tally().wait(HEARD, 1);
    guest.read_many();
    assert!(liar.tally().count("lies") > 0, "it was never asked");
    liar.wait_ended(1);
    assert_eq!(
        liar.tally().count(ScriptedPeer::BEGUN),
        1,
        "it is left alone"
    );
    for peer in &honest {
        assert_stays(peer);
    }
    guest.end();
}

#[test]
fn who_spoils_every_block_is_left() {
    is_found(1, |_, _| true);
}

#[test]
fn who_spoils_one_block_of_each_piece_is_left() {
    is_found(1, |block, _| block.begin == BLOCK);
}

#[test]
fn who_spoils_only_last_blocks_is_left() {
    is_found(1, |block, _| block.begin == 3 * BLOCK);
}

#[test]
fn who_spoils_every_other_block_is_left() {
    is_found(1, |_, nth| nth % 2 == 1);
}

#[test]
fn who_spoils_blocks_of_every_other_piece_is_left() {
    is_found(1, |block, _| block.piece % 2 == 1);
}

#[test]
fn among_four_that_gave_a_piece_only_the_liar_is_left() {
    is_found(3, |_, _| true);
}

#[test]
fn a_liar_that_answers_once_rightly_in_between_is_left_all_the_same() {
    is_found(2, |_, nth| nth % 5 != 0);
}

#[test]
fn two_liars_are_left_and_two_honest_peers_stay() {
    let Some(scene) = Scene::with_guests() else {
        return;
    };
    let liars = [
        liar(&scene.content, |_, _| true),
        liar(&scene.content, |b, _| b.begin == 0),
    ];
    let honest = [scene.honest(), scene.honest()];
    let guest = scene.launch(&[&liars[0], &honest[0], &liars[1], &honest[1]]);
    for liar in &liars {
        liar.tally().wait(HEARD, 1);
    }
    guest.read_many();
    for liar in &liars {
        liar.wait_ended(1);
    }
    for peer in &honest {
        assert_stays(peer);
    }
    guest.end();
}

/// A liar that connects again and again from 127.6.6.6, each time under a new id, and `leaves` after its first lie or
/// stays until it is found out. Gives how often it was let in.
fn comes_again(leaves: bool) -> Option<usize> {
    let scene = Scene::with_guests()?;
    // Nothing is known of the way to a stranger: the honest peer is slower than what is assumed of it.
    let honest = ScriptedPeer::honest(&scene.content, Duration::from_millis(40));
    let guest = scene.launch(&[&honest]);
    let lies = Arc::new(AtomicU32::new(0));
    let piece = AtomicU32::new(0);
    // Whether the connection was good for anything: a peer that is not let in gets no message.
    let attempt = |n: u32| -> bool {
        let Ok(mut connection) = Connection::dial_from(Ipv4Addr::new(127, 6, 6, 6), guest.listen())
        else {
            return false;
        };
        let greeted = connection
            .raw(&handshake(guest.info_hash(), peer_id(n)))
            .and_then(|()| connection.read_handshake())
            .and_then(|_| connection.receive_until(|m| *m == Message::Unchoke));
        if greeted.is_err() {
            return false;
        }
        let content = scene.content.clone();
        let told = Arc::clone(&lies);
        let mut known = lies.load(Ordering::Relaxed);
        let script = std::thread::spawn(move || {
            let _ = content.seed(&mut connection, |connection, block| {
                told.fetch_add(1, Ordering::Relaxed);
                connection.send(&content.lie(block))?;
                if leaves {
                    return Err(io::ErrorKind::Other.into());
                }
                Ok(())
            });
        });
        // Piece after piece until it is found out.
        let first = piece.load(Ordering::Relaxed);
        while !script.is_finished() {
            let piece = piece.fetch_add(3, Ordering::Relaxed) as usize;
            assert!(piece < 96, "it is let in time after time");
            guest.read(piece);
            // A lie may have been the last one: the script needs a moment to end, and there are not so many pieces.
            let now = lies.load(Ordering::Relaxed);
            if now != known {
                known = now;
                let read = Instant::now();
                while !script.is_finished() && read.elapsed() < Duration::from_secs(1) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        script.join().unwrap();
        // It may have lied in what was fetched ahead: that is known once it was fetched again.
        for piece in first..piece.load(Ordering::Relaxed) {
            guest.read(piece as usize);
        }
        true
    };
    let let_in = (0..12).filter(|n| attempt(*n)).count();
    assert!(lies.load(Ordering::Relaxed) > 0, "it was never asked");
    guest.read_many();
    assert_stays(&honest);
    guest.end();
    Some(let_in)
}

/// The address is what is remembered, not the peer id, which a peer can choose anew each time.
#[test]
fn a_liar_that_connects_again_under_new_ids_is_let_in_a_few_times_at_most() {
    if let Some(let_in) = comes_again(false) {
        assert!((1..=4).contains(&let_in), "let in {let_in} times of 12");
    }
}

#[test]
fn a_liar_that_hangs_up_after_each_lie_is_let_in_a_few_times_at_most() {
    if let Some(let_in) = comes_again(true) {
        assert!((1..=4).contains(&let_in), "let in {let_in} times of 12");
    }
}
