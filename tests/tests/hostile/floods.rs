//! Too much of everything, against a guest that goes on reading.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use vmtorrent_tests::scripted_peer::{Connection, Message, ScriptedPeer};

use crate::scene::{PEER_MEMORY, Process, Scene};

/// A hostile peer that says `flood` over and over as fast as it can, reading what comes or not, beside an honest one.
fn costs_no_read(reads: bool, flood: impl Fn(u32, &mut Vec<u8>) + Send + Sync + 'static) {
    let Some(scene) = Scene::with_guests() else {
        return;
    };
    let full = scene.content.full();
    let hostile = ScriptedPeer::start(move |connection, tally| {
        connection.send(&Message::Bitfield(full.clone()))?;
        connection.send(&Message::Unchoke)?;
        let mut reader = connection.another()?;
        std::thread::scope(|scope| {
            if reads {
                scope.spawn(move || -> io::Result<()> {
                    loop {
                        reader.receive()?;
                    }
                });
            }
            let mut bytes = Vec::new();
            for round in 0.. {
                bytes.clear();
                for n in 0..256 {
                    flood(round * 256 + n, &mut bytes);
                }
                connection.raw(&bytes)?;
                tally.add("rounds");
            }
            Ok(())
        })
    });
    let honest = scene.honest();
    let guest = scene.launch(&[&hostile, &honest]);
    guest.bounded(PEER_MEMORY + (16 << 20), || {
        hostile.tally().wait("rounds", 100);
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

fn say(message: &Message, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&message.encode());
}

#[test]
fn choke_and_unchoke_without_end_cost_no_read() {
    costs_no_read(true, |n, out| {
        say(
            if n % 2 == 0 {
                &Message::Choke
            } else {
                &Message::Unchoke
            },
            out,
        );
    });
}

#[test]
fn choke_and_unchoke_without_end_and_never_a_look_at_our_requests_cost_no_memory() {
    costs_no_read(false, |n, out| {
        say(
            if n % 2 == 0 {
                &Message::Choke
            } else {
                &Message::Unchoke
            },
            out,
        );
    });
}

#[test]
fn interest_that_flaps_without_end_costs_no_read() {
    costs_no_read(false, |n, out| {
        let message = if n % 2 == 0 {
            &Message::Interested
        } else {
            &Message::NotInterested
        };
        say(message, out);
    });
}

#[test]
fn have_without_end_costs_no_read() {
    costs_no_read(true, |n, out| say(&Message::Have(n % 97), out));
}

#[test]
fn keep_alives_without_end_cost_no_read() {
    costs_no_read(true, |_, out| say(&Message::KeepAlive, out));
}

#[test]
fn unknown_messages_without_end_cost_no_read() {
    costs_no_read(true, |_, out| say(&Message::Other(200, vec![0; 50]), out));
}

#[test]
fn extended_handshakes_without_end_cost_no_read() {
    costs_no_read(false, |_, out| {
        say(&Message::Other(20, b"\0d4:reqqi1000000ee".to_vec()), out);
    });
}

#[test]
fn blocks_that_nobody_asked_for_cost_no_read() {
    costs_no_read(true, |n, out| {
        if n % 16 == 0 {
            say(&Message::Piece(n % 96, 0, vec![0x66; 16 << 10]), out);
        }
    });
}

#[test]
fn connections_that_come_and_go_without_end_cost_no_read() {
    let Some(scene) = Scene::with_guests() else {
        return;
    };
    let honest = scene.honest();
    let guest = scene.launch(&[&honest]);
    let (address, info_hash) = (guest.listen(), guest.info_hash());
    let full = scene.content.full();
    let made = AtomicU32::new(0);
    guest.bounded(2 * PEER_MEMORY + (16 << 20), || {
        std::thread::scope(|scope| {
            for lane in 0..2 {
                let (full, made) = (&full, &made);
                scope.spawn(move || {
                    for n in 0..400 {
                        // One that is not let in is as good.
                        if let Ok(mut c) = Connection::greet(address, info_hash, lane << 16 | n) {
                            let _ = c.send(&Message::Bitfield(full.clone()));
                            let _ = c.send(&Message::Unchoke);
                            made.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            guest.read_many();
        });
    });
    assert!(made.load(Ordering::Relaxed) > 0);
    assert_eq!(
        (
            honest.connected(),
            honest.tally().count(ScriptedPeer::BEGUN)
        ),
        (1, 1)
    );
    guest.end();
}

#[test]
fn a_dialled_peer_that_hangs_up_each_time_is_dialled_less_and_less() {
    let Some(scene) = Scene::with_guests() else {
        return;
    };
    let full = scene.content.full();
    let flapping = ScriptedPeer::start(move |connection, _| {
        connection.send(&Message::Bitfield(full.clone()))?;
        connection.send(&Message::Unchoke)
    });
    let honest = scene.honest();
    let guest = scene.launch(&[&flapping, &honest]);
    flapping.wait_ended(3);
    guest.read_many();
    assert!(flapping.tally().count(ScriptedPeer::BEGUN) < 20);
    assert_eq!(
        (
            honest.connected(),
            honest.tally().count(ScriptedPeer::BEGUN)
        ),
        (1, 1)
    );
    guest.end();
}

#[test]
fn five_hundred_connections_from_one_address_cost_no_read() {
    let Some(scene) = Scene::with_guests() else {
        return;
    };
    let honest = scene.honest();
    let guest = scene.launch(&[&honest]);
    let full = scene.content.full();
    let mut held = Vec::new();
    // Fifty or so are let in with all their buffers, the others are not.
    guest.bounded(100 * PEER_MEMORY / 8, || {
        for n in 0..500 {
            if let Ok(mut c) = Connection::greet(guest.listen(), guest.info_hash(), n) {
                let _ = c.send(&Message::Bitfield(full.clone()));
                held.push(c);
            }
        }
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
