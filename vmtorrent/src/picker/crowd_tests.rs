//! What is left to peers that lack something, and what comes into the window again.

use super::*;

const PIECE: u32 = 32 * 1024;

/// A picker with a seed and a peer that has the first five of ten pieces.
fn with_a_trader() -> (Picker, PeerKey, PeerKey) {
    let geometry = Geometry::new(u64::from(PIECE) * 10, PIECE).unwrap();
    let mut picker = Picker::new(geometry, |_| false, |_| false, 1);
    let (seed, trader) = (PeerKey(0), PeerKey(1));
    let mut part = Bitfield::new(10);
    for p in 0..5 {
        part.set(PieceIndex(p), true);
    }
    for (peer, field) in [(seed, Bitfield::full(10)), (trader, part)] {
        picker.add_peer(peer);
        picker.set_field(peer, field);
    }
    (picker, seed, trader)
}

#[test]
fn read_ahead_that_is_common_is_not_asked_of_a_seed_until_a_read_waits_for_it() {
    let (mut picker, seed, trader) = with_a_trader();
    let crowded = Window {
        ranks: Some(Vec::new()),
        common: 1,
        ..Window::default()
    };
    picker.set_window(crowded);
    for p in [0, 7, 1] {
        picker.want(PieceIndex(p), Band::Readahead);
    }
    let next = |picker: &mut Picker, peer| {
        let pick = picker.pick(peer, Band::Profile);
        pick.map(|p| (p.block.piece.0, p.band))
    };
    assert_eq!(next(&mut picker, seed), Some((7, Band::Readahead)));
    assert_eq!(next(&mut picker, seed), Some((7, Band::Readahead)));
    assert_eq!(next(&mut picker, seed), None);
    assert_eq!(next(&mut picker, trader), Some((0, Band::Readahead)));
    picker.want(PieceIndex(1), Band::Demand);
    assert_eq!(next(&mut picker, seed), Some((1, Band::Demand)));
    // With nobody to trade with nothing is left to others.
    picker.set_window(Window::default());
    assert_eq!(next(&mut picker, seed), Some((1, Band::Demand)));
    assert_eq!(next(&mut picker, seed), Some((0, Band::Readahead)));
}

#[test]
fn a_piece_that_was_foretold_and_pushed_out_comes_into_the_window_again() {
    let (mut picker, seed, _) = with_a_trader();
    let piece = PieceIndex(7);
    let window = Window {
        pieces: vec![piece],
        ..Window::default()
    };
    let (first, second) = (
        BlockIndex { piece, block: 0 },
        BlockIndex { piece, block: 1 },
    );
    picker.set_window(window.clone());
    for block in [first, second] {
        assert_eq!(picker.pick(seed, Band::Profile).unwrap().block, block);
    }
    picker.give_up(seed, first);
    picker.put_back(piece);
    assert!(!picker.is_untouched(piece), "the other block may come yet");
    picker.give_up(seed, second);
    picker.put_back(piece);
    assert!(picker.is_untouched(piece));
    assert_eq!(picker.pick(seed, Band::Profile), None);
    picker.set_window(window);
    assert_eq!(picker.pick(seed, Band::Profile).unwrap().block, first);
    picker.receive(seed, first);
    picker.put_back(piece);
    assert_eq!(picker.band(piece), Some(Band::Profile), "a block is here");
}

#[test]
fn what_is_wanted_for_more_than_a_profile_is_not_put_back() {
    let (mut picker, seed, _) = with_a_trader();
    let piece = PieceIndex(7);
    picker.want(piece, Band::Readahead);
    picker.put_back(piece);
    let pick = picker.pick(seed, Band::Profile).unwrap();
    picker.give_up(seed, pick.block);
    picker.put_back(piece);
    assert_eq!(picker.band(piece), Some(Band::Readahead));
    assert_eq!(picker.pick(seed, Band::Profile), Some(pick));
}
