//! What the store does when the disk takes no more, gives less, or gives something else back.

mod damage;
mod refused;
mod room;

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
