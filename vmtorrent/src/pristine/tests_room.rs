//! What the store does when the disk takes no more, gives less, or gives something else back.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::test_image::{image_of, image_of_files};

const PIECE: u32 = 16384;
const PIECES: u32 = 12;

/// An image of pieces that are all different, in one file, or in three that share pieces.
struct Fixture {
    cache: TempDir,
    image: Arc<Image>,
    bytes: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        let bytes = content();
        let image = image_of(&bytes, PIECE);
        Self::with(image, bytes)
    }

    fn of_files() -> Self {
        let bytes = content();
        let files = [
            ("a", 40_000, false),
            ("b/c", 70_001, false),
            ("b/d", bytes.len() as u64 - 110_001, false),
        ];
        let image = image_of_files(&bytes, PIECE, &files);
        Self::with(image, bytes)
    }

    fn with(image: Image, bytes: Vec<u8>) -> Self {
        Self {
            cache: tempfile::tempdir().unwrap(),
            image: Arc::new(image),
            bytes,
        }
    }

    fn open(&self) -> Pristine {
        self.open_with(None)
    }

    fn open_with(&self, budget: Option<Arc<DiskBudget>>) -> Pristine {
        let cache = self.cache.path();
        Pristine::open_cache(self.image.clone(), cache, None, budget)
            .unwrap()
            .pristine
    }

    fn entry(&self) -> PathBuf {
        self.cache.path().join(self.image.info_hash().to_string())
    }

    fn piece(&self, piece: u32) -> &[u8] {
        self.bytes
            .chunks(PIECE as usize)
            .nth(piece as usize)
            .unwrap()
    }

    fn store(&self, pristine: &Pristine, piece: u32) {
        let stored = pristine.store(PieceIndex(piece), self.piece(piece));
        assert_eq!(stored.unwrap(), Stored::New);
    }

    /// Reads a piece without waiting: whether it is there. What comes must be right.
    fn reads(&self, pristine: &Pristine, piece: u32) -> bool {
        let right = self.piece(piece);
        let mut buffer = vec![0xEE; right.len()];
        let offset = u64::from(piece) * u64::from(PIECE);
        match pristine.read(offset, &mut buffer).unwrap() {
            ReadOutcome::Missing(_) => return false,
            ReadOutcome::Done => assert!(buffer == right, "piece {piece} is wrong"),
        }
        match pristine.try_read(offset, &mut buffer).unwrap() {
            TryRead::Done => assert!(buffer == right, "piece {piece} is wrong"),
            // Where pieces go, this one may have gone meanwhile.
            other => assert!(matches!(other, TryRead::Cold | TryRead::Missing(_))),
        }
        true
    }

    fn present(&self, pristine: &Pristine) -> Vec<u32> {
        (0..PIECES).filter(|p| self.reads(pristine, *p)).collect()
    }

    /// Storage that the data takes, bytes.
    fn on_disk(&self) -> u64 {
        fn below(directory: &std::path::Path) -> u64 {
            let Ok(entries) = fs::read_dir(directory) else {
                return 0;
            };
            let sizes = entries.map(|entry| {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    return below(&entry.path());
                }
                std::os::unix::fs::MetadataExt::blocks(&entry.metadata().unwrap()) * 512
            });
            sizes.sum()
        }
        below(&self.entry().join("data"))
    }
}

fn content() -> Vec<u8> {
    let mut state = 7_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 | 1
    };
    (0..PIECES * PIECE - 1000).map(|_| byte()).collect()
}

fn pieces(numbers: &[u32]) -> Vec<PieceIndex> {
    numbers.iter().copied().map(PieceIndex).collect()
}

/// A file where the data directory belongs: nothing can be stored.
fn block(f: &Fixture) {
    fs::write(f.entry().join("data"), "").unwrap();
}

fn unblock(f: &Fixture) {
    fs::remove_file(f.entry().join("data")).unwrap();
}

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

#[test]
fn a_bound_is_kept_and_what_was_not_read_for_long_goes() {
    for f in [Fixture::new(), Fixture::of_files()] {
        let limit = 5 * u64::from(PIECE) + 3 * 4096;
        let budget = Arc::new(DiskBudget::new(limit));
        let pristine = f.open_with(Some(budget.clone()));
        for piece in 0..4 {
            f.store(&pristine, piece);
        }
        assert_eq!((pristine.shortage(), pristine.take_gone()), (None, vec![]));
        for round in 0..3 {
            for piece in 0..PIECES {
                if pristine.state(PieceIndex(piece)) == PieceState::Missing {
                    f.store(&pristine, piece);
                }
                // Read again and again, so it stays.
                assert!(f.reads(&pristine, 1), "round {round}, piece {piece}");
                assert!(f.on_disk() <= limit, "{} of {limit}", f.on_disk());
                assert!(f.reads(&pristine, piece));
            }
        }
        assert_eq!(pristine.shortage(), Some(Shortage::Bound { limit }));
        let gone = pristine.take_gone();
        assert!(gone.len() as u32 > 2 * PIECES, "{gone:?}");
        assert!(!gone.contains(&PieceIndex(1)));
        let present = f.present(&pristine);
        assert!((3..=5).contains(&present.len()), "{present:?}");
        drop(pristine);
        assert_eq!(f.present(&f.open()), present);
        // Nothing is left of what the store took from the budget.
        assert!(budget.try_take(limit));
    }
}

