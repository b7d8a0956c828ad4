use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::test_image::{image_of, image_of_files};

const PIECE: u32 = 16384;

/// Bytes that differ from piece to piece; pieces of `kinds` that are 0 are zeros, equal numbers give equal pieces.
fn content(kinds: &[u8], last_short_by: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = kinds
        .iter()
        .flat_map(|&kind| {
            (0..PIECE).map(move |i| {
                if kind == 0 {
                    0
                } else {
                    kind.wrapping_mul(31).wrapping_add((i / 7) as u8) | 1
                }
            })
        })
        .collect();
    bytes.truncate(bytes.len() - last_short_by);
    bytes
}

fn piece_of(bytes: &[u8], piece: u32) -> &[u8] {
    bytes.chunks(PIECE as usize).nth(piece as usize).unwrap()
}

struct Fixture {
    cache: TempDir,
    image: Arc<Image>,
    bytes: Vec<u8>,
}

impl Fixture {
    /// Pieces: unique, zeros, unique, the first again, unique and short.
    fn new() -> Self {
        let bytes = content(&[1, 0, 2, 1, 3], 5000);
        Self {
            cache: tempfile::tempdir().unwrap(),
            image: Arc::new(image_of(&bytes, PIECE)),
            bytes,
        }
    }

    fn open(&self) -> Opened {
        Pristine::open_cache(
            self.image.clone(),
            self.cache.path(),
            Some(local(4242)),
            None,
        )
        .unwrap()
    }

    fn entry(&self) -> PathBuf {
        self.cache.path().join(self.image.info_hash().to_string())
    }

    fn store(&self, pristine: &Pristine, piece: u32) -> Stored {
        pristine
            .store(PieceIndex(piece), piece_of(&self.bytes, piece))
            .unwrap()
    }

