//! The disk takes no more: what comes stays in memory for a while.

use super::*;

#[test]
fn what_the_disk_refuses_is_read_from_memory_and_stored_when_it_takes_it_again() {
    let f = Fixture::new();
    let pristine = f.open();
    block(&f);
    for piece in [3, 4, 9] {
        f.store(&pristine, piece);
    }
    assert_eq!(f.present(&pristine), [3, 4, 9]);
    assert_eq!(pristine.state(PieceIndex(4)), PieceState::Verified);
    assert!(pristine.verify(PieceIndex(4)).unwrap());
    let shortage = pristine.shortage().unwrap();
    assert!(matches!(shortage, Shortage::Failing { .. }), "{shortage}");
    assert!(shortage.to_string().contains("disk.img"), "{shortage}");
    // Across a held piece and its neighbours.
    let mut buffer = vec![0; 2 * PIECE as usize];
    let offset = 3 * u64::from(PIECE);
    assert_eq!(
        pristine.try_read(offset, &mut buffer).unwrap(),
        TryRead::Done
    );
    assert!(buffer == f.bytes[offset as usize..][..buffer.len()]);

    pristine.store_held();
    assert!(pristine.shortage().is_some());
    unblock(&f);
    pristine.store_held();
    assert_eq!(pristine.shortage(), None);
    assert_eq!(f.present(&pristine), [3, 4, 9]);
    assert_eq!(pristine.take_gone(), []);
    drop(pristine);
    assert_eq!(f.present(&f.open()), [3, 4, 9]);
}

#[test]
fn what_is_in_memory_only_is_not_noted_as_stored() {
    let f = Fixture::new();
    let pristine = f.open();
    block(&f);
    f.store(&pristine, 0);
    f.store(&pristine, 2);
    unblock(&f);
    // The bits of its neighbours share a byte with its own.
    f.store(&pristine, 1);
    f.store(&pristine, 3);
    drop(pristine);
    let pristine = f.open();
    let states: Vec<_> = (0..4).map(|p| pristine.state(PieceIndex(p))).collect();
    use PieceState::{Missing, Unverified};
    assert_eq!(states, [Missing, Unverified, Missing, Unverified]);
}

#[test]
fn memory_is_bounded_and_the_pieces_that_go_are_missing_and_named() {
    let f = Fixture::new();
    let pristine = f.open();
    *pristine.held.lock() = Held::new(3 * u64::from(PIECE));
    block(&f);
    for piece in [0, 1, 2] {
        f.store(&pristine, piece);
    }
    assert!(f.reads(&pristine, 0));
    f.store(&pristine, 5);
    assert_eq!(pristine.take_gone(), pieces(&[1]));
    assert_eq!(pristine.take_gone(), []);
    assert_eq!(f.present(&pristine), [0, 2, 5]);
    assert_eq!(
        pristine.missing_in(u64::from(PIECE)..u64::from(PIECE) + 1),
        pieces(&[1])
    );
    // It may come back.
    f.store(&pristine, 1);
    assert!(f.reads(&pristine, 1));
}
