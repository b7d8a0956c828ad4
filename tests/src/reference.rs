//! Invariant: of 16 pieces two are zeros, one repeats an earlier one, and the others are unlike any other.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::Random;

/// Bytes of a piece as the tests publish images, unless they say otherwise.
pub const PIECE: usize = 64 * 1024;

/// The content of a test image: known bytes with zero areas and repetitions, as real disks have them.
#[derive(Clone, Debug)]
pub struct Reference {
    bytes: Vec<u8>,
}

impl Reference {
    /// `length` bytes made from `seed`. A short last piece is always unlike any other.
    pub fn new(length: usize, seed: u64) -> Self {
        let mut bytes = vec![0; length];
        let mut random = Random::new(seed);
        for index in 0..length.div_ceil(PIECE) {
            let start = index * PIECE;
            let end = length.min(start + PIECE);
            match Self::kind(index, end - start) {
                Kind::Zero => {}
                Kind::Repeated => bytes.copy_within(start - 7 * PIECE..start - 6 * PIECE, start),
                Kind::Distinct => random.fill(&mut bytes[start..end]),
            }
        }
        Self { bytes }
    }

    /// The content.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of the pieces that must be fetched to have all: neither zeros nor repetitions.
    pub fn distinct_bytes(&self) -> u64 {
        self.distinct_pieces()
            .map(|(_, piece)| piece.len() as u64)
            .sum()
    }

    /// Number and content of those pieces.
    pub fn distinct_pieces(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.bytes
            .chunks(PIECE)
            .enumerate()
            .filter(|(index, piece)| matches!(Self::kind(*index, piece.len()), Kind::Distinct))
    }

    /// Writes a file.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn write_to(&self, path: &Path) {
        std::fs::write(path, &self.bytes).unwrap();
    }

    /// For each distinct piece, whether a local copy holds it. A copy that is absent or short holds nothing there.
    pub fn held_by(&self, copy: &Path) -> Vec<bool> {
        let file = File::open(copy).ok();
        let mut buffer = vec![0; PIECE];
        self.distinct_pieces()
            .map(|(index, piece)| {
                let found = &mut buffer[..piece.len()];
                let Some(file) = &file else { return false };
                if file.read_exact_at(found, (index * PIECE) as u64).is_err() {
                    return false;
                }
                found == piece
            })
            .collect()
    }

    /// Bytes of the distinct pieces that `held` names.
    pub fn held_bytes(&self, held: &[bool]) -> u64 {
        self.distinct_pieces()
            .zip(held)
            .filter(|(_, held)| **held)
            .map(|((_, piece), _)| piece.len() as u64)
            .sum()
    }

    /// Asserts that a local copy holds nothing but what was published: each piece is right or a hole.
    ///
    /// After a kill -9 a piece may be half written; [`held_by`](Self::held_by) counts whole ones only.
    ///
    /// # Panics
    /// If it holds something else.
    pub fn assert_pristine(&self, copy: &Path) {
        let found = std::fs::read(copy).unwrap();
        assert!(found.len() <= self.bytes.len(), "{}", copy.display());
        for (index, (found, right)) in found
            .chunks(PIECE)
            .zip(self.bytes.chunks(PIECE))
            .enumerate()
        {
            assert!(
                found == &right[..found.len()] || found.iter().all(|b| *b == 0),
                "piece {index} of {} is not as published",
                copy.display()
            );
        }
    }

    fn kind(index: usize, length: usize) -> Kind {
        match index % 16 {
            _ if length < PIECE => Kind::Distinct,
            5 | 6 => Kind::Zero,
            11 => Kind::Repeated,
            _ => Kind::Distinct,
        }
    }
}

enum Kind {
    Zero,
    Repeated,
    Distinct,
}

/// The first offset at which a file differs from `expected`, or where one of them ends before the other.
///
/// # Panics
/// If the file can't be read.
pub fn first_difference(path: &Path, expected: &[u8]) -> Option<u64> {
    let mut file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let n = file
            .read(&mut buffer)
            .unwrap_or_else(|e| panic!("{} at {offset}: {e}", path.display()));
        if n == 0 {
            return (offset < expected.len()).then_some(offset as u64);
        }
        let right = &expected[offset..expected.len().min(offset + n)];
        if buffer[..n] != *right {
            let same = buffer[..n]
                .iter()
                .zip(right)
                .take_while(|(a, b)| a == b)
                .count();
            return Some((offset + same) as u64);
        }
        offset += n;
    }
}

/// Asserts that a file holds exactly `expected`.
///
/// # Panics
/// If it does not, naming the first offset.
pub fn assert_same(path: &Path, expected: &[u8], when: &str) {
    if let Some(offset) = first_difference(path, expected) {
        panic!(
            "{when}: {} differs at {offset} (piece {}); {} bytes, expected {}",
            path.display(),
            offset as usize / PIECE,
            std::fs::metadata(path).map_or(0, |m| m.len()),
            expected.len()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_repetitions_and_a_short_last_piece_are_where_they_are_counted() {
        let reference = Reference::new(32 * PIECE + 100, 1);
        let piece = |i: usize| &reference.bytes()[i * PIECE..(i + 1) * PIECE];
        assert!(piece(5).iter().chain(piece(22)).all(|b| *b == 0));
        assert_eq!(piece(11), piece(4));
        assert_eq!(piece(27), piece(20));
        assert_ne!(piece(4), piece(20));
        assert_eq!(reference.distinct_bytes(), 26 * PIECE as u64 + 100);
    }

    #[test]
    fn a_copy_holds_what_is_right_and_a_stain_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        let reference = Reference::new(16 * PIECE, 2);
        assert!(reference.held_by(&copy).iter().all(|h| !h));
        reference.write_to(&copy);
        let held = reference.held_by(&copy);
        assert!(held.iter().all(|h| *h));
        assert_eq!(reference.held_bytes(&held), reference.distinct_bytes());
        reference.assert_pristine(&copy);
        assert_eq!(first_difference(&copy, reference.bytes()), None);

        let mut stained = reference.bytes().to_vec();
        stained[PIECE + 7] ^= 1;
        std::fs::write(&copy, &stained).unwrap();
        assert_eq!(
            first_difference(&copy, reference.bytes()),
            Some(PIECE as u64 + 7)
        );
        assert_eq!(reference.held_by(&copy).iter().filter(|h| !**h).count(), 1);
        assert!(std::panic::catch_unwind(|| reference.assert_pristine(&copy)).is_err());
        assert_eq!(first_difference(&copy, &stained[..9]), Some(9));
        stained.push(0);
        assert_eq!(first_difference(&copy, &stained), Some(16 * PIECE as u64));
    }
}