    fn data_file(&self) -> File {
        let path = self.entry().join("data/disk.img");
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn read(&self, pristine: &Pristine, range: Range<usize>) {
        let mut buffer = vec![0xEE; range.len()];
        let outcome = pristine.read(range.start as u64, &mut buffer).unwrap();
        assert_eq!(outcome, ReadOutcome::Done);
        assert!(buffer == self.bytes[range]);
    }
}

#[test]
fn pieces_go_in_and_ranges_across_zeros_and_duplicates_come_out() {
    let f = Fixture::new();
    let pristine = f.open().pristine;
    let total = f.bytes.len();
    assert_eq!(pristine.image().info_hash(), f.image.info_hash());
    assert_eq!(pristine.present_bytes(), u64::from(PIECE));
    let missing = |range| pristine.missing_in(range).iter().map(|p| p.0).collect();
    let all: Vec<u32> = missing(0..u64::MAX);
    assert_eq!(all, [0, 2, 4]);
    let mut buffer = vec![0; total];
    assert_eq!(
        pristine.try_read(0, &mut buffer).unwrap(),
        TryRead::Missing(PieceIndex(0))
    );
    // A duplicate may come as itself: it is kept in the place of the first.
    assert_eq!(f.store(&pristine, 3), Stored::New);
    assert_eq!(f.store(&pristine, 0), Stored::Already);
    assert_eq!(f.store(&pristine, 4), Stored::New);
    assert!(pristine.has(PieceIndex(0)) && pristine.has(PieceIndex(3)));
    let some: Vec<u32> = missing(0..u64::MAX);
    assert_eq!(some, [2]);
    assert_eq!(
        pristine.read(0, &mut buffer).unwrap(),
        ReadOutcome::Missing(PieceIndex(2))
    );
    assert!(!pristine.is_complete());
    assert_eq!(f.store(&pristine, 2), Stored::New);
    f.read(&pristine, 0..total);
    f.read(&pristine, 3 * PIECE as usize - 1..total - 1);
    assert!(pristine.have_field().is_full() && pristine.is_complete());
    assert_eq!(pristine.present_bytes(), total as u64);
    assert_eq!(pristine.verified_bytes(), total as u64);
    let held = fs::read(f.entry().join("data/disk.img")).unwrap();
    let duplicate = 3 * PIECE as usize;
    assert!(
        held[duplicate..duplicate + PIECE as usize]
            .iter()
            .all(|&b| b == 0)
    );
    pristine.sync().unwrap();
}

#[test]
fn a_wrong_piece_is_refused_and_nothing_is_written() {
    let f = Fixture::new();
    let pristine = f.open().pristine;
    let mut bad = piece_of(&f.bytes, 2).to_vec();
    bad[77] ^= 1;
    assert_eq!(
        pristine.store(PieceIndex(2), &bad).unwrap(),
        Stored::Mismatch
    );
    assert_eq!(
        pristine.store(PieceIndex(2), &bad[1..]).unwrap(),
        Stored::Mismatch
    );
    assert_eq!(pristine.state(PieceIndex(2)), PieceState::Missing);
    assert!(!f.entry().join("data").exists());
}

#[test]
fn a_run_of_pieces_is_stored_but_for_what_is_wrong_there_already_or_no_piece() {
    let bytes = content(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1], 0);
    let image = Arc::new(image_of(&bytes, PIECE));
    let cache = tempfile::tempdir().unwrap();
    let open = || Pristine::open_cache(image.clone(), cache.path(), Some(local(1)), None).unwrap();
    let pristine = open().pristine;
    let piece = |p: u32| Bytes::copy_from_slice(piece_of(&bytes, p));
    assert_eq!(
        pristine.store(PieceIndex(3), &piece(3)).unwrap(),
        Stored::New
    );
    let mut run: Vec<Bytes> = (0..9).map(piece).collect();
    run[6] = piece(5);
    // Somebody is at work on it: it is waited for, not left out.
    let claim = pristine.claims.take(PieceIndex(1));
    let outcomes = std::thread::scope(|scope| {
        let storing = scope.spawn(|| pristine.store_run(PieceIndex(0), &run));
        std::thread::sleep(std::time::Duration::from_millis(20));
        drop(claim);
        storing.join().unwrap()
    });
    let outcomes: Vec<Stored> = outcomes.into_iter().map(Result::unwrap).collect();
    let mut expected = [Stored::New; 9];
    expected[3] = Stored::Already;
    expected[6] = Stored::Mismatch;
    assert_eq!(outcomes, expected);
    assert_eq!(pristine.missing_in(0..u64::MAX), [PieceIndex(6)]);

    // A piece of zeros is there, a duplicate goes to the place of the first, and behind the end there is none.
    let run: Vec<Bytes> = (9..11).map(piece).chain([piece(0)]).collect();
    let outcomes = pristine.store_run(PieceIndex(9), &run);
    assert!(matches!(
        outcomes[..],
        [Ok(Stored::Already), Ok(Stored::Already), Err(_)]
    ));

    // The list of pieces says the same.
    drop(pristine);
    let pristine = open().pristine;
    assert_eq!(pristine.missing_in(0..u64::MAX), [PieceIndex(6)]);
    let mut buffer = vec![0; 6 * PIECE as usize];
    assert_eq!(pristine.read(0, &mut buffer).unwrap(), ReadOutcome::Done);
    assert!(buffer == bytes[..buffer.len()]);
}

#[test]
fn after_a_kill_every_stored_piece_is_there_and_verified_before_use() {
    let f = Fixture::new();
    let pristine = f.open().pristine;
    for piece in [0, 4] {
        assert_eq!(f.store(&pristine, piece), Stored::New);
    }
    // No sync, no orderly end but for the lock, which the system takes away from the dead.
    drop(pristine);
    let pristine = f.open().pristine;
    let states: Vec<_> = (0..5).map(|p| pristine.state(PieceIndex(p))).collect();
    use PieceState::{Missing, Unverified, Verified};
    assert_eq!(
        states,
        [Unverified, Verified, Missing, Unverified, Unverified]
    );
    assert_eq!(pristine.have_field().count_ones(), 4);
    assert_eq!(pristine.verified_bytes(), u64::from(PIECE));
    let mut buffer = [0; 100];
    assert_eq!(
        pristine.try_read(3 * u64::from(PIECE), &mut []).unwrap(),
        TryRead::Done
    );
    let last = 4 * PIECE as usize;
    assert_eq!(
        pristine.try_read(last as u64, &mut buffer).unwrap(),
        TryRead::Unverified(PieceIndex(4))
    );
    f.read(&pristine, last..last + 100);
    assert_eq!(pristine.state(PieceIndex(4)), Verified);
    assert!(pristine.verify(PieceIndex(3)).unwrap());
    assert_eq!(pristine.state(PieceIndex(0)), Verified);
    assert!(!pristine.verify(PieceIndex(2)).unwrap());
    assert_eq!(f.store(&pristine, 2), Stored::New);
}

