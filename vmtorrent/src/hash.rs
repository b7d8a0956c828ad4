//! Maps by numbers of our own: pieces, blocks, peers.
//!
//! Invariant: they iterate in an order that depends on what was put in alone, so that a run of the protocol core is
//! reproduced from its seed; std's draw a key from the system. There is no key that a peer may choose without a bound: it
//! could find many that fall together.

/// A map by such numbers.
pub(crate) use rustc_hash::FxHashMap as HashMap;
/// A set of such numbers.
pub(crate) use rustc_hash::FxHashSet as HashSet;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::PieceIndex;

    #[test]
    fn the_order_is_always_the_same() {
        let order = || -> Vec<u32> {
            let set: HashSet<PieceIndex> = (0..1000).map(PieceIndex).collect();
            set.into_iter().map(|p| p.0).collect()
        };
        assert_eq!(order(), order());
    }
}