#[test]
fn images_with_one_bound_come_to_equal_parts_and_each_is_told_of_what_went() {
    let limit = 10 * u64::from(PIECE);
    let budget = Arc::new(DiskBudget::new(limit));
    let told = [const { AtomicU32::new(0) }; 2].map(Arc::new);
    let open = |f: &Fixture, told: &Arc<AtomicU32>| {
        let pristine = Arc::new(f.open_with(Some(budget.clone())));
        let told = told.clone();
        pristine.share_budget(move || {
            told.fetch_add(1, Ordering::Relaxed);
        });
        pristine
    };
    let first = Fixture::new();
    let early = open(&first, &told[0]);
    for piece in 0..9 {
        first.store(&early, piece);
    }
    let mut bytes = content();
    bytes.iter_mut().for_each(|byte| *byte ^= 2);
    let second = Fixture::with(image_of(&bytes, PIECE), bytes);
    let late = open(&second, &told[1]);
    for round in 0..2 {
        for piece in 0..PIECES {
            if late.state(PieceIndex(piece)) == PieceState::Missing {
                second.store(&late, piece);
            }
            assert!(second.reads(&late, piece), "round {round}, piece {piece}");
            assert!(first.on_disk() + second.on_disk() <= limit);
        }
    }
    let left = [first.present(&early), second.present(&late)];
    assert!(left.iter().all(|p| (4..=6).contains(&p.len())), "{left:?}");
    assert!(late.held.lock().pieces().is_empty());
    let gone = early.take_gone();
    assert_eq!(gone.len(), 9 - left[0].len());
    assert_eq!(told[0].load(Ordering::Relaxed), gone.len() as u32);
    assert_eq!(told[1].load(Ordering::Relaxed), 0);
    drop(early);
    // With the other gone there is room again.
    for piece in 0..PIECES {
        if late.state(PieceIndex(piece)) == PieceState::Missing {
            second.store(&late, piece);
        }
    }
    assert!(second.present(&late).len() >= 8);
}

#[test]
fn a_bound_that_became_smaller_takes_effect_when_the_store_is_opened() {
    let f = Fixture::new();
    let pristine = f.open();
    for piece in 0..PIECES {
        f.store(&pristine, piece);
    }
    drop(pristine);
    let limit = 4 * u64::from(PIECE);
    let pristine = f.open_with(Some(Arc::new(DiskBudget::new(limit))));
    assert!(f.on_disk() <= limit);
    let present = f.present(&pristine);
    // Of what was never read, the first pieces stay.
    assert!(
        [vec![0, 1, 2], vec![0, 1, 2, 3]].contains(&present),
        "{present:?}"
    );
    assert!(pristine.shortage().is_some());
    drop(pristine);
    assert_eq!(f.present(&f.open()), present);
}

#[test]
fn a_bound_below_a_piece_leaves_the_disk_alone_and_reads_go_on_from_memory() {
    let f = Fixture::new();
    let pristine = f.open_with(Some(Arc::new(DiskBudget::new(1000))));
    for piece in 0..PIECES {
        f.store(&pristine, piece);
        assert!(f.reads(&pristine, piece));
    }
    assert_eq!(f.on_disk(), 0);
    assert_eq!(f.present(&pristine).len() as u32, PIECES);
}

#[test]
fn where_no_storage_is_given_back_a_few_pieces_go_and_the_rest_stays() {
    let f = Fixture::new();
    let limit = 10 * u64::from(PIECE) + 4096;
    let budget = Arc::new(DiskBudget::new(limit));
    let pristine = f.open_with(Some(budget.clone()));
    for piece in 0..9 {
        f.store(&pristine, piece);
    }
    // As if somebody else took what is given back.
    let mut taken = 0;
    let left = budget.left();
    assert!(budget.try_take(left));
    pristine.futile.store(true, Ordering::Relaxed);
    for piece in 9..PIECES {
        f.store(&pristine, piece);
        taken += 1;
        assert!(f.reads(&pristine, piece), "from memory");
    }
    assert_eq!(pristine.take_gone(), []);
    assert_eq!(f.present(&pristine).len() as u32, 9 + taken);
}

#[test]
fn readers_never_see_what_takes_the_place_of_a_piece_that_goes() {
    // On the disk a hole does, in memory nothing.
    for bounded in [true, false] {
        let f = Fixture::new();
        let budget = bounded.then(|| Arc::new(DiskBudget::new(3 * u64::from(PIECE) + 4096)));
        let pristine = f.open_with(budget);
        if !bounded {
            *pristine.held.lock() = Held::new(3 * u64::from(PIECE));
            block(&f);
        }
        let reads = AtomicU32::new(0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|thread| {
                    let (f, pristine, reads, stop) = (&f, &pristine, &reads, &stop);
                    scope.spawn(move || {
                        for round in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                            if f.reads(pristine, (round * 5 + thread) % PIECES) {
                                reads.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    })
                })
                .collect();
            let mut stores = 0_u32;
            while stores < 300 || reads.load(Ordering::Relaxed) < 300 {
                let piece = stores * 7 % PIECES;
                let _ = pristine.store(PieceIndex(piece), f.piece(piece)).unwrap();
                stores += 1;
            }
            stop.store(true, Ordering::Relaxed);
            for reader in readers {
                reader.join().unwrap();
            }
        });
        assert!(!pristine.take_gone().is_empty());
    }
}

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
