//! Files that hold something else than was stored.

use super::*;

#[test]
fn a_file_that_is_cut_while_it_is_used_costs_its_pieces_only() {
    let f = Fixture::of_files();
    let pristine = f.open();
    for piece in 0..PIECES {
        f.store(&pristine, piece);
    }
    let path = f.entry().join("data/b/d");
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(20_000).unwrap();
    let present = f.present(&pristine);
    assert_eq!(present, (0..7).collect::<Vec<_>>());
    // Stored anew, it is all there again.
    for piece in 7..PIECES {
        f.store(&pristine, piece);
    }
    assert_eq!(f.present(&pristine).len() as u32, PIECES);
}

#[test]
fn a_piece_whose_padding_is_not_zeros_is_refused_with_its_reason() {
    let padded = |byte| {
        let mut bytes = content();
        bytes[PIECE as usize - 100..PIECE as usize].fill(0);
        bytes[PIECE as usize - 1] = byte;
        let files = [
            ("a", u64::from(PIECE) - 100, false),
            ("", 100, true),
            ("b", bytes.len() as u64 - u64::from(PIECE), false),
        ];
        Fixture::with(image_of_files(&bytes, PIECE, &files), bytes)
    };
    let f = padded(1);
    let pristine = f.open();
    let error = pristine.store(PieceIndex(0), f.piece(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidTorrent);
    assert_eq!(pristine.state(PieceIndex(0)), PieceState::Missing);
    f.store(&pristine, 1);
    let f = padded(0);
    let pristine = f.open();
    f.store(&pristine, 0);
    assert!(f.reads(&pristine, 0));
}

#[test]
fn what_a_failed_sync_may_have_lost_is_verified_again_and_the_rest_is_not() {
    let f = Fixture::of_files();
    let pristine = f.open();
    for piece in 0..PIECES {
        f.store(&pristine, piece);
    }
    pristine.sync().unwrap();
    // Of b/c, which has bytes of pieces 2 to 6, the disk has lost piece 4; the second sync knows nothing of it.
    pristine.files.fail_next_sync(1);
    let path = f.entry().join("data/b/c");
    let file = fs::File::options().write(true).open(&path).unwrap();
    let lost = 4 * u64::from(PIECE) - 40_000;
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; PIECE as usize], lost).unwrap();
    pristine.sync().unwrap_err();
    let states = |state| {
        let pieces = (0..PIECES).filter(|p| pristine.state(PieceIndex(*p)) == state);
        pieces.collect::<Vec<_>>()
    };
    assert_eq!(states(PieceState::Unverified), [2, 3, 4, 5, 6]);
    assert!(matches!(
        pristine.shortage(),
        Some(Shortage::Failing { .. })
    ));
    pristine.sync().unwrap();
    let present = f.present(&pristine);
    assert_eq!(present, (0..PIECES).filter(|p| *p != 4).collect::<Vec<_>>());
    f.store(&pristine, 4);
    assert!(f.reads(&pristine, 4));
}

#[derive(Clone, Debug)]
enum Damage {
    Flip(usize),
    Cut(usize),
    Extend(usize),
    Zeros(usize, usize),
    Remove,
    /// By the content of another file of the store.
    Replace(usize),
}

fn damage() -> impl Strategy<Value = (usize, Damage)> {
    let damage = prop_oneof![
        4 => any::<usize>().prop_map(Damage::Flip),
        2 => any::<usize>().prop_map(Damage::Cut),
        1 => (1..100_000_usize).prop_map(Damage::Extend),
        2 => (any::<usize>(), 1..50_000_usize).prop_map(|(at, length)| Damage::Zeros(at, length)),
        1 => Just(Damage::Remove),
        1 => any::<usize>().prop_map(Damage::Replace),
    ];
    (any::<usize>(), damage)
}

/// Every file of a store.
fn files_of(f: &Fixture) -> Vec<PathBuf> {
    let names = [
        "have",
        "image.torrent",
        "lock",
        "data/a",
        "data/b/c",
        "data/b/d",
    ];
    names.iter().map(|n| f.entry().join(n)).collect()
}

