//! Invariant: each candidate stands once, in the bucket of its availability, at the place that `position` tells.

use rand::seq::SliceRandom;

use super::fields::Askable;
use crate::Bitfield;
use crate::image::PieceIndex;

const ABSENT: u32 = u32::MAX;

/// The pieces that background fetching may begin, rarest first.
///
/// One bucket for each availability: a change by one, a removal and an insertion each move a piece
/// in O(1). Peers that have everything are not counted: they change no order. The start order is
/// shuffled, so that peers that start together with the same view pick different pieces and trade them.
#[derive(Debug)]
pub(super) struct Rarity {
    availability: Vec<u16>,
    buckets: Vec<Vec<u32>>,
    /// Index in its bucket, for a candidate.
    position: Vec<u32>,
    candidates: Bitfield,
}

/// How many candidates are looked at in order of rarity before a pick settles for any that the peer has.
const SCAN: usize = 256;

impl Rarity {
    pub(super) fn new(
        pieces: u32,
        candidates: impl Iterator<Item = PieceIndex>,
        rng: &mut impl rand::Rng,
    ) -> Self {
        let mut order: Vec<u32> = candidates.map(|p| p.0).collect();
        order.shuffle(rng);
        let mut rarity = Self {
            availability: vec![0; pieces as usize],
            buckets: vec![Vec::with_capacity(order.len())],
            position: vec![ABSENT; pieces as usize],
            candidates: Bitfield::new(pieces),
        };
        for piece in order {
            rarity.insert(PieceIndex(piece));
        }
        rarity
    }

    pub(super) fn availability(&self, piece: PieceIndex) -> u16 {
        self.availability[piece.as_usize()]
    }

    pub(super) fn candidates(&self) -> &Bitfield {
        &self.candidates
    }

    pub(super) fn increase(&mut self, piece: PieceIndex) {
        self.change(piece, |a| a.checked_add(1));
    }

    pub(super) fn decrease(&mut self, piece: PieceIndex) {
        self.change(piece, |a| a.checked_sub(1));
    }

    /// The piece is no candidate any more: begun, had, or wanted by a higher band.
    pub(super) fn remove(&mut self, piece: PieceIndex) {
        if self.candidates.set(piece, false) {
            self.take_out(piece);
        }
    }

    /// The piece is a candidate (again).
    pub(super) fn insert(&mut self, piece: PieceIndex) {
        if self.candidates.set(piece, true) {
            self.put_in(piece);
        }
    }

    /// The rarest candidate that a peer may be asked for. Exact for the first few hundred candidates in order of
    /// rarity; behind them any candidate will do, so that a pick stays cheap for a peer that has little.
    pub(super) fn rarest(
        &self,
        peer: &Askable<'_>,
        start: impl FnOnce(u32) -> u32,
    ) -> Option<PieceIndex> {
        if self.candidates.count_ones() == 0 {
            return None;
        }
        // What a peer has is at least one.
        let first = usize::from(peer.counted);
        let in_order = self.buckets.iter().skip(first).flatten();
        in_order
            .take(SCAN)
            .map(|&p| PieceIndex(p))
            .find(|&p| peer.contains(p))
            .or_else(|| {
                let from = PieceIndex(start(self.candidates.len()));
                let found = self.candidates.first_common(peer.field, from);
                found.filter(|&p| peer.contains(p))
            })
    }

    fn change(&mut self, piece: PieceIndex, step: impl FnOnce(u16) -> Option<u16>) {
        let Some(availability) = step(self.availability(piece)) else {
            return;
        };
        let candidate = self.candidates.get(piece);
        if candidate {
            self.take_out(piece);
        }
        self.availability[piece.as_usize()] = availability;
        if candidate {
            self.put_in(piece);
        }
    }

    fn take_out(&mut self, piece: PieceIndex) {
        let at = std::mem::replace(&mut self.position[piece.as_usize()], ABSENT);
        let bucket = &mut self.buckets[usize::from(self.availability[piece.as_usize()])];
        bucket.swap_remove(at as usize);
        if let Some(&moved) = bucket.get(at as usize) {
            self.position[moved as usize] = at;
        }
    }

    fn put_in(&mut self, piece: PieceIndex) {
        let a = usize::from(self.availability(piece));
        if self.buckets.len() <= a {
            self.buckets.resize_with(a + 1, Vec::new);
        }
        self.position[piece.as_usize()] = self.buckets[a].len() as u32;
        self.buckets[a].push(piece.0);
    }

    #[cfg(test)]
    fn check(&self) {
        let mut seen = 0;
        for (a, bucket) in self.buckets.iter().enumerate() {
            for (i, &p) in bucket.iter().enumerate() {
                assert_eq!(self.position[p as usize], i as u32);
                assert_eq!(usize::from(self.availability[p as usize]), a);
                assert!(self.candidates.get(PieceIndex(p)));
                seen += 1;
            }
        }
        assert_eq!(self.candidates.count_ones(), seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    proptest! {
        #[test]
        fn order_follows_availability(ops in proptest::collection::vec((0u8..4, 0u32..20), 0..300)) {
            let mut rng = rand::rngs::StdRng::seed_from_u64(1);
            let mut r = Rarity::new(20, (0..20).map(PieceIndex), &mut rng);
            for (op, p) in ops {
                let p = PieceIndex(p);
                match op {
                    0 => r.increase(p),
                    1 => r.decrease(p),
                    2 => r.remove(p),
                    _ => r.insert(p),
                }
                r.check();
            }
            // What is picked for a peer is as rare as any candidate that it has.
            let mut field = Bitfield::new(20);
            for p in (0..20).step_by(3).map(PieceIndex) {
                field.set(p, true);
                r.increase(p);
            }
            let best = r.candidates().ones().filter(|p| field.get(*p)).map(|p| r.availability(p)).min();
            let peer = Askable::of_all(&field);
            let picked = r.rarest(&peer, |_| 0).map(|p| r.availability(p));
            prop_assert_eq!(picked, best);
        }
    }
}