#[test]
fn a_damaged_byte_is_found_forgotten_and_fetched_again() {
    let f = Fixture::new();
    let pristine = f.open().pristine;
    for piece in [0, 2] {
        assert_eq!(f.store(&pristine, piece), Stored::New);
    }
    drop(pristine);
    f.data_file().write_all_at(&[0xFF], 100).unwrap();
    let pristine = f.open().pristine;
    let mut buffer = [0; 10];
    assert_eq!(
        pristine.read(3 * u64::from(PIECE), &mut buffer).unwrap(),
        ReadOutcome::Missing(PieceIndex(0))
    );
    assert!(!pristine.has(PieceIndex(3)));
    drop(pristine);
    let pristine = f.open().pristine;
    assert_eq!(pristine.state(PieceIndex(0)), PieceState::Missing);
    assert_eq!(pristine.state(PieceIndex(2)), PieceState::Unverified);
    assert_eq!(f.store(&pristine, 0), Stored::New);
    f.read(&pristine, 0..3 * PIECE as usize);
}

#[test]
fn lost_data_and_torn_lists_cost_pieces_but_never_give_wrong_bytes() {
    let f = Fixture::new();
    let pristine = f.open().pristine;
    for piece in [0, 2, 4] {
        assert_eq!(f.store(&pristine, piece), Stored::New);
    }
    drop(pristine);
    // As after a power loss that kept the list and lost the data.
    fs::remove_dir_all(f.entry().join("data")).unwrap();
    let pristine = f.open().pristine;
    assert!(pristine.has(PieceIndex(2)));
    assert!(!pristine.verify(PieceIndex(2)).unwrap());
    assert_eq!(f.store(&pristine, 2), Stored::New);
    drop(pristine);
    let have = f.entry().join("have");
    let whole = fs::read(&have).unwrap();
    for cut in 0..whole.len() {
        fs::write(&have, &whole[..cut]).unwrap();
        assert_eq!(f.open().pristine.have_field().count_ones(), 1);
    }
    let mut other = whole.clone();
    other[10] ^= 1;
    fs::write(&have, &other).unwrap();
    assert_eq!(f.open().pristine.have_field().count_ones(), 1);
    fs::write(&have, &whole).unwrap();
    assert_eq!(f.open().pristine.have_field().count_ones(), 5);
}

#[test]
fn a_second_opener_follows_the_first_and_leaves_nothing_behind() {
    let f = Fixture::new();
    let leader = Pristine::open_cache(f.image.clone(), f.cache.path(), None, None)
        .unwrap()
        .pristine;
    assert!(!leader.is_follower());
    assert_eq!(f.store(&leader, 0), Stored::New);
    // The holder has not said its address.
    let early = f.open();
    assert!(early.pristine.is_follower());
    assert_eq!(early.leader, None);
    leader.set_address(local(5151)).unwrap();
    let late = f.open();
    assert_eq!(late.leader, Some("127.0.0.1:5151".parse().unwrap()));
    let follower = late.pristine;
    follower.set_address(local(1)).unwrap();
    assert!(follower.is_follower() && !follower.has(PieceIndex(0)));
    assert_eq!(f.store(&follower, 2), Stored::New);
    f.read(&follower, 2 * PIECE as usize..3 * PIECE as usize);
    assert!(!leader.has(PieceIndex(2)));
    follower.sync().unwrap();
    let followers = || {
        let names = fs::read_dir(f.entry()).unwrap();
        names
            .filter(|n| {
                let name = n.as_ref().unwrap().file_name();
                name.to_str().unwrap().starts_with("follower-")
            })
            .count()
    };
    assert_eq!(followers(), 2);
    drop(follower);
    assert_eq!(followers(), 1);
    // The next leader removes what a killed follower left, and nothing of a living one.
    fs::create_dir_all(f.entry().join("follower-1-0/data")).unwrap();
    drop(leader);
    let leader = f.open();
    assert!(leader.leader.is_none() && !leader.pristine.is_follower());
    assert_eq!(followers(), 1);
    drop(early);
    assert_eq!(followers(), 0);
}