fn do_damage(files: &[PathBuf], which: usize, damage: &Damage) {
    let path = &files[which % files.len()];
    let Ok(mut bytes) = fs::read(path) else {
        return;
    };
    let length = bytes.len().max(1);
    match *damage {
        Damage::Flip(at) if !bytes.is_empty() => bytes[at % length] ^= 0x10,
        Damage::Flip(_) => {}
        Damage::Cut(at) => bytes.truncate(at % length),
        Damage::Extend(by) => bytes.resize(bytes.len() + by, 0xA5),
        Damage::Zeros(at, by) => {
            let at = at % length;
            let end = bytes.len().min(at + by);
            bytes[at..end].fill(0);
        }
        Damage::Remove => return fs::remove_file(path).unwrap(),
        Damage::Replace(other) => {
            let Ok(others) = fs::read(&files[other % files.len()]) else {
                return;
            };
            bytes = others;
        }
    }
    fs::write(path, bytes).unwrap();
}

/// Every piece is right or missing, and what is missing can be stored and read again.
fn check_heals(f: &Fixture) -> u32 {
    let pristine = f.open();
    let mut missing = 0;
    for piece in 0..PIECES {
        if !f.reads(&pristine, piece) {
            missing += 1;
            f.store(&pristine, piece);
            assert!(f.reads(&pristine, piece));
        }
    }
    assert_eq!(pristine.shortage(), None);
    drop(pristine);
    assert_eq!(f.present(&f.open()).len() as u32, PIECES);
    missing
}

fn stored(f: Fixture, count: u32) -> Fixture {
    let pristine = f.open();
    for piece in 0..count {
        f.store(&pristine, piece);
    }
    drop(pristine);
    f
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_damage_to_any_file_of_the_store_is_found_at_first_use_and_mended(
        damages in proptest::collection::vec(damage(), 1..6), count in 0..=PIECES
    ) {
        let f = stored(Fixture::of_files(), count);
        let files = files_of(&f);
        for (which, damage) in &damages {
            do_damage(&files, *which, damage);
        }
        check_heals(&f);
    }
}

#[test]
fn a_flipped_bit_costs_the_pieces_that_hold_it_and_no_other() {
    for offset in [0, 20_000, 39_999, 40_000, 110_000, 110_001, 190_000_usize] {
        let f = stored(Fixture::of_files(), PIECES);
        let files = files_of(&f);
        let (file, at) = match offset {
            0..40_000 => (3, offset),
            40_000..110_001 => (4, offset - 40_000),
            _ => (5, offset - 110_001),
        };
        do_damage(&files, file, &Damage::Flip(at));
        let pristine = f.open();
        let lost: Vec<_> = (0..PIECES).filter(|p| !f.reads(&pristine, *p)).collect();
        assert_eq!(lost, [offset as u32 / PIECE]);
        drop(pristine);
        assert_eq!(check_heals(&f), 1);
    }
}

#[test]
fn a_list_of_another_image_or_of_too_many_pieces_is_not_believed() {
    let f = stored(Fixture::of_files(), 5);
    let mut bytes = content();
    bytes[5] ^= 4;
    let other = Fixture::with(image_of(&bytes, PIECE), bytes);
    let other = stored(other, PIECES);
    let have = f.entry().join("have");
    let own = fs::read(&have).unwrap();
    // Another image's of the same length; and its bits under our header.
    let foreign = fs::read(other.entry().join("have")).unwrap();
    assert_eq!(foreign.len(), own.len());
    fs::write(&have, &foreign).unwrap();
    assert_eq!(check_heals(&f), PIECES);

    let f = stored(Fixture::of_files(), 5);
    let have = f.entry().join("have");
    let mut all = own.clone();
    all[32..].copy_from_slice(&foreign[32..]);
    fs::write(&have, &all).unwrap();
    let pristine = f.open();
    assert_eq!(pristine.have_field().count_ones(), PIECES);
    assert_eq!(f.present(&pristine), [0, 1, 2, 3, 4]);
    drop(pristine);
    assert_eq!(check_heals(&f), PIECES - 5);

    // Longer and shorter.
    for length in [own.len() - 1, own.len() + 1, own.len() + 5000, 0] {
        let f = stored(Fixture::of_files(), 5);
        let mut bytes = own.clone();
        bytes.resize(length, 0xFF);
        fs::write(f.entry().join("have"), bytes).unwrap();
        assert_eq!(check_heals(&f), PIECES, "length {length}");
    }
}
