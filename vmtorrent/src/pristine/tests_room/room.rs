//! A bound on what the copies take.

use super::*;

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
