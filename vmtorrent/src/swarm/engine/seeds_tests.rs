//! What a seed holds back, and those who have it meanwhile.

use super::stage::{Happening, PIECE, RTT, Stage, honest, mute};
use super::*;
use crate::swarm::wire::ExtendedHello;

/// A peer that has one piece.
fn having(piece: u32) -> Bitfield {
    let mut field = Bitfield::new(200);
    field.set(PieceIndex(piece), true);
    field
}

#[test]
fn read_ahead_that_a_seed_holds_back_comes_of_who_has_it_by_now() {
    let mut stage = Stage::new();
    let seed = stage.join(true, RTT, mute());
    stage.peers[seed].rejects_cancelled = true;
    stage.run_for(RTT * 2);
    stage.engine.read_ahead(stage.now, &[PieceIndex(7)]);
    stage.collect();
    stage.run_for(Duration::from_secs(2));
    assert_eq!(stage.peers[seed].asked, PIECE as usize / 16_384);
    let other = stage.join_with(true, RTT, honest(), &having(7));
    let began = stage.now;
    stage.run_for(Duration::from_secs(3));
    let came = stage.ready.get(&7).expect("the other gave it");
    assert!(came.since(began) < Duration::from_secs(2));
    assert_eq!(stage.peers[other].asked, PIECE as usize / 16_384);
}

#[test]
fn a_read_asks_who_has_it_by_now_beside_the_seed_that_lets_it_wait() {
    let mut stage = Stage::new();
    stage.join(true, RTT, mute());
    stage.run_for(RTT * 2);
    stage.engine.demand(stage.now, &[PieceIndex(7)]);
    stage.collect();
    stage.run_for(RTT * 4);
    let other = stage.join_with(true, RTT, honest(), &having(7));
    let began = stage.now;
    stage.run_for(Duration::from_secs(1));
    let came = stage.ready.get(&7).expect("the other gave it");
    assert!(came.since(began) < RTT * 8, "{:?}", came.since(began));
    assert!(stage.peers[other].asked >= PIECE as usize / 16_384);
}

#[test]
fn who_gave_a_piece_is_told_that_it_came_and_other_seeds_are_not() {
    let mut stage = Stage::new();
    let giver = stage.join(true, RTT, honest());
    let idle = stage.join(true, RTT, mute());
    for peer in [giver, idle] {
        let hello = ExtendedHello {
            vmt_urgent: Some(3),
            ..ExtendedHello::default()
        };
        let hello = WireMessage::ExtendedHello(hello);
        stage.happens(stage.now, Happening::Said(peer, hello));
    }
    stage.run_for(RTT * 4);
    stage.read(7);
    stage.run_for(RTT * 4);
    let told: Vec<PeerKey> = stage.told.iter().map(|(key, _)| *key).collect();
    assert_eq!(told, [stage.peers[giver].key]);
}
