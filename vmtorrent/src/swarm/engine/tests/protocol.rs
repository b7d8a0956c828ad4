//! What peers say and must not say, and how connections end.

use super::super::network::{Net, image};
use super::super::*;
use super::PIECE;
use crate::image::BlockIndex;

#[test]
fn a_peer_that_says_nothing_more_is_left_after_a_minute() {
    let mut net = Net::new(image(60, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let mute = net.node(100.0, true, Fill::None);
    net.nodes[mute].mute = true;
    net.link(leech, mute);
    net.run_for(100);
    net.demand(leech, 3);
    net.run_for(58_000);
    assert!(net.nodes[leech].disconnects.is_empty());
    net.run_for(5_000);
    assert_eq!(net.nodes[leech].disconnects, [DisconnectReason::Silent]);
}

#[test]
fn an_idle_connection_is_kept_alive_and_one_that_says_nothing_is_not() {
    let mut net = Net::new(image(60, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let seed = net.node(100.0, true, Fill::None);
    net.link(leech, seed);
    net.run_for(3_600_000);
    assert!(net.nodes[leech].disconnects.is_empty());
    assert_eq!(net.nodes[seed].links.len(), 1);
    let dead = net.node(100.0, true, Fill::None);
    net.link(leech, dead);
    net.nodes[dead].links.clear();
    net.run_for(200_000);
    assert_eq!(net.nodes[leech].disconnects, [DisconnectReason::Silent]);
    assert_eq!(net.nodes[seed].links.len(), 1);
}

#[test]
fn blocks_that_nobody_asked_for_are_not_taken_and_end_the_connection() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let pusher = net.node(100.0, true, Fill::None);
    net.nodes[pusher].mute = true;
    net.link(leech, pusher);
    net.run_for(100);
    net.demand(leech, 3);
    net.run_for(100);
    let key = *net.nodes[leech].links.keys().next().unwrap();
    for n in 0..400u32 {
        let piece = WireMessage::Piece {
            piece: n % 40,
            begin: 0,
            data: Bytes::from(vec![1; 16_384]),
        };
        net.nodes[leech].engine.received(net.now, key, piece);
        net.collect(leech);
    }
    let reasons = &net.nodes[leech].disconnects[..];
    assert!(
        matches!(reasons, [DisconnectReason::Protocol(_)]),
        "{reasons:?}"
    );
    let held = net.nodes[leech].engine.assembly.len();
    assert!(held <= 1, "{held} pieces are held for what it sent");
}

#[test]
fn a_peer_that_chokes_gives_what_it_allows_and_rejects_free_the_rest() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let seed = net.node(100.0, true, Fill::None);
    net.link(leech, seed);
    net.run_for(100);
    let key = *net.nodes[leech].links.keys().next().unwrap();
    let engine = &mut net.nodes[leech].engine;
    engine.received(net.now, key, WireMessage::Choke);
    net.demand(leech, 3);
    net.run_for(1000);
    assert!(net.nodes[leech].ready.is_empty(), "it chokes us");
    let engine = &mut net.nodes[leech].engine;
    engine.received(net.now, key, WireMessage::AllowedFast(3));
    net.collect(leech);
    net.run_for(1000);
    assert!(net.nodes[leech].ready.contains_key(&3));
    // Requests that a choke meets are rejected one by one, and asked again once it is over.
    let engine = &mut net.nodes[leech].engine;
    engine.received(net.now, key, WireMessage::Unchoke);
    net.collect(leech);
    net.nodes[seed].mute = true;
    net.demand(leech, 4);
    net.run_for(15);
    let asked: Vec<BlockIndex> = {
        let engine = &mut net.nodes[leech].engine;
        engine.received(net.now, key, WireMessage::Choke);
        engine.peers[&key].outstanding.keys().copied().collect()
    };
    assert!(!asked.is_empty());
    for block in asked {
        let engine = &mut net.nodes[leech].engine;
        let reject = WireMessage::Reject(WireRequest {
            piece: block.piece.0,
            begin: block.block * 16_384,
            length: 16_384,
        });
        engine.received(net.now, key, reject);
    }
    net.nodes[seed].mute = false;
    let engine = &mut net.nodes[leech].engine;
    engine.received(net.now, key, WireMessage::Unchoke);
    net.collect(leech);
    net.run_for(500);
    assert!(net.nodes[leech].ready.contains_key(&4));
}

#[test]
fn the_fast_extension_is_for_those_who_agreed_on_it() {
    for message in [
        WireMessage::HaveAll,
        WireMessage::HaveNone,
        WireMessage::AllowedFast(1),
    ] {
        let mut net = Net::new(image(4, PIECE), 20);
        let leech = net.node(100.0, false, Fill::None);
        let peer = net.node(100.0, false, Fill::None);
        net.nodes[peer].fast = false;
        net.link(leech, peer);
        let key = *net.nodes[leech].links.keys().next().unwrap();
        net.nodes[leech]
            .engine
            .received(net.now, key, message.clone());
        net.collect(leech);
        let reasons = &net.nodes[leech].disconnects[..];
        assert!(
            matches!(reasons, [DisconnectReason::Protocol(_)]),
            "{message:?}: {reasons:?}"
        );
    }
}

#[test]
fn a_field_that_is_said_again_adds_to_what_the_peer_has() {
    let mut net = Net::new(image(20, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let peer = net.node(100.0, false, Fill::None);
    net.link(leech, peer);
    net.run_for(100);
    let key = *net.nodes[leech].links.keys().next().unwrap();
    let field = |pieces: [u32; 2]| {
        let mut field = Bitfield::new(20);
        for piece in pieces {
            field.set(PieceIndex(piece), true);
        }
        WireMessage::Bitfield(field.to_wire().into())
    };
    for (message, count) in [
        (field([0, 1]), 2),
        (field([1, 7]), 3),
        (WireMessage::HaveNone, 3),
        (WireMessage::HaveAll, 20),
        (field([1, 7]), 20),
    ] {
        let engine = &mut net.nodes[leech].engine;
        engine.received(net.now, key, message.clone());
        let found = engine.picker.field(key).map(Bitfield::count_ones);
        assert_eq!(found, Some(count), "{message:?}");
        // Only who said so at once is not counted as a seed.
        assert_eq!(engine.picker.availability(PieceIndex(1)), 1);
        net.collect(leech);
    }
    assert!(net.nodes[leech].disconnects.is_empty());
}

#[test]
fn broken_messages_end_the_connection() {
    let bad = [
        WireMessage::Have(999),
        WireMessage::Bitfield(Bytes::from_static(&[0xff; 99])),
        WireMessage::Request(WireRequest {
            piece: 0,
            begin: 0,
            length: 1 << 20,
        }),
        WireMessage::Request(WireRequest {
            piece: 0,
            begin: u32::MAX,
            length: 16384,
        }),
        WireMessage::Piece {
            piece: 0,
            begin: 3,
            data: Bytes::from_static(b"x"),
        },
    ];
    for message in bad {
        let mut net = Net::new(image(4, PIECE), 20);
        let seed = net.node(100.0, true, Fill::None);
        let leech = net.node(100.0, false, Fill::None);
        net.link(leech, seed);
        net.run_for(100);
        let key = *net.nodes[seed].links.keys().next().unwrap();
        net.nodes[seed]
            .engine
            .received(net.now, key, message.clone());
        net.collect(seed);
        let reason = &net.nodes[seed].disconnects[..];
        assert!(
            matches!(reason, [DisconnectReason::Protocol(_)]),
            "{message:?}: {reason:?}"
        );
    }
}