#[test]
fn published_files_are_checked_and_served_but_never_written() {
    let bytes = content(&[1, 0, 2], 100);
    let total = bytes.len() as u64;
    let files = [
        ("boot/kernel", 20_000, false),
        ("", 10, true),
        ("empty", 0, false),
        ("root.img", total - 20_010, false),
    ];
    let mut bytes = bytes;
    bytes[20_000..20_010].fill(0);
    let image = Arc::new(image_of_files(&bytes, PIECE, &files));
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join(image.name());
    let open = || Pristine::open_published(image.clone(), dir.path());
    let error = open().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("boot/kernel"), "{error}");
    fs::create_dir_all(top.join("boot")).unwrap();
    fs::write(top.join("boot/kernel"), &bytes[..20_000]).unwrap();
    fs::write(top.join("empty"), "").unwrap();
    fs::write(top.join("root.img"), &bytes[20_010..total as usize - 1]).unwrap();
    let error = open().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(
        text.contains(&format!("{} bytes", total - 20_010)),
        "{text}"
    );
    assert!(
        text.contains(&format!("{} bytes", total - 20_011)),
        "{text}"
    );

    let mut root = bytes[20_010..].to_vec();
    let at = root.len() - 5;
    root[at] ^= 1;
    fs::write(top.join("root.img"), &root).unwrap();
    let pristine = open().unwrap();
    assert!(pristine.have_field().is_full());
    assert_eq!(pristine.state(PieceIndex(0)), PieceState::Unverified);
    let mut buffer = vec![0; 2 * PIECE as usize];
    assert_eq!(pristine.read(0, &mut buffer).unwrap(), ReadOutcome::Done);
    assert!(buffer == bytes[..buffer.len()]);
    assert!(!pristine.verify(PieceIndex(2)).unwrap());
    assert!(!pristine.has(PieceIndex(2)));
    let error = pristine
        .store(PieceIndex(2), piece_of(&bytes, 2))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    pristine.sync().unwrap();
    assert_eq!(fs::read(top.join("root.img")).unwrap(), root);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn out_of_range_is_an_error() {
    let f = Fixture::new();
    let pristine = f.open().pristine;
    let total = f.bytes.len() as u64;
    for (offset, length) in [(total, 1), (total - 1, 2), (u64::MAX, 2)] {
        let mut buffer = vec![0; length];
        let kind = pristine.try_read(offset, &mut buffer).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert!(pristine.read(offset, &mut buffer).is_err());
    }
    assert!(pristine.verify(PieceIndex(5)).is_err());
    assert!(pristine.store(PieceIndex(5), &[]).is_err());
    assert!(!pristine.has(PieceIndex(5)));
}

