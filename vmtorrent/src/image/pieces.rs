//! Invariant: a class depends on lengths and hashes alone, and a duplicate always names an earlier piece of the same length.

use sha1::{Digest, Sha1};

use super::{Geometry, PieceClass, PieceIndex};

/// The SHA-1 of `length` bytes of zeros.
pub(crate) fn hash_of_zeros(length: u64) -> [u8; 20] {
    let zeros = [0; 16 * 1024];
    let mut hasher = Sha1::new();
    let mut left = length;
    while left > 0 {
        let step = left.min(zeros.len() as u64);
        hasher.update(&zeros[..step as usize]);
        left -= step;
    }
    hasher.finalize().into()
}

/// What the hashes tell of each piece. There must be one hash for each piece.
pub(super) fn classify(geometry: &Geometry, hashes: &[[u8; 20]]) -> Vec<PieceClass> {
    let nominal = geometry.nominal_piece_length();
    let mut classes = vec![PieceClass::Unique; hashes.len()];
    let last = PieceIndex(geometry.piece_count() - 1);
    let mut full = hashes.len();
    if geometry.piece_length(last) != nominal {
        // A short last piece holds other bytes than any full piece, whatever its hash claims.
        full -= 1;
        if hashes[full] == hash_of_zeros(u64::from(geometry.piece_length(last))) {
            classes[full] = PieceClass::Zero;
        }
    }
    if full == 0 {
        return classes;
    }

    let zero = hash_of_zeros(u64::from(nominal));
    let mut order: Vec<u32> = geometry.pieces().map(|p| p.0).take(full).collect();
    order.sort_unstable_by_key(|&p| (hashes[p as usize], p));
    for same in order.chunk_by(|&a, &b| hashes[a as usize] == hashes[b as usize]) {
        if hashes[same[0] as usize] == zero {
            for &p in same {
                classes[p as usize] = PieceClass::Zero;
            }
        } else {
            for &p in &same[1..] {
                classes[p as usize] = PieceClass::DuplicateOf(PieceIndex(same[0]));
            }
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_and_duplicates_are_told_by_their_hashes() {
        let zero = hash_of_zeros(16_384);
        let geometry = Geometry::new(16_384 * 5 + 100, 16_384).unwrap();
        let (a, b) = ([1; 20], [2; 20]);
        let classes = classify(&geometry, &[a, zero, b, a, zero, hash_of_zeros(100)]);
        assert_eq!(
            classes,
            [
                PieceClass::Unique,
                PieceClass::Zero,
                PieceClass::Unique,
                PieceClass::DuplicateOf(PieceIndex(0)),
                PieceClass::Zero,
                PieceClass::Zero,
            ]
        );
    }

    #[test]
    fn a_short_last_piece_is_no_duplicate_of_a_full_one() {
        let geometry = Geometry::new(16_384 + 1, 16_384).unwrap();
        assert_eq!(
            classify(&geometry, &[[1; 20], [1; 20]]),
            [PieceClass::Unique, PieceClass::Unique]
        );
        let zero = hash_of_zeros(16_384);
        assert_eq!(
            classify(&geometry, &[zero, zero]),
            [PieceClass::Zero, PieceClass::Unique]
        );
    }

    #[test]
    fn a_lone_short_piece_and_an_exact_last_piece_are_classified() {
        let lone = Geometry::new(100, 16_384).unwrap();
        assert_eq!(classify(&lone, &[hash_of_zeros(100)]), [PieceClass::Zero]);
        let exact = Geometry::new(32_768, 16_384).unwrap();
        assert_eq!(
            classify(&exact, &[[7; 20], [7; 20]]),
            [PieceClass::Unique, PieceClass::DuplicateOf(PieceIndex(0))]
        );
    }
}
