//! Maps by numbers of our own: pieces, blocks, peers.
//!
//! Invariant: they iterate in an order that depends on what was put in alone, so that a run of the protocol core is
//! reproduced from its seed; std's draw a key from the system. There is no key that a peer may choose without a bound: it
//! could find many that fall together.

use std::hash::{BuildHasherDefault, Hasher};

/// A map by such numbers.
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Mixer>>;
/// A set of such numbers.
pub(crate) type HashSet<K> = std::collections::HashSet<K, BuildHasherDefault<Mixer>>;

/// Multiplies and turns: the hash of Firefox and rustc, with the turn at the end that its second edition has, since maps
/// look at the lowest bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mixer(u64);

impl Mixer {
    const FACTOR: u64 = 0xf135_7aea_2e62_a9c5;

    fn add(&mut self, word: u64) {
        self.0 = self.0.wrapping_add(word).wrapping_mul(Self::FACTOR);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.add(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.add(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.add(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.add(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{BlockIndex, PieceIndex};

    #[test]
    fn neighbours_fall_into_different_buckets() {
        let hash = |piece, block| {
            use std::hash::BuildHasher;
            let piece = PieceIndex(piece);
            BuildHasherDefault::<Mixer>::default().hash_one(BlockIndex { piece, block })
        };
        let mut low = vec![0_u32; 4096];
        for piece in 0..1024 {
            for block in 0..4 {
                low[hash(piece, block) as usize % 4096] += 1;
            }
        }
        // As many as buckets: the fullest holds about 7 of them if chance deals.
        assert!(low.iter().max() < Some(&16), "{:?}", low.iter().max());
    }

    #[test]
    fn the_order_is_always_the_same() {
        let order = || -> Vec<u32> {
            let set: HashSet<PieceIndex> = (0..1000).map(PieceIndex).collect();
            set.into_iter().map(|p| p.0).collect()
        };
        assert_eq!(order(), order());
    }
}