#[test]
fn racing_stores_and_reads_never_show_unverified_bytes() {
    let f = Fixture::new();
    // Piece 0 is on the disk from an earlier run, damaged.
    let pristine = f.open().pristine;
    assert_eq!(f.store(&pristine, 0), Stored::New);
    drop(pristine);
    f.data_file().write_all_at(&[0xFF], 0).unwrap();
    let pristine = f.open().pristine;
    let barrier = Barrier::new(4);
    let new = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (f, pristine, barrier, new) = (&f, &pristine, &barrier, &new);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..8 {
                    let piece = [0, 2, 4][(round + thread) % 3];
                    if thread % 2 == 0 && f.store(pristine, piece) == Stored::New {
                        new.fetch_add(1, Ordering::Relaxed);
                    }
                    let offset = piece as usize * PIECE as usize;
                    let mut buffer = [0; 512];
                    if pristine.read(offset as u64, &mut buffer).unwrap() == ReadOutcome::Done {
                        assert!(buffer == f.bytes[offset..offset + 512]);
                    }
                }
            });
        }
    });
    assert_eq!(new.load(Ordering::Relaxed), 3);
    drop(pristine);
    let pristine = f.open().pristine;
    for piece in 0..5 {
        assert!(pristine.verify(PieceIndex(piece)).unwrap());
    }
}

#[test]
fn four_million_pieces_take_about_a_mebibyte() {
    // Zeros only, so that no memory is needed for the content.
    let geometry = crate::image::Geometry::new(4_000_000 * u64::from(PIECE), PIECE).unwrap();
    let mut image = image_of(&[0; 10], PIECE);
    image.geometry = geometry;
    image.hashes = vec![[7; 20]; 4_000_000];
    image.classes = vec![crate::image::PieceClass::Unique; 4_000_000];
    let mut states = PieceStates::new(&image);
    states.set(PieceIndex(3_999_999), PieceState::Verified);
    assert_eq!(states.get(PieceIndex(3_999_999)), PieceState::Verified);
    assert_eq!(states.present().to_wire().len(), 500_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_layout_gives_back_the_content(
        kinds in proptest::collection::vec(0..4_u8, 1..8),
        short in 0..16000_usize,
        cuts in proptest::collection::vec((0..100_000_u64, any::<bool>()), 0..4),
        reads in proptest::collection::vec((0..140_000_usize, 0..70_000_usize), 1..10),
        longest in 1..5_usize,
    ) {
        let mut bytes = content(&kinds, short);
        let total = bytes.len() as u64;
        let mut borders: Vec<(u64, bool)> = cuts.into_iter().map(|(c, p)| (c.min(total), p)).collect();
        borders.push((total, false));
        borders.sort_unstable();
        let mut from = 0;
        let mut files = Vec::new();
        for (to, padding) in borders {
            if padding {
                bytes[from as usize..to as usize].fill(0);
            }
            files.push((from, to, padding));
            from = to;
        }
        let names: Vec<String> = (0..files.len()).map(|i| format!("d{}/f{i}", i % 2)).collect();
        let files: Vec<_> = files.iter().zip(&names).map(|(&(a, b, p), n)| (n.as_str(), b - a, p)).collect();
        let image = Arc::new(image_of_files(&bytes, PIECE, &files));
        let cache = tempfile::tempdir().unwrap();
        let pristine = Pristine::open_cache(image.clone(), cache.path(), Some(local(1)), None).unwrap().pristine;
        let missing = pristine.missing_in(0..total);
        for run in missing.chunk_by(|a, b| a.0 + 1 == b.0).flat_map(|row| row.chunks(longest)) {
            let pieces: Vec<_> = run.iter().map(|p| Bytes::copy_from_slice(piece_of(&bytes, p.0))).collect();
            let stored: Vec<Stored> = pristine.store_run(run[0], &pieces).into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(stored, vec![Stored::New; run.len()]);
        }
        prop_assert!(pristine.missing_in(0..total).is_empty());
        drop(pristine);
        let pristine = Pristine::open_cache(image, cache.path(), Some(local(1)), None).unwrap().pristine;
        for &(offset, length) in &reads {
            let start = offset.min(bytes.len());
            let end = (start + length).min(bytes.len());
            let mut buffer = vec![0xEE; end - start];
            prop_assert_eq!(pristine.read(start as u64, &mut buffer).unwrap(), ReadOutcome::Done);
            prop_assert!(buffer == bytes[start..end]);
        }
    }
}

fn local(port: u16) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([127, 0, 0, 1], port))
}
