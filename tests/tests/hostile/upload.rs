//! What is done to who serves: the others are served all the same, and memory stays bounded.

use std::io;

use vmtorrent_tests::Namespaces;
use vmtorrent_tests::scripted_peer::{BLOCK, Block, Connection, Message};

use crate::scene::{PEER_MEMORY, Process, Scene, Seed};

/// Asks for a whole piece under another name and compares it.
fn assert_serves(scene: &Scene, seed: &Seed, number: u32) {
    let mut connection = seed.connect(number);
    for n in 0..4 {
        let block = Block::nth(7, n);
        connection.send(&Message::Request(block)).unwrap();
        let got = connection.receive_until(|m| matches!(m, Message::Piece(..)));
        assert!(got.unwrap() == scene.content.answer(block), "block {n}");
    }
}

#[test]
fn a_hundred_thousand_requests_cost_little_and_hold_up_nobody() {
    let scene = Scene::new();
    let seed = scene.seed();
    let mut flood = seed.connect(1);
    let mut reader = flood.another().unwrap();
    seed.bounded(PEER_MEMORY, || {
        std::thread::scope(|scope| {
            let served = scope.spawn(move || -> io::Result<usize> {
                let is_block = |m: &Message| matches!(m, Message::Piece(..));
                let mut served = 0;
                // As many as may wait at least: of the others none need be answered.
                while served < 500 {
                    reader.receive_until(is_block)?;
                    served += 1;
                }
                Ok(served)
            });
            for round in 0..100 {
                let mut bytes = Vec::new();
                for n in 0..1000 {
                    let block = Block {
                        piece: (round + n) % 96,
                        begin: n,
                        length: BLOCK,
                    };
                    bytes.extend_from_slice(&Message::Request(block).encode());
                }
                if flood.raw(&bytes).is_err() {
                    return;
                }
                if round % 25 == 0 {
                    assert_serves(&scene, &seed, 1000 + round);
                }
            }
            let _ = served.join();
        });
    });
    seed.end();
}

/// Nothing that it asks for is ever read by it.
fn never_reads(requests: u32, block: impl Fn(u32) -> Block) {
    let scene = Scene::new();
    let seed = scene.seed();
    // The whole image is hashed before, so that what grows below is the peer's.
    let mut all = seed.connect(900);
    for piece in 0..96 {
        all.send(&Message::Request(Block::nth(piece, 0))).unwrap();
        all.receive_until(|m| matches!(m, Message::Piece(..)))
            .unwrap();
    }
    drop(all);
    seed.bounded(PEER_MEMORY, || {
        let mut deaf = seed.connect(1);
        deaf.send(&Message::Interested).unwrap();
        for n in 0..requests {
            // Its own requests may stall once the other side has had enough of them.
            if deaf.send(&Message::Request(block(n))).is_err() {
                break;
            }
        }
        assert_serves(&scene, &seed, 2);
    });
    seed.end();
}

#[test]
fn who_never_reads_what_it_asked_for_costs_little_and_holds_up_nobody() {
    never_reads(20_000, |n| Block {
        piece: n % 96,
        begin: n % 1000,
        length: BLOCK,
    });
}

#[test]
fn who_asks_for_single_bytes_and_never_reads_costs_little() {
    never_reads(200_000, |n| Block {
        piece: n % 96,
        begin: n / 96,
        length: 1,
    });
}

#[test]
fn who_asks_for_large_blocks_and_never_reads_costs_little() {
    never_reads(5_000, |n| Block {
        piece: n % 96,
        begin: n % 7,
        length: 60_000,
    });
}

#[test]
fn absurd_requests_end_the_connection() {
    let scene = Scene::new();
    let seed = scene.seed();
    let absurd = [
        (0, 0, 0),
        (0, 0, u32::MAX),
        (0, 0, (128 << 10) + 1),
        (0, 65_536, 1),
        (0, 65_535, 2),
        (0, u32::MAX, u32::MAX),
        (0, u32::MAX - 5, 16_384),
        (97, 0, 16_384),
        (u32::MAX, 0, 16_384),
        // The last piece has 1,234 bytes.
        (96, 0, 16_384),
    ];
    seed.bounded(PEER_MEMORY, || {
        for (n, (piece, begin, length)) in absurd.into_iter().enumerate() {
            let mut connection = seed.connect(n as u32);
            let block = Block {
                piece,
                begin,
                length,
            };
            connection.send(&Message::Request(block)).unwrap();
            connection.wait_closed(&format!("{block:?}"));
        }
    });
    assert_serves(&scene, &seed, 1000);
    seed.end();
}

#[test]
fn absurd_cancels_are_no_matter() {
    let scene = Scene::new();
    let seed = scene.seed();
    let mut connection = seed.connect(1);
    for n in 0..10_000 {
        let block = Block {
            piece: u32::MAX - n,
            begin: n,
            length: u32::MAX,
        };
        connection.send(&Message::Cancel(block)).unwrap();
    }
    connection
        .send(&Message::Request(Block::nth(0, 0)))
        .unwrap();
    connection
        .receive_until(|m| matches!(m, Message::Piece(..)))
        .unwrap();
    assert_serves(&scene, &seed, 2);
    seed.end();
}

#[test]
fn what_was_taken_back_at_once_is_mostly_not_sent() {
    let scene = Scene::new();
    let seed = scene.seed();
    let mut connection = seed.connect(1);
    let mut bytes = Vec::new();
    for round in 0..200 {
        for piece in 0..96 {
            let block = Block::nth(piece, round % 4);
            bytes.extend_from_slice(&Message::Request(block).encode());
            bytes.extend_from_slice(&Message::Cancel(block).encode());
        }
    }
    let last = Block::nth(95, 3);
    bytes.extend_from_slice(&Message::Request(last).encode());
    let mut writer = connection.another().unwrap();
    let sender = std::thread::spawn(move || writer.raw(&bytes));
    let mut received = 0;
    loop {
        let got = connection.receive_until(|m| matches!(m, Message::Piece(..)));
        received += 1;
        if got.unwrap() == scene.content.answer(last) {
            break;
        }
    }
    sender.join().unwrap().unwrap();
    assert!(received <= 19_201, "{received} answers to 19,201 requests");
    assert_serves(&scene, &seed, 2);
    seed.end();
}

#[test]
fn five_hundred_connections_from_one_address_leave_room_for_another() {
    let Some(network) = Namespaces::new() else {
        return;
    };
    let scene = Scene::new();
    let seed = scene.seed_on(&network, 0);
    let (to, info_hash) = (seed.listen(), seed.info_hash());
    let held = seed.bounded(100 * PEER_MEMORY / 8, || {
        network.enter(1, || {
            let attempts = (0..500).map(|n| {
                let mut connection = Connection::greet(to, info_hash, n)?;
                connection.send(&Message::Interested)?;
                connection.receive()?;
                Ok(connection)
            });
            attempts.flat_map(io::Result::ok).collect::<Vec<_>>()
        })
    });
    let let_in = held.len();
    assert!((10..=150).contains(&let_in), "{let_in} of 500 were let in");
    network.enter(0, || assert_serves(&scene, &seed, 9999));
    drop(held);
    seed.end();
}
